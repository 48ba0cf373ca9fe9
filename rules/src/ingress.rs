//! The rules of a document: `[[ingress]]`. Knows what may stand in a rule and in which order rules
//! make sense; matches no request.

use std::collections::HashMap;

use adit_config_reader::{Spanned, closest};
use regex::Regex;

use crate::document;
use crate::origin;
use crate::pattern::Patterns;
use crate::plan::{HostPattern, IpRule, PluginPlan, Reach, Rule, Service};
use crate::reach;
use crate::value::{Invalid, Reader};

/// The rules in order. One that is wrong is left out, and there is a mistake that says why. What a rule does not say
/// of paths is said by `defaults`.
pub(super) fn lower(
    written: &[Spanned<document::Rule>],
    defaults: &document::Rule,
    known: &[PluginPlan],
    ip_rules: &[IpRule],
    reading: &mut Reader<'_>,
    warnings: &mut Vec<String>,
) -> Vec<Rule> {
    if written.is_empty() {
        let help = "say where requests go; the shortest is [[ingress]] with service = \"http_status:404\"";
        reading.mistakes.add_missing(0..0, "ingress", help);
    }
    let mut rules = Vec::with_capacity(written.len());
    let (mut shadows, mut patterns) = (ShadowedRules::default(), Patterns::default());
    for (index, at) in written.iter().enumerate() {
        let hostname = hostname(at, reading);
        let path = at.get_ref().path.as_ref().map(|path| reading.take(path, patterns.read(path.get_ref())));
        check_position(at, hostname.as_ref(), index + 1 == written.len(), reading);
        let plugins = chain(at.get_ref(), known, reading);
        let service = service(at, known, reading);
        let mut origin = origin::lower(at.get_ref().origin.as_ref(), reading);
        let own = at.get_ref().origin.as_ref().and_then(|origin| origin.get_ref().ip_rules.as_ref());
        let own = reach::lower(own, reading);
        if let Some(Service::Bastion | Service::Socks) = service {
            origin.reach = Reach::of(own.unwrap_or_else(|| ip_rules.to_vec()));
            if origin.reach.is_nowhere() {
                warnings.push(format!("ingress[{index}] leads nowhere: no rule of ip-rules allows anything"));
            }
        }
        if let (Some(origin), Some(service)) = (&at.get_ref().origin, &service) {
            warnings.extend(
                origin::warnings(origin.get_ref(), service)
                    .iter()
                    .map(|doubt| format!("ingress[{index}].{doubt}")),
            );
        }
        // A wrong path must not become a rule without a path.
        if let (Some(hostname), Some(service), None | Some(Some(_))) = (hostname, service, &path) {
            let path = path.flatten();
            if let Some(earlier) = shadows.add(index, &hostname, path.as_ref()) {
                warnings.push(format!(
                    "ingress[{index}] is never reached: ingress[{earlier}] takes all that it matches"
                ));
            }
            let name = name(at.get_ref(), &hostname, path.as_ref());
            let paths = at.get_ref().paths.as_ref().or(defaults.paths.as_ref());
            let paths = paths.map(|paths| *paths.get_ref()).unwrap_or_default();
            let path_headers = at.get_ref().path_headers.as_ref().or(defaults.path_headers.as_ref());
            let path_headers = path_headers.map(|headers| *headers.get_ref()).unwrap_or_default();
            rules.push(Rule { name, hostname, path, paths, path_headers, service, plugins, origin });
        }
    }
    rules
}

/// `None` if it is wrong.
fn hostname(at: &Spanned<document::Rule>, reading: &mut Reader<'_>) -> Option<HostPattern> {
    match &at.get_ref().hostname {
        Some(hostname) => reading.take(hostname, HostPattern::parse(hostname.get_ref())),
        None => (!reading.mistakes.speaks_for(&at.span(), "hostname")).then_some(HostPattern::Any),
    }
}

