//! `adit plugin run`: one request to a component, and what it decided.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use adit_host::plugin::{
    Chain, Engine, EngineSettings, Facts, Plugin, RequestOutcome, ResponseOutcome, Secrets,
};
use anyhow::{Context, anyhow};
use http::{HeaderMap, Request, Response, Uri, request, response};
use http_body_util::{BodyExt, Full};

use super::{plan, read};
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

/// Has a component answer one request and prints what it decided, and how long that took.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(asked: Try) -> Result<(), Failure> {
    let wasm = read(&asked.component)?;
    let (mut head, body) = request(&asked).map_err(Failure::Configuration)?.into_parts();
    let engine = Engine::new(EngineSettings::default())?;
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
