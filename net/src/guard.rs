//! Who may ask a small listener, decided on the head of a request. Without a token nobody is asked for a
//! password, so whatever a browser on the same machine can be talked into must not be enough; and what can
//! be reached from other machines shows and changes nothing without one. Knows heads and addresses; does
//! not know what is answered.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use subtle::ConstantTimeEq;
use thiserror::Error;

/// What is asked for, as far as it matters who may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// Whether the process lives and is ready: for everybody who gets here, under any name.
    Probe,
    /// Numbers: for everybody who gets here, but for no web page.
    Metrics,
    /// All that says more, or changes something.
    Rest,
    /// What visitors have sent: for the token's bearer alone, on this machine too.
    Captures,
}

/// The rule of one listener.
#[derive(Debug, Clone)]
pub struct Guard {
    reach: Reach,
    token: Option<Token>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Only this machine gets here.
    Machine,
    Network,
    /// As the network, and there is nothing here but probes and metrics.
    Probes,
}

/// What proves that its bearer may. Its text is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Vec<u8>);

#[derive(Debug, Error)]
pub enum TokenError {
    #[error("reading {path}: {error}")]
    Unreadable { path: String, error: std::io::Error },
    #[error("{path} is not a file")]
    NoFile { path: String },
    #[error("{path}: a token has {LEAST} to {MOST} letters, digits and signs, and no blanks")]
    NoToken { path: String },
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("requests of web pages are not answered here: there is an Origin header")]
    Origin,
    #[error("requests of web pages are not answered here: there is a Sec-Fetch-Site header")]
    FetchSite,
    #[error("the Host header must be localhost or an IP address, so that no other name leads here")]
    Host,
    #[error("this needs the token of [admin] token-file, as `Authorization: Bearer …`")]
    NoToken,
    #[error(
        "this address can be reached from other machines and has no token: only probes and metrics are \
         answered; give [admin] a token-file, or let it listen on 127.0.0.1"
    )]
    Closed,
    #[error(
        "what visitors have sent is shown to whoever has a token, on this machine too, and there is none; give \
         [admin] a token-file"
    )]
    NoTokenFile,
    #[error("there are only probes and metrics here")]
    OnlyProbes,
}

impl Guard {
    /// For a listener at this address.
    #[must_use]
    pub fn new(listening: IpAddr, token: Option<Token>) -> Self {
        let reach = if listening.to_canonical().is_loopback() { Reach::Machine } else { Reach::Network };
        Self { reach, token }
    }

    /// For a listener that has nothing but probes and metrics.
    #[must_use]
    pub fn probes() -> Self {
        Self { reach: Reach::Probes, token: None }
    }

    /// Whether everything but probes and metrics is refused.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.reach == Reach::Network && self.token.is_none()
    }

    /// Whether only this machine gets here.
    #[must_use]
    pub fn is_of_this_machine(&self) -> bool {
        self.reach == Reach::Machine
    }

    /// Whether anything but probes and metrics wants a token.
    #[must_use]
    pub fn wants_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether a request with this head is to be answered.
    ///
    /// # Errors
    /// Says why it is not.
    pub fn judge<B>(&self, request: &Request<B>, asks: Asks) -> Result<(), Refusal> {
        let headers = request.headers();
        // No page of somebody else knows the token.
        let is_proved = self.token.as_ref().is_some_and(|token| token.is_in(headers));
        if asks == Asks::Probe || (is_proved && self.reach != Reach::Probes) {
            return Ok(());
        }
        self.turn_pages_away(headers)?;
        match (asks, self.reach) {
            (Asks::Probe | Asks::Metrics, _) => Ok(()),
            (Asks::Rest | Asks::Captures, Reach::Probes) => Err(Refusal::OnlyProbes),
            (Asks::Rest | Asks::Captures, _) if self.token.is_some() => Err(Refusal::NoToken),
            (Asks::Rest | Asks::Captures, Reach::Network) => Err(Refusal::Closed),
            (Asks::Captures, Reach::Machine) => Err(Refusal::NoTokenFile),
            (Asks::Rest, Reach::Machine) => Ok(()),
        }
    }

    /// A page of another site cannot hide its `Origin` where it may change something. One that has made its
    /// own name lead to this machine (DNS rebinding) is of the same site for the browser, but the name is in
    /// `Host`.
    fn turn_pages_away(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if headers.contains_key(ORIGIN) {
            return Err(Refusal::Origin);
        }
        // Every browser says `none` only where somebody has typed the address.
        if headers.get_all(FETCH_SITE).iter().any(|site| site != "none") {
            return Err(Refusal::FetchSite);
        }
        let mut hosts = headers.get_all(HOST).iter();
        match (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) {
            (Some(host), None) if self.is_own_name(host) => Ok(()),
            _ => Err(Refusal::Host),
        }
    }

    /// No page comes from `localhost` or a bare address unless somebody of this machine serves it. In a
    /// network there are names, such as those of containers, that no stranger can give an address to.
    fn is_own_name(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        let name = name.to_ascii_lowercase();
        if name == "localhost" || name.parse::<IpAddr>().is_ok() {
            return true;
        }
        let is_private = !name.contains('.') || PRIVATE.iter().any(|suffix| name.ends_with(suffix));
        self.reach != Reach::Machine && !name.is_empty() && is_private
    }
}

