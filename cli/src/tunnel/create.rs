//! `adit tunnel create`.

use std::path::PathBuf;

use adit_protocol::credentials::{Credentials, TunnelSecret};
use anyhow::Context;
use clap::Args;
use http::{Method, StatusCode};
use serde_json::json;

use super::client::{Client, Refusal};
use super::{Options, Output, as_id, places, usage};
use crate::Failure;
use crate::table::show;

#[derive(Args)]
pub(super) struct Create {
    /// What the tunnel is called; unique in the account
    name: String,
    #[command(flatten)]
    output: Output,
    /// Where the credentials go; by default beside cert.pem, named by the tunnel's id
    #[arg(long, alias = "cred-file", value_name = "FILE", env = "TUNNEL_CRED_FILE")]
    credentials_file: Option<PathBuf>,
    /// The secret, base64 of at least 32 bytes; by default a random one
    #[arg(long, short, value_name = "BASE64", env = "TUNNEL_CREATE_SECRET", hide_env_values = true)]
    secret: Option<String>,
}

impl Create {
    /// With nothing but a name.
    pub(super) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), output: Output::default(), credentials_file: None, secret: None }
    }
}

#[tokio::main(flavor = "current_thread")]
pub(super) async fn create(create: Create, options: &Options) -> Result<(), Failure> {
    if as_id(&create.name).is_some() {
        return Err(usage("a tunnel's name must not look like a tunnel's id"));
    }
    let secret = secret(create.secret).map_err(Failure::Configuration)?;
    let client = Client::new(options).map_err(Failure::Configuration)?;
    let body = json!({ "name": create.name, "tunnel_secret": secret });
    let tunnel = client.create(&body).await.map_err(|error| match error.downcast_ref::<Refusal>() {
        Some(refusal) if refusal.status == StatusCode::CONFLICT => {
            error.context(format!("there is a tunnel named `{}` already", create.name))
        }
        _ => error,
    })?;
    let id = tunnel["id"].as_str().and_then(as_id).context("the API did not say which tunnel it made")?;
    let credentials = Credentials {
        account_tag: client.account.clone(),
        tunnel_secret: secret,
        tunnel_id: id,
        endpoint: None,
    };
    let path = create.credentials_file.unwrap_or_else(|| folder(options).join(format!("{id}.json")));
    if let Err(error) = places::write_secret(&path, &credentials.to_json(), 0o400) {
        // A tunnel that nobody can run is only in the way.
        let undone = client.tunnel("taking the tunnel back", Method::DELETE, id, "").await;
        let state = if undone.is_ok() { "the tunnel was deleted again" } else { "the tunnel is still there" };
        return Err(anyhow::Error::from(error)
            .context(format!("writing {}; {state}", path.display()))
            .into());
    }
    let place = path.display();
    let name = tunnel["name"].as_str().unwrap_or(&create.name);
    show(create.output.form, &super::tunnels::without_secrets(tunnel.clone()), || {
        format!(
            "Tunnel credentials written to {place}. Keep this file secret: whoever has it can serve the tunnel.\n\nCreated tunnel {name} with id {id}"
        )
    });
    Ok(())
}

fn folder(options: &Options) -> PathBuf {
    let beside = options.origin_cert.as_ref().and_then(|cert| Some(cert.parent()?.to_owned()));
    let found = || Some(places::find(&["cert.pem"])?.parent()?.to_owned());
    beside.or_else(found).unwrap_or_else(places::default_folder)
}

fn secret(wanted: Option<String>) -> anyhow::Result<TunnelSecret> {
    let secret: TunnelSecret = match wanted {
        Some(text) => serde_json::from_value(json!(text)).ok().context("--secret is not base64")?,
        None => crate::credentials::make()?.tunnel_secret,
    };
    anyhow::ensure!(
        secret.as_bytes().len() >= SHORTEST,
        "--secret must be at least {SHORTEST} bytes before base64"
    );
    Ok(secret)
}

const SHORTEST: usize = 32;
