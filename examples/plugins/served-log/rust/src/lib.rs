//! Counts what was served and what failed, and says what was slow.

wit_bindgen::generate!({ path: "wit", world: "plugin", generate_all });

use std::sync::OnceLock;

use adit::plugin::types::Fault;
use adit::plugin::{log, metrics};
use exports::adit::plugin::access_log::{Entry, Guest as AccessLog};
use exports::adit::plugin::lifecycle::{Guest as Lifecycle, Manifest};
use serde_json::Value;

// An instance is configured once, before its first call. Milliseconds.
static SLOW: OnceLock<u64> = OnceLock::new();

struct Plugin;
export!(Plugin);

impl Lifecycle for Plugin {
    fn describe() -> Manifest {
        Manifest {
            name: "served-log".to_owned(),
            version: "0.1.0".to_owned(),
            request_headers: vec![],
            response_headers: vec![],
        }
    }

    /// Takes the `config` table of the host's document, as JSON.
    fn configure(config: String) -> Result<(), Vec<Fault>> {
        let config: Value = serde_json::from_str(&config).unwrap_or_default();
        let slow = match &config["slow-ms"] {
            Value::Null => Some(u64::MAX),
            value => value.as_u64(),
        };
        let Some(slow) = slow else {
            let message = "milliseconds are needed".to_owned();
            return Err(vec![Fault { code: "/slow-ms".to_owned(), message }]);
        };
        let _ = SLOW.set(slow);
        Ok(())
    }
}

impl AccessLog for Plugin {
    fn on_log(entries: Vec<Entry>, _dropped: u64) {
        metrics::add("served", entries.len() as u64);
        for entry in entries {
            if entry.status >= 500 {
                metrics::add("errors", 1);
            }
            let took = entry.done_after / 1000;
            if took > SLOW.get().copied().unwrap_or(u64::MAX) {
                metrics::add("slow", 1);
                let Entry { rule, method, path_with_query, .. } = entry;
                log::write(log::Level::Warn, &format!("{rule} {method} {path_with_query} took {took} ms"));
            }
        }
    }
}
