//! What the environment says of traces, by the names that programs with OpenTelemetry share. What a document says goes
//! before it. As the specification wants it, what cannot be used is said and passed over. Knows names and values; what
//! has them is handed in.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use crate::tracer::{Terms, Trust};

/// What is said, as far as it can be used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Environment {
    /// Where the collector takes traces, with the path.
    pub endpoint: Option<Uri>,
    /// What it wants to be told; sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub service: Option<String>,
    /// What else is said of this program.
    pub attributes: Vec<(String, String)>,
    /// Of the traces that begin here, how many are kept.
    pub share: Option<f64>,
    /// Bodies are sent as they are.
    pub is_plain: bool,
    /// How long the collector may take to answer.
    pub answer: Option<Duration>,
    /// What cannot be used, and why.
    pub warnings: Vec<String>,
}

impl Environment {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }

    /// What is empty is not said.
    #[must_use]
    pub fn read(value: impl Fn(&str) -> Option<String>) -> Self {
        let value =
            |name: &str| value(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let is_off = value("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        if is_off || value("OTEL_TRACES_EXPORTER").is_some_and(|text| text == "none") {
            return Self::default();
        }
        let mut said = Self::default();
        if let Some(other) = value("OTEL_TRACES_EXPORTER").filter(|text| text != "otlp") {
            said.warn("OTEL_TRACES_EXPORTER", &format!("`{}` is not known, only otlp", other.escape_debug()));
            return said;
        }
        // That of traces alone goes before that of all signals.
        let of = |rest: &str| {
            let [traces, all] =
                ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"].map(|begin| format!("{begin}{rest}"));
            value(&traces).map(|text| (traces, text)).or_else(|| value(&all).map(|text| (all, text)))
        };
        if let Some((name, text)) = of("PROTOCOL").filter(|(_, text)| text != "http/protobuf") {
            said.warn(&name, &format!("`{}` is not spoken here, only http/protobuf", text.escape_debug()));
            return said;
        }
        if let Some((name, text)) = of("ENDPOINT") {
            let is_whole = name.contains("TRACES");
            match endpoint(&text, is_whole) {
                Ok(endpoint) => said.endpoint = Some(endpoint),
                Err(why) => said.warn(&name, &why),
            }
        }
        if let Some((name, text)) = of("HEADERS") {
            match headers(&text) {
                Ok(headers) => said.headers = headers,
                // Its values are nobody's.
                Err(number) => {
                    said.warn(&name, &format!("entry {number} is no header of the form name=value"))
                }
            }
        }
        if let Some((name, text)) = of("COMPRESSION") {
            match text.as_str() {
                "gzip" => {}
                "none" => said.is_plain = true,
                other => said.warn(&name, &format!("`{}` is neither gzip nor none", other.escape_debug())),
            }
        }
        if let Some((name, text)) = of("TIMEOUT") {
            match text.parse::<u64>() {
                Ok(milliseconds @ 1..) => said.answer = Some(Duration::from_millis(milliseconds)),
                _ => said.warn(&name, "it is no number of milliseconds"),
            }
        }
        if let Some(text) = value("OTEL_RESOURCE_ATTRIBUTES") {
            match pairs(&text) {
                Ok(pairs) => said.attributes = pairs.into_iter().take(MOST_ATTRIBUTES).collect(),
                Err(number) => {
                    let why = format!("entry {number} is not of the form name=value");
                    said.warn("OTEL_RESOURCE_ATTRIBUTES", &why);
                }
            }
        }
        let named = said.attributes.iter().position(|(name, _)| name == "service.name");
        let named = named.map(|at| said.attributes.remove(at).1);
        said.service = value("OTEL_SERVICE_NAME").or(named);
        said.sampler(value("OTEL_TRACES_SAMPLER"), value("OTEL_TRACES_SAMPLER_ARG"));
        said
    }

    /// A parent counts here in any case: what an edge has decided holds at its hosts.
    fn sampler(&mut self, sampler: Option<String>, argument: Option<String>) {
        let Some(sampler) = sampler else { return };
        self.share = match sampler.strip_prefix("parentbased_").unwrap_or(&sampler) {
            "always_on" => Some(1.0),
            "always_off" => Some(0.0),
            "traceidratio" => match argument.as_deref().map(str::parse::<f64>) {
                None => Some(1.0),
                Some(Ok(share)) if (0.0..=1.0).contains(&share) => Some(share),
                Some(_) => {
                    self.warn("OTEL_TRACES_SAMPLER_ARG", "it is no number from 0 to 1");
                    Some(1.0)
                }
            },
            _ => {
                self.warn("OTEL_TRACES_SAMPLER", &format!("`{}` is not known", sampler.escape_debug()));
                None
            }
        };
    }

    fn warn(&mut self, name: &str, why: &str) {
        self.warnings.push(format!("{name}: {why}"));
    }

    /// What is done where no document says anything: traces are told where a collector is named.
    #[must_use]
    pub fn terms(self, service: &str) -> Option<Terms> {
        let endpoint = self.endpoint.clone()?;
        Some(
            Terms {
                endpoint,
                headers: Vec::new(),
                service: service.to_owned(),
                attributes: Vec::new(),
                share: 1.0,
                trust: Trust::default(),
                slow: None,
                errors: true,
                is_plain: false,
                answer: None,
                warnings: Vec::new(),
            }
            .otherwise(self, true),
        )
    }
}

