//! What is told of something that took a while.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::context::{Context, SpanId};

/// One span of a trace that is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub id: SpanId,
    pub parent: Option<SpanId>,
    pub kind: Kind,
    pub name: Cow<'static, str>,
    pub begun: Instant,
    pub took: Duration,
    pub attributes: Vec<(&'static str, Value)>,
    /// Another trace that has to do with it.
    pub link: Option<Context>,
    pub is_error: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(Cow<'static, str>),
    Number(i64),
}

impl Span {
    #[must_use]
    pub fn new(
        id: SpanId,
        parent: Option<SpanId>,
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
        (begun, took): (Instant, Duration),
    ) -> Self {
        let (name, attributes) = (name.into(), Vec::new());
        Self { id, parent, kind, name, begun, took, attributes, link: None, is_error: false }
    }

    /// With something that is known of it; of a long text the beginning.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        let mut value = value.into();
        if let Value::Text(text) = &mut value {
            if text.is_empty() {
                return self;
            }
            if text.len() > LONGEST_TEXT {
                let end = (0..=LONGEST_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
                *text = Cow::Owned(text[..end].to_owned());
            }
        }
        self.attributes.push((key, value));
        self
    }

    #[must_use]
    pub fn failed(mut self, is_error: bool) -> Self {
        self.is_error = is_error;
        self
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

/// Where a clock that runs evenly stands in the time of day.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epoch {
    here: Instant,
    since_1970: Duration,
}

impl Epoch {
    pub(crate) fn now() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { here: Instant::now(), since_1970 }
    }

    /// Nanoseconds since 1970.
    pub(crate) fn nanoseconds(&self, moment: Instant) -> u64 {
        let since_1970 = match self.here.checked_duration_since(moment) {
            Some(before) => self.since_1970.saturating_sub(before),
            None => self.since_1970 + moment.saturating_duration_since(self.here),
        };
        u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Bytes of a text.
const LONGEST_TEXT: usize = 256;
