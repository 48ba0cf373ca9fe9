//! `adit edge invite`, `join`, `drain`, `leave` and `nodes`: which edges are a fleet.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use adit_edge::{FleetNodes, InvitationRequest, Joining};
use anyhow::{Context, anyhow};
use clap::Args;
use http::Method;
use serde_json::json;

use super::{At, Shown};
use crate::Failure;
use crate::table::show;
use crate::tunnel::Api;

#[derive(Args)]
pub(crate) struct Invite {
    /// Only for a node of this name; without it the new node says how it is called
    #[arg(value_name = "NODE")]
    name: Option<String>,
    /// Let another machine have the place of the node of that name, whose key opens nothing from then on
    #[arg(long, requires = "name")]
    replace: bool,
    /// Where the new node reaches the control API of this edge, such as `https://edge-1.example.net:20250`; by default
    /// what `[api]` says
    #[arg(long, value_name = "URL")]
    api_url: Option<String>,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Args)]
pub(crate) struct Join {
    /// The file with the token that `adit edge invite` has printed; `-` is standard input. Without it the token is what
    /// ADIT_JOIN_TOKEN has
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The authority that the certificate of the fleet's control API is from (PEM), if it is none of the system's
    #[arg(long, value_name = "FILE")]
    api_ca: Option<PathBuf>,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Args)]
pub(crate) struct Drain {
    /// As `adit edge nodes` shows it
    #[arg(value_name = "NODE")]
    name: String,
    /// Let it serve again: it may be started from now on
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Args)]
pub(crate) struct Leave {
    /// Instead of the node of this machine: one that is gone for good. Its key opens nothing from now on, and what it
    /// still serves is cut
    #[arg(long, value_name = "NODE")]
    lost: Option<String>,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    shown: Shown,
}

/// Prints leave to join, once.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn invite(invite: Invite) -> Result<(), Failure> {
    let Invite { name, replace, api_url, at, shown } = invite;
    let settings = at.settings()?;
    let api = match api_url {
        Some(url) => url,
        None => settings
            .api_url()
            .context("[api] does not say where other machines reach it: name that with --api-url")?,
    };
    let wish = InvitationRequest { name, replaces: replace, api: api.clone() };
    let made = FleetNodes::open(&settings)?.invite(wish).await?;
    let said = json!({ "token": made.token, "expires_at": made.expires_at, "api": api });
    show(shown.form, &said, || made.token.clone());
    Ok(())
}

/// Makes this machine a node of the fleet whose token it was given.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn join(join: Join) -> Result<(), Failure> {
    let Join { token_file, api_ca, at, shown } = join;
    let settings = at.settings()?;
    let token = token(token_file.as_deref())?;
    let joining = Joining::begin(&settings, &token)?;
    let api = Api::at(&joining.api, api_ca.as_deref(), None)?;
    let reply = api.call("joining the fleet", Method::POST, "/nodes", Some(&joining.body)).await?;
    let name = joining.finish(reply)?;
    let config = at.config.display().to_string();
    show(shown.form, &json!({ "node": name, "configuration": config }), || {
        format!("This machine is node {name} of the fleet.\n\nNext: adit edge run --config {config}")
    });
    Ok(())
}

/// The token, from where nobody else sees it.
fn token(file: Option<&Path>) -> anyhow::Result<String> {
    match file {
        Some(path) if path.as_os_str() == "-" => {
            let mut text = String::new();
            let mut input = std::io::stdin().take(LONGEST_TOKEN);
            input.read_to_string(&mut text).context("reading the token from standard input")?;
            Ok(text)
        }
        Some(path) => adit_files::read_text(path, usize::try_from(LONGEST_TOKEN).unwrap_or(usize::MAX))
            .with_context(|| format!("reading {}", path.display())),
        None => std::env::var(TOKEN).map_err(|_| {
            anyhow!(
                "give the token of `adit edge invite` with --token-file FILE, `--token-file -` or {TOKEN}"
            )
        }),
    }
}

/// Has a node drain, or serve again.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn drain(drain: Drain) -> Result<(), Failure> {
    let Drain { name, undo, at, shown } = drain;
    FleetNodes::open(&at.settings()?)?.drain(&name, undo).await?;
    let wanted = if undo { "active" } else { "draining" };
    shown.done(&json!({ "node": name, "wanted": wanted }));
    Ok(())
}

/// Has this node, or one that is lost, be none any more.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn leave(leave: Leave) -> Result<(), Failure> {
    let Leave { lost, at, shown } = leave;
    let settings = at.settings()?;
    let nodes = FleetNodes::open(&settings)?;
    let name = match lost {
        Some(name) => {
            nodes.remove(&name).await?;
            name
        }
        None => nodes.leave(&settings).await?,
    };
    shown.done(&json!({ "node": name, "wanted": "left" }));
    Ok(())
}

/// Goes one step on the way to another authority.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn rotate_authority(at: &At, shown: &Shown) -> Result<(), Failure> {
    let (done, next) = FleetNodes::open(&at.settings()?)?.rotate_authority().await?;
    show(shown.form, &json!({ "done": done, "next": next }), || match next {
        "" => format!("Now {done}."),
        next => format!("Now {done}.\n\nNext: the same command, once all nodes follow; then {next}"),
    });
    Ok(())
}

const TOKEN: &str = "ADIT_JOIN_TOKEN";
const LONGEST_TOKEN: u64 = 16 << 10;
