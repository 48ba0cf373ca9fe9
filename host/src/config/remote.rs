//! The configuration that an edge pushes (wire.md, 9.2 and 9.3): JSON of the reference's format, and how
//! it meets the local document. Knows both forms; fetches and runs nothing.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::document::ConfigSource;
use super::origin;
use super::pattern::Patterns;
use super::plan::{HeaderCase, HostPattern, Http2, OriginPlan, PathHeaders, Paths, Plan, Rule, Service};
use super::value::Wrong;

/// Puts the pushed rules in the place that `policy` gives them. `folder` is where relative paths begin.
///
/// `remote`: they take the place of the local ones. `layered`: the local ones come first, but for the
/// last, which matches everything. What is local keeps its plugins; a pushed rule may name local plugins
/// in `plugins`, which other connectors ignore.
///
/// # Errors
/// Everything that is wrong, each with its place, such as `ingress[2].service`.
pub fn overlay(plan: &mut Plan, policy: ConfigSource, json: &[u8], folder: &Path) -> Result<(), Vec<String>> {
    let pushed: Pushed = match serde_json::from_slice(json) {
        Ok(pushed) => pushed,
        Err(error) => return Err(vec![format!("the pushed configuration: {error}")]),
    };
    let mut drawing = Drawing { folder, patterns: Patterns::default(), reasons: Vec::new() };
    let rules = drawing.rules(&pushed, plan);
    if !drawing.reasons.is_empty() {
        return Err(drawing.reasons);
    }
    match policy {
        ConfigSource::Local => return Err(vec!["this host is configured by its own document".to_owned()]),
        ConfigSource::Remote => plan.rules = rules,
        ConfigSource::Layered => {
            plan.rules.pop();
            plan.rules.extend(rules);
        }
    }
    Ok(())
}

/// Unknown keys are ignored, as the reference does: the format belongs to somebody else.
#[derive(Debug, Deserialize)]
struct Pushed {
    #[serde(default)]
    ingress: Vec<PushedRule>,
    #[serde(default, rename = "originRequest")]
    origin: PushedOrigin,
}

#[derive(Debug, Deserialize)]
struct PushedRule {
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    service: String,
    #[serde(default)]
    plugins: Vec<String>,
    #[serde(default)]
    paths: Paths,
    #[serde(default, rename = "pathHeaders")]
    path_headers: PathHeaders,
    #[serde(default, rename = "originRequest")]
    origin: PushedOrigin,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PushedOrigin {
    connect_timeout: Option<u64>,
    tls_timeout: Option<u64>,
    keep_alive_timeout: Option<u64>,
    keep_alive_connections: Option<u64>,
    #[serde(rename = "noTLSVerify")]
    no_tls_verify: Option<bool>,
    http_host_header: Option<String>,
    origin_server_name: Option<String>,
    ca_pool: Option<String>,
    http2_origin: Option<bool>,
    #[serde(rename = "matchSNItoHost")]
    match_sni_to_host: Option<bool>,
    disable_chunked_encoding: Option<bool>,
    tcp_keep_alive: Option<u64>,
    no_happy_eyeballs: Option<bool>,
    access: Option<Access>,
}

#[derive(Debug, Deserialize)]
struct Access {
    #[serde(default)]
    required: bool,
}

struct Drawing<'a> {
    folder: &'a Path,
    patterns: Patterns,
    reasons: Vec<String>,
}

