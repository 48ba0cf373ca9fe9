//! `adit tunnel --name NAME`: makes the tunnel if there is none, leads a host name to it, and serves it.

use super::create::{self, Create};
use super::route::{self, Dns, Route};
use super::run::Run;
use super::{Options, Proofs, usage};
use crate::Failure;

/// What is to be run once all that is there.
pub(super) fn make(
    name: &str,
    hostname: Option<&str>,
    overwrite: bool,
    proof: Proofs,
    options: &Options,
) -> Result<Run, Failure> {
    if name.is_empty() {
        return Err(usage("--name has no value"));
    }
    if !is_there(name, options)? {
        create::create(Create::named(name), options)?;
    }
    if let Some(hostname) = hostname.filter(|hostname| !hostname.is_empty()) {
        let dns = Dns { tunnel: name.to_owned(), hostname: hostname.to_owned(), overwrite_dns: overwrite };
        route::route(Route::Dns(dns), options)?;
    }
    Ok(Run::of(name, proof))
}

#[tokio::main(flavor = "current_thread")]
async fn is_there(name: &str, options: &Options) -> Result<bool, Failure> {
    let client = super::client::Client::new(options).map_err(Failure::Configuration)?;
    Ok(client.known(name).await?.is_some())
}
