//! `adit tail` and `adit management token`: the log of a host, as it grows, through its edge. Knows lines; how an edge
//! is asked is `client`.

use std::io::{Write, stderr};
use std::path::PathBuf;

use adit_protocol::management::{
    ACCESS_TOKEN, CONNECTOR_ID, ClientEvent, EventKind, Filters, IDLE, INVALID_COMMAND, LOGS, Level, Line,
    Resource, SESSION_LIMIT, ServerEvent,
};
use adit_protocol::websocket::{self, GOING_AWAY, Messages, NORMAL, Said, Side};
use anyhow::{Context, anyhow, bail, ensure};
use bytes::{Bytes, BytesMut};
use clap::builder::PossibleValue;
use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Duration, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::client::{Api, Client};
use super::{At, Options};
use crate::Failure;
use crate::table::print;

#[derive(Args)]
pub(crate) struct Tail {
    #[command(subcommand)]
    command: Option<TailCommand>,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    at: At,
}

#[derive(Subcommand)]
enum TailCommand {
    /// Print the token by which the log can be watched for an hour
    Token {
        /// The tunnel's id or its name
        tunnel: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum Management {
    /// Print a token for an hour
    Token {
        /// The tunnel's id or its name
        tunnel: String,
        /// What it is good for
        #[arg(long, value_enum)]
        resource: Asked,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Args)]
struct Watch {
    /// The tunnel's id or its name; without it a token says which
    tunnel: Option<String>,
    /// Which of its hosts, if there are several; `adit tunnel info` has their ids
    #[arg(long, value_name = "ID", env = "TUNNEL_MANAGEMENT_CONNECTOR")]
    connector_id: Option<Uuid>,
    /// Only lines of these kinds: cloudflared is the host itself, http are requests, tcp are circuits
    #[arg(
        long,
        value_name = "KIND",
        value_enum,
        env = "TUNNEL_MANAGEMENT_FILTER_EVENTS",
        value_delimiter = ','
    )]
    event: Vec<Kind>,
    /// Only lines of this level and above
    #[arg(
        long,
        value_name = "LEVEL",
        value_enum,
        default_value = "debug",
        env = "TUNNEL_MANAGEMENT_FILTER_LEVEL"
    )]
    level: Least,
    /// Only this share of them, above 0 and at most 1
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = share, env = "TUNNEL_MANAGEMENT_FILTER_SAMPLE")]
    sample: f64,
    /// Instead of asking the control API for one: what `adit tail token` printed. Rather in the environment than here,
    /// where everybody on the machine reads it
    #[arg(long, value_name = "TOKEN", env = "TUNNEL_MANAGEMENT_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The file that has it
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Where hosts are asked about themselves, if not at the control API: HOST or HOST:PORT, over TLS
    #[arg(long, value_name = "HOST", env = "TUNNEL_MANAGEMENT_HOSTNAME")]
    management_hostname: Option<String>,
    /// How lines look: default, or json
    #[arg(long, value_name = "FORM", value_enum, default_value_t, env = "TUNNEL_MANAGEMENT_OUTPUT")]
    output: Form,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    #[default]
    Default,
    Json,
}

/// A level as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Least(Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind(EventKind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked(Resource);

impl ValueEnum for Least {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Least; 4] =
            [Least(Level::Debug), Least(Level::Info), Least(Level::Warn), Least(Level::Error)];
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.word()))
    }
}

impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Kind; 4] =
            [Kind(EventKind::Cloudflared), Kind(EventKind::Http), Kind(EventKind::Tcp), Kind(EventKind::Udp)];
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.word()))
    }
}

