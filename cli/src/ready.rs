//! `adit tunnel ready`: asks a running host whether visitors would be served. Made for health checks of
//! containers: it needs nothing but its own binary.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use adit_host::config::{self, settings};
use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::Failure;

/// How long a host may take to answer: it may have to look at many origins.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// How often a host is asked that is not ready yet.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Longest answer, bytes.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Where the host's admin API listens; 127.0.0.1:20241 unless a configuration says otherwise
    #[arg(long, value_name = "HOST:PORT", env = "ADIT_ADMIN")]
    admin: Option<String>,
    /// Ask only whether the process lives and a connection serves, not whether origins answer: for what restarts
    /// a host, which mends no origin
    #[arg(long)]
    no_origins: bool,
    /// Print what the host says as it is
    #[arg(long)]
    json: bool,
    /// Wait until the host is ready, but no longer than this, such as "30s"
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "0s", hide_default_value = true)]
    wait: Duration,
}

/// Exit code 0: ready. 1: not ready. 2: there is nobody to ask. Where `--admin` is not given, the admin API
/// is where `config` says, or at `metrics`.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn ask(
    arguments: Arguments,
    config: Option<&Path>,
    metrics: Option<String>,
) -> Result<(), Failure> {
    let address = address(&arguments, config, metrics).map_err(Failure::Configuration)?;
    let path = if arguments.no_origins { "/ready" } else { "/readyz" };
    let until = Instant::now() + arguments.wait;
    let outcome = loop {
        let asked =
            async { if arguments.no_origins { health(&address).await } else { readiness(&address).await } };
        let outcome = timeout(ANSWER_LIMIT, asked)
            .await
            .unwrap_or_else(|_| Err(anyhow!("no answer within {} s", ANSWER_LIMIT.as_secs())));
        if matches!(outcome, Ok((_, true))) || Instant::now() >= until {
            break outcome;
        }
        sleep(ASK_EVERY.min(until - Instant::now())).await;
    };
    let (page, is_ready) =
        outcome.with_context(|| format!("asking http://{address}{path}")).map_err(Failure::Configuration)?;
    if arguments.no_origins {
        print!("{}", if arguments.json { format!("{page}\n") } else { summary(&page) });
    } else {
        print!("{}", if arguments.json { format!("{page}\n") } else { table(&page) });
    }
    if is_ready {
        return Ok(());
    }
    if arguments.no_origins {
        return Err(Failure::Running(anyhow!("{}", summary(&page).trim_end())));
    }
    let reasons: Vec<&str> = list(&page["reasons"]).iter().filter_map(Value::as_str).collect();
    Err(Failure::Running(anyhow!("not ready: {}", reasons.join("; "))))
}

fn address(arguments: &Arguments, config: Option<&Path>, metrics: Option<String>) -> anyhow::Result<String> {
    if let Some(admin) = &arguments.admin {
        return Ok(admin.clone());
    }
    let mut address = match (config, metrics) {
        (_, Some(metrics)) => match metrics.parse() {
            Ok(address) => address,
            Err(_) => return Ok(metrics),
        },
        (Some(config), None) => config::admin_address(config)?,
        (None, None) => settings::ADMIN,
    };
    if address.port() == 0 {
        bail!("the configuration leaves the port of the admin API to the system: give it with --admin");
    }
    // What listens everywhere is asked here.
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => {}
    }
    Ok(address.to_string())
}

/// What the host says, and whether it is ready.
async fn readiness(address: &str) -> anyhow::Result<(Value, bool)> {
    let (status, page) = answer(address, "/readyz").await?;
    let page = page.filter(|page| page["ready"].is_boolean());
    let page = page.with_context(|| format!("this is not a host of Adit: {status} at /readyz"))?;
    Ok((page, status == StatusCode::OK))
}

/// Whether each of its threads answers, and how many connections serve.
async fn health(address: &str) -> anyhow::Result<(Value, bool)> {
    let (lives, _) = answer(address, "/livez").await?;
    let (status, page) = answer(address, "/ready").await?;
    let page = page.filter(|page| page["readyConnections"].is_u64());
    let mut page = page.with_context(|| format!("this is not a host: {status} at /ready"))?;
    page["alive"] = Value::Bool(lives == StatusCode::OK);
    Ok((page, lives == StatusCode::OK && status == StatusCode::OK))
}

fn summary(page: &Value) -> String {
    let life =
        if page["alive"] == true { "the process lives" } else { "a thread of the process does not answer" };
    format!("{life}, and {} of its connections serve\n", page["readyConnections"])
}

async fn answer(address: &str, path: &str) -> anyhow::Result<(StatusCode, Option<Value>)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(async move {
        // Whoever waits for the answer is told.
        let _ = connection.await;
    }));
    let request = Request::get(path).header(HOST, address).body(Empty::<Bytes>::new())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(|error| anyhow!(error))?.to_bytes();
    let page = match head.status {
        StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => serde_json::from_slice::<Value>(&body).ok(),
        _ => None,
    };
    Ok((head.status, page))
}

/// For people.
fn table(page: &Value) -> String {
    let mut table = String::new();
    let all = list(&page["connections"]);
    let verdict = if page["ready"] == true { "ready" } else { "not ready" };
    let _ = writeln!(table, "{verdict}: {}", headline(page, all.len()));
    for connection in all {
        let _ = write!(
            table,
            "  connection {}  {:<11}  {:<5}  {:<22}  {}",
            connection["index"],
            text(&connection["state"]),
            text(&connection["protocol"]),
            text(&connection["edge"]),
            text(&connection["location"]),
        );
        if let Some(seconds) = connection["probedSecondsAgo"].as_u64() {
            let _ = write!(table, "  probed {seconds} s ago");
        }
        match connection["lastError"].as_str() {
            Some(error) if connection["state"] != "connected" => drop(writeln!(table, "  {error}")),
            _ => table.push('\n'),
        }
    }
    for origin in list(&page["origins"]) {
        let state = origin["error"].as_str().unwrap_or("ok");
        let _ =
            writeln!(table, "  origin {} (rule {})  {state}", text(&origin["origin"]), text(&origin["rule"]));
    }
    for reason in list(&page["reasons"]) {
        let _ = writeln!(table, "because {}", text(reason));
    }
    table
}

/// What decides: the connections where they are too few, else the first reason.
fn headline(page: &Value, all: usize) -> String {
    let (serving, wanted) = (&page["readyConnections"], &page["wantedConnections"]);
    let connections = format!("{serving} of {all} connections serve, {wanted} needed");
    let reasons = list(&page["reasons"]);
    let is_enough = serving.as_u64() >= wanted.as_u64();
    match reasons.first() {
        Some(first) if is_enough && reasons.len() == 1 => text(first).to_owned(),
        Some(first) if is_enough => format!("{}, and {} more", text(first), reasons.len() - 1),
        Some(_) | None => connections,
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