/// The last rule matches everything, and no other does.
fn check_position(
    at: &Spanned<document::Rule>,
    hostname: Option<&HostPattern>,
    is_last: bool,
    reading: &mut Reader<'_>,
) {
    let Some(hostname) = hostname else { return };
    let has_path = at.get_ref().path.is_some() || reading.mistakes.speaks_for(&at.span(), "path");
    let matches_all = *hostname == HostPattern::Any && !has_path;
    let mistakes = &mut reading.mistakes;
    if is_last && !matches_all {
        let help =
            "end with a rule that has neither `hostname` nor `path`, such as service = \"http_status:404\"";
        mistakes.add_with_help(at.span(), "the last rule does not match every request", help);
    }
    if !is_last && matches_all {
        let help = "give it a `hostname` or a `path`, or move it to the end";
        mistakes.add_with_help(
            at.span(),
            "this rule matches every request, so those after it are never reached",
            help,
        );
    }
}

fn service(
    at: &Spanned<document::Rule>,
    plugins: &[PluginPlan],
    reading: &mut Reader<'_>,
) -> Option<Service> {
    let Some(service) = &at.get_ref().service else {
        let help = "say where requests go: service = \"http://127.0.0.1:8080\"";
        reading.mistakes.add_missing(at.span(), "service", help);
        return None;
    };
    let outcome = match service.get_ref().strip_prefix("wasm:") {
        Some(name) => find(name, plugins).map(Service::Component),
        None => Service::parse(service.get_ref(), reading.folder),
    };
    reading.take(service, outcome)
}

fn chain(rule: &document::Rule, plugins: &[PluginPlan], reading: &mut Reader<'_>) -> Vec<usize> {
    let Some(names) = &rule.plugins else { return Vec::new() };
    if names.get_ref().len() > LONGEST_CHAIN {
        let wrong = Invalid::new(format!("a chain has at most {LONGEST_CHAIN} plugins"));
        reading.refuse(names, wrong);
    }
    let mut chain = Vec::new();
    for name in names.get_ref() {
        // It may be the name of a plugin whose own name is wrong, which was said already.
        if plugins.iter().any(|plugin| plugin.name.is_empty()) && position(name.get_ref(), plugins).is_none()
        {
            continue;
        }
        let outcome = link(name.get_ref(), &chain, plugins);
        chain.extend(reading.take(name, outcome));
    }
    chain
}

fn link(name: &str, chain: &[usize], plugins: &[PluginPlan]) -> Result<usize, Invalid> {
    let index = find(name, plugins)?;
    if chain.contains(&index) {
        return Err(Invalid::new(format!("`{name}` is in this chain twice")));
    }
    Ok(index)
}

fn find(name: &str, plugins: &[PluginPlan]) -> Result<usize, Invalid> {
    position(name, plugins).ok_or_else(|| {
        let known: Vec<_> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
        let help = match closest(name, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if known.is_empty() => format!("declare it: [[plugin]] with name = {name:?}"),
            None => format!("known plugins: {}", known.join(", ")),
        };
        Invalid::with_help(format!("there is no plugin `{name}`"), help)
    })
}

fn position(name: &str, plugins: &[PluginPlan]) -> Option<usize> {
    plugins.iter().position(|plugin| plugin.name == name)
}

fn name(rule: &document::Rule, hostname: &HostPattern, path: Option<&Regex>) -> String {
    match (&rule.name, path) {
        (Some(name), _) => name.get_ref().clone(),
        (None, Some(path)) => format!("{hostname} {path}"),
        (None, None) => hostname.to_string(),
    }
}

/// What the rules so far take away from the ones that follow.
#[derive(Default)]
struct ShadowedRules(HashMap<(HostPattern, Option<String>), usize>);

impl ShadowedRules {
    /// Adds a rule; the earlier one that takes everything it matches, if there is one.
    fn add(&mut self, index: usize, hostname: &HostPattern, path: Option<&Regex>) -> Option<usize> {
        let path = path.map(|path| path.as_str().to_owned());
        let mut around = vec![hostname.clone()];
        if let HostPattern::Exact(name) | HostPattern::Wildcard(name) = hostname {
            let suffixes = name.match_indices('.').filter(|(dot, _)| *dot > 0);
            around.extend(suffixes.map(|(dot, _)| HostPattern::Wildcard(name[dot..].to_owned())));
            around.push(HostPattern::Any);
        }
        let earlier =
            around.into_iter().flat_map(|hostname| [(hostname.clone(), None), (hostname, path.clone())]);
        let earlier = earlier.filter_map(|key| self.0.get(&key).copied()).min();
        self.0.entry((hostname.clone(), path)).or_insert(index);
        earlier
    }
}

/// Most plugins that one request passes.
pub(crate) const LONGEST_CHAIN: usize = 32;
