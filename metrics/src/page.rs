//! Prometheus' text format (version 0.0.4). Written by hand: libraries for it add `_total` to counters, which
//! the names of the reference connector lack, or want a lock in the path of a request.

use std::fmt::Write as _;

use crate::{BOUNDS, Durations};

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What may be done with the numbers of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process ends.
    Counter,
    Gauge,
    Histogram,
}

/// A page under construction. The samples of a family follow its head at once.
#[derive(Debug)]
pub struct Page(String);

impl Page {
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self(String::with_capacity(bytes))
    }

    /// Begins a family. `help` is one line.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.0.extend(["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"]);
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        self.labels(labels, None);
        let _ = writeln!(self.0, " {value}");
    }

    /// All samples of one histogram of a family with this name.
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], durations: &Durations) {
        let mut sum = 0;
        for (bucket, count) in durations.buckets.iter().enumerate() {
            sum += count;
            self.0.extend([name, "_bucket"]);
            self.labels(labels, Some(BOUNDS.get(bucket).copied()));
            let _ = writeln!(self.0, " {sum}");
        }
        self.0.extend([name, "_sum"]);
        self.labels(labels, None);
        let _ = write!(self.0, " {}\n{name}_count", number(durations.microseconds) / 1e6);
        self.labels(labels, None);
        let _ = writeln!(self.0, " {sum}");
    }

    /// `bound` is the upper one of a bucket, `Some(None)` of the last.
    fn labels(&mut self, labels: &[(&str, &str)], bound: Option<Option<f64>>) {
        if labels.is_empty() && bound.is_none() {
            return;
        }
        for (at, (label, value)) in labels.iter().enumerate() {
            self.0.extend([if at == 0 { "{" } else { "," }, label, "=\""]);
            self.value(value);
            self.0.push('"');
        }
        let first = if labels.is_empty() { "{" } else { "," };
        match bound {
            None => {}
            Some(None) => self.0.extend([first, "le=\"+Inf\""]),
            Some(Some(bound)) => {
                let _ = write!(self.0, "{first}le=\"{bound}\"");
            }
        }
        self.0.push('}');
    }

    /// The value of a label, which may contain anything.
    fn value(&mut self, mut text: &str) {
        while let Some(at) = text.find(['\\', '"', '\n']) {
            let (plain, rest) = text.split_at(at);
            let escaped = match rest.as_bytes().first() {
                Some(b'"') => "\\\"",
                Some(b'\n') => "\\n",
                _ => "\\\\",
            };
            self.0.extend([plain, escaped]);
            text = rest.get(1..).unwrap_or_default();
        }
        self.0.push_str(text);
    }

    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}

/// Whole numbers up to 2^53 stay what they are.
#[allow(clippy::cast_precision_loss)]
#[must_use]
pub fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Histogram;

    #[test]
    fn a_label_can_hold_anything() {
        let mut page = Page::with_capacity(0);
        page.sample("a_total", &[("rule", "x\"y\\z\n"), ("status", "2xx")], 3.0);
        page.sample("b", &[], 0.25);
        assert_eq!(page.finish(), "a_total{rule=\"x\\\"y\\\\z\\n\",status=\"2xx\"} 3\nb 0.25\n");
    }

    #[test]
    fn buckets_of_a_histogram_count_all_that_took_no_longer() {
        let histogram = Histogram::default();
        for milliseconds in [1, 2, 40, 60_000] {
            histogram.record(Duration::from_millis(milliseconds));
        }
        let mut page = Page::with_capacity(0);
        page.family("t_seconds", Kind::Histogram, "Times");
        page.histogram("t_seconds", &[("to", "a")], &histogram.read());
        page.histogram("t_seconds", &[], &Durations::default());
        let text = page.finish();
        assert!(text.starts_with("# HELP t_seconds Times\n# TYPE t_seconds histogram\n"), "{text}");
        for line in [
            "t_seconds_bucket{to=\"a\",le=\"0.001\"} 1",
            "t_seconds_bucket{to=\"a\",le=\"0.0025\"} 2",
            "t_seconds_bucket{to=\"a\",le=\"0.05\"} 3",
            "t_seconds_bucket{to=\"a\",le=\"30\"} 3",
            "t_seconds_bucket{to=\"a\",le=\"+Inf\"} 4",
            "t_seconds_sum{to=\"a\"} 60.043",
            "t_seconds_count{to=\"a\"} 4",
            "t_seconds_bucket{le=\"+Inf\"} 0",
            "t_seconds_count 0",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is not in\n{text}");
        }
    }
}