impl Terms {
    /// With what the environment says besides. `is_open` says that nobody else has said who this is, nor which share.
    #[must_use]
    pub fn otherwise(mut self, said: Environment, is_open: bool) -> Self {
        let Environment { endpoint: _, headers, service, attributes, share, is_plain, answer, warnings } =
            said;
        if self.headers.is_empty() {
            self.headers = headers;
        }
        if is_open {
            self.service = service.unwrap_or(self.service);
            self.share = share.unwrap_or(self.share);
        }
        Self { attributes, is_plain, answer, warnings, ..self }
    }
}

/// The path of traces is added to what is for all signals.
fn endpoint(text: &str, is_whole: bool) -> Result<Uri, String> {
    let said = if is_whole { text.to_owned() } else { format!("{}/v1/traces", text.trim_end_matches('/')) };
    let uri: Uri = said.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    adit_net::outbound::Target::of(&uri).map_err(|error| error.to_string())?;
    Ok(uri)
}

fn headers(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, usize> {
    let pairs = pairs(text)?.into_iter().enumerate();
    let header =
        |(number, (name, value)): (usize, (String, String))| Terms::header(&name, &value).ok_or(number + 1);
    pairs.map(header).collect()
}

/// `name=value,name=value`, as baggage of W3C is written; else the number of the first that is none.
fn pairs(text: &str) -> Result<Vec<(String, String)>, usize> {
    let decoded =
        |text: &str| percent_decode_str(text.trim()).decode_utf8().ok().map(|text| text.into_owned());
    let entries = text.split(',').filter(|entry| !entry.trim().is_empty()).enumerate();
    entries
        .map(|(number, entry)| {
            let pair =
                entry.split_once('=').and_then(|(name, value)| Some((decoded(name)?, decoded(value)?)));
            pair.filter(|(name, _)| !name.is_empty()).ok_or(number + 1)
        })
        .collect()
}

/// Of those that are said of this program.
const MOST_ATTRIBUTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Environment {
        Environment::read(|name| {
            pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_collector_is_named_for_all_signals_or_for_traces_alone() {
        let at = |pairs: &[(&str, &str)]| read(pairs).endpoint.map(|uri| uri.to_string());
        assert_eq!(at(&[]), None, "nothing is told unless somebody says so");
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/");
        assert_eq!(at(&[all]).as_deref(), Some("http://c:4318/v1/traces"));
        let all_below = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/otlp");
        assert_eq!(at(&[all_below]).as_deref(), Some("http://c:4318/otlp/v1/traces"));
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://t.example.com/");
        assert_eq!(at(&[all, traces]).as_deref(), Some("https://t.example.com/"), "as it is");
        for (name, value) in [
            ("OTEL_SDK_DISABLED", "True"),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ] {
            let said = read(&[all, (name, value)]);
            assert_eq!(said.endpoint, None, "{name}={value}");
            assert_eq!(said.warnings.is_empty(), value == "True" || value == "none", "{said:?}");
        }
        let said = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4318")]);
        assert!(said.endpoint.is_none() && said.warnings.len() == 1, "{said:?}");
    }

    #[test]
    fn names_shares_and_headers_are_those_of_the_specification() {
        let said = read(&[
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc, x-team = a%3Ab"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment=test"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ]);
        assert_eq!(said.headers[0].1, "Bearer abc");
        assert_eq!(said.headers[1].1, "a:b");
        assert!(!format!("{said:?}").contains("abc"), "{said:?}");
        assert_eq!(said.service.as_deref(), Some("other"));
        assert_eq!(said.attributes, [("deployment.environment".to_owned(), "test".to_owned())]);
        assert_eq!((said.is_plain, said.answer), (true, Some(Duration::from_millis(2500))));
        assert_eq!(said.warnings, [""; 0]);
        for (sampler, argument, share) in [
            ("always_on", "", Some(1.0)),
            ("parentbased_always_off", "", Some(0.0)),
            ("traceidratio", "0.25", Some(0.25)),
            ("parentbased_traceidratio", "", Some(1.0)),
            ("parentbased_traceidratio", "7", Some(1.0)),
            ("jaeger_remote", "", None),
        ] {
            let said = read(&[("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)]);
            assert_eq!(said.share, share, "{sampler} {argument}");
            assert_eq!(said.warnings.len(), usize::from(argument == "7" || sampler == "jaeger_remote"));
        }
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,secret-without-a-name"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "host=a"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a"),
        ] {
            let warnings = read(&[(name, value)]).warnings;
            assert!(warnings.len() == 1 && !warnings[0].contains("secret"), "{name}: {warnings:?}");
        }
    }

    #[test]
    fn a_document_goes_before_the_environment() {
        let said = || {
            read(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
                ("OTEL_SERVICE_NAME", "theirs"),
                ("OTEL_TRACES_SAMPLER", "always_off"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "x-a=theirs"),
            ])
        };
        let alone = said().terms("adit").unwrap();
        assert_eq!((alone.service.as_str(), alone.headers.len()), ("theirs", 1));
        assert!(alone.share < 0.1);
        let ours = Terms {
            headers: Terms::headers("x-a: ours").unwrap(),
            share: 0.5,
            ..Environment::default().otherwise_of_test()
        };
        let both = ours.otherwise(said(), false);
        assert_eq!((both.service.as_str(), both.headers[0].1.to_str().unwrap()), ("ours", "ours"));
        assert!((both.share - 0.5).abs() < f64::EPSILON);
        assert_eq!(read(&[]).terms("adit"), None);
    }

    impl Environment {
        fn otherwise_of_test(self) -> Terms {
            let endpoint = Some("http://d:4318/v1/traces".parse().unwrap());
            Self { endpoint, ..self }.terms("ours").unwrap()
        }
    }
}
