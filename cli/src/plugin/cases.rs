//! tests.toml: what a plugin is asked, and what it shall decide. Knows how that is written; asks nobody.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use adit_host::config::source;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// A file of tests.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Cases {
    /// What the plugin is configured with where a case says nothing else.
    #[serde(default)]
    pub(super) config: toml::Table,
    /// What it is granted, by name.
    #[serde(default)]
    pub(super) secrets: BTreeMap<String, String>,
    /// Names of buckets, each with room for 1 MiB.
    #[serde(default)]
    pub(super) buckets: Vec<String>,
    #[serde(rename = "case", default)]
    pub(super) cases: Vec<Case>,
}

/// A plugin of its own, and what it is asked, one after the other.
#[derive(Debug, Deserialize)]
#[serde(from = "Written")]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) config: Option<toml::Table>,
    /// Where its clock stands at the beginning.
    pub(super) time: Option<toml::value::Datetime>,
    /// What lies in its buckets at the beginning.
    pub(super) key_value: Buckets,
    /// What is answered elsewhere: the first that fits a request.
    pub(super) http: Vec<Elsewhere>,
    /// At least one.
    pub(super) steps: Vec<Step>,
}

/// A case as it is written: its first step lies between its own keys. Not by `flatten`, which forgets where
/// in the file a mistake is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    name: String,
    config: Option<toml::Table>,
    time: Option<toml::value::Datetime>,
    #[serde(default)]
    key_value: Buckets,
    #[serde(default)]
    http: Vec<Elsewhere>,
    request: Option<Asked>,
    #[serde(default)]
    tick: bool,
    log: Option<Vec<Logged>>,
    expect: Option<Expected>,
    response: Option<Answered>,
    expect_response: Option<Expected>,
    expect_http: Option<Vec<String>>,
    expect_log: Option<Vec<String>>,
    #[serde(default)]
    expect_metrics: BTreeMap<String, f64>,
    #[serde(default)]
    expect_key_value: Buckets,
    #[serde(default)]
    then: Vec<Step>,
}

impl From<Written> for Case {
    fn from(written: Written) -> Self {
        let Written { name, config, time, key_value, http, then, .. } = written;
        let first = Step {
            after: Duration::ZERO,
            request: written.request,
            tick: written.tick,
            log: written.log,
            expect: written.expect,
            response: written.response,
            expect_response: written.expect_response,
            expect_http: written.expect_http,
            expect_log: written.expect_log,
            expect_metrics: written.expect_metrics,
            expect_key_value: written.expect_key_value,
        };
        let steps = std::iter::once(first).chain(then).collect();
        Self { name, config, time, key_value, http, steps }
    }
}

/// Values by bucket and key.
pub(super) type Buckets = BTreeMap<String, BTreeMap<String, Stored>>;

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Stored {
    Value(String),
    /// False: there is nothing.
    There(bool),
}

/// One request, and perhaps the answer to it; or one call of what a plugin does beside requests.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Step {
    /// How far the clock is moved first.
    #[serde(default, deserialize_with = "duration")]
    pub(super) after: Duration,
    request: Option<Asked>,
    #[serde(default)]
    tick: bool,
    log: Option<Vec<Logged>>,
    expect: Option<Expected>,
    /// What the origin answers, if the request gets there.
    pub(super) response: Option<Answered>,
    pub(super) expect_response: Option<Expected>,
    /// What was sent elsewhere, in order: `GET https://api.example.com/`.
    pub(super) expect_http: Option<Vec<String>>,
    /// What it wrote into the log, in order: `warn: no keys`.
    pub(super) expect_log: Option<Vec<String>>,
    /// What its own numbers are afterwards.
    #[serde(default)]
    pub(super) expect_metrics: BTreeMap<String, f64>,
    #[serde(default)]
    pub(super) expect_key_value: Buckets,
}

