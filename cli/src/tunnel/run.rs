//! `adit tunnel run`: by a document of ours as it is, or by what cloudflared's users have.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use adit_host::config::reader::{Reader, Translated};
use adit_protocol::credentials::{Credentials, MAX_CREDENTIALS};
use anyhow::{Context, anyhow};
use clap::Args;
use tracing::info;

use super::client::Client;
use super::legacy::{self, Given, Legacy, Proof};
use super::places::InMemory;
use super::{Options, Proofs, as_id, reference, usage};
use crate::Failure;
use crate::host::{self, Extras};

#[derive(Args, Default)]
pub(super) struct Run {
    /// Its id or its name; the credentials say which one if it is left out
    pub(super) tunnel: Option<String>,
    #[command(flatten)]
    pub(super) proof: Proofs,
    /// Where generations are kept, so that a start needs no readable configuration; goes before its
    /// `state-dir`
    #[arg(long, value_name = "FOLDER", env = "ADIT_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// How log lines look: default or json
    #[arg(long = "output", value_name = "FORM", value_parser = ["default", "json"], hide = true)]
    pub(super) log_output: Option<String>,
    /// It has no effect: the connector's id is made at each start
    #[arg(long, value_name = "ID", hide = true)]
    id: Option<String>,
}

impl Run {
    pub(super) fn of(tunnel: &str, proof: Proofs) -> Self {
        Self { tunnel: Some(tunnel.to_owned()), proof, ..Self::default() }
    }

    /// What stands before the command, where it is not behind it too.
    pub(super) fn take(&mut self, before: &Proofs) {
        let own = &mut self.proof;
        own.credentials_file = own.credentials_file.take().or_else(|| before.credentials_file.clone());
        own.credentials_contents =
            own.credentials_contents.take().or_else(|| before.credentials_contents.clone());
        own.token = own.token.take().or_else(|| before.token.clone());
        own.token_file = own.token_file.take().or_else(|| before.token_file.clone());
        own.drop_what_is_empty();
    }

    pub(super) fn name_if_none(&mut self, name: Option<String>) {
        self.tunnel = self.tunnel.take().or(name);
    }
}

impl Proofs {
    /// The environment of a container often has names without a value.
    fn drop_what_is_empty(&mut self) {
        for text in [&mut self.credentials_contents, &mut self.token] {
            text.take_if(|text| text.trim().is_empty());
        }
        for path in [&mut self.credentials_file, &mut self.token_file] {
            path.take_if(|path| path.as_os_str().is_empty());
        }
    }

    fn is_given(&self) -> bool {
        self.credentials_file.is_some()
            || self.credentials_contents.is_some()
            || self.token.is_some()
            || self.token_file.is_some()
    }
}

pub(super) fn run(
    run: Run,
    options: &Options,
    file: Option<Legacy>,
    with_stdin: bool,
) -> Result<(), Failure> {
    for warning in options.idle.warnings() {
        tracing::warn!("{warning}");
    }
    if let Some(why) = run.id.as_ref().and_then(|_| reference::idle("id")) {
        tracing::warn!("--id has no effect: {why}");
    }
    let extras = Extras::new(options, with_stdin)?;
    if let (Some(config), None) = (&options.config, &file) {
        if run.tunnel.is_some() || run.proof.is_given() || options.single.is_origin() {
            let message = "a TOML configuration says itself who the tunnel is and what it serves; leave the tunnel, \
                           credentials, token and URL out, or leave --config out";
            return Err(usage(message));
        }
        let reader = Reader::of_file(config.clone());
        return host::run(reader, run.state_dir.as_deref(), options.flags()?, extras);
    }
    if run.state_dir.is_some() {
        tracing::warn!("--state-dir has no effect: generations are kept of a TOML configuration only");
    }
    // What is kept stays until the host ends, since the host reads it with each configuration.
    let (proof, _kept) = proof(&run, options, file.as_ref())?;
    serve(file, proof, options, extras)
}

