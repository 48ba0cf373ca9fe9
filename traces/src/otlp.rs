//! Spans in the form of OTLP (opentelemetry-proto 1.x, `ExportTraceServiceRequest`), written field by field: a message
//! is a few numbers and texts with their tags. Writes; reads of an answer only what was refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::context::{Context, SpanId, TraceId};
use crate::span::{Epoch, Span, Value};
use crate::tracer::Finished;

/// One request with all of these, from a program that is called so.
pub(crate) fn request(service: &[(String, String)], traces: &[Finished]) -> Vec<u8> {
    let epoch = Epoch::now();
    let mut spans = Vec::new();
    for Finished { trace, state, spans: all, theirs: _ } in traces {
        for span in all {
            message(&mut spans, 2, |body| write(body, *trace, state, span, &epoch));
        }
    }
    let mut request = Vec::with_capacity(spans.len() + 512);
    message(&mut request, 1, |resource_spans| {
        message(resource_spans, 1, |resource| {
            for (key, value) in service {
                attribute(resource, 1, key, &Value::Text(value.clone().into()));
            }
        });
        message(resource_spans, 2, |scope_spans| {
            message(scope_spans, 1, |scope| {
                text(scope, 1, "adit");
                text(scope, 2, env!("CARGO_PKG_VERSION"));
            });
            scope_spans.extend_from_slice(&spans);
        });
    });
    for Finished { trace, theirs, .. } in traces {
        if let Some((connector, said)) = theirs {
            relay(&mut request, *trace, connector, said.as_bytes());
        }
    }
    request
}

/// The spans of a connector of the reference, under its own name, as far as they belong to this trace: a host is no
/// reason to believe anything of others.
fn relay(request: &mut Vec<u8>, trace: TraceId, connector: &str, said: &[u8]) {
    let Ok(said) = STANDARD.decode(said) else { return };
    let mut spans = Vec::new();
    for resource_spans in all(&said, 1) {
        for scope_spans in all(resource_spans, 2) {
            let own = all(scope_spans, 2)
                .filter(|span| matches!(field(span, 1), Some(Found::Bytes(id)) if id == trace.0));
            spans.extend(own);
        }
    }
    spans.truncate(MOST_RELAYED);
    if spans.is_empty() {
        return;
    }
    message(request, 1, |resource_spans| {
        message(resource_spans, 1, |resource| {
            for (key, value) in [("service.name", "cloudflared"), ("service.instance.id", connector)] {
                attribute(resource, 1, key, &Value::Text(value.to_owned().into()));
            }
        });
        message(resource_spans, 2, |scope_spans| {
            for span in spans {
                bytes(scope_spans, 2, span);
            }
        });
    });
}

fn write(body: &mut Vec<u8>, trace: TraceId, state: &str, span: &Span, epoch: &Epoch) {
    bytes(body, 1, &trace.0);
    bytes(body, 2, &span.id.0);
    text(body, 3, state);
    if let Some(SpanId(parent)) = &span.parent {
        bytes(body, 4, parent);
    }
    text(body, 5, &span.name);
    number(body, 6, span.kind as u64);
    let begun = epoch.nanoseconds(span.begun);
    let took = u64::try_from(span.took.as_nanos()).unwrap_or(u64::MAX);
    fixed(body, 7, begun);
    fixed(body, 8, begun.saturating_add(took));
    for (key, value) in &span.attributes {
        attribute(body, 9, key, value);
    }
    if let Some(Context { trace, span, .. }) = &span.link {
        message(body, 13, |link| {
            bytes(link, 1, &trace.0);
            bytes(link, 2, &span.0);
        });
    }
    if span.is_error {
        message(body, 15, |status| number(status, 3, ERROR));
    }
}

fn attribute(body: &mut Vec<u8>, field: u32, key: &str, value: &Value) {
    message(body, field, |pair| {
        text(pair, 1, key);
        message(pair, 2, |any| match value {
            // Written where it is empty too: this field says of which kind the value is.
            Value::Text(text) => bytes(any, 1, text.as_bytes()),
            Value::Number(value) => {
                tag(any, 3, VARINT);
                varint(any, value.cast_unsigned());
            }
        });
    });
}

fn message(body: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    bytes(body, field, &inner);
}

fn text(body: &mut Vec<u8>, field: u32, text: &str) {
    if !text.is_empty() {
        bytes(body, field, text.as_bytes());
    }
}

fn bytes(body: &mut Vec<u8>, field: u32, content: &[u8]) {
    tag(body, field, LENGTH);
    varint(body, content.len() as u64);
    body.extend_from_slice(content);
}

fn number(body: &mut Vec<u8>, field: u32, value: u64) {
    tag(body, field, VARINT);
    varint(body, value);
}

fn fixed(body: &mut Vec<u8>, field: u32, value: u64) {
    tag(body, field, FIXED);
    body.extend_from_slice(&value.to_le_bytes());
}