impl ValueEnum for Asked {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Asked; 3] = [Asked(Resource::Logs), Asked(Resource::Admin), Asked(Resource::HostDetails)];
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.word()))
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "write a number above 0 and at most 1".to_owned())?;
    if share > 0.0 && share <= 1.0 {
        Ok(share)
    } else {
        Err("write a number above 0 and at most 1".to_owned())
    }
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn tail(tail: Tail) -> Result<(), Failure> {
    let Tail { command, watch, at } = tail;
    let options = at.options();
    match command {
        Some(TailCommand::Token { tunnel }) => {
            let client = Client::new(&options).map_err(Failure::Configuration)?;
            Ok(say_token(&client, &tunnel, Resource::Logs).await?)
        }
        None => watch_log(watch, &options).await,
    }
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn management(asked: Management) -> Result<(), Failure> {
    let Management::Token { tunnel, resource, at } = asked;
    let client = Client::new(&at.options()).map_err(Failure::Configuration)?;
    Ok(say_token(&client, &tunnel, resource.0).await?)
}

async fn say_token(client: &Client, tunnel: &str, resource: Resource) -> anyhow::Result<()> {
    let token = token_of(client, tunnel, resource).await?;
    print(&json!({ "token": token }).to_string());
    Ok(())
}

async fn token_of(client: &Client, tunnel: &str, resource: Resource) -> anyhow::Result<String> {
    let id = client.find(tunnel).await?;
    let path = format!("/management/{}", resource.word());
    let token = client.tunnel("asking for a token", Method::POST, id, &path).await?;
    token.as_str().map(str::to_owned).context("the control API did not answer with a token")
}

async fn watch_log(watch: Watch, options: &Options) -> Result<(), Failure> {
    let Watch { tunnel, connector_id, event, level, sample, token, token_file, management_hostname, output } =
        watch;
    let given = match (token, token_file) {
        (Some(token), _) => Some(token),
        (None, Some(file)) => {
            let text = adit_files::read_text(&file, LONGEST_TOKEN)
                .with_context(|| format!("reading {}", file.display()))
                .map_err(Failure::Configuration)?;
            Some(text.trim().to_owned())
        }
        (None, None) => None,
    };
    let token = match (given, &tunnel) {
        (Some(token), _) => token,
        (None, Some(tunnel)) => {
            let client = Client::new(options).map_err(Failure::Configuration)?;
            token_of(&client, tunnel, Resource::Logs).await?
        }
        (None, None) => {
            let why = "say which tunnel: its id or its name, or a token in TUNNEL_MANAGEMENT_TOKEN";
            return Err(Failure::Configuration(anyhow!(why)));
        }
    };
    let is_sent = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !token.bytes().all(is_sent) {
        return Err(Failure::Configuration(anyhow!("the token has characters that no token has")));
    }
    let api = match &management_hostname {
        Some(host) => Api::at(&format!("https://{host}"), options.api_ca.as_deref(), None),
        None => Api::new(options, Some("adit_")),
    };
    let api = api.map_err(Failure::Configuration)?;
    let connector = connector_id.map(|id| format!("&{CONNECTOR_ID}={id}")).unwrap_or_default();
    let opened = api.watch(&format!("{LOGS}?{ACCESS_TOKEN}={token}{connector}")).await?;
    let events = event.into_iter().map(|kind| kind.0).collect();
    let filters = Filters { events, level: Some(level.0), sampling: Some(sample) };
    let stop = CancellationToken::new();
    let _ended = ended(stop.clone()).map_err(anyhow::Error::from)?;
    Ok(follow(opened, &filters, &stop, |line| print(&shown(line, output))).await?)
}

/// Ends it at a signal; without a word, for nobody has asked for one.
fn ended(stop: CancellationToken) -> std::io::Result<AbortOnDropHandle<()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    })))
}

/// Asks for lines, and shows them until either side ends it.
async fn follow(
    opened: impl AsyncRead + AsyncWrite,
    filters: &Filters,
    stop: &CancellationToken,
    mut show: impl FnMut(&Line),
) -> anyhow::Result<()> {
    let (mut from, mut to) = tokio::io::split(opened);
    let start = serde_json::to_vec(&ClientEvent::StartStreaming { filters: Some(filters.clone()) })?;
    say(&mut to, websocket::text(&start, Some(key()?))).await?;
    let mut messages = Messages::new(Side::Server, LONGEST_MESSAGE);
    loop {
        let mut buffer = BytesMut::with_capacity(READ);
        let read = tokio::select! {
            read = from.read_buf(&mut buffer) => read.context("the edge broke off")?,
            () = stop.cancelled() => {
                say(&mut to, websocket::close(NORMAL, Some(key()?))).await?;
                // What is still on its way is no news to anybody.
                let rest = async { while from.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) { buffer.clear() } };
                let _ = timeout(FAREWELL, rest).await;
                return Ok(());
            }
        };
        ensure!(read > 0, "the edge ended the connection");
        let mut input = buffer.freeze();
        while let Some(said) = messages.next(&mut input).context("what the host says cannot be read")? {
            match said {
                Said::Message(message) => match serde_json::from_slice(&message) {
                    Ok(ServerEvent::Logs { logs }) => logs.iter().for_each(&mut show),
                    // A host of tomorrow may say more.
                    Err(error) => tracing::debug!(%error, "a message that is not understood"),
                },
                Said::Ping(payload) => say(&mut to, websocket::pong(&payload, Some(key()?))).await?,
                Said::Pong => {}
                Said::Close(code) => return over(code),
            }
        }
    }
}

