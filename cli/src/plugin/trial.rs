//! `adit plugin run`: one request to a component, and what it decided and said.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use adit_engine::{
    CapturedLogs, Compiled, Engine, Facts, FailureKind, LARGEST_COMPONENT, Number, Plugin, TestHost,
};
use adit_rules::grants::Grants;
use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};

use super::bench::served;
use super::exchange::{self, Answered, Onward};
use super::{patiently, plan, read};
use crate::{Failure, table};

/// One request, from flags or a file.
#[derive(clap::Args)]
pub(crate) struct Try {
    /// The component: a file, shelf:NAME for one that comes with Adit, or oci://REGISTRY/NAME:TAG
    #[arg(value_name = "FILE")]
    component: PathBuf,
    /// Its configuration, as JSON
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = super::configuration)]
    config: String,
    #[arg(long, default_value = "GET")]
    method: String,
    #[arg(long, default_value = "https://app.example.com/")]
    url: String,
    /// A header, as "name: value"; may be given several times
    #[arg(long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// The body
    #[arg(long, default_value = "")]
    body: String,
    /// The request from a file, in place of the flags: an HTTP/1.1 head, an empty line, the body; - for
    /// standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["method", "url", "headers", "body"])]
    request: Option<PathBuf>,
    /// A line of [plugin.grants], such as 'secrets = { key = { file = "key" } }'; may be given several times
    #[arg(long = "grant", value_name = "TOML")]
    grants: Vec<String>,
}

/// Has a component handle one request, in front of a service that answers with a few words, and prints what it
/// decided, what it said, and how long that took. One that handles none does its work beside requests once.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(asked: Try) -> Result<(), Failure> {
    let wasm = read(&asked.component).await?;
    let request = match &asked.request {
        Some(file) => written(file),
        None => request(&asked),
    };
    let request = request.map_err(Failure::Configuration)?;
    let engine = Engine::that_compiles_here()?;
    let mut plan = plan(&asked.component, &asked.config);
    plan.grants = grants(&asked.grants).map_err(Failure::Configuration)?;
    let secrets = adit_host::generation::secrets(&plan).map_err(Failure::Configuration)?;
    let place = || asked.component.display().to_string();
    let begun = Instant::now();
    let compiled = patiently(Compiled::new(&engine, &plan.name, &wasm)).await;
    let compiled = compiled.with_context(place).map_err(Failure::Configuration)?;
    let test_host = TestHost::default();
    let plugin = compiled.plugin(&Arc::new(plan), &secrets, &test_host).await;
    let told = print_said(&test_host.heard);
    let plugin = Arc::new(plugin.with_context(place).map_err(Failure::Configuration)?);
    table::print(&format!("{told}loaded in {:?}", begun.elapsed()));
    let outcome = match exchange::role(&plugin) {
        Some(_) => decide(&plugin, request).await,
        None => work(&plugin).await,
    };
    let said = print_said(&test_host.heard);
    if !said.is_empty() {
        table::print(said.trim_end());
    }
    Ok(outcome?)
}

/// What it has said since this was last asked, line by line.
fn print_said(heard: &CapturedLogs) -> String {
    let heard = std::mem::take(&mut *heard.lock().unwrap_or_else(PoisonError::into_inner));
    heard.iter().map(|line| format!("it said {line}\n")).collect()
}

async fn decide(plugin: &Arc<Plugin>, request: Request<Bytes>) -> anyhow::Result<()> {
    let scheme = if request.uri().scheme_str() == Some("https") { "https" } else { "http" };
    let facts = Facts { id: "run", client_ip: "192.0.2.1", scheme, stopwatch: None, exchange: None };
    let behind = Response::new(Bytes::from_static(b"the service's answer\n"));
    let begun = Instant::now();
    let passed = exchange::pass(plugin, &facts, request, Some(&behind)).await?;
    let took = begun.elapsed();
    let show = |what: &str, answer: &Response<Bytes>| {
        table::print(&format!("{what}: {}, {} bytes", answer.status(), answer.body().len()));
        print_headers(answer.headers());
        print_body(answer.body());
    };
    match &passed.request {
        Onward::Failed(kind) => bail!("it failed: {kind}{}", way_out(kind)),
        Onward::Answered(answer) => show("request: answers itself", answer),
        Onward::HandedOn(head, body) => {
            let size = if body.is_empty() { String::new() } else { format!(", {} bytes", body.len()) };
            table::print(&format!("request: goes on: {} {}{size}", head.method, head.uri));
            print_headers(&head.headers);
        }
    }
    match &passed.response {
        None => {}
        Some(Answered::Failed(kind)) => bail!("it failed at the answer: {kind}{}", way_out(kind)),
        Some(Answered::Replaced(answer)) => show("response: replaced", answer),
        Some(Answered::Passed(answer)) => show("response: goes on", answer),
    }
    table::print(&format!("took {took:?}"));
    Ok(())
}

