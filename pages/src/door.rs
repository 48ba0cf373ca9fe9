//! Who may see pages on an address of this machine. Cookies know no ports: one for `127.0.0.1` would reach every
//! service of the machine. So these pages have a name of their own below `localhost`, made anew for each process and
//! told to nobody but who proves to be allowed; a session is known under that name alone.
//!
//! Somebody who has proved it gets a code, once for one sign-in. Pages of other sites cannot ask: their `Origin`,
//! their `Sec-Fetch-Site` and, where they had their own name lead here, their `Host` say so.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::header::{COOKIE as COOKIES, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, Method, Request};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::html::Html;

/// The sessions of one process.
pub struct Door {
    name: String,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The oldest first.
    codes: Vec<([u8; 32], Instant)>,
    sessions: Vec<Known>,
}

struct Known {
    cookie: [u8; 32],
    sign: String,
    until: Instant,
}

/// Somebody who is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Has to come with each form: a page of another site does not know it.
    pub sign: String,
}

/// Under which name a page was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// The pages' own, where sessions are known.
    Own,
    /// `localhost` or an address of it.
    Machine,
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignInError {
    #[error("these pages are answered under localhost and their own name alone; `adit dashboard` says it")]
    Host,
    #[error("pages of other sites are not answered here")]
    OtherSite,
}

impl Door {
    /// # Errors
    /// If the system has no random numbers.
    pub fn new() -> Result<Self, getrandom::Error> {
        Ok(Self { name: format!("adit-{}.localhost", hex(&random::<10>()?)), inner: Mutex::default() })
    }

    /// The name of these pages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a request may come from these pages or from whoever typed their address, and under which name.
    ///
    /// # Errors
    /// It may not.
    pub fn judge<B>(&self, request: &Request<B>) -> Result<Host, SignInError> {
        let headers = request.headers();
        let host = self.host(headers)?;
        let written = only(headers, &HOST).unwrap_or_default();
        let is_own = |origin: &str| origin.strip_prefix("http://") == Some(written);
        let origins = headers.get_all(ORIGIN).iter().all(|origin| origin.to_str().is_ok_and(is_own));
        let mut sites = headers.get_all(FETCH_SITE).iter();
        // A page of the same site is one of another service of this machine.
        let sites = sites.all(|site| {
            site == "same-origin"
                || (site == "none" && matches!(*request.method(), Method::GET | Method::HEAD))
        });
        if origins && sites { Ok(host) } else { Err(SignInError::OtherSite) }
    }

    fn host(&self, headers: &HeaderMap) -> Result<Host, SignInError> {
        let host = only(headers, &HOST).ok_or(SignInError::Host)?;
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        let name = name.to_ascii_lowercase();
        if name == self.name {
            Ok(Host::Own)
        } else if name == "localhost"
            || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        {
            Ok(Host::Machine)
        } else {
            Err(SignInError::Host)
        }
    }

    /// A code with which somebody signs in, once, within `CODE_LIFE`.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn code(&self, now: Instant) -> Result<String, getrandom::Error> {
        let bytes = random::<16>()?;
        // Letters that nobody takes for another, in groups that can be typed.
        let letters: Vec<char> = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(letter).collect();
        let groups: Vec<String> = letters.chunks(4).map(|group| group.iter().collect()).collect();
        let code = groups.join("-");
        let mut inner = self.inner();
        inner.codes.retain(|(_, until)| *until > now);
        if inner.codes.len() >= MOST_CODES {
            inner.codes.remove(0);
        }
        inner.codes.push((digest(&code), now + CODE_LIFE));
        Ok(code)
    }

    /// The cookie of a new session, for a code that was made here and not used.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn enter(&self, code: &str, now: Instant) -> Result<Option<String>, getrandom::Error> {
        let code: String = code.chars().filter(|letter| !letter.is_whitespace()).collect();
        let meant = digest(&code.to_ascii_uppercase());
        let (cookie, sign) = (hex(&random::<32>()?), hex(&random::<16>()?));
        let mut inner = self.inner();
        let known = |(code, until): &([u8; 32], Instant)| code.ct_eq(&meant).into() && *until > now;
        let Some(at) = inner.codes.iter().position(known) else { return Ok(None) };
        inner.codes.remove(at);
        inner.sessions.retain(|session| session.until > now);
        if inner.sessions.len() >= MOST_SESSIONS {
            inner.sessions.remove(0);
        }
        inner.sessions.push(Known { cookie: digest(&cookie), sign, until: now + SESSION_LIFE });
        Ok(Some(cookie))
    }

    /// Who has sent this head, if it is somebody who is signed in.
    #[must_use]
    pub fn session(&self, headers: &HeaderMap, now: Instant) -> Option<Session> {
        let cookie = digest(cookie(headers)?);
        let inner = self.inner();
        let is_meant = |known: &&Known| known.cookie.ct_eq(&cookie).into() && known.until > now;
        inner.sessions.iter().find(is_meant).map(|known| Session { sign: known.sign.clone() })
    }

    /// Ends the session of whoever has sent this head.
    pub fn leave(&self, headers: &HeaderMap) {
        if let Some(cookie) = cookie(headers).map(digest) {
            self.inner().sessions.retain(|known| !bool::from(known.cookie.ct_eq(&cookie)));
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Whether a form has come from a page of this session.
    #[must_use]
    pub fn has_sent(&self, sign: Option<&str>) -> bool {
        sign.is_some_and(|sign| sign.as_bytes().ct_eq(self.sign.as_bytes()).into())
    }

    /// What every form has in it.
    #[must_use]
    pub fn hidden(&self) -> Html {
        hidden(&self.sign)
    }
}

pub(crate) fn hidden(sign: &str) -> Html {
    let mut field = Html::new();
    field.raw("<input type=\"hidden\" name=\"sign\" value=\"").text(sign).raw("\">");
    field
}

fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(COOKIES).iter().filter_map(|value| value.to_str().ok());
    let pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value).find(|value| !value.is_empty())
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn letter(number: u8) -> char {
    char::from(b"BCDFGHJKLMNPQRST"[usize::from(number & 15)])
}

