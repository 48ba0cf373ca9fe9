//! Whom traces are told, and which.

use std::ops::RangeInclusive;
use std::time::Duration;

use adit_config_reader::Spanned;
use adit_traces::{Environment, Terms, Trust};

use super::Rules;
use super::document::Traces;

impl Rules<'_> {
    pub(super) fn traces(&mut self, section: Option<Spanned<Traces>>) -> Option<Terms> {
        let mut said = Environment::of_process();
        let Some(section) = section else { return said.terms("adit-edge") };
        let span = section.span();
        let Traces { collector, headers_file, service, share, context, slow, errors } = section.into_inner();
        let endpoint = match (collector, said.endpoint.take()) {
            (None, Some(endpoint)) => Ok(endpoint),
            (collector, _) => {
                let like = "like \"http://127.0.0.1:4318\"";
                let collector = self.required(&span, "collector", collector, like)?;
                Terms::endpoint(collector.get_ref()).map_err(|error| {
                    let help = "write where it takes OTLP over HTTP: \"http://127.0.0.1:4318\"";
                    self.mistakes.add_with_help(collector.span(), error.to_string(), help);
                })
            }
        };
        let headers = headers_file.map_or_else(
            || Ok(Vec::new()),
            |file| {
                let read = adit_files::read_text(&self.folder.join(file.get_ref()), LARGEST_HEADERS);
                let read = read.map_err(|error| error.to_string());
                let headers = read.and_then(|text| Terms::headers(&text).map_err(|error| error.to_string()));
                headers.map_err(|error| {
                    let help = "a file with lines like `authorization: Bearer …`";
                    let message = format!("{}: {error}", file.get_ref().display());
                    self.mistakes.add_with_help(file.span(), message, help);
                })
            },
        );
        let share = share.map_or(said.share.unwrap_or(1.0), |share| {
            if !(0.0..=1.0).contains(share.get_ref()) {
                let message = format!("{} is out of range, expected 0 to 1", share.get_ref());
                self.mistakes.add_with_help(share.span(), message, "0.01 is every hundredth");
            }
            *share.get_ref()
        });
        let trust = match context.as_ref().map(|context| context.get_ref().as_str()) {
            None | Some("link") => Trust::Link,
            Some("accept") => Trust::Accept,
            Some("ignore") => Trust::Ignore,
            Some(other) => {
                let message = format!("`{}` is none of these", other.escape_debug());
                let at = context.as_ref().map_or(span, Spanned::span);
                self.mistakes.add_with_help(at, message, "write \"link\", \"accept\" or \"ignore\"");
                Trust::Link
            }
        };
        let usual = said.service.take().unwrap_or_else(|| "adit-edge".to_owned());
        let service = service.map_or(Some(usual), |service| self.word(service));
        let slow = slow.map(|slow| self.duration(Some(slow), Duration::ZERO, SLOW));
        let terms =
            Environment { endpoint: Some(endpoint.ok()?), ..Environment::default() }.terms(&service?)?;
        let errors = errors.is_none_or(|errors| *errors.get_ref());
        let terms = Terms { headers: headers.ok()?, share, trust, slow, errors, ..terms };
        Some(terms.otherwise(said, false))
    }
}

/// How long a request may take before it counts as slow.
const SLOW: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60 * 60);
/// Bytes of a file with headers.
const LARGEST_HEADERS: usize = 64 << 10;