/// What somebody who has just written it may do.
fn way_out(kind: &FailureKind) -> &'static str {
    match kind {
        FailureKind::Timeout => {
            "\n  way out: less work in one call, or a longer `timeout` of this plugin in the host's document"
        }
        // An abort: the runtime of a language, or the plugin itself, gave up.
        FailureKind::Trap { reason } if reason.contains("unreachable") => {
            "\n  way out: look at what it said; one in JavaScript or Python says why if it is built by `adit plugin build \
             --debug`"
        }
        FailureKind::Fault { .. }
        | FailureKind::Trap { .. }
        | FailureKind::Busy
        | FailureKind::Resting
        | FailureKind::Away(_)
        | FailureKind::Invalid { .. } => "",
    }
}

/// One call of what a plugin does beside requests.
async fn work(plugin: &Plugin) -> anyhow::Result<()> {
    let mut driver = plugin.background_driver();
    for (what, does) in [("tick", plugin.ticks()), ("log of one request", plugin.logs())] {
        if !does {
            continue;
        }
        let begun = Instant::now();
        let done = match what {
            "tick" => driver.tick().await,
            _ => driver.log(std::iter::once(served())).await,
        };
        done.map_err(|failure| anyhow!(failure))?;
        table::print(&format!("{what}: returned after {:?}", begun.elapsed()));
    }
    for (name, number) in plugin.metrics() {
        let value = match number {
            Number::Counter(count) => count.to_string(),
            Number::Gauge(value) => value.to_string(),
        };
        table::print(&format!("  {name} = {value}"));
    }
    Ok(())
}

/// `[plugin.grants]` as a document has it.
fn grants(written: &[String]) -> anyhow::Result<Grants> {
    let text = format!("{BEFORE}{}\n[[ingress]]\nservice = \"hello_world\"\n", written.join("\n"));
    let plan = adit_rules::read("--grant", &text, &std::env::current_dir()?);
    let mut plan = plan.map_err(|mistakes| anyhow!("{}", in_their_flags(&mistakes.to_string(), written)))?;
    let plugin = plan.plugins.pop().context("--grant ends the table that it is in")?;
    Ok(plugin.grants.clone())
}

/// Mistakes with the flag that each is in, in place of a line of a text that nobody wrote.
fn in_their_flags(mistakes: &str, written: &[String]) -> String {
    let flags = written.iter().enumerate();
    flags.fold(mistakes.to_owned(), |told, (number, grant)| {
        let line = BEFORE.lines().count() + number + 1;
        told.replace(&format!("--grant:{line}:"), &format!("--grant '{grant}', character "))
    })
}

/// Of the text that flags are put into.
const BEFORE: &str = "[[plugin]]\nname = \"run\"\ncomponent = \"run\"\n[plugin.grants]\n";

fn print_body(body: &Bytes) {
    if let Ok(text) = std::str::from_utf8(body)
        && text.len() <= SHOWN
        && !text.contains(|c: char| c.is_control() && !c.is_whitespace())
    {
        for line in text.lines() {
            table::print(&format!("    {line}"));
        }
    }
}

/// Bytes of a body that is shown.
const SHOWN: usize = 1024;

fn print_headers(headers: &HeaderMap) {
    for (name, value) in headers {
        table::print(&format!("  {name}: {}", String::from_utf8_lossy(value.as_bytes())));
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
    if uri.scheme().is_none() {
        bail!(
            "{url:?} is not a whole URL\n  way out: with a scheme and a host, such as https://app.example.com/hello"
        );
    }
    let host = uri.authority().with_context(|| format!("{url:?} has no host"))?.to_string();
    let mut request = Request::builder().method(method).uri(uri);
    let mut is_named = false;
    for header in headers {
        let (name, value) = header
            .split_once(':')
            .with_context(|| format!("the header {header:?} is not \"name: value\""))?;
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
    fn a_mistake_in_a_flag_is_said_with_the_flag_and_the_way_out() {
        let written = ["secrets = {}", "buckets = { a = 5 }"].map(str::to_owned);
        let error = grants(&written).unwrap_err().to_string();
        assert!(error.starts_with("--grant 'buckets = { a = 5 }', character 17: "), "{error}");
        let error = made("GET", "app.example.com", [].into_iter(), Bytes::new()).unwrap_err().to_string();
        assert!(error.contains("a whole URL") && error.contains("https://app.example.com"), "{error}");
        let error = super::super::configuration("text = 5").unwrap_err();
        assert!(error.contains("JSON object"), "{error}");
        super::super::configuration("{\"text\": 5}").unwrap();
        let error = super::super::component(Path::new("shelf:no-such")).unwrap_err().to_string();
        assert!(error.contains("way out: one of basic-auth, "), "{error}");
        let error = super::super::component(Path::new(".")).unwrap_err().to_string();
        assert!(error.contains("build/plugin.wasm"), "{error}");
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