impl Refusal {
    /// As the caller hears it.
    #[must_use]
    pub fn answer(&self) -> Response<Full<Bytes>> {
        let status = match self {
            Self::Origin | Self::FetchSite | Self::Host | Self::Closed | Self::NoTokenFile => {
                StatusCode::FORBIDDEN
            }
            Self::NoToken => StatusCode::UNAUTHORIZED,
            Self::OnlyProbes => StatusCode::NOT_FOUND,
        };
        let page = format!("{}\n", serde_json::json!({ "error": self.to_string() }));
        let mut response = Response::new(Full::new(page.into()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl Token {
    /// The token in a file, without the blanks around it.
    ///
    /// # Errors
    /// If there is none, or one that could be guessed.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let shown = || path.display().to_string();
        let unreadable = |error| TokenError::Unreadable { path: shown(), error };
        // What is no file may have no end, or wait for somebody to write.
        if !path.metadata().map_err(unreadable)?.is_file() {
            return Err(TokenError::NoFile { path: shown() });
        }
        let mut text = Vec::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(2 * MOST as u64).read_to_end(&mut text).map_err(unreadable)?;
        let token = text.trim_ascii();
        let fits = (LEAST..=MOST).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
        if fits { Ok(Self(token.to_vec())) } else { Err(TokenError::NoToken { path: shown() }) }
    }

    /// What a caller sends as `Authorization`.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        let mut value = HeaderValue::from_bytes(&[BEARER, &self.0[..]].concat())
            .expect("a token consists of visible ASCII");
        value.set_sensitive(true);
        value
    }

    fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, text)) = value.as_bytes().split_at_checked(BEARER.len()) else { return false };
        scheme.eq_ignore_ascii_case(BEARER) && self.0.ct_eq(text.trim_ascii()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Browsers send it with every request; nobody else does.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const BEARER: &[u8] = b"Bearer ";
/// Bytes of a token.
const LEAST: usize = 16;
const MOST: usize = 1024;
/// Names below these are given out by nobody (RFC 6761, RFC 6762, and ICANN's decision on `internal`).
const PRIVATE: [&str; 3] = [".local", ".internal", ".localhost"];

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const ANY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

    fn token() -> Token {
        Token(b"0123456789abcdef".to_vec())
    }

    fn judge(guard: &Guard, asks: Asks, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        guard.judge(&request.body(()).unwrap(), asks)
    }

    #[test]
    fn only_what_no_web_page_can_send_is_answered() {
        let local = Guard::new(LOCAL, None);
        let judge = |headers: &[(&str, &str)]| {
            let told = judge(&local, Asks::Rest, headers);
            assert_eq!(judge(&local, Asks::Metrics, headers), told, "{headers:?}");
            assert_eq!(judge(&local, Asks::Probe, headers), Ok(()), "{headers:?}");
            told.is_ok()
        };
        for host in [
            "localhost",
            "LOCALHOST:20241",
            "127.0.0.1",
            "127.0.0.1:20241",
            "[::1]:20241",
            "[::1]",
            "10.1.2.3:80",
        ] {
            assert!(judge(&[("host", host)]), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[evil]",
            "2130706433",
            "evil.local",
            "app.localhost",
        ] {
            assert!(!judge(&[("host", host)]), "{host}");
        }
        let host = ("host", "localhost:20241");
        assert!(!judge(&[]));
        assert!(!judge(&[host, ("host", "evil.example")]));
        assert!(!judge(&[host, ("origin", "https://evil.example")]));
        // A sandboxed frame, a redirect, a file.
        assert!(!judge(&[host, ("origin", "null")]));
        for site in ["cross-site", "same-site", "same-origin"] {
            assert!(!judge(&[host, ("sec-fetch-site", site)]), "{site}");
        }
        assert!(judge(&[host, ("sec-fetch-site", "none")]));
    }

    #[test]
    fn beyond_this_machine_a_token_is_needed_for_all_but_probes_and_metrics() {
        let host = ("host", "192.0.2.1:20241");
        let right = ("authorization", "bearer 0123456789abcdef");
        let wrong = ("authorization", "Bearer 0123456789abcdeF");
        let closed = Guard::new(ANY, None);
        assert!(closed.is_closed());
        for guard in [&closed, &Guard::new(ANY, Some(token())), &Guard::probes()] {
            assert_eq!(judge(guard, Asks::Probe, &[]), Ok(()));
            for name in ["192.0.2.1", "adit", "adit.internal:20241", "host.local"] {
                assert_eq!(judge(guard, Asks::Metrics, &[("host", name)]), Ok(()), "{name}");
            }
            assert_eq!(judge(guard, Asks::Metrics, &[("host", "evil.example")]), Err(Refusal::Host));
        }
        assert_eq!(judge(&closed, Asks::Rest, &[host, right]), Err(Refusal::Closed));
        assert_eq!(judge(&Guard::probes(), Asks::Rest, &[host, right]), Err(Refusal::OnlyProbes));
        for guard in [Guard::new(ANY, Some(token())), Guard::new(LOCAL, Some(token()))] {
            assert!(!guard.is_closed());
            assert_eq!(judge(&guard, Asks::Rest, &[host]), Err(Refusal::NoToken));
            assert_eq!(judge(&guard, Asks::Rest, &[host, wrong]), Err(Refusal::NoToken));
            assert_eq!(judge(&guard, Asks::Rest, &[host, right, right]), Err(Refusal::NoToken));
            assert_eq!(judge(&guard, Asks::Rest, &[host, right]), Ok(()));
            assert_eq!(judge(&guard, Asks::Rest, &[("host", "admin.example.com"), right]), Ok(()));
        }
    }

    #[test]
    fn what_visitors_have_sent_needs_a_token_on_this_machine_too() {
        let host = ("host", "localhost");
        let right = ("authorization", "Bearer 0123456789abcdef");
        assert_eq!(judge(&Guard::new(LOCAL, None), Asks::Captures, &[host]), Err(Refusal::NoTokenFile));
        assert_eq!(
            judge(&Guard::new(LOCAL, None), Asks::Captures, &[host, right]),
            Err(Refusal::NoTokenFile)
        );
        let guard = Guard::new(LOCAL, Some(token()));
        assert_eq!(judge(&guard, Asks::Captures, &[host]), Err(Refusal::NoToken));
        assert_eq!(judge(&guard, Asks::Captures, &[host, right]), Ok(()));
        assert_eq!(judge(&Guard::probes(), Asks::Captures, &[host, right]), Err(Refusal::OnlyProbes));
        assert_eq!(judge(&Guard::new(ANY, None), Asks::Captures, &[host, right]), Err(Refusal::Closed));
    }

    #[test]
    fn a_token_that_could_be_guessed_or_has_no_end_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (text, is_good) in [
            ("0123456789abcdef", true),
            (" 0123456789abcdef\r\n", true),
            ("", false),
            ("short", false),
            ("0123456789 abcdef", false),
            ("0123456789äbcdef", false),
            (&"x".repeat(MOST), true),
            (&"x".repeat(MOST + 1), false),
        ] {
            std::fs::write(&path, text).unwrap();
            let token = Token::read(&path);
            assert_eq!(token.is_ok(), is_good, "{text}");
            let shown = format!("{token:?}");
            assert!(text.trim().is_empty() || !shown.contains(text.trim()), "{shown}");
        }
        assert!(matches!(Token::read(Path::new("/dev/zero")), Err(TokenError::NoFile { .. })));
        assert!(matches!(Token::read(folder.path()), Err(TokenError::NoFile { .. })));
        assert!(matches!(Token::read(&folder.path().join("none")), Err(TokenError::Unreadable { .. })));
    }
}
