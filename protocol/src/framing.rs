//! One Cap'n Proto message in front of a stream: how long it is, whether we want it, and how it is laid out.
//!
//! Knows the standard stream framing and our limits; does not know what the message says.

use bytes::{BufMut, Bytes, BytesMut};
use capnp::message::{self, HeapAllocator, ReaderOptions};
use capnp::serialize::{self, NoAllocSliceSegments};

/// Longest message that may stand in front of a data stream, segment table included, in bytes.
///
/// Origins and visitors get by with 64 to 128 KiB of headers. One header costs up to 43 bytes beside its name
/// and value (two pointers, the `HttpHeader:` prefix, padding), so even a list of very short headers fits, and
/// a stranger cannot make us buffer more than this per stream.
pub const MAX_MESSAGE: usize = 512 * 1024;

/// Most segments in one message. Peers send one; a builder that grows by doubling needs about a dozen.
pub const MAX_SEGMENTS: usize = 64;

/// Deepest nesting of pointers. The deepest thing in a head is a text in a struct in a list in the root.
const MAX_NESTING: i32 = 8;

/// Words that may be traversed for each word of the message. A well-formed message needs one; more are only
/// read when pointers share their target.
const TRAVERSAL_FACTOR: usize = 2;

const WORD: usize = 8;

/// A segment table that we do not want to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("message has {count} segments, more than {MAX_SEGMENTS}")]
    TooManySegments { count: u64 },
    #[error("message is {bytes} bytes long, more than {MAX_MESSAGE}")]
    TooLong { bytes: u64 },
}

/// Options for the reader of the control stream and of RPC streams, where the RPC crate does the framing.
///
/// A call nests deeper than a head and may carry a whole configuration ([`crate::rpc::MAX_CONFIGURATION`]).
pub fn rpc_reader_options() -> ReaderOptions {
    let mut options = ReaderOptions::new();
    options
        .traversal_limit_in_words(Some(TRAVERSAL_FACTOR * crate::rpc::MAX_CONFIGURATION / WORD))
        .nesting_limit(32);
    options
}

/// Length in bytes of the message at the front of `bytes`, segment table included; `None` while the table is
/// not complete. Looks at the table only, so it may be asked again after every read.
pub(crate) fn message_length(bytes: &[u8]) -> Result<Option<usize>, FramingError> {
    let Some(last_segment) = word32(bytes, 0) else { return Ok(None) };
    let count = u64::from(last_segment) + 1;
    if count > MAX_SEGMENTS as u64 {
        return Err(FramingError::TooManySegments { count });
    }
    let segments = count as usize;
    // The table is padded to a whole word.
    let table = (1 + segments).next_multiple_of(2) * 4;
    if bytes.len() < table {
        return Ok(None);
    }
    let words: u64 = (1..=segments).filter_map(|index| word32(bytes, index)).map(u64::from).sum();
    let length = table as u64 + words * WORD as u64;
    if length > MAX_MESSAGE as u64 {
        return Err(FramingError::TooLong { bytes: length });
    }
    Ok(Some(length as usize))
}

/// Opens a whole message without copying it.
///
/// Reading is limited in depth and, whatever its pointers say, to a small multiple of its length.
pub(crate) fn open(mut message: &[u8]) -> capnp::Result<message::Reader<NoAllocSliceSegments<'_>>> {
    let mut options = ReaderOptions::new();
    options
        .traversal_limit_in_words(Some(TRAVERSAL_FACTOR * message.len() / WORD))
        .nesting_limit(MAX_NESTING);
    serialize::read_message_from_flat_slice_no_alloc(&mut message, options)
}

/// Bytes of a message of one segment with so many words in it.
pub(crate) const fn framed_length(words: usize) -> usize {
    WORD + words * WORD
}

/// Words that a text of so many bytes takes, its closing NUL included.
pub(crate) const fn text_words(bytes: usize) -> usize {
    bytes / WORD + 1
}

/// A builder whose first segment holds exactly `words`, so that nothing is allocated twice.
pub(crate) fn builder(words: usize) -> message::Builder<HeapAllocator> {
    let words = u32::try_from(words).unwrap_or(u32::MAX);
    message::Builder::new(HeapAllocator::new().first_segment_words(words))
}

