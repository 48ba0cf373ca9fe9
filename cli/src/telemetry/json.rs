//! A log line as one JSON object. What `tracing-subscriber` writes, written with less work: every request has a
//! line in the access log, and the usual formatter was 8 % of what the host spends on a small request.

use std::cell::RefCell;
use std::fmt::{self, Debug, Write as _};
use std::io::Write as _;
use std::time::SystemTime;

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{self, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The usual form of a line, which is also who writes the lines that say more than an event by itself.
pub(super) struct Json(Format<format::Json>);

impl Json {
    pub(super) fn new() -> Self {
        Self(format::format().json())
    }
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // An event of the `log` crate hides where it comes from in its fields.
        let is_foreign = event.metadata().target() == "log";
        if is_foreign || context.lookup_current().is_some() {
            return self.0.format_event(context, writer, event);
        }
        LINE.with(|line| {
            // A value may log while it is printed.
            let Ok(mut line) = line.try_borrow_mut() else {
                return self.0.format_event(context, writer, event);
            };
            line.bytes.clear();
            line.write(event);
            // It is JSON.
            let written = writer.write_str(std::str::from_utf8(&line.bytes).map_err(|_| fmt::Error)?);
            line.bytes.shrink_to(USUAL);
            line.printed.shrink_to(USUAL);
            written
        })
    }
}

thread_local! {
    static LINE: RefCell<Line> = RefCell::default();
}

/// What is kept of a buffer, bytes.
const USUAL: usize = 4096;

/// A line that is being written. Kept for the next one.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    /// A value that only prints itself.
    printed: String,
    has_fields: bool,
}

impl Line {
    fn write(&mut self, event: &Event<'_>) {
        let metadata = event.metadata();
        let now = humantime::format_rfc3339_micros(SystemTime::now());
        // Nothing that is written to memory fails.
        let _ = write!(self.bytes, r#"{{"timestamp":"{now}","level":"{}","fields":{{"#, metadata.level());
        self.has_fields = false;
        event.record(self);
        self.bytes.extend_from_slice(br#"},"target":"#);
        self.value(metadata.target());
        self.bytes.extend_from_slice(b"}\n");
    }

    fn field(&mut self, field: &Field, value: impl Serialize) {
        if std::mem::replace(&mut self.has_fields, true) {
            self.bytes.push(b',');
        }
        self.value(field.name());
        self.bytes.push(b':');
        self.value(value);
    }

    fn value(&mut self, value: impl Serialize) {
        // Neither numbers nor text can fail.
        let _ = serde_json::to_writer(&mut self.bytes, &value);
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut printed = std::mem::take(&mut self.printed);
        printed.clear();
        let _ = write!(printed, "{value:?}");
        self.field(field, &printed);
        self.printed = printed;
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing::{info, info_span, warn};
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn logged(say: fn(), is_ours: bool) -> Vec<Value> {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).json();
        if is_ours {
            tracing::subscriber::with_default(subscriber.event_format(Json::new()).finish(), say);
        } else {
            tracing::subscriber::with_default(subscriber.finish(), say);
        }
        let text = String::from_utf8(lines.0.lock().expect("not poisoned").clone()).expect("text");
        let objects = text.lines().map(|line| {
            let mut object: Value = serde_json::from_str(line).expect("a line is one object");
            let time = object["timestamp"].take();
            humantime::parse_rfc3339(time.as_str().expect("text")).expect("a moment");
            object
        });
        objects.collect()
    }

    /// Logs when it is printed.
    struct Talkative;

    impl fmt::Display for Talkative {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            info!("while it is printed");
            f.write_str("printed")
        }
    }

    #[test]
    fn a_value_that_logs_while_it_is_printed_breaks_nothing() {
        let lines = logged(|| info!(value = %Talkative, "outer"), true);
        let outer = lines.iter().find(|line| line["fields"]["message"] == "outer").expect("it is there");
        assert_eq!(outer["fields"]["value"], "printed");
    }

    #[test]
    fn a_line_says_what_the_usual_formatter_says() {
        fn say() {
            let (text, number, missing) = ("quoted \" and\n\u{1}\u{fffd} ü", -3_i64, None::<u64>);
            info!(target: "adit::access", text, number, part = 0.25, whole = true, big = u64::MAX, missing, "a {} message", 2);
            warn!(shown = %"by itself", debugged = ?[1, 2], infinite = f64::INFINITY, error = &io::Error::other("bad") as &dyn std::error::Error);
            info_span!("slot", slot = 3).in_scope(|| info!("within a span"));
            info!("no fields");
        }
        let ours = logged(say, true);
        assert_eq!(ours.len(), 4);
        assert_eq!(ours, logged(say, false));
    }
}
