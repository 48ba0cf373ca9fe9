//! `adit plugin check` and `adit plugin run`: look at a component, and try it on one request.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_host::config::grants::Grants;
use adit_host::config::plan::{Limits, OnError, PluginPlan};
use adit_host::plugin::{
    Chain, Engine, Facts, Inspection, Plugin, RequestOutcome, ResponseOutcome, Secrets, inspect,
};
use anyhow::{Context, anyhow};
use http::{HeaderMap, Request, Response, Uri, request, response};
use http_body_util::{BodyExt, Full};

use crate::Failure;

/// One request, from flags.
#[derive(clap::Args)]
pub(crate) struct Try {
    /// The component
    #[arg(value_name = "FILE")]
    component: PathBuf,
    /// Its configuration, as JSON
    #[arg(long, value_name = "JSON", default_value = "{}")]
    config: String,
    #[arg(long, default_value = "GET")]
    method: String,
    #[arg(long, default_value = "https://app.example.com/")]
    url: String,
    /// A header, as "name: value"; may be given several times
    #[arg(long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// The body, for a service
    #[arg(long, default_value = "")]
    body: String,
}

/// Prints what a component is and asks for.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn check(path: &Path) -> Result<(), Failure> {
    let wasm = read(path)?;
    let engine = Engine::that_keeps_nothing()?;
    let found = inspect(&engine, &plan(path, "{}"), &wasm).await;
    let found = found.with_context(|| path.display().to_string()).map_err(Failure::Configuration)?;
    print!("{}", report(path, wasm.len(), &found));
    Ok(())
}

fn report(path: &Path, size: usize, found: &Inspection) -> String {
    let roles =
        [("filter", found.is_filter), ("service", found.is_service), ("middleware", found.is_middleware)];
    let roles: Vec<_> = roles.iter().filter_map(|(role, is)| is.then_some(*role)).collect();
    let mut text = format!("{}: {}\n", path.display(), roles.join(" and "));
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<18}{value}");
    };
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    if found.is_experimental {
        line("experimental", "wasi:http 0.3; a document must say experimental = true for it");
    }
    line("size", &format!("{} KiB", size.div_ceil(1024)));
    line("compiled in", &format!("{} ms", found.compile_time.as_millis()));
    if let Some(said) = &found.description {
        line("calls itself", &format!("{} {}", said.name, said.version));
        line("request headers", &list(&said.request_headers));
        line("response headers", &list(&said.response_headers));
        line("schema", said.schema.as_deref().unwrap_or("none"));
    }
    let grants: Vec<String> =
        found.grants.iter().map(|(import, key)| format!("{key} (for {import})")).collect();
    line("needs grants", &list(&grants));
    line("not served", &list(&found.unserved));
    line("exports", &list(&found.exports));
    line("imports", &list(&found.imports));
    text
}

/// Has a component answer one request and prints what it decided, and how long that took.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(asked: Try) -> Result<(), Failure> {
    let wasm = read(&asked.component)?;
    let (mut head, body) = request(&asked).map_err(Failure::Configuration)?.into_parts();
    let engine = Engine::of_this_program()?;
    let plan = Arc::new(plan(&asked.component, &asked.config));
    let begun = Instant::now();
    let plugin = Plugin::load(&engine, &plan, &wasm, &Secrets::default(), 1).await;
    let plugin =
        plugin.with_context(|| asked.component.display().to_string()).map_err(Failure::Configuration)?;
    let plugin = Arc::new(plugin);
    println!("loaded in {:?}", begun.elapsed());
    let secure = head.uri.scheme_str() == Some("https");
    if plugin.serves() {
        let begun = Instant::now();
        let answer = plugin.serve(0, "run", secure, Request::from_parts(head, Full::new(body))).await;
        let (head, body) = answer.map_err(|failure| anyhow!(failure))?.into_parts();
        println!("answered in {:?}: {}", begun.elapsed(), head.status);
        print_headers(&head.headers);
        let body = body.collect().await.map_err(|error| anyhow!(error).context("its answer broke off"))?;
        println!("{} bytes after {:?}", body.to_bytes().len(), begun.elapsed());
        return Ok(());
    }
    if plugin.mediates() {
        println!("it is middleware, which takes a service behind it: see `service` and `plugins` of a rule");
        return Ok(());
    }
    let chain = Chain::new(vec![plugin]);
    let scheme = if secure { "https" } else { "http" };
    let facts = Facts { id: "run", client_ip: "192.0.2.1", scheme };
    decide(&chain, &facts, &mut head).await?;
    Ok(())
}

async fn decide(chain: &Chain, facts: &Facts<'_>, head: &mut request::Parts) -> anyhow::Result<()> {
    let begun = Instant::now();
    let outcome = chain.on_request(0, facts, head).await;
    let took = begun.elapsed();
    let passage = match outcome {
        RequestOutcome::Failed(failure) => return Err(anyhow!(failure)),
        RequestOutcome::Respond(reply, _) => {
            println!("request: answers itself after {took:?}: {}, {} bytes", reply.status, reply.body.len());
            print_headers(&reply.headers);
            return Ok(());
        }
        RequestOutcome::Continue(passage) => passage,
    };
    println!("request: goes on after {took:?}: {} {}", head.method, head.uri);
    print_headers(&head.headers);
    let mut head: response::Parts = Response::new(()).into_parts().0;
    let begun = Instant::now();
    let outcome = chain.on_response(passage, 0, facts, &mut head).await;
    let took = begun.elapsed();
    match outcome {
        ResponseOutcome::Failed(failure) => return Err(anyhow!(failure)),
        ResponseOutcome::Respond(reply) => {
            println!("response: replaced after {took:?}: {}, {} bytes", reply.status, reply.body.len());
            print_headers(&reply.headers);
        }
        ResponseOutcome::Continue => {
            println!("response: goes on after {took:?}: {}", head.status);
            print_headers(&head.headers);
        }
    }
    Ok(())
}

fn print_headers(headers: &HeaderMap) {
    for (name, value) in headers {
        println!("  {name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
}

fn request(asked: &Try) -> anyhow::Result<Request<bytes::Bytes>> {
    let uri: Uri = asked.url.parse().with_context(|| format!("{:?} is not a URL", asked.url))?;
    let host = uri.authority().with_context(|| format!("{:?} has no host", asked.url))?.to_string();
    let mut request = Request::builder().method(asked.method.as_str()).uri(uri).header("host", host);
    for header in &asked.headers {
        let (name, value) =
            header.split_once(':').with_context(|| format!("{header:?} is not \"name: value\""))?;
        request = request.header(name.trim(), value.trim());
    }
    Ok(request.body(bytes::Bytes::from(asked.body.clone()))?)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let wasm = std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    wasm.map_err(Failure::Configuration)
}

fn plan(path: &Path, config: &str) -> PluginPlan {
    PluginPlan {
        name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        component: path.to_owned(),
        config: config.to_owned(),
        on_error: OnError::Deny,
        limits: Limits { memory: 64 << 20, timeout: None, concurrency: 1 },
        grants: Grants::default(),
        reuse: None,
        experimental: true,
        tick: Duration::from_secs(10),
    }
}
