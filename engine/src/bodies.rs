//! Whole bodies, for the filters that ask for them: how much is gathered, and what of a head does not hold any more
//! where a body was replaced. Knows no transport; whoever carries a body gathers it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_RANGE,
    RANGE,
};
use http::{HeaderMap, StatusCode, response};

use super::bindings::adit::plugin::bodies as bound;
use super::body_stream::BodyFilter;

/// Most that a plugin may ask to see of one body, bytes.
pub(super) const LARGEST_BODY: usize = 16 * 1024 * 1024;
/// Bytes of all bodies that are gathered for plugins, in all shards.
const MOST_GATHERED: usize = 256 * 1024 * 1024;

/// Where the body of a message comes from and goes on to.
pub trait BodySource {
    /// Takes all of it, if it has at most `most` bytes; a longer one goes on as it came. What is held for it is taken
    /// from `room`, which stays with it.
    fn gather(&mut self, most: usize, room: BodyRoom) -> impl Future<Output = Gathered>;

    /// Whether this message may have a body: an upgrade may not.
    fn may_have_one(&self) -> bool;

    /// Whether it is known that there is none.
    fn is_empty(&self) -> bool;

    /// What goes on in its place.
    fn replace(&mut self, body: Bytes);

    /// Has it pass by a plugin, as a [`FilteredBody`](super::FilteredBody).
    fn filter(&mut self, filter: BodyFilter);
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gathered {
    Whole(Bytes),
    /// It is longer.
    Beyond,
    /// It broke off, or will not be of use to anybody.
    Broken,
    /// It did not end in time.
    Slow,
    /// There is no room for it.
    NoRoom,
}

/// What is held of one body. Gives it back when dropped.
#[derive(Debug)]
pub struct BodyRoom {
    all: Arc<AtomicUsize>,
    held: usize,
}

impl BodyRoom {
    pub(super) fn of(all: &Arc<AtomicUsize>) -> Self {
        Self { all: all.clone(), held: 0 }
    }

    /// One that shares with nobody, for whoever has a body at hand.
    pub fn alone() -> Self {
        Self::of(&Arc::default())
    }

    /// Takes room for more bytes; whether there is some.
    pub fn grow(&mut self, by: usize) -> bool {
        let before = self.all.fetch_add(by, Ordering::Relaxed);
        self.held += by;
        before.saturating_add(by) <= MOST_GATHERED
    }

    /// Gives some of it back.
    pub(super) fn shrink(&mut self, by: usize) {
        let by = by.min(self.held);
        self.all.fetch_sub(by, Ordering::Relaxed);
        self.held -= by;
    }
}

impl Drop for BodyRoom {
    fn drop(&mut self) {
        self.all.fetch_sub(self.held, Ordering::Relaxed);
    }
}

/// A message that has no body.
pub struct NoBody;

impl BodySource for NoBody {
    async fn gather(&mut self, _most: usize, _room: BodyRoom) -> Gathered {
        Gathered::Whole(Bytes::new())
    }

    fn may_have_one(&self) -> bool {
        false
    }

    fn is_empty(&self) -> bool {
        true
    }

    fn replace(&mut self, _body: Bytes) {}

    fn filter(&mut self, _filter: BodyFilter) {}
}

/// What a plugin wants to see of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BodyLimits {
    pub(crate) most: usize,
    /// Whether a message whose body it cannot see goes on without it.
    pub(crate) passes: bool,
}

impl BodyLimits {
    pub(super) fn check(limits: bound::Limits) -> Result<Self, String> {
        let most = usize::try_from(limits.most).unwrap_or(usize::MAX);
        if most == 0 || most > LARGEST_BODY {
            return Err(format!("it wants to see bodies of {most} bytes, 1 to {LARGEST_BODY} are allowed"));
        }
        Ok(Self { most, passes: matches!(limits.beyond, bound::Beyond::Pass) })
    }
}

/// Whether a body has no end in sight: it is a conversation.
pub(super) fn is_endless(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let is = |name: &[u8]| kind.len() >= name.len() && kind[..name.len()].eq_ignore_ascii_case(name);
    is(b"text/event-stream") || is(b"application/grpc")
}

/// Whether an answer to a request by this method has a body.
pub(super) fn has_body(is_head: bool, status: StatusCode) -> bool {
    let is_bodiless =
        matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    !(is_head || is_bodiless || status.is_informational())
}

/// What of a request must not reach an origin whose answer will be looked at as a whole.
pub(super) fn ask_for_all(headers: &mut HeaderMap) {
    for name in [ACCEPT_ENCODING, RANGE, IF_RANGE] {
        headers.remove(name);
    }
}

/// What an answer to HEAD says of a body that may be another one.
pub(super) fn forget_length(head: &mut response::Parts) {
    head.headers.remove(CONTENT_LENGTH);
    weaken(&mut head.headers);
}

/// What the head of a message says of a body that was replaced.
pub(super) fn replaced(headers: &mut HeaderMap, length: usize) {
    rewritten(headers);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
}

/// What it says of a body that becomes another one as it passes.
pub(super) fn rewritten(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    for name in DIGESTS {
        headers.remove(name);
    }
    headers.remove(ACCEPT_RANGES);
    weaken(headers);
}

/// What was the same byte for byte now only means the same.
fn weaken(headers: &mut HeaderMap) {
    if let Some(tag) = headers.get(ETAG)
        && !tag.as_bytes().starts_with(b"W/")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        headers.insert(ETAG, weak);
    }
}

const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn bodies_that_cannot_be_shown_are_known_by_their_heads() {
        for (list, endless) in [
            (&[][..], false),
            (&[("content-type", "Text/Event-Stream; charset=utf-8")], true),
            (&[("content-type", "application/grpc+proto")], true),
            (&[("content-type", "text/html")], false),
        ] {
            assert_eq!(is_endless(&headers(list)), endless, "{list:?}");
        }
        for (is_head, status, has) in [
            (false, 200, true),
            (true, 200, false),
            (false, 204, false),
            (false, 304, false),
            (false, 101, false),
        ] {
            assert_eq!(has_body(is_head, StatusCode::from_u16(status).unwrap()), has, "{status}");
        }
    }

    #[test]
    fn what_no_longer_holds_of_a_replaced_body_is_gone() {
        let mut one = headers(&[
            ("content-length", "3"),
            ("etag", "\"a\""),
            ("content-digest", "sha-256=:x:"),
            ("accept-ranges", "bytes"),
            ("x-kept", "1"),
        ]);
        replaced(&mut one, 12);
        assert_eq!(one, headers(&[("content-length", "12"), ("etag", "W/\"a\""), ("x-kept", "1")]));
        replaced(&mut one, 0);
        assert_eq!(one["etag"], "W/\"a\"", "once");
    }

    #[test]
    fn all_that_is_gathered_has_one_limit_and_is_given_back() {
        let all = Arc::default();
        let (mut one, mut other) = (BodyRoom::of(&all), BodyRoom::of(&all));
        assert!(one.grow(MOST_GATHERED) && !other.grow(1));
        drop(one);
        assert!(other.grow(1));
        drop(other);
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