fn tag(body: &mut Vec<u8>, field: u32, wire: u32) {
    varint(body, u64::from(field << 3 | wire));
}

fn varint(body: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        #[allow(clippy::cast_possible_truncation, reason = "the seven bits that are wanted")]
        body.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[allow(clippy::cast_possible_truncation, reason = "less than 128")]
    body.push(value as u8);
}

/// How many spans an answer says it has not taken.
pub(crate) fn refused(answer: &[u8]) -> u64 {
    let Some(partial) = field(answer, 1) else { return 0 };
    let Found::Bytes(partial) = partial else { return 0 };
    match field(partial, 1) {
        Some(Found::Number(count)) => count,
        _ => 0,
    }
}

enum Found<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

/// The messages in the fields of this number, up to where it is no message any more.
fn all(mut message: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        loop {
            let (number, found) = next(&mut message)?;
            if let Found::Bytes(bytes) = found
                && number == wanted
            {
                return Some(bytes);
            }
        }
    })
}

/// The first field of this number in a message; `None` too where it is no message.
fn field(mut message: &[u8], wanted: u64) -> Option<Found<'_>> {
    loop {
        let (number, found) = next(&mut message)?;
        if number == wanted {
            return Some(found);
        }
    }
}

/// The next field; `None` at the end, and where there is none.
fn next<'b>(message: &mut &'b [u8]) -> Option<(u64, Found<'b>)> {
    let tag = read(message)?;
    let mut take = |length: usize| {
        let (content, rest) = message.split_at_checked(length)?;
        *message = rest;
        Some(content)
    };
    let found = match tag & 7 {
        1 => Found::Bytes(take(8)?),
        5 => Found::Bytes(take(4)?),
        0 => Found::Number(read(message)?),
        2 => {
            let length = usize::try_from(read(message)?).ok()?;
            let (content, rest) = message.split_at_checked(length)?;
            *message = rest;
            Found::Bytes(content)
        }
        _ => return None,
    };
    Some((tag >> 3, found))
}

fn read(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (at, byte) in message.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(7 * at).ok()?)?;
        if byte & 0x80 == 0 {
            *message = &message[at + 1..];
            return Some(value);
        }
    }
    None
}

/// Of one connector at one request.
const MOST_RELAYED: usize = 32;
const VARINT: u32 = 0;
const FIXED: u32 = 1;
const LENGTH: u32 = 2;
/// Of a status.
const ERROR: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_was_refused_and_any_bytes_say_something_or_nothing() {
        let mut answer = Vec::new();
        message(&mut answer, 1, |partial| {
            number(partial, 1, 300);
            text(partial, 2, "too many");
        });
        assert_eq!(refused(&answer), 300);
        assert_eq!(refused(b""), 0);
        for length in 0..answer.len() {
            let _ = refused(&answer[..length]);
        }
        for _ in 0..10_000 {
            let noise: Vec<u8> = (0..fastrand::usize(..40)).map(|_| fastrand::u8(..)).collect();
            let _ = refused(&noise);
            relay(&mut Vec::new(), TraceId([1; 16]), "c", STANDARD.encode(&noise).as_bytes());
            relay(&mut Vec::new(), TraceId([1; 16]), "c", &noise);
        }
    }

    #[test]
    fn a_connector_speaks_of_the_trace_that_it_was_asked_in_and_of_no_other() {
        let said = |ids: &[[u8; 16]]| {
            let mut request = Vec::new();
            message(&mut request, 1, |resource_spans| {
                message(resource_spans, 1, |resource| {
                    attribute(resource, 1, "service.name", &Value::Text("somebody-else".into()));
                });
                message(resource_spans, 2, |scope_spans| {
                    for id in ids {
                        message(scope_spans, 2, |span| {
                            bytes(span, 1, id);
                            text(span, 5, "proxy");
                        });
                    }
                });
            });
            STANDARD.encode(request)
        };
        let mut told = Vec::new();
        relay(&mut told, TraceId([1; 16]), "c1", said(&[[1; 16], [2; 16], [1; 16]]).as_bytes());
        let scope = |request: &[u8]| {
            let resource_spans = all(request, 1).next().map(<[u8]>::to_vec).unwrap_or_default();
            all(&resource_spans, 2).next().map(<[u8]>::to_vec).unwrap_or_default()
        };
        let scope_spans = scope(&told);
        assert_eq!(all(&scope_spans, 2).count(), 2);
        let text = String::from_utf8_lossy(&told);
        assert!(
            text.contains("cloudflared") && text.contains("c1") && !text.contains("somebody-else"),
            "{text}"
        );
        told.clear();
        relay(&mut told, TraceId([1; 16]), "c1", said(&[[2; 16]]).as_bytes());
        assert_eq!(told, b"");
        let many = said(&vec![[1; 16]; 100]);
        relay(&mut told, TraceId([1; 16]), "c1", many.as_bytes());
        let scope_spans = scope(&told);
        assert_eq!(all(&scope_spans, 2).count(), MOST_RELAYED);
    }
}
