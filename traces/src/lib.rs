//! Traces. Whose trace a request belongs to (`context`), what is kept of it at its end (`span`), and the thread that
//! tells a collector (`exporter`, in the form of `otlp`); `environment` is what the environment says of all that. Spans are made of times that are there anyway, once an
//! exchange is over and only if it is to be kept.
//!
//! Knows headers and times; does not know tunnels, rules or documents.

mod context;
mod environment;
mod exporter;
mod otlp;
mod span;
mod tracer;

pub use context::{Context, SpanId, TraceId, TraceState};
pub use environment::Environment;
pub use exporter::Exporter;
pub use span::{Kind, Span, Value};
pub use tracer::{Terms, TermsError, Told, Tracer, Trail, Trust};