pub(crate) const COOKIE: &str = "adit";
/// Browsers send it with every request; nobody else does.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// From when a code is made until it must be used.
const CODE_LIFE: Duration = Duration::from_secs(10 * 60);
/// From one sign-in to the next.
const SESSION_LIFE: Duration = Duration::from_secs(8 * 60 * 60);
/// Codes that wait to be used; the oldest goes for one more.
const MOST_CODES: usize = 16;
/// Sessions at once; the oldest goes for one more.
const MOST_SESSIONS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(door: &Door, method: Method, headers: &[(&str, &str)]) -> Result<Host, SignInError> {
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        door.judge(&request.body(()).unwrap())
    }

    #[test]
    fn a_code_is_good_once_and_for_a_while_and_a_session_ends() {
        let door = Door::new().unwrap();
        let now = Instant::now();
        let code = door.code(now).unwrap();
        assert_eq!(door.enter("", now), Ok(None));
        assert_eq!(door.enter(&code, now + CODE_LIFE), Ok(None));
        let cookie = door.enter(&format!(" {} ", code.to_lowercase()), now).unwrap().unwrap();
        assert_eq!(door.enter(&code, now), Ok(None));
        let head = |cookie: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIES, format!("a=b; adit={cookie}; c").parse().unwrap());
            headers
        };
        let session = door.session(&head(&cookie), now).unwrap();
        assert!(
            session.has_sent(Some(&session.sign)) && !session.has_sent(None) && !session.has_sent(Some(""))
        );
        assert_eq!(door.session(&head("guess"), now), None);
        assert_eq!(door.session(&head(""), now), None);
        assert_eq!(door.session(&head(&cookie), now + SESSION_LIFE), None);
        door.leave(&head(&cookie));
        assert_eq!(door.session(&head(&cookie), now), None);
    }

    #[test]
    fn whoever_asks_for_codes_without_end_fills_nothing() {
        let door = Door::new().unwrap();
        let now = Instant::now();
        let codes: Vec<String> = (0..1_000).map(|_| door.code(now).unwrap()).collect();
        assert_eq!(door.inner().codes.len(), MOST_CODES);
        assert!(door.enter(&codes[999], now).unwrap().is_some());
        for _ in 0..1_000 {
            door.enter(&door.code(now).unwrap(), now).unwrap().unwrap();
        }
        assert_eq!(door.inner().sessions.len(), MOST_SESSIONS);
    }

    #[test]
    fn no_page_of_another_site_is_answered_whatever_its_name_leads_to() {
        let door = Door::new().unwrap();
        let own = format!("{}:20241", door.name());
        let judge = |method: &Method, headers: &[(&str, &str)]| ask(&door, method.clone(), headers);
        let origin = format!("http://{own}");
        for method in [Method::GET, Method::POST] {
            assert_eq!(judge(&method, &[("host", &own)]), Ok(Host::Own));
            assert_eq!(
                judge(&method, &[("host", &own), ("origin", &origin), ("sec-fetch-site", "same-origin")]),
                Ok(Host::Own)
            );
            for host in ["localhost:20241", "127.0.0.1:20241", "[::1]:20241"] {
                assert_eq!(judge(&method, &[("host", host)]), Ok(Host::Machine));
            }
            for host in ["evil.example", "adit.localhost", "", "10.0.0.1", "localhost.evil.example"] {
                assert_eq!(judge(&method, &[("host", host)]), Err(SignInError::Host), "{host}");
            }
            assert_eq!(judge(&method, &[]), Err(SignInError::Host));
            assert_eq!(judge(&method, &[("host", &own), ("host", &own)]), Err(SignInError::Host));
            for site in ["cross-site", "same-site"] {
                assert_eq!(
                    judge(&method, &[("host", &own), ("sec-fetch-site", site)]),
                    Err(SignInError::OtherSite)
                );
            }
            for origin in
                ["null", "http://evil.example", "http://demo.localhost:8080", "http://localhost:20241"]
            {
                assert_eq!(
                    judge(&method, &[("host", &own), ("origin", origin)]),
                    Err(SignInError::OtherSite)
                );
            }
        }
        assert_eq!(judge(&Method::GET, &[("host", &own), ("sec-fetch-site", "none")]), Ok(Host::Own));
        assert_eq!(
            judge(&Method::POST, &[("host", &own), ("sec-fetch-site", "none")]),
            Err(SignInError::OtherSite)
        );
    }
}
