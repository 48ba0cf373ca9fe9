//! `adit plugin bench`: what components cost, by the host's own engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use adit_engine::{
    Chain, Compiled, Engine, Facts, Plugin, RequestOutcome, ResponseOutcome, Secrets, Served, TestHost,
};
use adit_rules::plan::PluginPlan;
use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri};
use serde_json::json;

use super::exchange::{self, Answered, Onward};
use super::{plan, read};
use crate::Failure;
use crate::table::{self, Form};

#[derive(clap::Args)]
pub(crate) struct Bench {
    /// The components: files, shelf:NAME for those that come with Adit, or oci://REGISTRY/NAME:TAG
    #[arg(value_name = "FILE", required = true)]
    components: Vec<PathBuf>,
    /// Their configuration, as JSON
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = super::configuration)]
    config: String,
    /// The path that is asked for
    #[arg(long, value_name = "PATH", default_value = "/account/orders?page=2")]
    path: String,
    /// How long each figure is measured
    #[arg(long = "time", value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// In which form; the table is Markdown
    #[arg(long = "output", short = 'o', value_name = "FORM", value_enum, default_value_t)]
    form: Form,
}

/// What was measured of one component.
struct Costs {
    name: String,
    role: &'static str,
    bytes: usize,
    compile: Duration,
    /// From nothing but the machine code to a configured instance.
    start: Duration,
    fresh: Duration,
    reused: Duration,
}

#[tokio::main(flavor = "current_thread")]
pub(super) async fn run(asked: &Bench) -> Result<(), Failure> {
    let engine = Engine::that_keeps_nothing()?;
    let mut rows = Vec::new();
    for file in &asked.components {
        let wasm = read(file).await?;
        let costs = measure(&engine, asked, file, &wasm).await;
        rows.push(costs.with_context(|| file.display().to_string()).map_err(Failure::Configuration)?);
    }
    let micros = |time: Duration| (time.as_secs_f64() * 1e7).round() / 10.0;
    let value = rows.iter().map(|row| {
        json!({
            "name": row.name,
            "role": row.role,
            "size_bytes": row.bytes,
            "compile_ms": u64::try_from(row.compile.as_millis()).unwrap_or(u64::MAX),
            "start_us": micros(row.start),
            "fresh_us": micros(row.fresh),
            "reused_us": micros(row.reused),
        })
    });
    table::show(asked.form, &value.collect(), || {
        let mut text = HEADING.to_owned();
        for row in &rows {
            text.push_str(&format!(
                "| {} | {} | {} KiB | {} ms | {} µs | {} µs | {} µs |\n",
                row.name,
                row.role,
                row.bytes.div_ceil(1024),
                row.compile.as_millis(),
                micros(row.start),
                micros(row.fresh),
                micros(row.reused),
            ));
        }
        text
    });
    Ok(())
}

async fn measure(engine: &Engine, asked: &Bench, file: &Path, wasm: &[u8]) -> Result<Costs> {
    let mut plan = plan(file, &asked.config);
    let begun = Instant::now();
    let compiled = Compiled::new(engine, &plan.name, wasm).await?;
    let compile = begun.elapsed();
    // An instance of a service gives its place back a moment after its answer.
    plan.limits.concurrency = 64;
    let load = async |reuse| {
        let plan = Arc::new(PluginPlan { reuse: Some(reuse), ..plan.clone() });
        compiled.plugin(&plan, &Secrets::default(), &TestHost::default()).await
    };
    let start = typical(asked.time, async || {
        load(true).await?;
        Ok(())
    });
    let start = start.await?;
    let (fresh, reused) = (Arc::new(load(false).await?), Arc::new(load(true).await?));
    let role = match exchange::role(&reused) {
        Some(role) => role,
        None if reused.logs() => "access log",
        None => "ticker",
    };
    Ok(Costs {
        name: plan.name.clone(),
        role,
        bytes: wasm.len(),
        compile,
        start,
        fresh: calls(&fresh, asked, true).await?,
        reused: calls(&reused, asked, false).await?,
    })
}

