//! `adit plugin bench`: what components cost, by the host's own engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_engine::{Chain, Engine, Facts, Plugin, RequestOutcome, Secrets, inspect};
use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Empty};
use serde_json::json;

use super::{plan, read};
use crate::Failure;
use crate::table::{self, Form};

#[derive(clap::Args)]
pub(crate) struct Bench {
    /// The components: files, or shelf:NAME for those that come with Adit
    #[arg(value_name = "FILE", required = true)]
    components: Vec<PathBuf>,
    /// Their configuration, as JSON
    #[arg(long, value_name = "JSON", default_value = "{}")]
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
        let wasm = read(file)?;
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
    let compile = inspect(engine, &plan, wasm).await?.compile_time;
    plan.reuse = Some(true);
    // An instance of a service gives its place back a moment after its answer.
    plan.limits.concurrency = 64;
    let reused = Plugin::load(engine, &Arc::new(plan.clone()), wasm, &Secrets::default(), 1).await?;
    let start = typical(asked.time, async || {
        reused.load_again(&Arc::new(plan.clone()), &Secrets::default()).await?;
        Ok(())
    });
    let start = start.await?;
    let mut never = plan.clone();
    never.reuse = Some(false);
    let fresh = reused.load_again(&Arc::new(never), &Secrets::default()).await?;
    let role = if reused.serves() { "service" } else { "filter" };
    Ok(Costs {
        name: plan.name,
        role,
        bytes: wasm.len(),
        compile,
        start,
        fresh: calls(Arc::new(fresh), asked).await?,
        reused: calls(Arc::new(reused), asked).await?,
    })
}

/// One call: of a filter its request phase, of a service a request and its whole answer.
async fn calls(plugin: Arc<Plugin>, asked: &Bench) -> Result<Duration> {
    let uri = format!("https://app.example.com{}", asked.path);
    let uri: Uri = uri.parse().with_context(|| format!("{:?} is not a path", asked.path))?;
    let mut request = Request::builder().uri(uri).body(())?;
    for (name, value) in HEADERS {
        request.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    let (head, ()) = request.into_parts();
    let facts = Facts { id: "8d2f1c7e9a0b1c2d-TST", client_ip: "192.0.2.17", scheme: "https" };
    if plugin.serves() {
        return typical(asked.time, async || {
            let request = Request::from_parts(head.clone(), Empty::<Bytes>::new());
            let answer =
                plugin.serve(0, facts.id, true, request).await.map_err(|failure| anyhow!(failure))?;
            answer.into_body().collect().await.map_err(|error| anyhow!(error))?;
            Ok(())
        })
        .await;
    }
    let chain = Chain::new(vec![plugin]);
    let mut edited = head.clone();
    typical(asked.time, async || match chain.on_request(0, &facts, &mut edited).await {
        RequestOutcome::Failed(failure) => bail!(failure),
        RequestOutcome::Respond(..) | RequestOutcome::Continue(_) => Ok(()),
    })
    .await
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

const WARM_UP: usize = 20;
const LEAST: usize = 20;
const MOST: usize = 200_000;