impl Drawing<'_> {
    fn rules(&mut self, pushed: &Pushed, plan: &Plan) -> Vec<Rule> {
        if pushed.ingress.is_empty() {
            self.reasons.push("ingress: there are no rules; end with one that matches everything".to_owned());
        }
        if pushed.ingress.len() > MOST_RULES {
            self.reasons.push(format!("ingress: more than {MOST_RULES} rules"));
            return Vec::new();
        }
        let last = pushed.ingress.len().saturating_sub(1);
        let mut rules = Vec::with_capacity(pushed.ingress.len());
        for (index, written) in pushed.ingress.iter().enumerate() {
            let at = format!("ingress[{index}]");
            if let Some(rule) = self.rule(&at, written, &pushed.origin, plan) {
                let matches_all = rule.hostname == HostPattern::Any && rule.path.is_none();
                match (index == last, matches_all) {
                    (true, false) => {
                        self.reasons.push(format!("{at}: the last rule does not match every request"))
                    }
                    (false, true) => self.reasons.push(format!(
                        "{at}: this rule matches every request, so those after it are never reached"
                    )),
                    (true, true) | (false, false) => {}
                }
                rules.push(rule);
            }
        }
        rules
    }

    /// `None` if it is wrong, and there is a reason that says why.
    fn rule(&mut self, at: &str, written: &PushedRule, all: &PushedOrigin, plan: &Plan) -> Option<Rule> {
        let PushedRule { hostname, path, service, plugins, paths, path_headers, origin } = written;
        let hostname = match hostname.as_str() {
            "" => Some(HostPattern::Any),
            text => self.take(&format!("{at}.hostname"), HostPattern::parse(text)),
        };
        let regex = match path.as_str() {
            "" => Some(None),
            text => {
                let pattern = self.patterns.read(text);
                self.take(&format!("{at}.path"), pattern).map(Some)
            }
        };
        let service = self.take(&format!("{at}.service"), parse_service(service, self.folder));
        let mut chain = Vec::new();
        for name in plugins {
            match plan.plugins.iter().position(|plugin| plugin.name == *name) {
                Some(index) => chain.push(index),
                None => self.reasons.push(format!("{at}.plugins: this host has no plugin `{name}`")),
            }
        }
        let origin = self.origin(&format!("{at}.originRequest"), origin, all);
        let (hostname, path, service, origin) = (hostname?, regex?, service?, origin?);
        let name = match &path {
            Some(path) => format!("{hostname} {}", path.as_str()),
            None => hostname.to_string(),
        };
        let (paths, path_headers) = (*paths, *path_headers);
        Some(Rule { name, hostname, path, paths, path_headers, service, plugins: chain, origin })
    }

    /// What the rule says, else what is said for all rules, else the default.
    fn origin(&mut self, at: &str, one: &PushedOrigin, all: &PushedOrigin) -> Option<OriginPlan> {
        let before = self.reasons.len();
        // Serving without the check that was asked for would open what is closed.
        if one.access.as_ref().or(all.access.as_ref()).is_some_and(|access| access.required) {
            self.reasons.push(format!(
                "{at}.access: Access tokens are checked by the plugin jwt of the host's own document, which a \
                 rule names in `plugins`; what they protect is not served without"
            ));
        }
        let defaults = OriginPlan::default();
        let text = |one: &Option<String>, all: &Option<String>| {
            one.clone().or_else(|| all.clone()).filter(|text| !text.is_empty())
        };
        // To the reference no time is no limit.
        let seconds = |one: Option<u64>, all: Option<u64>, default: Duration| match one.or(all) {
            Some(0) => Duration::from_secs(HOUR),
            Some(seconds) => Duration::from_secs(seconds.min(HOUR)),
            None => default,
        };
        let is_set = |one: Option<bool>, all: Option<bool>| one.or(all).unwrap_or_default();
        let server_name = text(&one.origin_server_name, &all.origin_server_name)
            .and_then(|name| self.take(&format!("{at}.originServerName"), origin::server_name(&name)));
        let host_header = text(&one.http_host_header, &all.http_host_header)
            .and_then(|host| self.take(&format!("{at}.httpHostHeader"), origin::host_header(&host)));
        let connections = one.keep_alive_connections.or(all.keep_alive_connections);
        let plan = OriginPlan {
            connect_timeout: seconds(one.connect_timeout, all.connect_timeout, defaults.connect_timeout),
            tls_timeout: seconds(one.tls_timeout, all.tls_timeout, defaults.tls_timeout),
            response_timeout: None,
            keep_alive_timeout: seconds(
                one.keep_alive_timeout,
                all.keep_alive_timeout,
                defaults.keep_alive_timeout,
            ),
            keep_alive_connections: connections.map_or(defaults.keep_alive_connections, |count| {
                usize::try_from(count).unwrap_or(usize::MAX).min(origin::MOST_KEEP_ALIVE_CONNECTIONS)
            }),
            tls_verify: !is_set(one.no_tls_verify, all.no_tls_verify),
            ca_file: text(&one.ca_pool, &all.ca_pool).map(|path| self.folder.join(path)),
            server_name,
            host_header,
            server_name_from_host: is_set(one.match_sni_to_host, all.match_sni_to_host),
            // As the reference has it: where it is offered, else HTTP/1.1.
            http2: if is_set(one.http2_origin, all.http2_origin) { Http2::IfOffered } else { Http2::Never },
            chunked: !is_set(one.disable_chunked_encoding, all.disable_chunked_encoding),
            tcp_keep_alive: match one.tcp_keep_alive.or(all.tcp_keep_alive) {
                Some(0) => Some(GO_KEEP_ALIVE),
                Some(seconds) => Some(Duration::from_secs(seconds.min(HOUR))),
                None => defaults.tcp_keep_alive,
            },
            happy_eyeballs: !is_set(one.no_happy_eyeballs, all.no_happy_eyeballs),
            // As the reference writes them.
            header_case: HeaderCase::Title,
        };
        (self.reasons.len() == before).then_some(plan)
    }

    fn take<T>(&mut self, at: &str, outcome: Result<T, Wrong>) -> Option<T> {
        outcome
            .map_err(|wrong| {
                let help = wrong.help.map(|help| format!("; {help}")).unwrap_or_default();
                self.reasons.push(format!("{at}: {}{help}", wrong.message));
            })
            .ok()
    }
}

