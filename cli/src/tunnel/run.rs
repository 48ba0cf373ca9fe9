//! `adit tunnel run`: by a document of ours as it is, or by what cloudflared's users have.

use std::path::{Path, PathBuf};

use adit_protocol::credentials::{Credentials, MAX_CREDENTIALS};
use anyhow::{Context, anyhow};
use clap::Args;
use tempfile::TempDir;
use tracing::warn;

use super::client::Client;
use super::legacy::{self, Legacy, Proof};
use super::{Options, as_id, places, usage};
use crate::{Failure, host};

#[derive(Args)]
pub(super) struct Run {
    /// Its id or its name; the credentials say which one if it is left out
    tunnel: Option<String>,
    /// The tunnel's identity, as `create` writes it
    #[arg(long, visible_alias = "cred-file", value_name = "FILE", env = "TUNNEL_CRED_FILE")]
    credentials_file: Option<PathBuf>,
    /// The same as text
    #[arg(long, value_name = "JSON", env = "TUNNEL_CRED_CONTENTS", hide_env_values = true)]
    credentials_contents: Option<String>,
    /// What `adit tunnel token` prints; better in a file or in the environment, where no list of
    /// processes shows it
    #[arg(long, value_name = "TOKEN", env = "TUNNEL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The same in a file
    #[arg(long, value_name = "FILE", env = "TUNNEL_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Where generations are kept, so that a start needs no readable configuration; goes before its
    /// `state-dir`
    #[arg(long, value_name = "FOLDER", env = "ADIT_STATE_DIR")]
    state_dir: Option<PathBuf>,
}

pub(super) fn run(
    run: Run,
    options: &Options,
    url: Option<String>,
    file: Option<Legacy>,
    with_stdin: bool,
) -> Result<(), Failure> {
    if let (Some(config), None) = (&options.config, &file) {
        let names_who = run.tunnel.is_some()
            || run.credentials_file.is_some()
            || run.credentials_contents.is_some()
            || run.token.is_some()
            || run.token_file.is_some();
        if names_who || url.is_some() {
            let message = "a TOML configuration says itself who the tunnel is and what it serves; leave the tunnel, \
                           credentials, token and URL out, or leave --config out";
            return Err(usage(message));
        }
        for flag in options.edge.unused() {
            warn!("{flag} has no effect: {} says it", config.display());
        }
        return host::run(config, run.state_dir.as_deref(), options.edge.flags(), None, with_stdin);
    }
    if run.state_dir.is_some() {
        warn!("--state-dir has no effect: generations are kept of a TOML configuration only");
    }
    let folder = private_folder()?;
    let proof = proof(&run, options, file.as_ref(), folder.path())?;
    let url = url.or_else(|| file.as_ref().and_then(Legacy::url));
    let translated =
        Translated { file: file.as_ref(), proof: &proof, url: url.as_deref(), quick_tunnel: None };
    serve(&folder, &translated, options, with_stdin)
}

/// What a host serves that has no document of ours.
pub(super) struct Translated<'a> {
    pub(super) file: Option<&'a Legacy>,
    pub(super) proof: &'a Proof,
    /// Stands in for rules.
    pub(super) url: Option<&'a str>,
    /// The host name of a quick tunnel.
    pub(super) quick_tunnel: Option<&'a str>,
}

