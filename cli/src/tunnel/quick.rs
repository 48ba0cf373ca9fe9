//! `adit tunnel --url URL`: a tunnel for a try, on an edge that makes them for everybody.

use std::path::Path;

use adit_host::config::settings;
use adit_protocol::credentials::Credentials;
use anyhow::{Context, anyhow};
use http::Method;
use serde_json::{Value, json};

use super::client::Api;
use super::legacy::{self, Given, Legacy, Proof};
use super::{Options, run, usage};
use crate::Failure;
use crate::host::Extras;
use crate::table::print;

pub(super) fn serve(
    options: &Options,
    service: Option<String>,
    file: Option<Legacy>,
    with_stdin: bool,
) -> Result<(), Failure> {
    for warning in options.idle.warnings() {
        tracing::warn!("{warning}");
    }
    let Some(service) = service.or_else(|| options.api_url.clone()) else {
        return Err(usage("say which edge makes the tunnel: --api-url URL of its control API"));
    };
    check(options, file.as_ref())?;
    let quick = create(options, &service)?;
    let (credentials, hostname) = read(&quick).context("the edge did not say what it made")?;
    print(&format!(
        "Your quick tunnel is up at http://{hostname} (it may take a moment); it goes when nobody serves it."
    ));
    let kept = run::keep(&credentials.to_json())?;
    let mut options = options.clone();
    options.edge.connections.get_or_insert(1);
    let extras = Extras { quick_tunnel: Some(hostname), ..Extras::new(&options, with_stdin)? };
    run::serve(file, Proof::CredentialsFile(kept.path()), &options, extras)
}

/// A tunnel whose host could not serve is not made.
fn check(options: &Options, file: Option<&Legacy>) -> Result<(), Failure> {
    let given = Given {
        proof: Proof::CredentialsFile("credentials.json".into()),
        single: options.single.clone(),
        admin: settings::ADMIN.to_string(),
    };
    let translation = legacy::translate(file, &given).map_err(usage)?;
    if let Some(reason) = translation.unserved {
        return Err(usage(reason));
    }
    let Err(mistakes) = adit_rules::read("--url", &translation.toml, Path::new("")) else {
        return Ok(());
    };
    let reasons = mistakes.iter().map(|mistake| {
        let help = mistake.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
        let place = mistake.path.as_deref().unwrap_or("--url");
        format!("{place}: {}{help}", mistake.message)
    });
    Err(usage(reasons.collect::<Vec<_>>().join("\n")))
}

#[tokio::main(flavor = "current_thread")]
async fn create(options: &Options, service: &str) -> Result<Value, Failure> {
    let api = Api::at(service, options.api_ca.as_deref(), None).map_err(Failure::Configuration)?;
    Ok(api.call("making a quick tunnel", Method::POST, "/tunnel", None).await?)
}

fn read(quick: &Value) -> anyhow::Result<(Credentials, String)> {
    let file = json!({
        "AccountTag": quick["account_tag"],
        "TunnelSecret": quick["secret"],
        "TunnelID": quick["id"],
    });
    let credentials = Credentials::from_json(file.to_string().as_bytes())?;
    let hostname = quick["hostname"].as_str().ok_or_else(|| anyhow!("it has no host name"))?;
    Ok((credentials, hostname.to_owned()))
}
