//! The plugins of a document: `[[plugin]]`. Knows names, limits and how configuration becomes JSON;
//! not what a component is.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::reference::Reference;
use crate::shelf;
use adit_config_reader::Spanned;
use toml::Value;

use crate::document::{self, Plugin};
use crate::grants;
use crate::plan::{Limits, OnError, PluginPlan, ReferencePlan};
use crate::value::{Invalid, Reader};

/// One plan for each plugin written, so that an index means the same in both lists; and what of their
/// components is still in registries.
pub(super) fn lower(
    written: &[Spanned<Plugin>],
    has_server: bool,
    reading: &mut Reader<'_>,
) -> (Vec<PluginPlan>, Vec<ReferencePlan>) {
    let mut taken = HashMap::new();
    let mut references = Vec::new();
    let mut plans = Vec::with_capacity(written.len());
    for (index, plugin) in written.iter().enumerate() {
        let name = plugin.get_ref().name.as_ref().and_then(|name| {
            let first = *taken.entry(name.get_ref().as_str()).or_insert(index);
            let outcome = check_name(name.get_ref(), index, first);
            reading.take(name, outcome)
        });
        plans.push(plan(name.unwrap_or_default(), plugin, has_server, &mut references, reading));
    }
    (plans, references)
}

/// `name` is empty if it is missing or wrong.
fn plan(
    name: String,
    written: &Spanned<Plugin>,
    has_server: bool,
    references: &mut Vec<ReferencePlan>,
    reading: &mut Reader<'_>,
) -> PluginPlan {
    let plugin = written.get_ref();
    if plugin.name.is_none() {
        reading.mistakes.add_missing(written.span(), "name", "rules name the plugin by it: name = \"auth\"");
    }
    if plugin.component.is_none() {
        let help = "write the path of the WebAssembly component: component = \"plugins/auth.wasm\"";
        reading.mistakes.add_missing(written.span(), "component", help);
    }
    let config = plugin.config.as_ref().map(|config| (config, canonical_json(config.get_ref())));
    let component = component(&name, plugin, references, reading).unwrap_or_default();
    let grants = grants::lower(plugin.grants.as_ref(), has_server, reading);
    if let Some(on_away) = plugin.on_away.as_ref().filter(|_| grants.shared.is_empty()) {
        let help = "name them in [plugin.grants] shared-buckets, or leave on-away out";
        reading.refuse(on_away, Invalid::with_help("this plugin has no shared buckets", help));
    }
    let on_error = policy(plugin.on_error.as_ref()).unwrap_or(OnError::Deny);
    PluginPlan {
        name,
        component,
        config: config.and_then(|(at, outcome)| reading.take(at, outcome)).unwrap_or_else(|| "{}".to_owned()),
        on_error,
        on_away: policy(plugin.on_away.as_ref()).unwrap_or(on_error),
        limits: Limits {
            memory: reading.size(plugin.memory.as_ref(), DEFAULT_MEMORY, MEMORY),
            timeout: plugin
                .timeout
                .as_ref()
                .map(|timeout| reading.duration(Some(timeout), *TIMEOUT.end(), TIMEOUT)),
            concurrency: reading.count(plugin.concurrency.as_ref(), DEFAULT_CONCURRENCY, CONCURRENCY),
        },
        grants,
        reuse: plugin.instances.as_ref().map(|written| match written.get_ref() {
            document::Instances::Reused => true,
            document::Instances::Fresh => false,
        }),
        experimental: plugin.experimental.as_ref().is_some_and(|written| *written.get_ref()),
        tick: reading.duration(plugin.tick.as_ref(), DEFAULT_TICK, TICK),
    }
}

fn policy(written: Option<&Spanned<document::OnError>>) -> Option<OnError> {
    written.map(|written| match written.get_ref() {
        document::OnError::Deny => OnError::Deny,
        document::OnError::Skip => OnError::Skip,
    })
}

