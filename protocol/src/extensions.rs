//! What only our own two ends say to each other, on top of the protocol of the reference: trailers, notices,
//! refusals, how a visitor came, who has answered and how long a request has waited. Negotiated by features of the host, so that no other
//! peer ever meets any of it.
//!
//! **Trailers.** Over HTTP/2 they are HTTP/2's own. A data stream of QUIC carries a raw body, which has no
//! place for them; where both ends agreed to it ([`TRAILERS`] with the value [`FRAMED`]) the body is a row of
//! frames instead, each with a head of four bytes, big-endian:
//!
//! ```text
//! 0 LLLLLLL LLLLLLLL LLLLLLLL LLLLLLLL   so many bytes of the body follow
//! 1 LLLLLLL LLLLLLLL LLLLLLLL LLLLLLLL   so many bytes of trailers follow, and nothing behind them
//! ```
//!
//! Trailers are written as [`serialized`] headers. A stream that ends between two frames is a whole body
//! without trailers; one that ends within a frame is broken.

mod visitor;

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::headers::serialized::{self, SerializedHeadersError};

pub use visitor::{HttpVersion, TlsVersion, VisitorFacts};

/// The host understands [`TRAILERS`].
pub const FEATURE_TRAILERS: &str = "adit_trailers";
/// The host understands [`NOTICE`].
pub const FEATURE_NOTICES: &str = "adit_notices";
/// The host says [`INSTEAD`].
pub const FEATURE_INSTEAD: &str = "adit_instead";
/// The host understands [`WAITED`].
pub const FEATURE_WAITED: &str = "adit_waited";

/// The host takes [`VISITOR`].
pub const FEATURE_VISITOR: &str = "adit_visitor";

/// In a request: the edge takes trailers in the answer. In either direction with the value [`FRAMED`]: the
/// body behind this head is framed, which happens over QUIC only.
pub const TRAILERS: HeaderName = HeaderName::from_static("adit-trailers");
/// Value of [`TRAILERS`]: trailers are welcome.
pub const WELCOME: HeaderValue = HeaderValue::from_static("1");
/// Value of [`TRAILERS`]: this body is framed.
pub const FRAMED: HeaderValue = HeaderValue::from_static("framed");

/// In a request: it comes from the edge itself, and says what the edge wants.
pub const NOTICE: HeaderName = HeaderName::from_static("adit-notice");
/// Value of [`NOTICE`]: the edge is about to go away.
pub const DRAIN: HeaderValue = HeaderValue::from_static("drain");
/// Value of [`NOTICE`]: are the origins there?
pub const PROBE: HeaderValue = HeaderValue::from_static("probe");
/// What a notice is asked of.
pub const NOTICE_URI: &str = "http://adit.internal/";

/// In an answer over HTTP/2: no byte of the request reached an origin.
pub const NOT_HERE: HeaderName = HeaderName::from_static("adit-not-here");
/// The same over QUIC: how the reason of a refusal begins.
pub const NOT_HERE_REASON: &str = "not here: ";

/// In a request: what the edge knows of how the visitor came, [`VisitorFacts`].
pub const VISITOR: HeaderName = HeaderName::from_static("adit-visitor");

/// In an answer: it is not of the service that the rule leads to, and says nothing, or nothing good, about that.
pub const INSTEAD: HeaderName = HeaderName::from_static("adit-instead");

/// In a request: microseconds that it was at the edge before this head was sent, attempts before this one included.
pub const WAITED: HeaderName = HeaderName::from_static("adit-waited");

/// Who has answered in the place of a service, and so what [`INSTEAD`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instead {
    /// A plugin or a rule: the service was not asked, or what it said is not what is answered.
    Host,
    /// The host, because the service gave no answer in time.
    Late,
}

impl Instead {
    pub fn word(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Host => "host",
            Self::Late => "late",
        })
    }

    /// What the head of an answer says. A word that is not known here is one of the host.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let word = headers.get(INSTEAD)?;
        Some(if *word == Self::Late.word() { Self::Late } else { Self::Host })
    }
}

/// Code of RESET_STREAM and STOP_SENDING with which a host that is leaving turns a request away: nothing of
/// it was processed (H3_REQUEST_REJECTED, RFC 9114 8.1).
pub const REFUSED: u32 = 0x10b;

/// To an edge that takes [`TRAILERS`], code of RESET_STREAM over QUIC and HTTP/2 with which a host cuts an answer because the origin broke off
/// behind its head: the request was worked on, so the edge does not send it again even if the head is lost
/// (H3_INTERNAL_ERROR, RFC 9114 8.1; what is unknown in HTTP/2 means the same, RFC 9113 7).
pub const BROKEN_OFF: u32 = 0x102;

