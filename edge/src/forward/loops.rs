//! Requests that lead back to where they came from (RFC 8586): each pass through a fleet leaves its word in `CDN-Loop`,
//! and one that has left it too often goes no further. Knows headers.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The word of this fleet.
pub(crate) struct Loops {
    word: HeaderValue,
}

/// It has come through this fleet too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Looping;

impl Loops {
    pub(crate) fn of(fleet: &str) -> Self {
        let word = HeaderValue::try_from(format!("adit-{fleet}"));
        Self { word: word.unwrap_or_else(|_| HeaderValue::from_static("adit")) }
    }

    /// Takes note of one more pass.
    pub(crate) fn pass(&self, headers: &mut HeaderMap) -> Result<(), Looping> {
        let values = headers.get_all(CDN_LOOP).iter();
        let words = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        // Behind the word there may be parameters.
        let words = words.filter_map(|word| word.split(|byte| *byte == b';').next());
        let passes = words.filter(|word| word.trim_ascii().eq_ignore_ascii_case(self.word.as_bytes()));
        if passes.count() >= MOST_PASSES {
            return Err(Looping);
        }
        headers.append(CDN_LOOP, self.word.clone());
        Ok(())
    }
}

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
const MOST_PASSES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fourth_pass_is_one_too_many_however_the_others_are_written() {
        let loops = Loops::of("main");
        let mut headers = HeaderMap::new();
        headers.append(CDN_LOOP, HeaderValue::from_static("other; adit-main, ADIT-MAIN;v=1 , adit-mainly"));
        assert_eq!(loops.pass(&mut headers), Ok(()));
        assert_eq!(loops.pass(&mut headers), Ok(()));
        assert_eq!(loops.pass(&mut headers), Err(Looping));
        assert_eq!(headers.get_all(CDN_LOOP).iter().count(), 3, "what others say stays");
    }
}
