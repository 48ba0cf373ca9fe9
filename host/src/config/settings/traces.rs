//! Whom traces are told, and which.

use std::ops::RangeInclusive;
use std::time::Duration;

use adit_config_reader::Spanned;
use adit_rules::value::{Invalid, Reader};
use adit_traces::{Environment, Terms, Trust};

use crate::config::document::{TraceContext, Traces};

pub(super) fn lower(section: Option<&Spanned<Traces>>, reading: &mut Reader<'_>) -> Option<Terms> {
    let mut said = Environment::of_process();
    let Some(section) = section else { return said.terms("adit-host") };
    let Traces { collector, headers_file, service, share, context, slow, errors } = section.get_ref();
    let endpoint = match (collector, said.endpoint.take()) {
        (None, None) => {
            let help = "write where it takes OTLP over HTTP: collector = \"http://127.0.0.1:4318\"";
            reading.mistakes.add_missing(section.span(), "collector", help);
            return None;
        }
        (None, Some(endpoint)) => Some(endpoint),
        (Some(collector), _) => {
            let endpoint = Terms::endpoint(collector.get_ref()).map_err(|error| {
                let help = "write where it takes OTLP over HTTP: \"http://127.0.0.1:4318\"";
                Invalid::with_help(error.to_string(), help)
            });
            reading.take(collector, endpoint)
        }
    };
    let headers = headers_file.as_ref().map_or(Some(Vec::new()), |file| {
        let path = reading.file(file.get_ref());
        let read = adit_files::read_text(&path, LARGEST_HEADERS).map_err(|error| error.to_string());
        let headers = read.and_then(|text| Terms::headers(&text).map_err(|error| error.to_string()));
        let headers = headers.map_err(|error| {
            let help = "a file with lines like `authorization: Bearer …`";
            Invalid::with_help(format!("{}: {error}", file.get_ref().display()), help)
        });
        reading.take(file, headers)
    });
    if let Some(share) = share.as_ref().filter(|share| !(0.0..=1.0).contains(share.get_ref())) {
        let message = format!("{} is out of range, expected 0 to 1", share.get_ref());
        reading.refuse(share, Invalid::with_help(message, "0.01 is every hundredth"));
    }
    if let Some(service) = service.as_ref().filter(|service| !is_word(service.get_ref())) {
        let message = "this is no name of a service";
        let help = format!("use 1 to {LONGEST_NAME} letters, digits, `-`, `_` and `.`");
        reading.refuse(service, Invalid::with_help(message, help));
    }
    let usual = said.service.take().unwrap_or_else(|| "adit-host".to_owned());
    let service = service.as_ref().map_or(usual, |service| service.get_ref().clone());
    let terms = Environment { endpoint: Some(endpoint?), ..Environment::default() }.terms(&service)?;
    let terms = Terms {
        headers: headers?,
        share: share.as_ref().map_or(said.share.unwrap_or(1.0), |share| *share.get_ref()),
        trust: match context.as_ref().map(Spanned::get_ref) {
            None | Some(TraceContext::Link) => Trust::Link,
            Some(TraceContext::Accept) => Trust::Accept,
            Some(TraceContext::Ignore) => Trust::Ignore,
        },
        slow: slow.as_ref().map(|slow| reading.duration(Some(slow), Duration::ZERO, SLOW)),
        errors: errors.as_ref().is_none_or(|errors| *errors.get_ref()),
        ..terms
    };
    Some(terms.otherwise(said, false))
}

fn is_word(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(fits)
}

/// How long a request may take before it counts as slow.
const SLOW: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60 * 60);
/// Bytes of a file with headers.
const LARGEST_HEADERS: usize = 64 << 10;
/// Letters of the name of a service.
const LONGEST_NAME: usize = 64;
