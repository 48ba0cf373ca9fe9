//! The configuration that an edge pushes (wire.md, 9.2 and 9.3): JSON of the reference's format, and how it meets
//! the local document. An edge reads it with the same code before it keeps it. Knows both forms; fetches and runs
//! nothing.

mod fence;
mod service;
mod strict;
#[cfg(test)]
mod tests;
mod value;

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::document::ConfigSource;
use crate::ingress::LONGEST_CHAIN;
use crate::origin;
use crate::pattern::Patterns;
use crate::plan::{
    BASTION, HeaderCase, HostPattern, Http2, MOST_CIRCUITS, OriginPlan, PathHeaders, Paths, Plan, PushedPlan,
    Reach, Rule, Service, unconfigured,
};
use service::Read;
use value::{Layers, Reasons};

/// What warnings about it begin with, among those about the document.
pub const PUSHED: &str = "the pushed configuration: ";

/// Puts the pushed rules in the place that `policy` gives them. `folder` is where relative paths begin.
///
/// `remote`: they take the place of the local ones. `layered`: the local ones come first, but for the
/// last, which matches everything. What is local keeps its plugins; a pushed rule may name local plugins
/// in `plugins`, which other connectors ignore. A rule whose service is of a kind that this host does not know, or
/// that asks for an Access token, answers 501, and a warning of the plan says so: the others are not worse off for it.
///
/// # Errors
/// Everything that is wrong, each with its place, such as `ingress[2].service`.
pub fn overlay(plan: &mut Plan, policy: ConfigSource, json: &[u8], folder: &Path) -> Result<(), Vec<String>> {
    let mut reader = RemoteReader {
        of: Of::Host(plan),
        folder,
        patterns: Patterns::default(),
        said: Reasons::default(),
        most_circuits: None,
    };
    let rules = reader.rules(json);
    let most_circuits = reader.most_circuits;
    let warnings = reader.said.into_result()?;
    match policy {
        ConfigSource::Local => return Err(vec!["this host is configured by its own document".to_owned()]),
        ConfigSource::Remote => {
            plan.is_unconfigured = rules.is_empty();
            plan.rules = if rules.is_empty() { vec![unconfigured()] } else { rules };
        }
        // What is local stands as it is where there is nothing to come behind it.
        ConfigSource::Layered if rules.is_empty() => {}
        ConfigSource::Layered => {
            plan.is_unconfigured = false;
            plan.rules.pop();
            plan.rules.extend(rules);
        }
    }
    if let Some(most) = most_circuits {
        plan.tcp.most_circuits = plan.tcp.most_circuits.min(most);
    }
    plan.warnings.extend(warnings.iter().map(|warning| format!("{PUSHED}{warning}")));
    Ok(())
}

/// Whether some host could serve this: by the rules that hosts read it with, but for what only some of them have,
/// such as plugins, and kinds of services that only the reference knows.
///
/// # Errors
/// Everything that every host would refuse, each with its place.
pub fn check(json: &[u8]) -> Result<(), Vec<String>> {
    let mut reader = RemoteReader {
        of: Of::Edge,
        folder: Path::new("/"),
        patterns: Patterns::default(),
        said: Reasons::default(),
        most_circuits: None,
    };
    reader.rules(json);
    reader.said.into_result().map(drop)
}

/// Who reads.
enum Of<'a> {
    /// One that serves by it, beside this plan.
    Host(&'a Plan),
    /// One that keeps it for hosts.
    Edge,
}

/// Unknown keys are ignored, as the reference does: the format belongs to somebody else. But those that may
/// protect something, and keys that stand twice, refuse it all.
struct RemoteReader<'a> {
    of: Of<'a>,
    folder: &'a Path,
    patterns: Patterns,
    said: Reasons,
    /// Circuits that there may be, where something is said of it.
    most_circuits: Option<usize>,
}

/// What is said for all rules.
struct All<'a> {
    origin: &'a Map<String, Value>,
    paths: Paths,
    path_headers: PathHeaders,
}