/// Where the component is read. One in a registry has no place of its own: it is named by its reference, until
/// somebody has made a file of it.
fn component(
    name: &str,
    plugin: &Plugin,
    references: &mut Vec<ReferencePlan>,
    reading: &mut Reader<'_>,
) -> Option<PathBuf> {
    let keys = plugin.verify.as_ref().map(|verify| (verify, keys(verify, reading)));
    let written = plugin.component.as_ref()?;
    let text = written.get_ref().to_str().filter(|text| Reference::is_meant(text));
    let Some(text) = text else {
        if let Some((verify, _)) = keys {
            let help =
                "write component = \"oci://registry.example.com/name:1.0\", or leave [plugin.verify] out";
            reading.refuse(verify, Invalid::with_help("only components of registries are signed", help));
        }
        let Some(name) = shelf::name(written.get_ref()) else { return reading.path(Some(written)) };
        let outcome = if shelf::NAMES.contains(&name) { Ok(()) } else { Err(unknown(name)) };
        reading.take(written, outcome)?;
        // One from inside of the program may have been kept with a generation of an older program.
        return Some(reading.files.name(written.get_ref().clone()));
    };
    let outcome = text.parse::<Reference>().map_err(|error| {
        let help = "write oci://REGISTRY/NAME:TAG, oci://REGISTRY/NAME@sha256:DIGEST or both";
        Invalid::with_help(format!("this is not a reference to a component: {error:#}"), help)
    });
    let reference = reading.take(written, outcome)?;
    let named = PathBuf::from(reference.to_string());
    let place = reading.files.name(named.clone());
    if place == named {
        let keys = keys.map(|(_, keys)| keys).unwrap_or_default();
        references.push(ReferencePlan { plugin: name.to_owned(), reference, keys });
    }
    Some(place)
}

fn unknown(name: &str) -> Invalid {
    let help = match adit_config_reader::closest(name, shelf::NAMES) {
        Some(meant) => format!("did you mean shelf:{meant}?"),
        None => format!("there are {}", shelf::NAMES.join(", ")),
    };
    Invalid::with_help(format!("no plugin `{name}` comes with Adit"), help)
}

fn keys(verify: &Spanned<document::Verify>, reading: &mut Reader<'_>) -> Vec<PathBuf> {
    let written = verify.get_ref().keys.as_ref();
    let keys: Vec<PathBuf> =
        written.iter().flat_map(|keys| keys.get_ref()).filter_map(|key| reading.path(Some(key))).collect();
    if keys.is_empty() {
        let help = "write keys = [\"cosign.pub\"]";
        reading.refuse(verify, Invalid::with_help("without a key nothing could be verified", help));
    }
    keys
}

fn check_name(name: &str, index: usize, first: usize) -> Result<String, Invalid> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_plain) {
        let help = format!("use 1 to {LONGEST_NAME} letters, digits, `-`, `_` and `.`");
        return Err(Invalid::with_help("this cannot be the name of a plugin", help));
    }
    if first < index {
        let help = "give each plugin a name of its own; several may share a component";
        return Err(Invalid::with_help(format!("the name `{name}` is taken by plugin[{first}]"), help));
    }
    Ok(name.to_owned())
}

/// The same configuration always gives the same text: sorted keys, no white space. Dates and times
/// become strings as they were written.
fn canonical_json(table: &toml::Table) -> Result<String, Invalid> {
    let mut json = String::new();
    write_table(&mut json, table, "config")?;
    Ok(json)
}

fn write_table(json: &mut String, table: &toml::Table, path: &str) -> Result<(), Invalid> {
    json.push('{');
    let sorted: BTreeMap<_, _> = table.iter().collect();
    for (at, (key, value)) in sorted.into_iter().enumerate() {
        if at > 0 {
            json.push(',');
        }
        json.push_str(&string(key));
        json.push(':');
        write_value(json, value, &format!("{path}.{key}"))?;
    }
    json.push('}');
    Ok(())
}

