//! `adit tunnel login`: an API token becomes cert.pem. No browser: whoever runs the edge hands tokens out.

use std::io::{IsTerminal, Read};

use adit_protocol::credentials::{ApiToken, OriginCert};
use anyhow::{Context, bail};
use clap::Args;
use http::Method;
use serde_json::Value;

use super::client::Api;
use super::{Options, places};
use crate::Failure;
use crate::table::print;

#[derive(Args)]
pub(super) struct Login {
    /// The zone that `route dns` is about for short names; needed if the token reaches several
    #[arg(long, value_name = "DOMAIN")]
    zone: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
pub(super) async fn login(login: Login, options: &Options) -> Result<(), Failure> {
    let path = options.origin_cert.clone().unwrap_or_else(|| places::default_folder().join("cert.pem"));
    if path.exists() {
        let message = format!("{} is there already; move it away to log in anew", path.display());
        return Err(Failure::Running(anyhow::anyhow!(message)));
    }
    let token = read_token()?;
    let api = Api::new(options, Some(&token)).map_err(Failure::Configuration)?;
    let zones = api.call("looking at the token's zones", Method::GET, "/zones", None).await?;
    let cert = certificate(&zones, login.zone.as_deref(), token)?;
    places::write_secret(&path, &cert.to_pem(), 0o600)
        .with_context(|| format!("writing {}", path.display()))?;
    print(&format!("You are logged in: {} is what creates tunnels and names from here on.", path.display()));
    Ok(())
}

/// Nobody sees it typed, and it is in no list of processes.
fn read_token() -> anyhow::Result<String> {
    let token = if std::io::stdin().is_terminal() {
        rpassword::prompt_password("API token: ").context("reading the token")?
    } else {
        let mut text = String::new();
        std::io::stdin().take(LONGEST_TOKEN).read_to_string(&mut text).context("reading the token")?;
        text
    };
    let token = token.trim().to_owned();
    if token.is_empty() {
        bail!("no API token on standard input; `adit edge token create` makes one");
    }
    Ok(token)
}

fn certificate(zones: &Value, wanted: Option<&str>, token: String) -> anyhow::Result<OriginCert> {
    let zones: Vec<&Value> = zones.as_array().into_iter().flatten().collect();
    let fits = |zone: &&&Value| wanted.is_none_or(|wanted| zone["name"] == wanted);
    let chosen: Vec<_> = zones.iter().filter(fits).collect();
    let names = || zones.iter().filter_map(|zone| zone["name"].as_str()).collect::<Vec<_>>().join(", ");
    let zone = match (&chosen[..], wanted) {
        ([zone], _) => zone,
        ([], Some(wanted)) => bail!("the token has no zone `{wanted}`; it has: {}", names()),
        ([], None) => {
            bail!("the token has no zone; `adit edge token create` without --tunnel makes one that has")
        }
        _ => bail!("the token has several zones; say which one with --zone: {}", names()),
    };
    let text =
        |value: &Value| value.as_str().map(str::to_owned).context("the API did not say what a zone is");
    Ok(OriginCert {
        zone_id: text(&zone["id"])?,
        account_id: text(&zone["account"]["id"])?,
        api_token: ApiToken::new(token),
        endpoint: None,
    })
}

const LONGEST_TOKEN: u64 = 4096;