/// Why the host ends it.
fn over(code: Option<u16>) -> anyhow::Result<()> {
    match code {
        None | Some(NORMAL) => {
            // Not `eprintln!`, which panics when nobody reads.
            let _ = writeln!(
                stderr(),
                "adit: the host has ended it: the token is over, or the log is watched from elsewhere"
            );
            Ok(())
        }
        Some(SESSION_LIMIT) => bail!("somebody else watches the log of this host ({SESSION_LIMIT})"),
        Some(GOING_AWAY) => bail!("the host ends ({GOING_AWAY})"),
        Some(IDLE) => bail!("nothing was asked for in time ({IDLE})"),
        Some(INVALID_COMMAND) => bail!("the host did not understand what was asked ({INVALID_COMMAND})"),
        Some(code) => bail!("the host ended it ({code})"),
    }
}

async fn say(to: &mut (impl AsyncWrite + Unpin), frame: Bytes) -> anyhow::Result<()> {
    to.write_all(&frame).await.context("the edge broke off")?;
    to.flush().await.context("the edge broke off")
}

fn shown(line: &Line, form: Form) -> String {
    match form {
        Form::Default => {
            let Line { time, level, message, event, fields } = line;
            // What services and visitors say must not steer a terminal.
            let message: String =
                message.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect();
            let fields = serde_json::to_string(fields).unwrap_or_default();
            format!("{time} {} {} {message} {fields}", level.word(), event.word())
        }
        Form::Json => serde_json::to_string(line).unwrap_or_default(),
    }
}

/// What a frame is masked with: nobody may foresee it (RFC 6455, 10.3).
fn key() -> anyhow::Result<[u8; 4]> {
    let mut key = [0; 4];
    getrandom::fill(&mut key).context("random numbers")?;
    Ok(key)
}

const LONGEST_TOKEN: usize = 4096;
const LONGEST_MESSAGE: usize = 4 << 20;
const READ: usize = 16 << 10;
/// For the host to hear that it is over.
const FAREWELL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn watched(host: Vec<Bytes>) -> (anyhow::Result<()>, Vec<String>, Vec<u8>) {
        let (ours, theirs) = duplex(1 << 16);
        let (mut from, mut to) = tokio::io::split(theirs);
        for frame in host {
            to.write_all(&frame).await.unwrap();
        }
        let (mut lines, mut asked) = (Vec::new(), Vec::new());
        let filters = Filters { level: Some(Level::Warn), ..Filters::default() };
        let stop = CancellationToken::new();
        let ended = follow(ours, &filters, &stop, |line| lines.push(shown(line, Form::Default))).await;
        from.read_to_end(&mut asked).await.unwrap();
        let mut messages = Messages::new(Side::Client, 1000);
        let mut input = Bytes::from(asked);
        let Some(Said::Message(first)) = messages.next(&mut input).unwrap() else { panic!("no message") };
        (ended, lines, first.to_vec())
    }

    #[tokio::test]
    async fn lines_are_shown_as_they_come_and_steer_no_terminal() {
        let text = |text: &str| websocket::text(text.as_bytes(), None);
        // In two frames, as the reference may.
        let lines = r#"{"type":"logs","logs":[{"time":"T","level":"warn","message":"a\u001b[31m","event":"http","fields":{"b":"\u001b"}},{"time":"U","message":"c"}]}"#;
        let (ended, lines, asked) = watched(vec![
            websocket::ping(None),
            text(lines),
            text(r#"{"type":"tomorrow"}"#),
            websocket::close(NORMAL, None),
        ])
        .await;
        ended.unwrap();
        assert_eq!(lines, ["T warn http a\u{fffd}[31m {\"b\":\"\\u001b\"}", "U debug cloudflared c {}"]);
        assert_eq!(asked, br#"{"type":"start_streaming","filters":{"level":"warn"}}"#);
    }

    #[tokio::test]
    async fn a_host_that_ends_it_says_why() {
        for (last, why) in [
            (websocket::close_saying(SESSION_LIMIT, "full", None), "somebody else"),
            (websocket::close(GOING_AWAY, None), "the host ends"),
            (Bytes::from_static(&[0xff; 14]), "cannot be read"),
        ] {
            let (ended, lines, _) = watched(vec![last]).await;
            assert!(format!("{:#}", ended.unwrap_err()).contains(why), "{why}");
            assert!(lines.is_empty());
        }
    }

    #[test]
    fn a_share_is_above_nothing_and_at_most_all() {
        assert_eq!(share("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "1.01", "x", "nan"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
