//! Events for who watches this process from far away. While nobody does, no event is made for it. Knows subscribers;
//! who watches, and what is left out, is `adit_host::management`.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use adit_host::management::{Happened, Tail};
use adit_protocol::management::{EventKind, Level};
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter};

/// The one of this process.
pub(crate) fn tail() -> Arc<Tail> {
    static TAIL: OnceLock<Arc<Tail>> = OnceLock::new();
    let new = || {
        let tail = Arc::new(Tail::default());
        // What was found out about each place that logs is found out anew.
        tail.told(tracing::callsite::rebuild_interest_cache);
        tail
    };
    TAIL.get_or_init(new).clone()
}

/// What events are written to that somebody watches.
pub(super) struct Watched(Arc<Tail>);

/// Which events these are.
pub(super) struct Wanted(Arc<Tail>);

pub(super) fn watched() -> (Watched, Wanted) {
    (Watched(tail()), Wanted(tail()))
}

impl Wanted {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let Some(least) = self.0.level() else { return false };
        // Of our own: what carries these lines to who watches logs too.
        !metadata.is_span()
            && is_own(metadata.target())
            && level(metadata.level()).is_some_and(|level| level >= least)
    }
}

impl<S> Filter<S> for Wanted {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.0.level() {
            None => LevelFilter::OFF,
            Some(Level::Debug) => LevelFilter::DEBUG,
            Some(Level::Info) => LevelFilter::INFO,
            Some(Level::Warn) => LevelFilter::WARN,
            Some(Level::Error) => LevelFilter::ERROR,
        })
    }
}

impl<S: Subscriber> Layer<S> for Watched {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let Some(level) = level(metadata.level()) else { return };
        let kind = match (metadata.target(), metadata.fields().field("received")) {
            (ACCESS, None) => EventKind::Http,
            (ACCESS, Some(_)) => EventKind::Tcp,
            _ => EventKind::Cloudflared,
        };
        if !self.0.wants(kind, level) {
            return;
        }
        let mut said = Said { message: String::new(), fields: Map::new() };
        event.record(&mut said);
        let Said { message, fields } = said;
        self.0.say(Happened { at: SystemTime::now(), level, event: kind, message, fields });
    }
}

fn is_own(target: &str) -> bool {
    target.split("::").next().is_some_and(|name| name == "adit" || name.starts_with("adit_"))
}

fn level(level: &tracing::Level) -> Option<Level> {
    Some(match *level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => return None,
    })
}

struct Said {
    message: String,
    fields: Map<String, Value>,
}

impl Said {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => drop(self.fields.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Said {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, json!(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, json!(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, json!(format!("{value:?}")));
    }
}

/// Where hosts log requests and circuits.
const ACCESS: &str = "adit_host::access";