/// What a plugin is called for.
pub(super) enum Call {
    Request(Box<Asked>),
    Tick,
    Log(Vec<Logged>),
}

impl Step {
    /// What it is, in a word.
    pub(super) fn word(&self) -> &'static str {
        match (&self.log, self.tick) {
            (Some(_), _) => "log",
            (None, true) => "tick",
            (None, false) => "request",
        }
    }

    /// What is called, and what shall come of it. Work beside requests shall return where nothing is said.
    pub(super) fn call(&self) -> Result<(Call, Expected)> {
        let beside = usize::from(self.tick) + usize::from(self.log.is_some());
        ensure!(
            beside + usize::from(self.request.is_some()) <= 1,
            "a step has one of `request`, `tick` and `log`"
        );
        ensure!(beside == 0 || self.response.is_none(), "only a request has a `response`");
        let call = match &self.log {
            Some(entries) => Call::Log(entries.clone()),
            None if self.tick => Call::Tick,
            None => Call::Request(Box::new(self.request.clone().unwrap_or_default())),
        };
        match &self.expect {
            Some(expected) => Ok((call, expected.clone())),
            None if beside > 0 => Ok((call, Expected::default())),
            None => bail!("`expect` is missing: it says what shall become of the request"),
        }
    }
}

/// One exchange that the access log is told of.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Logged {
    pub(super) id: String,
    pub(super) rule: String,
    pub(super) method: String,
    pub(super) authority: String,
    pub(super) path: String,
    pub(super) client_ip: String,
    pub(super) status: u16,
    #[serde(deserialize_with = "duration")]
    pub(super) head_after: Duration,
    #[serde(deserialize_with = "duration")]
    pub(super) done_after: Duration,
    /// Bytes of the answer.
    pub(super) sent: u64,
    pub(super) complete: bool,
}

impl Default for Logged {
    fn default() -> Self {
        let Asked { method, authority, path, client_ip, .. } = Asked::default();
        Self {
            id: "test".to_owned(),
            rule: "ingress[0]".to_owned(),
            method,
            authority,
            path,
            client_ip,
            status: 200,
            head_after: Duration::from_millis(1),
            done_after: Duration::from_millis(2),
            sent: 0,
            complete: true,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) scheme: String,
    pub(super) authority: String,
    pub(super) path: String,
    pub(super) client_ip: String,
    pub(super) headers: Headers,
    /// Of a request to a service.
    pub(super) body: String,
    /// Bytes of the pieces that the body comes in; all at once where it does not say.
    pub(super) pieces: Option<NonZeroUsize>,
    pub(super) exchange: Known,
}

/// What a plugin may ask of the exchange.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Known {
    rule: String,
    service: String,
    country: Option<String>,
    client_port: Option<u16>,
    http_version: Option<String>,
    tls_version: Option<String>,
    attempt: Option<u32>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            rule: "app.example.com".to_owned(),
            service: "http://127.0.0.1:8080".to_owned(),
            country: None,
            client_port: None,
            http_version: None,
            tls_version: None,
            attempt: None,
        }
    }
}

impl Known {
    pub(super) fn exchange(&self, scheme: &str) -> adit_engine::Exchange {
        let visitor = adit_engine::VisitorFacts {
            attempt: self.attempt,
            port: self.client_port,
            http_version: self.http_version.clone().map(Into::into),
            tls_version: self.tls_version.clone().map(Into::into),
            country: self.country.clone(),
        };
        let (rule, service) = (self.rule.as_str().into(), self.service.as_str().into());
        let names = adit_engine::RuleNames { rule, service };
        adit_engine::Exchange::new(names, scheme.to_owned().into(), visitor)
    }
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            scheme: "https".to_owned(),
            authority: "app.example.com".to_owned(),
            path: "/".to_owned(),
            client_ip: "192.0.2.1".to_owned(),
            headers: Headers::default(),
            body: String::new(),
            pieces: None,
            exchange: Known::default(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) headers: Headers,
    pub(super) body: String,
    pub(super) pieces: Option<NonZeroUsize>,
}