/// Longest trailers, bytes on the wire.
pub const MAX_TRAILERS: usize = 64 * 1024;

/// No request waits longer at an edge; what says so says nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

const INTERNAL: [HeaderName; 6] = [TRAILERS, NOTICE, NOT_HERE, INSTEAD, VISITOR, WAITED];

/// Marks a frame of trailers.
const TRAILER_BIT: u32 = 1 << 31;
const HEAD: usize = 4;

/// What [`WAITED`] says of a time.
pub fn waited(time: Duration) -> HeaderValue {
    HeaderValue::from(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

/// The time that [`WAITED`] says, if it says one that can be.
pub fn has_waited(headers: &HeaderMap) -> Option<Duration> {
    let micros = headers.get(WAITED)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_micros(micros)).filter(|time| *time <= LONGEST_WAIT)
}

/// Whether this header is a word between edge and host, which nobody else may say or hear.
pub fn is_internal(name: &HeaderName) -> bool {
    INTERNAL.contains(name)
}

/// Takes the words between edge and host out of headers or trailers.
pub fn strip(headers: &mut HeaderMap) {
    for name in INTERNAL {
        headers.remove(name);
    }
}

/// A part of a framed body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Data(Bytes),
    /// Always the last.
    Trailers(HeaderMap),
}

/// Bytes that are no framed body.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("trailers of {bytes} bytes, more than {MAX_TRAILERS}")]
    TooLong { bytes: usize },
    #[error("trailers that cannot be read: {0}")]
    Trailers(#[from] SerializedHeadersError),
    #[error("something follows the trailers")]
    Behind,
}

/// Trailers that the other side would refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("trailers of {bytes} bytes, more than {MAX_TRAILERS}")]
pub struct TrailersTooLong {
    pub bytes: usize,
}

/// Takes a framed body apart.
#[derive(Debug, Default)]
pub struct FrameReader {
    state: Reading,
}

#[derive(Debug)]
enum Reading {
    /// `have` bytes of a frame's head are there.
    Head {
        head: [u8; HEAD],
        have: usize,
    },
    Data {
        left: usize,
    },
    Trailers {
        block: BytesMut,
        left: usize,
    },
    Ended,
}

impl Default for Reading {
    fn default() -> Self {
        Self::Head { head: [0; HEAD], have: 0 }
    }
}

impl FrameReader {
    /// The next piece of what has arrived. `None` says that `input` is used up. Data shares memory with
    /// `input`; empty frames are passed over.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Piece>, FrameError> {
        loop {
            match &mut self.state {
                Reading::Head { head, have } => {
                    let taken = input.len().min(HEAD - *have);
                    input.copy_to_slice(&mut head[*have..*have + taken]);
                    *have += taken;
                    if *have < HEAD {
                        return Ok(None);
                    }
                    self.state = Reading::begin(u32::from_be_bytes(*head))?;
                }
                Reading::Data { left: 0 } => self.state = Reading::default(),
                Reading::Data { left } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let piece = input.split_to(input.len().min(*left));
                    *left -= piece.len();
                    return Ok(Some(Piece::Data(piece)));
                }
                Reading::Trailers { block, left: 0 } => {
                    let trailers = serialized::deserialize(block)?;
                    self.state = Reading::Ended;
                    return Ok(Some(Piece::Trailers(trailers)));
                }
                Reading::Trailers { block, left } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let piece = input.split_to(input.len().min(*left));
                    *left -= piece.len();
                    block.extend_from_slice(&piece);
                }
                Reading::Ended if input.is_empty() => return Ok(None),
                Reading::Ended => return Err(FrameError::Behind),
            }
        }
    }

    /// Whether the body may end here.
    pub fn is_whole(&self) -> bool {
        matches!(self.state, Reading::Head { have: 0, .. } | Reading::Data { left: 0 } | Reading::Ended)
    }
}

impl Reading {
    fn begin(head: u32) -> Result<Self, FrameError> {
        let length = (head & !TRAILER_BIT) as usize;
        if head & TRAILER_BIT == 0 {
            return Ok(Self::Data { left: length });
        }
        if length > MAX_TRAILERS {
            return Err(FrameError::TooLong { bytes: length });
        }
        Ok(Self::Trailers { block: BytesMut::with_capacity(length), left: length })
    }
}

