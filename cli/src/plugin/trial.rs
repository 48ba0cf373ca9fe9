//! `adit plugin run`: one request to a component, and what it decided.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use adit_engine::{
    Chain, Engine, EngineSettings, Facts, LARGEST_COMPONENT, Plugin, RequestOutcome, ResponseOutcome, Secrets,
};
use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri, request, response};
use http_body_util::{BodyExt, Full};

use super::{plan, read};
use crate::Failure;

/// One request, from flags or a file.
#[derive(clap::Args)]
pub(crate) struct Try {
    /// The component: a file, or shelf:NAME for one that comes with Adit
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
    /// The request from a file, in place of the flags: an HTTP/1.1 head, an empty line, the body; - for
    /// standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["method", "url", "headers", "body"])]
    request: Option<PathBuf>,
}

/// Has a component answer one request and prints what it decided, and how long that took.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(asked: Try) -> Result<(), Failure> {
    let wasm = read(&asked.component)?;
    let request = match &asked.request {
        Some(file) => written(file),
        None => request(&asked),
    };
    let (mut head, body) = request.map_err(Failure::Configuration)?.into_parts();
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

fn request(asked: &Try) -> anyhow::Result<Request<Bytes>> {
    let headers = asked.headers.iter().map(String::as_str);
    made(&asked.method, &asked.url, headers, Bytes::from(asked.body.clone()))
}

fn written(file: &Path) -> anyhow::Result<Request<Bytes>> {
    let text = if file == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().take(LARGEST_COMPONENT as u64).read_to_end(&mut text).map(|_| text)
    } else {
        adit_files::read(file, LARGEST_COMPONENT)
    };
    let text = text.with_context(|| format!("reading {}", file.display()))?;
    parsed(&text).with_context(|| file.display().to_string())
}

/// A request as text. Lines may end as editors end them; without a host in its first line it is an HTTPS
/// request to the one in the header `host`.
fn parsed(text: &[u8]) -> anyhow::Result<Request<Bytes>> {
    let mut rest = text;
    let mut lines = Vec::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
        let (line, behind) = rest.split_at(end);
        rest = behind;
        let line = std::str::from_utf8(line).context("its head is not text")?.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let (first, headers) = lines.split_first().context("there is no request in it")?;
    let words: Vec<_> = first.split(' ').collect();
    let ([method, target] | [method, target, "HTTP/1.0" | "HTTP/1.1"]) = words[..] else {
        bail!("{first:?} is not the first line of a request, such as \"GET / HTTP/1.1\"");
    };
    let host = headers.iter().filter_map(|line| line.split_once(':'));
    let host = host.filter(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, host)| host.trim()).next();
    let url = match (target.starts_with('/'), host) {
        (false, _) => target.to_owned(),
        (true, Some(host)) => format!("https://{host}{target}"),
        (true, None) => bail!("it has no header `host`"),
    };
    made(method, &url, headers.iter().copied(), Bytes::copy_from_slice(rest))
}

fn made<'a>(
    method: &str,
    url: &str,
    headers: impl Iterator<Item = &'a str>,
    body: Bytes,
) -> anyhow::Result<Request<Bytes>> {
    let uri: Uri = url.parse().with_context(|| format!("{url:?} is not a URL"))?;
    let host = uri.authority().with_context(|| format!("{url:?} has no host"))?.to_string();
    let mut request = Request::builder().method(method).uri(uri);
    let mut is_named = false;
    for header in headers {
        let (name, value) =
            header.split_once(':').with_context(|| format!("{header:?} is not \"name: value\""))?;
        is_named |= name.trim().eq_ignore_ascii_case("host");
        request = request.header(name.trim(), value.trim());
    }
    if !is_named {
        request = request.header("host", host);
    }
    Ok(request.body(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_would_be_sent() {
        let text = b"POST /a?b=c HTTP/1.1\r\nHost: app.example.com\r\nX-Name:  Ada \r\nx-name: Bob\r\n\r\none\r\n\ntwo";
        let request = parsed(text).unwrap();
        assert_eq!(
            (request.method().as_str(), request.uri().to_string().as_str()),
            ("POST", "https://app.example.com/a?b=c")
        );
        let all = |name: &str| request.headers().get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("x-name"), ["Ada", "Bob"]);
        assert_eq!(all("host"), ["app.example.com"]);
        assert_eq!(&request.body()[..], b"one\r\n\ntwo");

        let request = parsed(b"GET http://other.example.com/ HTTP/1.1\naccept: */*").unwrap();
        assert_eq!(request.uri().to_string(), "http://other.example.com/");
        assert_eq!(
            (&request.headers()["host"], request.body().len()),
            (&"other.example.com".parse().unwrap(), 0)
        );
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for bad in [
            &b""[..],
            b"\n",
            b"GET",
            b"GET / HTTP/2 x",
            b"GET /\n",
            b"GET /\nhost: a\nno header",
            b"GET /\nhost: \xff",
        ] {
            assert!(parsed(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