impl RemoteReader<'_> {
    fn rules(&mut self, json: &[u8]) -> Vec<Rule> {
        let pushed = match serde_json::from_slice(json) {
            Ok(Value::Object(pushed)) => pushed,
            Ok(_) => return self.said.wrong("the pushed configuration", "this is not a JSON object"),
            Err(error) => return self.said.wrong("the pushed configuration", &error.to_string()),
        };
        for (at, message) in strict::mistakes(json) {
            self.said.wrong::<()>(&at, &message);
        }
        let nothing = Map::new();
        let all = All {
            origin: self.said.object("", &pushed, "originRequest").unwrap_or(&nothing),
            paths: self.said.word("", &pushed, "paths", Paths::default()),
            path_headers: self.said.word("", &pushed, "pathHeaders", PathHeaders::default()),
        };
        let warp = self.said.object("", &pushed, "warp-routing").unwrap_or(&nothing);
        let mut layers = Layers { at: "warp-routing", one: warp, all: &nothing, said: &mut self.said };
        // 0 is no limit there, and whoever pushes cannot take away one of the host.
        self.most_circuits = layers.count("maxActiveFlows", MOST_CIRCUITS).filter(|most| *most > 0);
        let written = match pushed.get("ingress") {
            None | Some(Value::Null) => &Vec::new(),
            Some(Value::Array(written)) => written,
            Some(other) => return self.said.wrong("ingress", &value::expected("an array", other)),
        };
        if written.is_empty() {
            // So the reference takes it, and answers 503.
            self.said.doubt("ingress", "there are no rules, so there is nothing to serve");
            return Vec::new();
        }
        if written.len() > MOST_RULES {
            return self.said.wrong("ingress", &format!("more than {MOST_RULES} rules"));
        }
        let last = written.len() - 1;
        let rules = written.iter().enumerate().map(|(index, written)| {
            let at = format!("ingress[{index}]");
            let Value::Object(written_rule) = written else {
                return self.said.wrong(&at, &value::expected("an object", written));
            };
            self.rule(&at, written_rule, &all, index == last)
        });
        rules.collect::<Vec<Option<Rule>>>().into_iter().flatten().collect()
    }

    /// `None` if it is wrong, and there is a reason that says why.
    fn rule(&mut self, at: &str, written: &Map<String, Value>, all: &All<'_>, is_last: bool) -> Option<Rule> {
        let hostname = match self.said.text(at, written, "hostname")? {
            None => Some(HostPattern::Any),
            Some(text) => self.said.take(&format!("{at}.hostname"), HostPattern::parse(text)),
        };
        let path = match self.said.text(at, written, "path")? {
            None => Some(None),
            Some(text) => {
                let pattern = self.patterns.read(text);
                self.said.take(&format!("{at}.path"), pattern).map(Some)
            }
        };
        self.position(at, hostname.as_ref(), matches!(path, Some(None)), is_last);
        let nothing = Map::new();
        let one = self.said.object(at, written, "originRequest").unwrap_or(&nothing);
        let at_origin = format!("{at}.originRequest");
        let is_bastion =
            Layers { at: &at_origin, one, all: all.origin, said: &mut self.said }.is_set("bastionMode");
        let mut service = self.service(at, written, is_bastion);
        let chain = self.chain(at, written);
        let paths = self.said.word(at, written, "paths", all.paths);
        let path_headers = self.said.word(at, written, "pathHeaders", all.path_headers);
        let mut origin = self.origin(&at_origin, one, all.origin);
        let own = fence::ip_rules(&at_origin, one, &mut self.said);
        if let (Some(Service::Bastion | Service::Socks), Some(origin), Of::Host(plan)) =
            (&service, &mut origin, &self.of)
        {
            // Whoever pushes is led no further than the host's own document leads.
            let host = &plan.tcp.ip_rules;
            origin.reach = Reach::of(own.unwrap_or_else(|| host.clone())).within(host);
            if origin.reach.is_nowhere() {
                let doubt = "it leads nowhere: no rule of ip-rules in [tcp] of this host's document and of ipRules here \
                             allows anything";
                self.said.doubt(&format!("{at}.service"), doubt);
            }
        }
        if let (Some(OriginPlan { ca_file: Some(_), .. }), Of::Host(plan)) = (&origin, &self.of)
            && !plan.pushed.files
        {
            self.said.doubt(&format!("{at_origin}.caPool"), &fence::doubt("files"));
            service = service.map(|_| service::unknown());
            origin = origin.map(|origin| OriginPlan { ca_file: None, ..origin });
        }
        if self.needs_access(&at_origin, one, all.origin) {
            // Serving without the check that was asked for would open what is closed.
            service = service.map(|_| service::unknown());
        }
        let (hostname, path, service, plugins, origin) = (hostname?, path?, service?, chain?, origin?);
        let name = match &path {
            Some(path) => format!("{hostname} {}", path.as_str()),
            None => hostname.to_string(),
        };
        Some(Rule { name, hostname, path, paths, path_headers, service, plugins, origin })
    }

    /// The last rule matches everything, and no other does.
    fn position(&mut self, at: &str, hostname: Option<&HostPattern>, is_without_path: bool, is_last: bool) {
        let Some(hostname) = hostname else { return };
        match (is_last, *hostname == HostPattern::Any && is_without_path) {
            (true, false) => self.said.wrong(at, "the last rule does not match every request"),
            (false, true) => {
                self.said.wrong(at, "this rule matches every request, so those after it are never reached")
            }
            (true, true) | (false, false) => (),
        }
    }

    fn service(&mut self, at: &str, written: &Map<String, Value>, is_bastion: bool) -> Option<Service> {
        let text = self.said.text(at, written, "service")?;
        let at = format!("{at}.service");
        let text = match text {
            // There it is the bastion, whatever service of HTTP or of bytes is written beside it.
            None if is_bastion => BASTION,
            Some(text) if is_bastion && text.contains("://") => BASTION,
            Some(text) => text,
            None => return self.said.wrong(&at, "say where requests go"),
        };
        match self.said.take(&at, service::read(text, self.folder))? {
            Read::Known(service @ Service::Unix { .. }) => {
                Some(self.fenced(&at, "unix", |may| may.unix, service))
            }
            Read::Known(service) => Some(service),
            Read::Component(name) => {
                let Of::Host(plan) = self.of else { return Some(service::unknown()) };
                let Some(index) = plan.plugins.iter().position(|plugin| plugin.name == name) else {
                    return self.said.wrong(&at, &format!("this host has no plugin `{name}`"));
                };
                Some(self.fenced(&at, "wasm", |may| may.wasm, Service::Component(index)))
            }
            Read::Unknown if matches!(self.of, Of::Edge) => {
                self.said.wrong(&at, "no host knows services of this kind")
            }
            Read::Unknown => {
                let doubt = "this host does not know services of this kind, and answers 501 in its place";
                self.said.doubt(&at, doubt);
                Some(service::unknown())
            }
        }
    }

    /// The service, if the host's own document lets a pushed configuration use what it is of.
    fn fenced(&mut self, at: &str, word: &str, may: fn(&PushedPlan) -> bool, service: Service) -> Service {
        match &self.of {
            Of::Host(plan) if !may(&plan.pushed) => {
                self.said.doubt(at, &fence::doubt(word));
                service::unknown()
            }
            Of::Host(_) | Of::Edge => service,
        }
    }

    fn chain(&mut self, at: &str, written: &Map<String, Value>) -> Option<Vec<usize>> {
        let at = format!("{at}.plugins");
        let names = match written.get("plugins") {
            None | Some(Value::Null) => return Some(Vec::new()),
            Some(Value::Array(names)) => names,
            Some(other) => return self.said.wrong(&at, &value::expected("an array", other)),
        };
        if names.len() > LONGEST_CHAIN {
            return self.said.wrong(&at, &format!("a chain has at most {LONGEST_CHAIN} plugins"));
        }
        let (before, mut chain) = (self.said.count(), Vec::new());
        for (index, name) in names.iter().enumerate() {
            let Value::String(name) = name else {
                self.said.wrong::<()>(&at, &value::expected("names", name));
                continue;
            };
            if names[..index].contains(&Value::String(name.clone())) {
                self.said.wrong::<()>(&at, &format!("`{name}` is in this chain twice"));
            }
            let Of::Host(plan) = self.of else { continue };
            match plan.plugins.iter().position(|plugin| plugin.name == *name) {
                Some(index) => chain.push(index),
                None => self.said.wrong(&at, &format!("this host has no plugin `{name}`")),
            }
        }
        (self.said.count() == before).then_some(chain)
    }

    /// Whether an Access token is asked for that this host does not check.
    fn needs_access(&mut self, at: &str, one: &Map<String, Value>, all: &Map<String, Value>) -> bool {
        let needed = Layers { at, one, all, said: &mut self.said }.requires_access();
        if needed && matches!(self.of, Of::Host(_)) {
            let doubt = "this host does not check Access tokens by itself, and answers 501 in place of the service; the \
                         plugin jwt of its own document checks them, in a rule that names it in `plugins` and asks \
                         for no `access`";
            self.said.doubt(&format!("{at}.access"), doubt);
            return true;
        }
        false
    }

    /// What the rule says, else what is said for all rules, else the default.
    fn origin(&mut self, at: &str, one: &Map<String, Value>, all: &Map<String, Value>) -> Option<OriginPlan> {
        let before = self.said.count();
        let mut layers = Layers { at, one, all, said: &mut self.said };
        let defaults = OriginPlan::default();
        let plan = OriginPlan {
            connect_timeout: layers.time("connectTimeout").unwrap_or(defaults.connect_timeout),
            tls_timeout: layers.time("tlsTimeout").unwrap_or(defaults.tls_timeout),
            response_timeout: None,
            keep_alive_timeout: layers.time("keepAliveTimeout").unwrap_or(defaults.keep_alive_timeout),
            keep_alive_connections: layers
                .count("keepAliveConnections", origin::MOST_KEEP_ALIVE_CONNECTIONS)
                .unwrap_or(defaults.keep_alive_connections),
            tls_verify: !layers.is_set("noTLSVerify"),
            ca_file: layers.text("caPool").map(|path| self.folder.join(path)),
            server_name: layers.checked("originServerName", origin::server_name),
            host_header: layers.checked("httpHostHeader", origin::host_header),
            server_name_from_host: layers.is_set("matchSNItoHost"),
            // As the reference has it: where it is offered, else HTTP/1.1.
            http2: if layers.is_set("http2Origin") { Http2::IfOffered } else { Http2::Never },
            chunked: !layers.is_set("disableChunkedEncoding"),
            tcp_keep_alive: layers.seconds("tcpKeepAlive").map_or(defaults.tcp_keep_alive, |time| {
                Some(if time.is_zero() { GO_KEEP_ALIVE } else { time })
            }),
            happy_eyeballs: !layers.is_set("noHappyEyeballs"),
            // As the reference writes them.
            header_case: HeaderCase::Title,
            idle_timeout: None,
            reach: Reach::default(),
        };
        (self.said.count() == before).then_some(plan)
    }
}

const MOST_RULES: usize = 10_000;
/// How often Go asks where it is told nothing.
const GO_KEEP_ALIVE: Duration = Duration::from_secs(15);
