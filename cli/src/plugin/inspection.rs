//! `adit plugin inspect`: what a component is and asks for.

use std::fmt::Write as _;
use std::path::Path;

use adit_engine::{Engine, Inspection, inspect};
use anyhow::Context;
use serde_json::{Value, json};

use super::{plan, read};
use crate::Failure;
use crate::table::{self, Form};

/// Prints what a component is and asks for.
#[tokio::main(flavor = "current_thread")]
pub(super) async fn run(path: &Path, form: Form) -> Result<(), Failure> {
    let wasm = read(path).await?;
    // Compiled anew: the time that takes is part of the answer.
    let engine = Engine::that_keeps_nothing()?;
    let found = inspect(&engine, &plan(path, "{}"), &wasm).await;
    let found = found.with_context(|| path.display().to_string()).map_err(Failure::Configuration)?;
    table::show(form, &facts(path, wasm.len(), &found), || report(path, wasm.len(), &found));
    Ok(())
}

fn facts(path: &Path, size: usize, found: &Inspection) -> Value {
    let grants = |grants: &[(String, &str)]| -> Vec<Value> {
        grants.iter().map(|(import, grant)| json!({ "import": import, "grant": grant })).collect()
    };
    json!({
        "file": path.display().to_string(),
        "filter": found.is_filter,
        "service": found.is_service,
        "middleware": found.is_middleware,
        "experimental": found.is_experimental,
        "size_bytes": size,
        "compile_ms": u64::try_from(found.compile_time.as_millis()).unwrap_or(u64::MAX),
        "describes": found.description.as_ref().map(|said| json!({
            "name": said.name,
            "version": said.version,
            "request_headers": said.request_headers,
            "response_headers": said.response_headers,
            "schema": said.schema.as_deref().map(schema),
        })),
        "grants": grants(&found.grants),
        "useful_grants": grants(&found.useful_grants),
        "not_served": found.unserved,
        "exports": found.exports,
        "imports": found.imports,
    })
}

/// As JSON where it is some.
fn schema(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

fn report(path: &Path, size: usize, found: &Inspection) -> String {
    let roles =
        [("filter", found.is_filter), ("service", found.is_service), ("middleware", found.is_middleware)];
    let roles: Vec<_> = roles.iter().filter_map(|(role, is)| is.then_some(*role)).collect();
    let mut text = format!("{}: {}\n", path.display(), roles.join(" and "));
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<18}{value}");
    };
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    if found.is_experimental {
        line("experimental", "wasi:http 0.3; a document must say experimental = true for it");
    }
    line("size", &format!("{} KiB", size.div_ceil(1024)));
    line("compiled in", &format!("{} ms", found.compile_time.as_millis()));
    if let Some(said) = &found.description {
        line("calls itself", &format!("{} {}", said.name, said.version));
        line("request headers", &list(&said.request_headers));
        line("response headers", &list(&said.response_headers));
        line("schema", said.schema.as_deref().unwrap_or("none"));
    }
    let grants = |grants: &[(String, &str)]| -> Vec<String> {
        grants.iter().map(|(import, key)| format!("{key} (for {import})")).collect()
    };
    line("needs grants", &list(&grants(&found.grants)));
    if !found.useful_grants.is_empty() {
        let useful = list(&grants(&found.useful_grants));
        line("may need grants", &format!("{useful}; without them its calls are refused"));
    }
    line("not served", &list(&found.unserved));
    line("exports", &list(&found.exports));
    line("imports", &list(&found.imports));
    text
}
