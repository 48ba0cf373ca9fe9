//! What an edge knows of how a visitor came, beside the address: one header of each attempt, which the edge writes for
//! hosts that offer [`FEATURE_VISITOR`](super::FEATURE_VISITOR) and for other nodes, and which goes no further.
//!
//! ```text
//! attempt=2;port=50712;http=2;tls=1.3
//! ```
//!
//! What is not known is left out. Words that a reader does not know are passed over, so that there may be more of them.

use std::fmt::{self, Write};

use http::Version;
use http::header::HeaderValue;

/// What is known of a visitor's side of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VisitorFacts {
    /// Which attempt at the request this is, from 1.
    pub attempt: Option<u32>,
    /// From which the visitor has opened its connection.
    pub port: Option<u16>,
    pub http: Option<HttpVersion>,
    /// Nothing where the visitor came without TLS.
    pub tls: Option<TlsVersion>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    Http10,
    Http11,
    Http2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

impl HttpVersion {
    const ALL: [Self; 3] = [Self::Http10, Self::Http11, Self::Http2];

    /// `None` of a version that no visitor of ours speaks.
    pub fn of(version: Version) -> Option<Self> {
        match version {
            Version::HTTP_10 => Some(Self::Http10),
            Version::HTTP_11 => Some(Self::Http11),
            Version::HTTP_2 => Some(Self::Http2),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
            Self::Http2 => "2",
        }
    }
}

impl TlsVersion {
    const ALL: [Self; 2] = [Self::Tls12, Self::Tls13];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }
}

impl VisitorFacts {
    pub fn header(&self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("digits and letters are a header value")
    }

    /// What a header says; what cannot be read is as if it was not said.
    pub fn of(header: &HeaderValue) -> Self {
        let mut facts = Self::default();
        let Ok(text) = header.to_str() else { return facts };
        for (name, value) in text.split(';').filter_map(|fact| fact.split_once('=')) {
            match name {
                "attempt" => facts.attempt = value.parse().ok().filter(|attempt| *attempt > 0),
                "port" => facts.port = value.parse().ok(),
                "http" => facts.http = HttpVersion::ALL.into_iter().find(|known| known.as_str() == value),
                "tls" => facts.tls = TlsVersion::ALL.into_iter().find(|known| known.as_str() == value),
                _ => {}
            }
        }
        facts
    }
}

impl fmt::Display for VisitorFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut is_first = true;
        let mut fact = |name: &str, value: Option<&dyn fmt::Display>| {
            let Some(value) = value else { return Ok(()) };
            if !std::mem::take(&mut is_first) {
                f.write_char(';')?;
            }
            write!(f, "{name}={value}")
        };
        fact("attempt", self.attempt.as_ref().map(|value| value as _))?;
        fact("port", self.port.as_ref().map(|value| value as _))?;
        fact("http", self.http.map(HttpVersion::as_str).as_ref().map(|value| value as _))?;
        fact("tls", self.tls.map(TlsVersion::as_str).as_ref().map(|value| value as _))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> VisitorFacts {
        VisitorFacts::of(&HeaderValue::try_from(text).unwrap())
    }

    #[test]
    fn facts_are_read_as_they_were_written() {
        let all = VisitorFacts {
            attempt: Some(2),
            port: Some(50712),
            http: Some(HttpVersion::Http2),
            tls: Some(TlsVersion::Tls13),
        };
        assert_eq!(all.header(), "attempt=2;port=50712;http=2;tls=1.3");
        let some = VisitorFacts { http: Some(HttpVersion::Http10), ..VisitorFacts::default() };
        assert_eq!(some.header(), "http=1.0");
        for facts in [all, some, VisitorFacts::default()] {
            assert_eq!(VisitorFacts::of(&facts.header()), facts);
        }
    }

    #[test]
    fn what_cannot_be_read_is_as_if_it_was_not_said() {
        assert_eq!(
            of("later=word;port=1;attempt"),
            VisitorFacts { port: Some(1), ..VisitorFacts::default() }
        );
        for odd in ["attempt=0", "attempt=-1", "port=65536", "http=3", "tls=1.1", "attempt=1.0", "=", ";"] {
            assert_eq!(of(odd), VisitorFacts::default(), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(header) = HeaderValue::from_bytes(&bytes) {
                let _ = VisitorFacts::of(&header);
            }
        }
    }
}
