//! `adit plugin test`: asks a plugin what its tests.toml says, through the host's own engine, and says where
//! it decided something else.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_engine::outbound::{OutboundError, Script};
use adit_engine::{
    BackgroundDriver, Compiled, Engine, Facts, Failure as Failed, LoadError, ManualClock, Number, Plugin,
    Secrets, Served, TestHost,
};
use adit_rules::grants::{Destination, DestinationHost, Grants, SecretSource};
use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};

use super::cases::{
    Asked, Breakage, Call, Case, Cases, Decision, Elsewhere, Expected, Headers, Logged, Step, Stored,
};
use super::exchange::{self, Answered, Exchange, Onward, Pieces};
use super::outcome::{Outcome, compare, differ, differ_maybe};
use super::project::{COMPONENT, Project};
use super::{patiently, plan, read};
use crate::{Failure, table};

#[derive(clap::Args)]
pub(crate) struct Test {
    /// The plugin's folder
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
    /// The component [default: build/plugin.wasm in the folder]
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    /// The tests [default: tests.toml in the folder]
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
pub(super) async fn run(asked: &Test) -> Result<(), Failure> {
    let cases = asked.cases.clone().unwrap_or_else(|| asked.folder.join("tests.toml"));
    let cases = Cases::read(&cases).map_err(Failure::Configuration)?;
    let file = component(asked).map_err(Failure::Configuration)?;
    let wasm = read(&file).await?;
    let engine = Engine::that_compiles_here()?;
    let name = plan(&file, "{}").name;
    let compiled = patiently(Compiled::new(&engine, &name, &wasm)).await;
    let compiled = compiled.with_context(|| file.display().to_string()).map_err(Failure::Configuration)?;
    let mut failed = 0;
    for (number, case) in cases.cases.iter().enumerate() {
        let room = Room { compiled: &compiled, cases: &cases, case, number, file: &file };
        let complaints = room.play().await.with_context(|| format!("case {:?}", case.name));
        let complaints = complaints.map_err(Failure::Configuration)?;
        if complaints.is_empty() {
            table::print(&format!("ok      {}", case.name));
        } else {
            failed += 1;
            table::print(&format!("FAILED  {}\n{}", case.name, complaints.trim_end()));
        }
    }
    table::print(&format!("{} passed, {failed} failed", cases.cases.len() - failed));
    if failed > 0 {
        return Err(anyhow!("{failed} of {} cases failed", cases.cases.len()).into());
    }
    Ok(())
}

fn component(asked: &Test) -> Result<PathBuf> {
    if let Some(component) = &asked.component {
        return Ok(component.clone());
    }
    let file = Project::open(&asked.folder)?.component();
    ensure!(
        file.is_file(),
        "there is no build/{COMPONENT} in {}\n  way out: `adit plugin build {0}`",
        asked.folder.display()
    );
    Ok(file)
}

/// One case with everything around it.
struct Room<'a> {
    compiled: &'a Compiled,
    cases: &'a Cases,
    case: &'a Case,
    number: usize,
    file: &'a std::path::Path,
}