/// `preface` and the framed message in one buffer.
pub(crate) fn enclose(preface: &[u8], message: &message::Builder<HeapAllocator>) -> Bytes {
    let mut framed = BytesMut::with_capacity(preface.len() + framed_length(message.size_in_words()));
    framed.put_slice(preface);
    let mut writer = framed.writer();
    serialize::write_message(&mut writer, message).expect("a growing buffer takes every byte");
    writer.into_inner().freeze()
}

/// Beginning of a text for people, at most `limit` bytes: cut and mended instead of refused.
pub(crate) fn excerpt(text: &[u8], limit: usize) -> String {
    let mut excerpt = String::from_utf8_lossy(&text[..text.len().min(limit)]).into_owned();
    if excerpt.contains(commands_terminal) {
        excerpt = excerpt.replace(commands_terminal, "\u{fffd}");
    }
    excerpt.truncate(excerpt.floor_char_boundary(limit));
    excerpt
}

/// What does something to a terminal instead of standing on it, or changes the order of what stands there. Lines
/// may have ends.
fn commands_terminal(letter: char) -> bool {
    (letter.is_control() && letter != '\n' && letter != '\t')
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn word32(bytes: &[u8], index: usize) -> Option<u32> {
    let bytes = bytes.get(index * 4..index * 4 + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn the_length_is_known_as_soon_as_the_table_is() {
        let one = table(&[0, 3]);
        assert_eq!(message_length(&one), Ok(Some(8 + 24)));
        assert_eq!(message_length(&one[..7]), Ok(None));
        let two = table(&[1, 3, 4, 0]);
        assert_eq!(message_length(&two), Ok(Some(16 + 56)));
        assert_eq!(message_length(&two[..15]), Ok(None), "the padding is part of the table");
        assert_eq!(message_length(&[]), Ok(None));
    }

    #[test]
    fn a_table_is_refused_from_the_words_that_condemn_it() {
        let count = table(&[MAX_SEGMENTS as u32]);
        let count = message_length(&count);
        assert_eq!(count, Err(FramingError::TooManySegments { count: MAX_SEGMENTS as u64 + 1 }));
        let count = message_length(&table(&[u32::MAX]));
        assert_eq!(count, Err(FramingError::TooManySegments { count: 1 << 32 }));
        let long = (MAX_MESSAGE / 8) as u32;
        assert!(matches!(message_length(&table(&[0, long])), Err(FramingError::TooLong { .. })));
        assert_eq!(message_length(&table(&[0, long - 1])), Ok(Some(MAX_MESSAGE)));
        let everything = [&[MAX_SEGMENTS as u32 - 1][..], &[u32::MAX; MAX_SEGMENTS][..], &[0]].concat();
        assert!(matches!(message_length(&table(&everything)), Err(FramingError::TooLong { .. })));
    }

    #[test]
    fn a_builder_of_the_right_size_has_one_segment() {
        let mut message = builder(1 + text_words(9));
        message.initn_root::<capnp::text::Builder<'_>>(9).push_str("123456789");
        assert_eq!(message.get_segments_for_output().len(), 1);
        assert_eq!(enclose(b"12345678", &message).len(), 8 + framed_length(3));
    }

    #[test]
    fn an_excerpt_is_text_within_its_limit() {
        assert_eq!(excerpt(b"short", 8), "short");
        assert_eq!(excerpt("grün".as_bytes(), 3), "gr");
        assert_eq!(excerpt(b"a\xff\xff\xff", 4), "a\u{fffd}");
    }

    #[test]
    fn an_excerpt_commands_no_terminal() {
        let said = "no\x1b[2J\r\u{9b}1m \u{202e}diova\nsecond\tline";
        let shown = "no\u{fffd}[2J\u{fffd}\u{fffd}1m \u{fffd}diova\nsecond\tline";
        assert_eq!(excerpt(said.as_bytes(), 100), shown);
        assert_eq!(excerpt("\u{1b}\u{1b}\u{1b}".as_bytes(), 4), "\u{fffd}");
    }
}
