//! `adit version`: what this program is and what it was made of. Knows what the build wrote down; asks nobody
//! else, and never whether there is a newer one.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::table::{Form, show};

mod made {
    include!(concat!(env!("OUT_DIR"), "/made.rs"));
}

#[derive(Args)]
pub(crate) struct Version {
    /// Libraries, plugins, target and commit too
    #[arg(long)]
    verbose: bool,
    /// The number alone
    #[arg(long, short, conflicts_with = "verbose")]
    short: bool,
    /// In which form
    #[arg(long = "output", short = 'o', value_name = "FORM", value_enum, default_value_t)]
    form: Form,
}

pub(crate) fn run(asked: &Version) {
    let short = json!({ "version": NUMBER });
    if !asked.verbose {
        let text = if asked.short { NUMBER.to_owned() } else { format!("adit {NUMBER}") };
        return show(asked.form, &short, || text);
    }
    show(asked.form, &facts(), text);
}

fn facts() -> Value {
    let libraries: Map<String, Value> =
        made::LIBRARIES.iter().map(|(name, version)| ((*name).to_owned(), (*version).into())).collect();
    json!({
        "version": NUMBER,
        "commit": (!made::COMMIT.is_empty()).then_some(made::COMMIT),
        "target": made::TARGET,
        "profile": made::PROFILE,
        "libc": libc(),
        "allocator": if cfg!(target_os = "linux") { "jemalloc" } else { "system" },
        "tls": "aws-lc-rs",
        "transports": ["quic", "http2"],
        "plugin_interfaces": ["adit:plugin@0.1.0", "wasi:http@0.2", "wasi:http@0.3 (experimental)"],
        "shelf": adit_shelf::names().collect::<Vec<_>>(),
        "libraries": libraries,
    })
}

fn text() -> String {
    let facts = facts();
    let mut text = format!("adit {NUMBER}\n");
    let mut line = |name: &str, value: &Value| {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Array(values) if values.is_empty() => "none".to_owned(),
            Value::Array(values) => values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => "unknown".to_owned(),
        };
        let _ = writeln!(text, "  {name:<20}{value}");
    };
    for name in [
        "commit",
        "target",
        "profile",
        "libc",
        "allocator",
        "tls",
        "transports",
        "plugin_interfaces",
        "shelf",
    ] {
        line(&name.replace('_', " "), &facts[name]);
    }
    for (name, version) in made::LIBRARIES {
        line(name, &(*version).into());
    }
    text
}

fn libc() -> &'static str {
    match (cfg!(target_env = "gnu"), cfg!(target_env = "musl"), cfg!(target_feature = "crt-static")) {
        (true, _, true) => "glibc, static",
        (true, _, false) => "glibc, dynamic",
        (_, true, _) => "musl",
        (false, false, _) => "the system's",
    }
}

const NUMBER: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_says_what_it_was_made_of_and_not_when() {
        let facts = facts();
        assert_eq!(facts["libraries"].as_object().unwrap().len(), made::LIBRARIES.len());
        assert!(facts["libraries"]["wasmtime"].as_str().unwrap().starts_with("48."), "{facts}");
        let text = text();
        for (name, version) in made::LIBRARIES {
            assert!(text.contains(name) && text.contains(version), "{text}");
        }
        assert!(!text.contains(env!("CARGO_MANIFEST_DIR")), "{text}");
    }
}
