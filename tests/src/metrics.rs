//! Metrics as Prometheus reads them (text format 0.0.4), and the names of metrics in its expressions. Knows no
//! metric by name.

use std::collections::{BTreeMap, BTreeSet};

/// What one scrape brought.
#[derive(Debug, Default)]
pub struct Scraped {
    /// Name of each family and its type, in their order.
    pub families: Vec<(String, String)>,
    pub samples: Vec<Sample>,
}

#[derive(Debug)]
pub struct Sample {
    pub family: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Scraped {
    /// Panics at the first line that is none.
    pub fn parse(text: &str) -> Self {
        let mut scraped = Self::default();
        for line in text.lines() {
            if let Some(head) = line.strip_prefix("# TYPE ") {
                let (name, kind) = head.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                scraped.families.push((name.to_owned(), kind.to_owned()));
            } else if !line.starts_with('#') {
                let (family, _) =
                    scraped.families.last().unwrap_or_else(|| panic!("no family before {line}"));
                let sample = Sample::parse(line, family).unwrap_or_else(|| panic!("no sample: {line}"));
                let rest = sample.name.strip_prefix(family.as_str());
                assert!(
                    rest.is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest)),
                    "not of the family {family}: {line}"
                );
                scraped.samples.push(sample);
            }
        }
        scraped
    }

    /// The sum of the samples with this name that have all of these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(label, value)| sample.labels.get(*label).is_some_and(|found| found == value))
        };
        self.samples.iter().filter(fits).map(|sample| sample.value).sum()
    }

    /// The labels of a family, over all of its samples; `None` if it has no sample.
    pub fn labels(&self, family: &str) -> Option<BTreeSet<&str>> {
        let mut of_family = self.samples.iter().filter(|sample| sample.family == family).peekable();
        of_family.peek()?;
        Some(of_family.flat_map(|sample| sample.labels.keys().map(String::as_str)).collect())
    }

    /// Everything that an expression can name.
    pub fn names(&self) -> BTreeSet<String> {
        let of = |(name, kind): &(String, String)| match kind.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")).to_vec(),
            _ => vec![name.clone()],
        };
        self.families.iter().flat_map(of).collect()
    }
}

impl Sample {
    fn parse(line: &str, family: &str) -> Option<Self> {
        let (name, labels, value) = match line.split_once('{') {
            Some((name, rest)) => {
                let (labels, value) = labels(rest)?;
                (name, labels, value)
            }
            None => {
                let (name, value) = line.split_once(' ')?;
                (name, BTreeMap::new(), value)
            }
        };
        let value = value.trim().parse().ok()?;
        Some(Self { family: family.to_owned(), name: name.to_owned(), labels, value })
    }
}

/// The labels behind a bracket, and what follows them.
fn labels(mut text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        let (name, rest) = text.split_once("=\"")?;
        let (mut value, mut letters) = (String::new(), rest.char_indices());
        let end = loop {
            match letters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match letters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, letter) => value.push(letter),
            }
        };
        labels.insert(name.to_owned(), value);
        let rest = rest.get(end + 1..)?;
        match rest.strip_prefix(',') {
            Some(more) => text = more,
            None => return Some((labels, rest.strip_prefix('}')?)),
        }
    }
}

/// The metrics that an expression of PromQL asks for.
pub fn metrics_of(expression: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let bytes = expression.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += 1 + usize::from(bytes[at] == b'\\');
                }
                at += 1;
            }
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            byte if byte.is_ascii_digit() => {
                while at < bytes.len() && (is_word(bytes[at]) || bytes[at] == b'.') {
                    at += 1;
                }
            }
            byte if is_word(byte) => {
                let begin = at;
                while at < bytes.len() && is_word(bytes[at]) {
                    at += 1;
                }
                let word = &expression[begin..at];
                let rest = expression[at..].trim_start();
                if GROUPING.contains(&word) {
                    // Labels stand in the brackets behind it.
                    let brackets = rest.strip_prefix('(').and_then(|rest| rest.find(')'));
                    at = brackets.map_or(at, |end| expression.len() - rest.len() + end + 2);
                } else if depth == 0 && !rest.starts_with('(') && !is_operator(word, rest) {
                    found.insert(word.to_owned());
                }
            }
            _ => at += 1,
        }
    }
    found
}

/// Aggregations stand before their grouping too.
fn is_operator(word: &str, rest: &str) -> bool {
    ["and", "or", "unless", "offset", "bool"].contains(&word)
        || rest.starts_with("by ")
        || rest.starts_with("by(")
        || rest.starts_with("without")
}

const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_expression_asks_for_is_found_and_nothing_else() {
        for (expression, wanted) in [
            ("up{job=\"a\"} == 0", &["up"][..]),
            ("sum by (le, b) (rate(x_bucket{c=~\"d|e\"}[5m])) > 0.5e3", &["x_bucket"]),
            ("a - b offset 5m and on (c) d unless ignoring(e) f", &["a", "b", "d", "f"]),
            ("a * on(t) group_left(name) info or vector(1)", &["a", "info"]),
            ("sum(rate(a[1m])) by (b) / 14 - time()", &["a"]),
            ("histogram_quantile(0.99, sum by (le) (rate(h_bucket[$__rate_interval])))", &["h_bucket"]),
        ] {
            assert_eq!(
                metrics_of(expression),
                wanted.iter().map(|name| (*name).to_owned()).collect(),
                "{expression}"
            );
        }
    }

    #[test]
    fn a_sample_is_read_as_it_was_written() {
        let scraped =
            Scraped::parse("# HELP a A\n# TYPE a counter\na{b=\"c\\\"d\\\\e\\n\",f=\"}\"} 2.5\na 1\n");
        assert_eq!(scraped.samples[0].labels["b"], "c\"d\\e\n");
        assert_eq!(scraped.sum("a", &[("f", "}")]), 2.5);
        assert_eq!(scraped.sum("a", &[]), 3.5);
    }
}