/// The head of a frame with `length` bytes of the body, to be written before them.
///
/// # Panics
///
/// If `length` is 2 GiB or more; no buffer of ours is.
pub fn data_head(length: usize) -> [u8; HEAD] {
    assert!(length < TRAILER_BIT as usize, "a frame of {length} bytes");
    (length as u32).to_be_bytes()
}

/// The whole frame with which a body ends. Names that belong to the tunnel are left out.
pub fn encode_trailers(trailers: &HeaderMap) -> Result<Bytes, TrailersTooLong> {
    let block = serialized::serialize(trailers);
    let length = block.len();
    if length > MAX_TRAILERS {
        return Err(TrailersTooLong { bytes: length });
    }
    let mut frame = BytesMut::with_capacity(HEAD + length);
    frame.extend_from_slice(&(length as u32 | TRAILER_BIT).to_be_bytes());
    frame.extend_from_slice(block.as_bytes());
    Ok(frame.freeze())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn trailers() -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.append("grpc-status", HeaderValue::from_static("0"));
        trailers.append("x-many", HeaderValue::from_static("1"));
        trailers.append("x-many", HeaderValue::from_bytes(b"\xe9").unwrap());
        trailers
    }

    fn framed(parts: &[&[u8]], trailers: Option<&HeaderMap>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&data_head(part.len()));
            bytes.extend_from_slice(part);
        }
        if let Some(trailers) = trailers {
            bytes.extend_from_slice(&encode_trailers(trailers).unwrap());
        }
        bytes
    }

    /// Feeds `chunks` one after the other.
    fn read<'a>(
        chunks: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(Vec<u8>, Option<HeaderMap>, bool), FrameError> {
        let mut reader = FrameReader::default();
        let (mut body, mut trailers) = (Vec::new(), None);
        for chunk in chunks {
            let mut input = Bytes::copy_from_slice(chunk);
            while let Some(piece) = reader.next(&mut input)? {
                match piece {
                    Piece::Data(data) => body.extend_from_slice(&data),
                    Piece::Trailers(found) => trailers = Some(found),
                }
            }
        }
        Ok((body, trailers, reader.is_whole()))
    }

    #[test]
    fn a_framed_body_survives_every_way_of_being_cut() {
        let bytes = framed(&[b"hello ", b"", b"world"], Some(&trailers()));
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            let read = read([first, second]).unwrap();
            assert_eq!(read, (b"hello world".to_vec(), Some(trailers()), true), "cut at {cut}");
        }
        assert_eq!(read(bytes.chunks(1)).unwrap(), (b"hello world".to_vec(), Some(trailers()), true));
    }

    #[test]
    fn a_body_is_whole_only_between_frames() {
        let bytes = framed(&[b"abc", b"de"], Some(&trailers()));
        let whole: Vec<usize> = (0..=bytes.len()).filter(|&end| read([&bytes[..end]]).unwrap().2).collect();
        assert_eq!(whole, [0, 7, 13, bytes.len()]);
    }

    #[test]
    fn nothing_may_follow_the_trailers() {
        let mut bytes = framed(&[], Some(&trailers()));
        bytes.push(0);
        assert_eq!(read([bytes.as_slice()]), Err(FrameError::Behind));
        assert_eq!(read(bytes.chunks(1)), Err(FrameError::Behind));
    }

    #[test]
    fn a_time_that_cannot_be_is_none() {
        let said = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(WAITED, HeaderValue::from_static(text));
            has_waited(&headers)
        };
        assert_eq!(said("1500"), Some(Duration::from_micros(1500)));
        for text in ["", "-1", "1.5", "99999999999999999999", "3600000001"] {
            assert_eq!(said(text), None, "{text}");
        }
        assert_eq!(waited(Duration::from_millis(2)), "2000");
    }

    #[test]
    fn trailers_have_a_limit_in_both_directions() {
        let head = (MAX_TRAILERS as u32 + 1) | TRAILER_BIT;
        assert_eq!(
            read([head.to_be_bytes().as_slice()]),
            Err(FrameError::TooLong { bytes: MAX_TRAILERS + 1 })
        );
        let mut long = HeaderMap::new();
        long.append("x", HeaderValue::from_str(&"x".repeat(MAX_TRAILERS)).unwrap());
        assert!(encode_trailers(&long).is_err());
    }

    #[test]
    fn no_trailers_are_a_whole_body_too() {
        assert_eq!(
            read([framed(&[b"x"], Some(&HeaderMap::new())).as_slice()]).unwrap(),
            (b"x".to_vec(), Some(HeaderMap::new()), true)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(chunks in vec(vec(any::<u8>(), 0..64), 0..16)) {
            let _ = read(chunks.iter().map(Vec::as_slice));
        }
    }
}