/// One call: of a filter its request phase, or else that of the response, and of one that looks at bodies both; of a service and of middleware a request
/// and its whole answer; of others one piece of work.
async fn calls(plugin: &Arc<Plugin>, asked: &Bench, is_fresh: bool) -> Result<Duration> {
    let Some(role) = exchange::role(plugin) else { return work(plugin, asked.time, is_fresh).await };
    let uri = format!("https://app.example.com{}", asked.path);
    let uri: Uri = uri.parse().with_context(|| format!("{:?} is not a path", asked.path))?;
    let mut request = Request::builder().uri(uri).body(Bytes::new())?;
    for (name, value) in HEADERS {
        request.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    let facts = Facts {
        id: "8d2f1c7e9a0b1c2d-TST",
        client_ip: "192.0.2.17",
        scheme: "https",
        stopwatch: None,
        exchange: None,
    };
    if role != "filter" || plugin.filters_bodies() {
        let body = Bytes::from(if plugin.filters_bodies() { vec![b'a'; BODY] } else { Vec::new() });
        *request.body_mut() = body.clone();
        let behind = Response::new(body);
        return typical(asked.time, async || {
            let passed = exchange::pass(plugin, &facts, request.clone(), Some(&behind)).await?;
            match (passed.request, passed.response) {
                (Onward::Failed(kind), _) | (_, Some(Answered::Failed(kind))) => bail!("it failed: {kind}"),
                (Onward::HandedOn(..) | Onward::Answered(_), _) => Ok(()),
            }
        })
        .await;
    }
    let chain = Chain::new(vec![plugin.clone()]);
    let (mut edited, _) = request.into_parts();
    if !plugin.looks_at_requests() {
        let (mut answer, ()) = Response::new(()).into_parts();
        return typical(asked.time, async || {
            let RequestOutcome::Continue(progress) = chain.on_request(0, &facts, &mut edited).await else {
                bail!("it has no request phase");
            };
            match chain.on_response(progress, 0, &facts, &mut answer).await {
                ResponseOutcome::Failed(failure) => bail!(failure),
                ResponseOutcome::Respond(_) | ResponseOutcome::Continue => Ok(()),
            }
        })
        .await;
    }
    typical(asked.time, async || match chain.on_request(0, &facts, &mut edited).await {
        RequestOutcome::Failed(failure) => bail!(failure),
        RequestOutcome::Respond(..) | RequestOutcome::Continue(_) => Ok(()),
    })
    .await
}

/// One piece of work beside requests, on an instance that is kept or on one of its own.
async fn work(plugin: &Plugin, time: Duration, is_fresh: bool) -> Result<Duration> {
    let mut kept = plugin.background_driver();
    typical(time, async || {
        if is_fresh {
            kept = plugin.background_driver();
        }
        let done = if plugin.logs() { kept.log(std::iter::once(served())).await } else { kept.tick().await };
        done.map_err(|failure| anyhow!(failure))
    })
    .await
}

/// An exchange that an access log is told of.
pub(super) fn served() -> Served {
    Served {
        id: "8d2f1c7e9a0b1c2d-TST".to_owned(),
        rule: "ingress[0]".to_owned(),
        method: "GET".to_owned(),
        authority: "app.example.com".to_owned(),
        path_with_query: "/account/orders?page=2".to_owned(),
        client_ip: "192.0.2.17".to_owned(),
        status: 200,
        started: SystemTime::now(),
        head_after: HEAD_AFTER,
        done_after: DONE_AFTER,
        sent: 4096,
        complete: true,
    }
}

/// The median of what single calls took, after some that do not count.
async fn typical(time: Duration, mut call: impl AsyncFnMut() -> Result<()>) -> Result<Duration> {
    for _ in 0..WARM_UP {
        call().await?;
    }
    let (begun, mut took) = (Instant::now(), Vec::new());
    while took.len() < LEAST || (begun.elapsed() < time && took.len() < MOST) {
        let begun = Instant::now();
        call().await?;
        took.push(begun.elapsed());
    }
    let middle = took.len() / 2;
    Ok(*took.select_nth_unstable(middle).1)
}

/// As browsers send them.
const HEADERS: &[(&str, &str)] = &[
    ("host", "app.example.com"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
    ),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("cookie", "session=0f3c9a7b5e1d4826a4c1f00dba5eba11; theme=dark; consent=yes"),
    ("cache-control", "no-cache"),
    ("x-forwarded-for", "192.0.2.17"),
    ("x-name", "Ada"),
];

const HEADING: &str = "\
| plugin | role | size | compile | start | call, fresh instance | call, reused instance |
|---|---|---:|---:|---:|---:|---:|
";

/// When an exchange of the log was answered, and over.
const HEAD_AFTER: Duration = Duration::from_millis(12);
const DONE_AFTER: Duration = Duration::from_millis(15);
/// Bytes of a body for those that look at bodies.
const BODY: usize = 16 * 1024;
const WARM_UP: usize = 20;
const LEAST: usize = 20;
const MOST: usize = 200_000;
