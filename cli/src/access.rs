//! `adit access tcp`, which is also called `ssh`, `rdp` and `smb`: a visitor's end of circuits, for programs that
//! speak no HTTP. Knows how they are asked for; what travels is in `circuit`, and how an edge is reached in `dial`.

mod circuit;
mod dial;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use http::{HeaderName, HeaderValue};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::{Failure, signals};
use dial::Way;
pub(crate) use dial::key as websocket_key;

#[derive(Subcommand)]
pub(crate) enum Access {
    /// Reach a service of bytes behind a tunnel: by standard input and output, or at an address of this machine
    #[command(visible_aliases = ["ssh", "rdp", "smb"])]
    Tcp(Tcp),
}

#[derive(Args)]
pub(crate) struct Tcp {
    /// The host name that leads to the service; with `http://` in front it is asked for without TLS, and with a port
    /// behind it at that
    #[arg(long, short = 'T', alias = "tunnel-host", value_name = "HOST", env = "TUNNEL_SERVICE_HOSTNAME")]
    hostname: String,
    /// For a bastion: HOST:PORT that it is to lead to
    #[arg(long, value_name = "HOST:PORT", env = "TUNNEL_SERVICE_DESTINATION")]
    destination: Option<String>,
    /// Where to listen, such as 127.0.0.1:2222: each connection there is one to the service. Without, standard input
    /// and output are one, as the ProxyCommand of ssh wants it
    #[arg(long, short = 'L', alias = "listener", value_name = "HOST:PORT", env = "TUNNEL_SERVICE_URL")]
    url: Option<String>,
    /// A further header; may be given several times
    #[arg(long, short = 'H', value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Who asks: the id of a service token
    #[arg(long, alias = "id", value_name = "ID", env = "TUNNEL_SERVICE_TOKEN_ID", hide_env_values = true)]
    service_token_id: Option<String>,
    /// Its secret; better in a file or in the environment, where no list of processes shows it
    #[arg(
        long,
        alias = "secret",
        value_name = "SECRET",
        env = "TUNNEL_SERVICE_TOKEN_SECRET",
        hide_env_values = true
    )]
    service_token_secret: Option<String>,
    /// The same in a file
    #[arg(long, value_name = "FILE", conflicts_with = "service_token_secret")]
    service_token_secret_file: Option<PathBuf>,
    /// PEM file with the authority that signed the edge's certificate; by default the system's are believed
    #[arg(long, value_name = "FILE", env = "TUNNEL_CACERT")]
    cacert: Option<PathBuf>,
    /// Another address to dial than that of the host name
    #[arg(long, value_name = "HOST:PORT")]
    connect_to: Option<String>,
}

/// Runs until its one circuit is over, or as a listener until a signal. `with_stdin`: a listener stops with its
/// standard input.
pub(crate) fn run(access: Access, with_stdin: bool) -> Result<(), Failure> {
    let Access::Tcp(tcp) = access;
    let way = tcp.way().map_err(Failure::Configuration)?;
    let listen = tcp.url.as_deref().filter(|url| !url.is_empty()).map(listener);
    let runtime = Builder::new_current_thread().enable_all().build().context("the runtime")?;
    let local = tokio::task::LocalSet::new();
    let outcome = match listen {
        Some(address) => local.block_on(&runtime, serve(&address, Rc::new(way), with_stdin)),
        None => local.block_on(&runtime, async {
            let (stream, mode) = way.open().await?;
            circuit::carry(tokio::io::stdin(), tokio::io::stdout(), stream, mode).await
        }),
    };
    // Standard input may be waited for on a thread that nothing else ends.
    runtime.shutdown_background();
    Ok(outcome?)
}

/// Each connection that comes is a circuit.
async fn serve(address: &str, way: Rc<Way>, with_stdin: bool) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let _signals = signals::watch(stop.clone(), with_stdin)?;
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    let address = listener.local_addr()?;
    info!(kind = "access", %address, "listening");
    let (circuits, room) = (TaskTracker::new(), Arc::new(Semaphore::new(MOST_CIRCUITS)));
    loop {
        let place = tokio::select! {
            place = room.clone().acquire_owned() => place?,
            () = stop.cancelled() => return Ok(()),
        };
        let client = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => client,
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    // What lacks is no sooner there by asking for it at once.
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            () = stop.cancelled() => return Ok(()),
        };
        let way = way.clone();
        circuits.spawn_local(async move {
            let _place = place;
            let _ = client.set_nodelay(true);
            let outcome = async {
                let (stream, mode) = way.open().await?;
                let (read, write) = client.into_split();
                circuit::carry(read, write, stream, mode).await
            };
            if let Err(error) = outcome.await {
                warn!(error = format!("{error:#}"), "a connection ended");
            }
        });
    }
}

impl Tcp {
    /// What is sent to the edge, and where.
    fn way(&self) -> anyhow::Result<Way> {
        let mut way = Way::new(&self.hostname, self.connect_to.as_deref(), self.cacert.as_deref())?;
        for header in &self.header {
            let (name, value) = header.split_once(':').context("a header is NAME: VALUE")?;
            let name: HeaderName =
                name.trim().parse().map_err(|_| anyhow!("{name:?} is no name of a header"))?;
            // It may be a secret.
            let value = HeaderValue::from_str(value.trim())
                .map_err(|_| anyhow!("the value of the header {name} has letters that no header has"))?;
            way.add(name, value);
        }
        if let Some(destination) = self.destination.as_deref().filter(|text| !text.is_empty()) {
            way.add(JUMP_DESTINATION, HeaderValue::from_str(destination).context("--destination")?);
        }
        let secret = match &self.service_token_secret_file {
            Some(file) => Some(
                adit_files::read_text(file, LONGEST_SECRET)
                    .with_context(|| format!("reading {}", file.display()))?
                    .trim_end()
                    .to_owned(),
            ),
            None => self.service_token_secret.clone(),
        };
        let of_token = |name: HeaderName, text: &Option<String>, way: &mut Way| -> anyhow::Result<()> {
            let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else { return Ok(()) };
            let mut value =
                HeaderValue::from_str(text).map_err(|_| anyhow!("{name} has letters that no header has"))?;
            value.set_sensitive(true);
            way.add(name, value);
            Ok(())
        };
        of_token(CLIENT_ID, &self.service_token_id, &mut way)?;
        of_token(CLIENT_SECRET, &secret, &mut way)?;
        Ok(way)
    }
}

/// An address to listen on, with or without a scheme in front.
fn listener(text: &str) -> String {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    text.strip_suffix('/').unwrap_or(text).to_owned()
}

const JUMP_DESTINATION: HeaderName = HeaderName::from_static("cf-access-jump-destination");
const CLIENT_ID: HeaderName = HeaderName::from_static("cf-access-client-id");
const CLIENT_SECRET: HeaderName = HeaderName::from_static("cf-access-client-secret");
/// Bytes.
const LONGEST_SECRET: usize = 64 * 1024;
/// Circuits of one listener at once; further connections wait.
const MOST_CIRCUITS: usize = 1024;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