impl Default for Answered {
    fn default() -> Self {
        Self { status: 200, headers: Headers::default(), body: String::new(), pieces: None }
    }
}

/// One answer from elsewhere.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Elsewhere {
    #[serde(default = "get")]
    pub(super) method: String,
    pub(super) url: String,
    #[serde(default = "ok")]
    pub(super) status: u16,
    #[serde(default)]
    pub(super) headers: Headers,
    #[serde(default)]
    pub(super) body: String,
    /// In place of an answer.
    pub(super) error: Option<Breakage>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Breakage {
    Timeout,
    Failed,
    TooLarge,
}

/// What the plugin shall decide. What is not named is not looked at.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Expected {
    pub(super) decision: Decision,
    pub(super) method: Option<String>,
    pub(super) authority: Option<String>,
    pub(super) path: Option<String>,
    pub(super) status: Option<u16>,
    /// Each with all its values.
    #[serde(default)]
    pub(super) headers: Headers,
    /// Headers that are not there.
    #[serde(default)]
    pub(super) absent: Vec<String>,
    pub(super) body: Option<String>,
    /// The code of a fault.
    pub(super) code: Option<String>,
    /// The codes of a refused configuration, in any order.
    pub(super) faults: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Decision {
    /// It goes on unchanged; of work beside requests: it returned.
    #[default]
    Next,
    /// It goes on with changes.
    Edit,
    /// The plugin answers.
    Respond,
    /// The plugin answers with an error of its own.
    Fault,
    /// The plugin traps, takes too long, or answers with what it may not.
    Break,
    /// It does not take its configuration.
    Refuse,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Headers(pub(super) BTreeMap<String, Values>);

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Values {
    One(String),
    Several(Vec<String>),
}

impl Values {
    pub(super) fn all(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Several(values) => values,
        }
    }
}

impl Cases {
    pub(super) fn read(file: &Path) -> Result<Self> {
        let text = source::read(file)?.text;
        let cases: Self = toml::from_str(&text).with_context(|| file.display().to_string())?;
        ensure!(!cases.cases.is_empty(), "{} holds no [[case]]", file.display());
        for case in &cases.cases {
            for step in &case.steps {
                step.call().with_context(|| format!("case {:?} in {}", case.name, file.display()))?;
            }
        }
        Ok(cases)
    }
}

fn get() -> String {
    "GET".to_owned()
}

fn ok() -> u16 {
    200
}

fn duration<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_of_the_example_can_be_read() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/plugins/greeting/tests.toml");
        assert!(Cases::read(&file).unwrap().cases.len() > 3);
    }

    #[test]
    fn a_step_is_one_call_and_a_request_says_what_becomes_of_it() {
        let read = |text: &str| {
            let cases: Cases = toml::from_str(&format!("[[case]]\nname = \"a\"\n{text}")).unwrap();
            cases.cases[0].steps[0].call().map(|(call, _)| call).map_err(|error| error.to_string())
        };
        assert!(matches!(read("expect = { decision = \"next\" }"), Ok(Call::Request(_))));
        assert!(matches!(read("tick = true"), Ok(Call::Tick)));
        assert!(matches!(read("log = [{ status = 500 }, {}]"), Ok(Call::Log(entries)) if entries.len() == 2));
        for bad in [
            "request = {}",
            "",
            "tick = true\nlog = []",
            "tick = true\nrequest = {}",
            "tick = true\nresponse = {}",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_word_that_means_nothing_is_refused_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tests.toml");
        let text = "[[case]]\nname = \"a\"\nexpect = { decision = \"respond\", statsu = 200 }\n";
        std::fs::write(&file, text).unwrap();
        let error = format!("{:#}", Cases::read(&file).unwrap_err());
        assert!(error.contains("statsu") && error.contains("line 3"), "{error}");
    }
}
