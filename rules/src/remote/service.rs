//! The services of pushed rules: the reference's forms. Knows which kinds there are besides ours; opens nothing.

use std::path::Path;

use http::StatusCode;

use crate::plan::Service;
use crate::value::Invalid;

/// What a text is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Known(Service),
    /// A plugin of the host, by its name.
    Component(String),
    /// Of a kind that hosts of ours do not know.
    Unknown,
}

/// Reads the reference's forms, of which WebSocket addresses mean what their HTTP ones do, and those of a scheme
/// that nobody knows are services of bytes where they have a port.
///
/// # Errors
/// It is of no kind, or wrong for its own.
pub(super) fn read(text: &str, folder: &Path) -> Result<Read, Invalid> {
    match text.split_once("://") {
        Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
            "ws" => Service::parse(&format!("http://{rest}"), folder).map(Read::Known),
            "wss" => Service::parse(&format!("https://{rest}"), folder).map(Read::Known),
            "http" | "https" | "unix" | "unix+tls" => Service::parse(text, folder).map(Read::Known),
            scheme if is_word(scheme) && has_host(rest) => match Service::any_scheme(scheme, rest) {
                Err(_) if !has_port(rest) => Ok(Read::Unknown),
                outcome => outcome.map(Read::Known),
            },
            _ => Service::parse(text, folder).map(Read::Known),
        },
        None if text.starts_with("wasm:") => Ok(Read::Component(text["wasm:".len()..].to_owned())),
        None => match Service::parse(text, folder) {
            Err(_) if is_word(text) => Ok(Read::Unknown),
            outcome => outcome.map(Read::Known),
        },
    }
}

/// What is served in the place of one that is not known.
pub(super) fn unknown() -> Service {
    Service::Status(StatusCode::NOT_IMPLEMENTED)
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-._".contains(c))
}

fn has_host(rest: &str) -> bool {
    !rest.starts_with([':', '/', '?', '#']) && !rest.is_empty() && !rest.contains(char::is_whitespace)
}

fn has_port(rest: &str) -> bool {
    rest.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_known_or_of_another_kind_or_wrong() {
        let known = |text: &str| Read::Known(Service::parse(text, Path::new("")).unwrap());
        for (text, wanted) in [
            ("http://a:1", Some(known("http://a:1"))),
            ("ws://a:1", Some(known("http://a:1"))),
            ("WSS://a", Some(known("https://a"))),
            ("hello_world", Some(known("hello_world"))),
            ("ssh://a:22", Some(known("ssh://a:22"))),
            ("tcp://a", Some(known("tcp://a:7864"))),
            ("redis://a:6379", Some(known("redis://a:6379"))),
            ("htp://a:80", Some(Read::Known(Service::any_scheme("htp", "a:80").unwrap()))),
            ("ssh://a:99999", None),
            ("bastion", Some(known("bastion"))),
            ("socks-proxy", Some(known("socks-proxy"))),
            ("wasm:mine", Some(Read::Component("mine".to_owned()))),
            ("unix+tls:/run/a", Some(known("unix+tls:/run/a"))),
            ("ftp://x", Some(Read::Unknown)),
            ("s3", Some(Read::Unknown)),
            ("http://a/b", None),
            ("http_status:7", None),
            ("tcp://", None),
            ("localhost:8080", None),
            ("Not A Service", None),
            ("", None),
        ] {
            assert_eq!(read(text, Path::new("")).ok(), wanted, "{text}");
        }
    }
}