/// Serves what is no document of ours: by a translation, which is made anew whenever it is asked for.
pub(super) fn serve(
    file: Option<Legacy>,
    proof: Proof,
    options: &Options,
    extras: Extras,
) -> Result<(), Failure> {
    let flags = options.flags()?;
    let is_chosen = flags.admin.is_some() || file.as_ref().is_some_and(|file| file.text("metrics").is_some());
    let path = file.as_ref().map(|file| file.path.clone());
    let at_start = file.as_ref().map(Legacy::only_at_start).unwrap_or_default();
    for attempt in 1..=MOST_ATTEMPTS {
        let given = Given {
            proof: proof.clone(),
            single: options.single.clone(),
            // A free address is looked for anew each time.
            admin: free_admin_address(),
        };
        let reader = translating(path.clone(), given, at_start.clone());
        match host::run(reader, None, flags.clone(), extras.clone()) {
            // Another host that starts at the same time was faster.
            Err(failure) if !is_chosen && attempt < MOST_ATTEMPTS && is_taken(&failure) => {}
            outcome => return outcome,
        }
    }
    Ok(())
}

/// Reads the file, if there is one, whenever it is asked to. `at_start` is what of it cannot change.
fn translating(path: Option<PathBuf>, given: Given, at_start: Vec<(&'static str, Option<String>)>) -> Reader {
    let shown = path.clone().unwrap_or_else(|| PathBuf::from("the command line"));
    let was_read = AtomicBool::new(false);
    Reader::translating(shown, move || {
        let file = path.clone().map(Legacy::read).transpose().map_err(|error| format!("{error:#}"))?;
        let translation = legacy::translate(file.as_ref(), &given)?;
        let mut warnings = translation.warnings;
        if !was_read.swap(true, Ordering::Relaxed) {
            if translation.says_hello {
                info!("Starting Hello World service in this process");
            }
        } else {
            match &file {
                None => warnings
                    .push("there is no file to read again: this host goes by its command line".to_owned()),
                Some(file) => {
                    let changed =
                        file.only_at_start().into_iter().zip(&at_start).filter(|(now, then)| now != *then);
                    warnings.extend(changed.map(|((key, _), _)| {
                        format!("`{key}` has changed, and takes effect at the next start")
                    }));
                }
            }
        }
        Ok(Translated { text: translation.toml, warnings })
    })
}

/// The first of cloudflared's own addresses that is free, so that two hosts run on one machine.
fn free_admin_address() -> String {
    let mut ports = 20241..=20245;
    let free = ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    format!("127.0.0.1:{}", free.unwrap_or(0))
}

fn is_taken(failure: &Failure) -> bool {
    let (Failure::Configuration(error) | Failure::Running(error)) = failure;
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.any(|cause| cause.kind() == std::io::ErrorKind::AddrInUse)
}

const MOST_ATTEMPTS: usize = 5;

/// Token before contents before file, as the reference has it; and all of the command line before the file. What is
/// in no file is kept in memory, for as long as the second is held.
pub(super) fn proof(
    run: &Run,
    options: &Options,
    file: Option<&Legacy>,
) -> Result<(Proof, Option<InMemory>), Failure> {
    let mut given = run.proof.clone();
    if let Some(file) = file.filter(|_| !given.is_given()) {
        given = Proofs {
            token: file.text("token"),
            token_file: file.file("token-file"),
            credentials_contents: file.text("credentials-contents"),
            credentials_file: file.credentials_file(),
        };
    }
    if let Some(token) = &given.token {
        let said = if run.proof.token.is_some() { "--token" } else { "`token` in config.yml" };
        Credentials::from_token(token.trim()).context(said).map_err(Failure::Configuration)?;
        let kept = keep(token.trim())?;
        return Ok((Proof::TokenFile(kept.path()), Some(kept)));
    }
    if let Some(path) = &given.token_file {
        return Ok((Proof::TokenFile(path.clone()), None));
    }
    let credentials = match &given.credentials_contents {
        Some(text) => Credentials::from_json(text.as_bytes())
            .context("--credentials-contents")
            .map_err(Failure::Configuration)?,
        None => {
            let path = credentials_file(run, given.credentials_file, options, file)?;
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
    let kept = keep(&credentials.to_json())?;
    Ok((Proof::CredentialsFile(kept.path()), Some(kept)))
}

fn credentials_file(
    run: &Run,
    given: Option<PathBuf>,
    options: &Options,
    file: Option<&Legacy>,
) -> Result<PathBuf, Failure> {
    if let Some(path) = given {
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

pub(super) fn keep(identity: &str) -> Result<InMemory, Failure> {
    Ok(InMemory::keep(identity).context("keeping the tunnel's identity in memory")?)
}