/// The reference's forms, of which WebSocket addresses mean what their HTTP ones do.
fn parse_service(text: &str, folder: &Path) -> Result<Service, Wrong> {
    match text.split_once("://") {
        Some(("ws", rest)) => Service::parse(&format!("http://{rest}"), folder),
        Some(("wss", rest)) => Service::parse(&format!("https://{rest}"), folder),
        _ => Service::parse(text, folder),
    }
}

const MOST_RULES: usize = 10_000;
const HOUR: u64 = 3600;
/// How often Go asks where it is told nothing.
const GO_KEEP_ALIVE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::plan;

    const LOCAL: &str = "[[plugin]]\nname = \"auth\"\ncomponent = \"a.wasm\"\n\
        [[ingress]]\nname = \"mine\"\nhostname = \"mine.example.com\"\nservice = \"hello_world\"\nplugins = [\"auth\"]\n\
        [[ingress]]\nname = \"last\"\nservice = \"http_status:404\"\n";

    fn laid(policy: ConfigSource, json: &str) -> Result<Plan, Vec<String>> {
        let mut plan = plan(LOCAL);
        overlay(&mut plan, policy, json.as_bytes(), Path::new("/etc/adit")).map(|()| plan)
    }

    const PUSHED: &str = r#"{"ingress":[
        {"hostname":"*.Example.com","path":"^/x","service":"https://127.0.0.1:1",
         "originRequest":{"noTLSVerify":true,"connectTimeout":3,"httpHostHeader":"a.internal","http2Origin":true,
            "matchSNItoHost":true,"disableChunkedEncoding":true,"noHappyEyeballs":true,"tcpKeepAlive":7},"plugins":["auth"]},
        {"hostname":"","service":"ws://127.0.0.1:2","unknown":1}],
        "originRequest":{"connectTimeout":5,"keepAliveConnections":7,"tlsTimeout":0,"tcpKeepAlive":0},"warp-routing":{"enabled":true}}"#;

    #[test]
    fn pushed_rules_take_the_place_of_local_ones() {
        let plan = laid(ConfigSource::Remote, PUSHED).unwrap();
        assert_eq!(plan.rules.len(), 2);
        let first = &plan.rules[0];
        assert_eq!(first.hostname, HostPattern::Wildcard(".example.com".into()));
        assert_eq!((first.origin.tls_verify, first.origin.connect_timeout.as_secs()), (false, 3));
        assert_eq!(first.origin.keep_alive_connections, 7);
        assert_eq!(first.origin.host_header.as_deref(), Some("a.internal"));
        assert_eq!((first.origin.http2, first.origin.server_name_from_host), (Http2::IfOffered, true));
        assert_eq!((first.origin.chunked, first.origin.happy_eyeballs), (false, false));
        assert_eq!(first.origin.tcp_keep_alive, Some(Duration::from_secs(7)));
        assert_eq!(first.plugins, [0]);
        let second = &plan.rules[1].origin;
        assert_eq!((second.http2, second.chunked, second.happy_eyeballs), (Http2::Never, true, true));
        assert_eq!((second.tls_timeout.as_secs(), second.tcp_keep_alive), (3600, Some(GO_KEEP_ALIVE)));
        assert_eq!(plan.rules[1].origin.connect_timeout.as_secs(), 5);
        assert_eq!(plan.rules[1].service, Service::parse("http://127.0.0.1:2", Path::new("")).unwrap());
    }

    #[test]
    fn what_a_pushed_rule_says_of_paths_is_what_a_local_one_says() {
        let rules = |more: &str| {
            let json = format!(
                r#"{{"ingress":[{{"hostname":"a.test","path":"^/private","service":"hello_world"{more}}},
                    {{"hostname":"a.test","service":"http://127.0.0.1:1"}},{{"service":"hello_world"}}]}}"#
            );
            laid(ConfigSource::Remote, &json).map(|plan| plan.rules)
        };
        let checked = rules("").unwrap();
        assert_eq!((checked[0].paths, checked[0].path_headers), (Paths::Checked, PathHeaders::Cut));
        let as_sent = rules(r#","paths":"as-sent","pathHeaders":"as-sent""#).unwrap();
        assert_eq!((as_sent[0].paths, as_sent[0].path_headers), (Paths::AsSent, PathHeaders::AsSent));
        let local = plan(
            "[[ingress]]\nhostname = \"a.test\"\npath = \"^/private\"\nservice = \"hello_world\"\npaths = \"as-sent\"\n\
             path-headers = \"as-sent\"\n[[ingress]]\nservice = \"hello_world\"\n",
        );
        assert_eq!((local.rules[0].paths, local.rules[0].path_headers), (Paths::AsSent, PathHeaders::AsSent));
        assert!(rules(r#","paths":"raw""#).is_err());
    }

    #[test]
    fn layered_rules_come_behind_the_local_ones_but_for_the_last() {
        let plan = laid(ConfigSource::Layered, PUSHED).unwrap();
        let names: Vec<&str> = plan.rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names, ["mine", "*.example.com ^/x", "*"]);
        assert_eq!(plan.rules[0].plugins, [0]);
    }

    #[test]
    fn everything_wrong_is_said_with_its_place() {
        let reasons = laid(
            ConfigSource::Remote,
            r#"{"ingress":[
                {"service":"hello_world"},
                {"hostname":"a b","path":"(","service":"tcp://x:1","plugins":["nobody"]},
                {"hostname":"c","service":"http://x","originRequest":{"access":{"required":true}}}]}"#,
        )
        .unwrap_err();
        for place in [
            "ingress[0]: this rule matches every",
            "ingress[1].hostname",
            "ingress[1].path",
            "ingress[1].service",
            "ingress[1].plugins",
            "ingress[2].originRequest.access",
        ] {
            assert!(reasons.iter().any(|reason| reason.starts_with(place)), "{place} is not in {reasons:?}");
        }
        for json in ["", "{", "[]", r#"{"ingress":1}"#, "{}"] {
            assert_eq!(laid(ConfigSource::Remote, json).unwrap_err().len(), 1, "{json}");
        }
        assert!(laid(ConfigSource::Local, PUSHED).is_err());
    }

    #[test]
    fn access_that_is_asked_for_all_rules_is_no_less_refused() {
        let json = r#"{"ingress":[{"service":"hello_world"}],"originRequest":{"access":{"required":true}}}"#;
        assert!(laid(ConfigSource::Remote, json).unwrap_err()[0].contains("Access"));
    }
}
