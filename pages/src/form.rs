//! What a form or an address says: `name=value&…`. Knows its encoding; does not know what it is about.

use std::borrow::Cow;

use bytes::Bytes;
use percent_encoding::percent_decode_str;

/// What a form has sent.
pub struct Form(pub Bytes);

impl Form {
    /// The first value of this name, decoded.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        value(str::from_utf8(&self.0).ok()?, name)
    }
}

/// The first value of this name in `name=value&…`.
#[must_use]
pub fn value(pairs: &str, name: &str) -> Option<String> {
    let mut pairs = pairs.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    let value: Cow<'_, str> = if value.contains('+') { value.replace('+', " ").into() } else { value.into() };
    Some(percent_decode_str(&value).decode_utf8_lossy().into_owned())
}
