//! Whether anything is kept, of what, and for how long. While nothing is, a request costs the load of one number.
//! Knows what time it is from whoever asks.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use serde::Serialize;

use crate::exchange::{Exchange, Message};
use crate::redact::{Redacted, Redactor, whole_words};
use crate::ring::Ring;

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Of each body, bytes each way, at most [`MOST_BODY`]; 0 keeps none.
    pub bodies: usize,
    /// This rule's alone.
    pub rule: Option<String>,
    /// At most [`LONGEST`]; without an end until the process ends.
    pub period: Option<Duration>,
}

/// The exchanges of one process.
pub struct Keeper {
    is_on: AtomicBool,
    current: Mutex<Current>,
    rings: Box<[Mutex<Ring>]>,
    redactor: Redactor,
    sources: RandomState,
    last: AtomicU64,
    pushed_out: AtomicU64,
}

struct Current {
    setting: Arc<Setting>,
    until: Option<Instant>,
    /// When what was kept goes.
    forget: Option<Instant>,
}

/// How things stand.
#[derive(Debug, Clone, Serialize)]
pub struct Standing {
    pub on: bool,
    /// Seconds that are left; `None` without an end, or off.
    pub left: Option<u64>,
    pub bodies: usize,
    pub rule: Option<String>,
    pub kept: usize,
    pub bytes: usize,
    /// Since the process began.
    pub seen: u64,
    /// Of those, what is not there any more, for want of room.
    pub pushed_out: u64,
}

impl Keeper {
    /// Nothing is kept yet. A ring for each of `shards`.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn new(shards: usize) -> Result<Self, getrandom::Error> {
        let setting = Arc::new(Setting { bodies: 0, rule: None, period: None });
        Ok(Self {
            is_on: AtomicBool::new(false),
            current: Mutex::new(Current { setting, until: None, forget: None }),
            rings: (0..shards.max(1)).map(|_| Mutex::default()).collect(),
            redactor: Redactor::new()?,
            sources: RandomState::new(),
            last: AtomicU64::new(0),
            pushed_out: AtomicU64::new(0),
        })
    }

    /// Whether anything may be kept.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// What is to be kept of an exchange that begins now; `None` if nothing is.
    #[inline]
    pub fn begin(&self) -> Option<Arc<Setting>> {
        if !self.is_on.load(Ordering::Relaxed) {
            return None;
        }
        let current = self.current();
        if current.until.is_some_and(|until| until <= Instant::now()) {
            self.is_on.store(false, Ordering::Relaxed);
            return None;
        }
        Some(current.setting.clone())
    }

    /// Keeps from now on what `setting` says.
    pub fn start(&self, setting: Setting, now: Instant) {
        let setting = Setting {
            bodies: setting.bodies.min(MOST_BODY),
            period: setting.period.map(|period| period.min(LONGEST)),
            ..setting
        };
        let mut current = self.current();
        current.until = setting.period.map(|period| now + period);
        current.forget = current.until.map(|until| until + FORGET_AFTER);
        current.setting = Arc::new(setting);
        self.is_on.store(true, Ordering::Relaxed);
    }

    /// Keeps nothing more, and forgets what was kept.
    pub fn stop(&self) {
        self.is_on.store(false, Ordering::Relaxed);
        let mut current = self.current();
        (current.until, current.forget) = (None, None);
        drop(current);
        self.clear();
    }

    /// Forgets what was kept; goes on.
    pub fn clear(&self) {
        for ring in &self.rings {
            lock(ring).clear();
        }
    }

    /// To be called now and then: what has had its time is over, and what it kept goes a while later.
    pub fn tidy(&self, now: Instant) {
        let (is_over, is_to_go) = {
            let current = self.current();
            let has_come = |end: Option<Instant>| end.is_some_and(|end| end <= now);
            (has_come(current.until), has_come(current.forget))
        };
        if is_over {
            self.is_on.store(false, Ordering::Relaxed);
        }
        if is_to_go {
            self.stop();
        }
    }

    /// One way of an exchange, as it may be kept. `body`: its beginning and its length, or why it is not there.
    pub fn message(&self, headers: &HeaderMap) -> Message {
        let mut message = Message::default();
        let mut bytes = 0;
        for (name, value) in headers {
            let text = String::from_utf8_lossy(value.as_bytes());
            if bytes + name.as_str().len() > MOST_HEADERS {
                message.left_out += name.as_str().len() + text.len();
                continue;
            }
            // What is beyond is cut before it is looked at: nothing of it is kept, and a visitor decides how
            // long it is.
            let read = cut(&text, 2 * LONGEST_HEADER);
            let Redacted { text: mut kept, marks } = self.redactor.header(name, read);
            if kept.len() > LONGEST_HEADER + LONGEST_MARK {
                kept.truncate(kept.floor_char_boundary(LONGEST_HEADER));
                kept.push('…');
            }
            message.left_out += text.len() - read.len();
            message.redacted += marks;
            bytes += name.as_str().len() + kept.len();
            message.headers.push((name.as_str().to_owned(), kept));
        }
        message
    }

    /// The target of a request, cut and without secrets.
    pub fn target(&self, target: &str) -> Redacted {
        let mut redacted = self.redactor.target(cut(target, 2 * LONGEST_HEADER));
        if redacted.text.len() > 2 * LONGEST_HEADER {
            redacted.text.truncate(redacted.text.floor_char_boundary(2 * LONGEST_HEADER));
            redacted.text.push('…');
        }
        redacted
    }

    /// What was asked for, or said of it, without secrets.
    pub fn text(&self, text: &str) -> String {
        self.redactor.text(cut(text, LONGEST_HEADER)).text
    }

    /// Puts a body to the message that it belongs to.
    pub fn put_body(&self, message: &mut Message, headers: &BodyHeaders, begin: &[Bytes], length: u64) {
        let begin = begin.concat();
        let (body, marks) = self.redactor.body(&headers.kind, &headers.coding, &begin, length);
        message.body = body;
        message.redacted += marks;
    }

    /// A number for the next exchange.
    pub fn next_number(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Keeps an exchange. `source`: whoever it is of, for the share of the ring.
    pub fn keep(&self, shard: usize, source: &str, exchange: Exchange) {
        let source = self.sources.hash_one(source);
        let most_bytes = MOST_BYTES / self.rings.len();
        let ring = &self.rings[shard % self.rings.len()];
        // Its own shard's, and whoever looks: for as long as it takes to copy references.
        let gone = lock(ring).push(source, exchange, MOST_EXCHANGES, most_bytes);
        if gone > 0 {
            self.pushed_out.fetch_add(gone, Ordering::Relaxed);
        }
    }

    /// All that are there, the newest first.
    pub fn all(&self) -> Vec<Arc<Exchange>> {
        let mut all = Vec::new();
        for ring in &self.rings {
            all.extend(lock(ring).iter().cloned());
        }
        all.sort_by_key(|exchange| std::cmp::Reverse(exchange.number));
        all
    }

    /// The one with this number.
    pub fn find(&self, number: u64) -> Option<Arc<Exchange>> {
        self.rings.iter().find_map(|ring| lock(ring).iter().find(|kept| kept.number == number).cloned())
    }

    /// How things stand.
    pub fn standing(&self, now: Instant) -> Standing {
        let (kept, bytes) = self.rings.iter().fold((0, 0), |(kept, bytes), ring| {
            let ring = lock(ring);
            (kept + ring.len(), bytes + ring.bytes())
        });
        let current = self.current();
        let is_over = current.until.is_some_and(|until| until <= now);
        let on = self.is_on.load(Ordering::Relaxed) && !is_over;
        Standing {
            on,
            left: current.until.filter(|_| on).map(|until| until.saturating_duration_since(now).as_secs()),
            bodies: current.setting.bodies,
            rule: current.setting.rule.clone(),
            kept,
            bytes,
            seen: self.last.load(Ordering::Relaxed),
            pushed_out: self.pushed_out.load(Ordering::Relaxed),
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        lock(&self.current)
    }
}

/// What says how a body is to be read.
#[derive(Debug, Clone, Default)]
pub struct BodyHeaders {
    kind: String,
    coding: String,
}

impl BodyHeaders {
    pub fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        let text = |name| text(name).unwrap_or_default().to_owned();
        Self { kind: text(http::header::CONTENT_TYPE), coding: text(http::header::CONTENT_ENCODING) }
    }
}