impl Room<'_> {
    /// Plays all steps. Hands back what was not as expected, line by line.
    async fn play(&self) -> Result<String> {
        let case = self.case;
        let sent = Arc::new(Mutex::new(Vec::new()));
        let clock = ManualClock::at(beginning(case)?);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let script = Some(script(&case.http, &sent)?);
        let test_host = TestHost { clock: Some(clock.clone()), script, heard: heard.clone() };
        let config = serde_json::to_string(case.config.as_ref().unwrap_or(&self.cases.config))?;
        let mut plan = plan(self.file, &config);
        // Buckets belong to a plugin by its name, and each case has its own.
        plan.name = format!("case-{}", self.number + 1);
        plan.grants = self.grants()?;
        let secrets = self.cases.secrets.iter();
        let secrets = Secrets(secrets.map(|(name, value)| (name.clone(), value.clone().into())).collect());
        let plan = Arc::new(plan);
        let plugin = match self.compiled.plugin(&plan, &secrets, &test_host).await {
            Ok(plugin) => Arc::new(plugin),
            Err(LoadError::Refused { faults }) => {
                let said = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                let codes = faults.into_iter().map(|fault| fault.code).collect();
                let outcome = Outcome::refused(codes, said);
                return Ok(compare("configuration", &case.steps[0].call()?.1, &outcome));
            }
            Err(error) => return Err(error.into()),
        };
        for (bucket, values) in &case.key_value {
            for (key, value) in values {
                let Stored::Value(value) = value else { continue };
                ensure!(plugin.store(bucket, key, value.as_bytes()), "{bucket:?} is not among `buckets`");
            }
        }
        let mut complaints = String::new();
        let several = case.steps.len() > 1;
        let mut background_driver = plugin.background_driver();
        for (number, step) in case.steps.iter().enumerate() {
            clock.advance(step.after);
            lock(&sent).clear();
            lock(&heard).clear();
            let (call, expected) = step.call()?;
            let mut wrong = match call {
                Call::Request(asked) => ask(&plugin, step, &asked, &expected).await?,
                Call::Tick => {
                    ensure!(plugin.ticks(), "`tick`: the component exports no ticker");
                    returned("tick", &expected, background_driver.tick().await)
                }
                Call::Log(entries) => {
                    ensure!(plugin.logs(), "`log`: the component exports no access-log");
                    tell(&mut background_driver, &entries, &expected, clock.time()).await
                }
            };
            let said: Vec<String> = lock(&heard).iter().map(ToString::to_string).collect();
            if let Some(expected) = &step.expect_http {
                differ(&mut wrong, "sent elsewhere", &expected.join("\n"), &lock(&sent).join("\n"));
            }
            if let Some(expected) = &step.expect_log {
                differ(&mut wrong, "logged", &expected.join("\n"), &said.join("\n"));
            }
            look(&mut wrong, &plugin, step);
            // It may say why.
            if !wrong.is_empty() && step.expect_log.is_none() {
                for line in said {
                    let _ = writeln!(wrong, "  it said {line}");
                }
            }
            if !wrong.is_empty() && several {
                let _ = writeln!(complaints, "  {} {}:", step.word(), number + 1);
            }
            complaints.push_str(&wrong);
        }
        Ok(complaints)
    }

    /// What the tests speak of is granted; what is imported besides is granted and holds nothing.
    fn grants(&self) -> Result<Grants> {
        let mut grants = Grants::default();
        let nothing = std::iter::once("nothing.invalid:443".to_owned()).map(Ok);
        let named = self.case.http.iter().map(|answer| {
            let uri: Uri = answer.url.parse().with_context(|| format!("{:?} is not a URL", answer.url))?;
            let authority = uri.authority().with_context(|| format!("{:?} has no host", answer.url))?;
            let tls = uri.scheme_str() == Some("https");
            let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
            Ok::<_, anyhow::Error>(format!("{}:{port}", authority.host().to_ascii_lowercase()))
        });
        for named in nothing.chain(named) {
            let named = named?;
            let (host, port) = named.rsplit_once(':').context("a port was put there")?;
            for tls in [true, false] {
                let host = match host.parse() {
                    Ok(address) => DestinationHost::Address(address),
                    Err(_) => DestinationHost::Name(host.to_owned()),
                };
                grants.http.push(Destination { tls, host, port: port.parse()? });
            }
        }
        let secrets = self.cases.secrets.keys().map(String::as_str).chain(["nothing"]);
        let source = SecretSource::Environment(String::new());
        grants.secrets = secrets.map(|name| (name.to_owned(), source.clone())).collect();
        let buckets = self.cases.buckets.iter().map(String::as_str);
        grants.buckets = buckets.map(|name| (name.to_owned(), BUCKET)).collect();
        if grants.buckets.is_empty() {
            grants.buckets.insert("nothing".to_owned(), 0);
        }
        Ok(grants)
    }
}

/// Whether numbers and buckets hold what they shall.
fn look(wrong: &mut String, plugin: &Plugin, step: &Step) {
    let metrics = plugin.metrics();
    for (name, expected) in &step.expect_metrics {
        let found = metrics.iter().find(|(known, _)| known == name).map(|(_, number)| match number {
            Number::Counter(count) => count.to_string(),
            Number::Gauge(value) => value.to_string(),
        });
        differ_maybe(wrong, &format!("metric {name}"), Some(&expected.to_string()), found.as_deref());
    }
    for (bucket, values) in &step.expect_key_value {
        for (key, value) in values {
            let found = plugin.stored(bucket, key);
            let found = found.map(|value| String::from_utf8_lossy(&value).into_owned());
            let place = format!("key-value {bucket}/{key}");
            match value {
                Stored::Value(value) => differ_maybe(wrong, &place, Some(value), found.as_deref()),
                Stored::There(false) => differ_maybe(wrong, &place, None, found.as_deref()),
                Stored::There(true) if found.is_some() => {}
                Stored::There(true) => differ_maybe(wrong, &place, Some("anything"), None),
            }
        }
    }
}

/// Tells the access log what was served at this time.
async fn tell(
    background_driver: &mut BackgroundDriver<'_>,
    entries: &[Logged],
    expected: &Expected,
    now: std::time::SystemTime,
) -> String {
    let served = entries.iter().cloned().map(|entry| Served {
        id: entry.id,
        rule: entry.rule,
        method: entry.method,
        authority: entry.authority,
        path_with_query: entry.path,
        client_ip: entry.client_ip,
        status: entry.status,
        started: now,
        head_after: entry.head_after,
        done_after: entry.done_after,
        sent: entry.sent,
        complete: entry.complete,
    });
    returned("log", expected, background_driver.log(served).await)
}

/// What was not as expected of work beside requests.
fn returned(what: &str, expected: &Expected, outcome: Result<(), Failed>) -> String {
    let outcome = match outcome {
        Ok(()) => Outcome::of(Decision::Next, None),
        Err(failure) => Outcome::failed(failure.kind),
    };
    compare(what, expected, &outcome)
}

