//! Sessions: which endpoint a visitor belongs to, by what its request brings, and the cookie that keeps it there. No
//! table is kept; what a cookie says is signed. Knows heads and endpoints; does not know what becomes of requests.

use std::time::{Duration, SystemTime};

use adit_balance::affinity::{self, Keys, Session};
use adit_balance::{Key, health::State};
use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Asked;
use super::pool::Pool;

/// What a load balancer says about sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Affinity {
    pub(super) by: By,
    /// Seconds that a cookie counts.
    pub(super) ttl: u32,
    pub(super) secure: Secure,
    pub(super) same_site: SameSite,
    pub(crate) failover: Failover,
    /// How long an endpoint that is switched off serves the sessions that it has.
    pub(super) drain: Duration,
    /// Whether a session stays with a replica of its tunnel too.
    pub(super) keeps_replica: bool,
}

/// By what a session is known again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum By {
    Cookie,
    /// The first endpoint is found by the address, the next time by the cookie.
    AddressAndCookie,
    Headers {
        parts: Vec<Part>,
        are_all_required: bool,
    },
}

/// What of a head counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Header(HeaderName),
    Cookie(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secure {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SameSite {
    Auto,
    Lax,
    None,
    Strict,
}

/// What becomes of a request whose attempt at its own endpoint fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failover {
    /// It goes elsewhere only if its endpoint has not seen it.
    None,
    /// It goes elsewhere, and the session stays.
    Temporary,
    /// It goes elsewhere, and the session with it.
    Sticky,
}

/// Whom a request is from, as far as it matters for the way through a load balancer.
pub(super) struct Who {
    /// The same for everybody at one address.
    pub(super) visitor: Key,
    /// What chooses in the place of chance.
    pub(super) key: Option<Key>,
    /// What its cookie says.
    pub(super) session: Option<Session>,
    is_secure: bool,
}

impl Who {
    /// Of a request to the load balancer with this id.
    pub(super) fn of(affinity: Option<&Affinity>, by: (&str, Option<&Keys>), asked: &Asked<'_>) -> Self {
        let visitor = affinity::of_address(asked.visitor);
        let (headers, is_secure) = (asked.request.headers(), asked.is_secure);
        let session = || by.1.and_then(|keys| session(keys, by.0, headers));
        let (key, session) = match affinity.map(|affinity| &affinity.by) {
            None => (None, None),
            Some(By::Cookie) => (None, session()),
            Some(By::AddressAndCookie) => (Some(visitor), session()),
            Some(By::Headers { parts, are_all_required }) => {
                let values = parts.iter().map(|part| part.value(headers));
                (affinity::of_headers(values, *are_all_required), None)
            }
        };
        Self { visitor, key, session, is_secure }
    }

    /// The replica that its session is at.
    pub(super) fn replica(&self) -> Option<Uuid> {
        self.session?.replica.map(Uuid::from_u128)
    }
}

/// Where a request was served.
#[derive(Debug, Clone, Copy)]
pub(super) struct Served {
    pub(super) endpoint: u128,
    pub(super) replica: Uuid,
    /// By another endpoint than its own, which was asked and failed.
    pub(super) is_elsewhere: bool,
}

impl Affinity {
    /// Whether requests are kept at an endpoint by what they bring with them each time.
    pub(super) fn is_by_headers(&self) -> bool {
        matches!(self.by, By::Headers { .. })
    }

    /// As it is written by what a session is known.
    pub(super) fn word(&self) -> &'static str {
        match self.by {
            By::Cookie => "cookie",
            By::AddressAndCookie => "ip_cookie",
            By::Headers { .. } => "header",
        }
    }

    /// The header that makes or moves a session, where it is not as it should be.
    pub(super) fn cookie(
        &self,
        (id, keys): (&str, Option<&Keys>),
        who: &Who,
        served: Served,
    ) -> Option<HeaderValue> {
        let keys = keys.filter(|_| !self.is_by_headers())?;
        let replica = self.keeps_replica.then_some(served.replica.as_u128());
        if let Some(session) = &who.session {
            let is_there = session.endpoint == served.endpoint && session.replica == replica;
            if is_there || (served.is_elsewhere && self.failover == Failover::Temporary) {
                return None;
            }
        }
        let expires = now() + u64::from(self.ttl);
        let value = keys.sign(id.as_bytes(), &Session { endpoint: served.endpoint, replica, expires });
        let is_secure = match self.secure {
            Secure::Auto => who.is_secure,
            Secure::Always => true,
            Secure::Never => false,
        };
        let same_site = match self.same_site {
            // Without the other attribute no browser keeps it.
            SameSite::Auto | SameSite::None if is_secure => "None",
            SameSite::Auto | SameSite::None | SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
        };
        let secure = if is_secure { "; Secure" } else { "" };
        let ttl = self.ttl;
        let line = format!("{NAME}={value}; Max-Age={ttl}; Path=/; HttpOnly; SameSite={same_site}{secure}");
        HeaderValue::try_from(line).ok()
    }

    /// Whether an endpoint of a pool may serve a session that it has.
    pub(super) fn may_serve(&self, pool: &Pool, at: usize) -> bool {
        let endpoint = &pool.endpoints[at];
        if endpoint.is_enabled && pool.is_enabled {
            let is_up = matches!(endpoint.state(), State::Up | State::Unknown);
            return is_up && pool.health().standing().is_some();
        }
        let since = if endpoint.is_enabled { pool.disabled_at } else { endpoint.disabled_at };
        let is_draining = since.is_some_and(|since| {
            SystemTime::now().duration_since(since.into()).unwrap_or_default() < self.drain
        });
        is_draining && endpoint.is_well()
    }
}

impl Part {
    /// As it is written: the name of a header, or `cookie:` and names of cookies; without them all cookies count.
    pub(super) fn read(text: &str) -> Vec<Self> {
        match text.split_once(':') {
            Some(("cookie", names)) => {
                let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
                names.map(|name| Self::Cookie(name.to_owned())).collect()
            }
            _ => text.parse().ok().map(Self::Header).into_iter().collect(),
        }
    }

    fn value<'h>(&self, headers: &'h HeaderMap) -> Option<&'h [u8]> {
        match self {
            Self::Header(name) => headers.get(name).map(HeaderValue::as_bytes),
            Self::Cookie(name) => cookies(headers, name.as_bytes()).next(),
        }
    }
}

/// By which cookies know an endpoint. Tunnels and pools are not used again, so neither is this.
pub(super) fn endpoint_id(pool: &str, tunnel: Uuid) -> u128 {
    let digest =
        Sha256::new().chain_update(b"adit endpoint ").chain_update(pool).chain_update(tunnel).finalize();
    let (first, _) = digest.split_first_chunk::<16>().expect("a digest is 32 bytes");
    u128::from_be_bytes(*first)
}

/// What the first cookie says that is one of this load balancer's.
fn session(keys: &Keys, id: &str, headers: &HeaderMap) -> Option<Session> {
    let now = now();
    let mut read = cookies(headers, NAME.as_bytes()).take(MOST_COOKIES);
    read.find_map(|value| keys.read(id.as_bytes(), value, now).ok())
}

/// The values of the cookies of this name that are not empty (RFC 6265 4.2.1).
fn cookies<'h>(headers: &'h HeaderMap, name: &[u8]) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(COOKIE).into_iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let value = pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"=")?;
        (!value.is_empty()).then_some(value)
    })
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The name that the reference gives it.
const NAME: &str = "__cflb";
/// Of this name that are looked at: others of a whole domain may stand beside ours.
const MOST_COOKIES: usize = 4;