/// The beginning of a text, of whole words.
fn cut(text: &str, most: usize) -> &str {
    if text.len() <= most { text } else { whole_words(&text[..text.floor_char_boundary(most)]) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Longest time for which exchanges are kept at one go.
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Most of a body that is kept, each way.
pub const MOST_BODY: usize = 1 << 20;
/// Exchanges of one shard.
const MOST_EXCHANGES: usize = 500;
/// All exchanges of a process.
const MOST_BYTES: usize = 32 << 20;
/// Of one value, and of all headers of a message.
const LONGEST_HEADER: usize = 1 << 10;
const MOST_HEADERS: usize = 16 << 10;
/// A mark that stands at the cut is kept whole.
const LONGEST_MARK: usize = 64;
/// From the end of a period until what it kept is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(10 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_had_its_time_keeps_nothing_and_is_forgotten_later() {
        let keeper = Keeper::new(2).unwrap();
        assert!(keeper.begin().is_none());
        let now = Instant::now();
        let setting = Setting { bodies: 4 << 20, rule: None, period: Some(Duration::from_secs(60)) };
        keeper.start(setting.clone(), now);
        assert_eq!(keeper.begin().unwrap().bodies, MOST_BODY);
        keeper.keep(1, "a", crate::export::tests::exchange());
        keeper.tidy(now + Duration::from_secs(59));
        assert!(keeper.standing(now).on);
        keeper.tidy(now + Duration::from_secs(60));
        assert!(keeper.begin().is_none());
        assert_eq!(keeper.standing(now + Duration::from_secs(61)).kept, 1);
        keeper.tidy(now + Duration::from_secs(60) + FORGET_AFTER);
        let standing = keeper.standing(now + Duration::from_secs(61));
        assert_eq!((standing.kept, standing.bytes, standing.on), (0, 0, false));
        // As long as nobody may keep anything.
        keeper.start(Setting { period: Some(Duration::MAX), ..setting }, now);
        assert_eq!(keeper.standing(now).left, Some(LONGEST.as_secs()));
    }

    #[test]
    fn headers_are_cut_and_what_is_left_out_is_said() {
        let keeper = Keeper::new(1).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-long", "wort ".repeat(20_000).parse().unwrap());
        for number in 0..50 {
            headers.append("x-many", format!("{number} {}", "wort ".repeat(200)).parse().unwrap());
        }
        let message = keeper.message(&headers);
        let bytes: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(bytes <= MOST_HEADERS + LONGEST_HEADER + LONGEST_MARK, "{bytes}");
        assert!(message.left_out > 100_000, "{}", message.left_out);
        assert!(message.headers.iter().all(|(_, value)| value.len() <= LONGEST_HEADER + LONGEST_MARK));
    }
}