fn lock<T>(list: &Mutex<Vec<T>>) -> std::sync::MutexGuard<'_, Vec<T>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

fn beginning(case: &Case) -> Result<Duration> {
    let text = case.time.map_or_else(|| BEGINNING.to_owned(), |time| time.to_string());
    let time = humantime::parse_rfc3339_weak(&text).with_context(|| format!("`time` {text}"))?;
    Ok(time.duration_since(std::time::SystemTime::UNIX_EPOCH)?)
}

fn script(answers: &[Elsewhere], sent: &Arc<Mutex<Vec<String>>>) -> Result<Script> {
    let mut known = Vec::new();
    for answer in answers {
        let mut made = Response::builder().status(answer.status).body(Bytes::from(answer.body.clone()))?;
        *made.headers_mut() = headers(&answer.headers)?;
        known.push((format!("{} {}", answer.method, answer.url), answer.error, made));
    }
    let sent = sent.clone();
    Ok(Arc::new(move |request| {
        let line = format!("{} {}", request.method(), request.uri());
        lock(&sent).push(line.clone());
        match known.iter().find(|(known, ..)| *known == line) {
            None => Err(OutboundError::Failed(format!("the test has no answer to {line}"))),
            Some((_, Some(Breakage::Timeout), _)) => Err(OutboundError::Timeout),
            Some((_, Some(Breakage::TooLarge), _)) => Err(OutboundError::TooLarge),
            Some((_, Some(Breakage::Failed), _)) => Err(OutboundError::Failed("as the test says".to_owned())),
            Some((_, None, answer)) => Ok(answer.clone()),
        }
    }))
}

/// Asks the plugin, and lets it see the origin's answer if there is one. Hands back what was not as
/// expected.
async fn ask(plugin: &Arc<Plugin>, step: &Step, asked: &Asked, expected: &Expected) -> Result<String> {
    let uri = format!("{}://{}{}", asked.scheme, asked.authority, asked.path);
    let uri: Uri = uri.parse().with_context(|| format!("{uri:?} is not a URL"))?;
    let body = Bytes::from(asked.body.clone());
    let mut request = Request::builder().method(asked.method.as_str()).uri(uri).body(body)?;
    *request.headers_mut() = headers(&asked.headers)?;
    request.extensions_mut().insert(Pieces(asked.pieces));
    request.headers_mut().insert("host", HeaderValue::from_str(&asked.authority)?);
    let behind = match &step.response {
        None => None,
        Some(answered) => {
            let body = Bytes::from(answered.body.clone());
            let mut response = Response::builder().status(answered.status).body(body)?;
            *response.headers_mut() = headers(&answered.headers)?;
            response.extensions_mut().insert(Pieces(answered.pieces));
            Some(response)
        }
    };
    ensure!(
        behind.is_some() == step.expect_response.is_some(),
        "`response` and `expect-response` belong together"
    );
    ensure!(
        behind.is_some() || !plugin.looks_at_responses() || plugin.looks_at_requests() || plugin.mediates(),
        "a plugin that looks at responses only is asked nothing without `response` and `expect-response`"
    );
    let exchange = Arc::new(asked.exchange.exchange(&asked.scheme));
    let facts = Facts {
        id: ID,
        client_ip: &asked.client_ip,
        scheme: &asked.scheme,
        stopwatch: None,
        exchange: Some(&exchange),
    };
    let Exchange { request: onward, response } =
        exchange::pass(plugin, &facts, request.clone(), behind.as_ref()).await?;
    let reply = |answer: Response<Bytes>| {
        let (head, body) = answer.into_parts();
        Outcome::replied(head.status.as_u16(), head.headers, &body)
    };
    let outcome = match onward {
        Onward::Failed(kind) => Outcome::failed(kind),
        Onward::Answered(answer) => reply(answer),
        Onward::HandedOn(head, body) => Outcome::asked(&request, head, &body),
    };
    let mut complaints = compare("request", expected, &outcome);
    let (Some(behind), Some(expected)) = (&behind, &step.expect_response) else { return Ok(complaints) };
    let outcome = match response {
        None => {
            complaints.push_str("  response: the request did not get to the origin\n");
            return Ok(complaints);
        }
        Some(Answered::Failed(kind)) => Outcome::failed(kind),
        Some(Answered::Replaced(answer)) => reply(answer),
        Some(Answered::Passed(answer)) => Outcome::answered(behind, answer),
    };
    complaints.push_str(&compare("response", expected, &outcome));
    Ok(complaints)
}

fn headers(written: &Headers) -> Result<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, values) in &written.0 {
        let name: HeaderName = name.parse().with_context(|| format!("{name:?} is no header name"))?;
        for value in values.all() {
            let value = HeaderValue::from_bytes(value.as_bytes());
            map.append(&name, value.with_context(|| format!("the value of {name} is none"))?);
        }
    }
    Ok(map)
}

/// Where the clock of a case stands that does not say.
const BEGINNING: &str = "2026-01-01T00:00:00Z";
/// Bytes that a bucket may hold.
const BUCKET: usize = 1 << 20;
/// The id of every request of a test.
const ID: &str = "test";