fn write_value(json: &mut String, value: &Value, path: &str) -> Result<(), Invalid> {
    match value {
        Value::String(text) => json.push_str(&string(text)),
        Value::Integer(number) => json.push_str(&number.to_string()),
        // Debug keeps the point of a whole number, so that a float stays one.
        Value::Float(number) if number.is_finite() => json.push_str(&format!("{number:?}")),
        Value::Float(_) => {
            return Err(Invalid::new(format!("`{path}` is not finite, and JSON has no such number")));
        }
        Value::Boolean(value) => json.push_str(if *value { "true" } else { "false" }),
        Value::Datetime(date) => json.push_str(&string(&date.to_string())),
        Value::Table(table) => write_table(json, table, path)?,
        Value::Array(elements) => {
            json.push('[');
            for (at, element) in elements.iter().enumerate() {
                if at > 0 {
                    json.push(',');
                }
                write_value(json, element, &format!("{path}[{at}]"))?;
            }
            json.push(']');
        }
    }
    Ok(())
}

fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

const LONGEST_NAME: usize = 64;

const DEFAULT_MEMORY: usize = 64 << 20;
const MEMORY: RangeInclusive<usize> = 1 << 20..=1 << 30;
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const DEFAULT_TICK: Duration = Duration::from_secs(10);
const TICK: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(86_400);
const DEFAULT_CONCURRENCY: usize = 64;
const CONCURRENCY: RangeInclusive<usize> = 1..=4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<String, Invalid> {
        canonical_json(&toml::from_str(text).unwrap())
    }

    #[test]
    fn configuration_becomes_json_with_sorted_keys() {
        let text = "\
z = 1
a = \"q\\\"\\u0001ü\"
f = 1.0
t = [true, { y = 2026-01-02T03:04:05Z, x = 07:30:00 }]
[m]
huge = 1e300
deep.er = []
";
        assert_eq!(
            json(text).unwrap(),
            "{\"a\":\"q\\\"\\u0001ü\",\"f\":1.0,\"m\":{\"deep\":{\"er\":[]},\"huge\":1e300},\
             \"t\":[true,{\"x\":\"07:30:00\",\"y\":\"2026-01-02T03:04:05Z\"}],\"z\":1}"
        );
        serde_json::from_str::<serde_json::Value>(&json(text).unwrap()).unwrap();
        assert_eq!(json("").unwrap(), "{}");
    }

    #[test]
    fn a_component_of_the_shelf_is_named_and_a_slip_of_the_pen_is_mended() {
        let read = |component: &str| {
            let text = format!(
                "[[plugin]]\nname = \"a\"\ncomponent = \"{component}\"\n[[ingress]]\nservice = \"http_status:404\"\nplugins = [\"a\"]\n"
            );
            crate::read("host.toml", &text, std::path::Path::new("/etc/adit"))
        };
        for name in shelf::NAMES {
            let component = format!("shelf:{name}");
            assert_eq!(read(&component).unwrap().plugins[0].component, PathBuf::from(component));
        }
        for (component, wanted) in [
            ("shelf:header", "did you mean shelf:headers?"),
            ("shelf:basic_auth", "did you mean shelf:basic-auth?"),
            ("shelf:", "there are basic-auth, block-list, body-replace, canary-split"),
        ] {
            let said = read(component).unwrap_err().to_string();
            assert!(said.contains("host.toml:3:13") && said.contains(wanted), "{said}");
        }
    }

    #[test]
    fn numbers_that_json_does_not_know_are_named() {
        assert_eq!(
            json("a = [1.0, nan]").unwrap_err().message,
            "`config.a[1]` is not finite, and JSON has no such number"
        );
        assert!(json("a.b = -inf").unwrap_err().message.starts_with("`config.a.b`"));
    }
}