/// Serves by a translation, which lives as long as the host.
pub(super) fn serve(
    folder: &TempDir,
    translated: &Translated<'_>,
    options: &Options,
    with_stdin: bool,
) -> Result<(), Failure> {
    let Translated { file, proof, url, quick_tunnel } = *translated;
    let translation = legacy::translate(file, proof, options, url).map_err(Failure::Configuration)?;
    let source = file.map_or_else(|| "the command line".to_owned(), |file| file.path.display().to_string());
    for warning in &translation.warnings {
        warn!("{source}: {warning}");
    }
    for attempt in 1..=MOST_ATTEMPTS {
        let path = folder.path().join(format!("host-{attempt}.toml"));
        // A free address for the admin API is looked for anew each time.
        let toml = legacy::translate(file, proof, options, url).map_err(Failure::Configuration)?.toml;
        places::write_secret(&path, &toml, 0o600).context("writing the translated configuration")?;
        let flags = options.edge.flags_beside_translation();
        match host::run(&path, None, flags, quick_tunnel, with_stdin) {
            // Another host that starts at the same time was faster.
            Err(failure)
                if options.edge.metrics.is_none() && attempt < MOST_ATTEMPTS && is_taken(&failure) => {}
            outcome => return outcome,
        }
    }
    Ok(())
}

fn is_taken(failure: &Failure) -> bool {
    let (Failure::Configuration(error) | Failure::Running(error)) = failure;
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.any(|cause| cause.kind() == std::io::ErrorKind::AddrInUse)
}

const MOST_ATTEMPTS: usize = 5;

/// Only this user looks into it; gone when the host ends.
pub(super) fn private_folder() -> anyhow::Result<TempDir> {
    tempfile::Builder::new().prefix("adit-tunnel-").tempdir().context("making a private folder")
}

/// Token before contents before file, as the reference has it.
fn proof(run: &Run, options: &Options, file: Option<&Legacy>, folder: &Path) -> Result<Proof, Failure> {
    if let Some(token) = &run.token {
        Credentials::from_token(token).context("--token").map_err(Failure::Configuration)?;
        return secret(folder, "token", token).map(Proof::TokenFile);
    }
    if let Some(path) = &run.token_file {
        return Ok(Proof::TokenFile(path.clone()));
    }
    let credentials = match &run.credentials_contents {
        Some(text) => Credentials::from_json(text.as_bytes())
            .context("--credentials-contents")
            .map_err(Failure::Configuration)?,
        None => {
            let path = credentials_file(run, options, file)?;
            let read = || {
                let text = adit_files::read(&path, MAX_CREDENTIALS)
                    .with_context(|| format!("reading {}", path.display()))?;
                Credentials::from_json(&text).with_context(|| path.display().to_string())
            };
            read().map_err(Failure::Configuration)?
        }
    };
    // The tunnel that is asked for goes before the one in the file.
    let id = run.tunnel.clone().or_else(|| file?.tunnel()).and_then(|tunnel| as_id(&tunnel));
    let credentials = Credentials { tunnel_id: id.unwrap_or(credentials.tunnel_id), ..credentials };
    secret(folder, "credentials.json", &credentials.to_json()).map(Proof::CredentialsFile)
}

fn credentials_file(run: &Run, options: &Options, file: Option<&Legacy>) -> Result<PathBuf, Failure> {
    if let Some(path) = run.credentials_file.clone().or_else(|| file?.credentials_file()) {
        return Ok(path);
    }
    let Some(tunnel) = run.tunnel.clone().or_else(|| file?.tunnel()) else {
        return Err(usage(
            "say which tunnel: its name or id, --token, --credentials-file, `tunnel` in config.yml, or --config with a TOML configuration",
        ));
    };
    let id = match as_id(&tunnel) {
        Some(id) => id,
        None => find_id(options, &tunnel)?,
    };
    options.credentials_of(id).ok_or_else(|| {
        let message = format!("there is no {id}.json beside cert.pem or where cloudflared keeps it; --credentials-file says where it is");
        Failure::Configuration(anyhow!(message))
    })
}

#[tokio::main(flavor = "current_thread")]
async fn find_id(options: &Options, name: &str) -> Result<uuid::Uuid, Failure> {
    let client = Client::new(options).map_err(Failure::Configuration)?;
    Ok(client.find(name).await?)
}

fn secret(folder: &Path, name: &str, text: &str) -> Result<PathBuf, Failure> {
    let path = folder.join(name);
    places::write_secret(&path, text, 0o400).context("writing the tunnel's identity")?;
    Ok(path)
}
