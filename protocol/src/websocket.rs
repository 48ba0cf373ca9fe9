//! Frames of WebSockets (RFC 6455) that carry a stream of bytes: what is in them comes out as it arrives, so
//! that no frame is too long and none is gathered. Those to whom messages mean something gather them themselves. Knows bytes; does not know who sends them, nor what for.

mod messages;

use bytes::{Buf, Bytes, BytesMut};

pub use messages::{MessageError, Messages, Said};

/// Word of [`PROTOCOL`]: either side may end its own direction with a Close frame of the code
/// [`END_OF_DIRECTION`] and still hears the other.
pub const HALF_CLOSE: &str = "adit.half-close";
/// Where a client offers [`HALF_CLOSE`], and a server takes it.
pub const PROTOCOL: http::HeaderName = http::header::SEC_WEBSOCKET_PROTOCOL;
/// Code of the Close frame that ends one direction; one of those for private use (RFC 6455, 7.4.2).
pub const END_OF_DIRECTION: u16 = 4000;
/// Nothing is wrong.
pub const NORMAL: u16 = 1000;
/// Whoever sends it goes away.
pub const GOING_AWAY: u16 = 1001;
/// Bytes that are no frames.
pub const PROTOCOL_ERROR: u16 = 1002;
/// What a server appends to a client's key before it is hashed.
pub const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Bytes in front of what is in a frame, at most.
pub const LONGEST_HEAD: usize = 14;
/// Bytes in a frame that says something about the connection (RFC 6455, 5.5).
pub const LONGEST_CONTROL: usize = 125;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Which side somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Masks what it sends.
    Client,
    Server,
}

/// What stands in frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A part of the stream; where frames begin and end means nothing.
    Data(Bytes),
    Ping(Bytes),
    Pong,
    /// The last that this side says. The code is absent where none was given.
    Close(Option<u16>),
}

/// What the other side sends is no row of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame with bits that nobody has agreed on")]
    Reserved,
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    #[error("a frame of a client that is not masked, or one of a server that is")]
    Mask,
    #[error("a message that begins within another, or goes on without having begun")]
    Order,
    #[error("a frame that announces more bytes than there can be")]
    Length,
    #[error("a control frame in parts, or with more than {LONGEST_CONTROL} bytes")]
    Control,
}

/// Takes frames apart. Keeps nothing of a stream but the head of a frame and what is in a control frame.
#[derive(Debug)]
pub struct Reader {
    /// Whose frames these are.
    of: Side,
    state: Reading,
    /// A message has begun and has not ended.
    within_message: bool,
}

#[derive(Debug)]
enum Reading {
    Head { head: [u8; LONGEST_HEAD], have: usize },
    Data { left: u64, mask: Mask },
    Control { kind: u8, left: usize, mask: Mask, payload: BytesMut },
    Closed,
}

/// The bytes that those of a frame are mixed with, and the place of the next one.
#[derive(Debug, Clone, Copy)]
struct Mask {
    key: [u8; 4],
    at: usize,
}

const NEXT: Reading = Reading::Head { head: [0; LONGEST_HEAD], have: 0 };

impl Reader {
    #[must_use]
    pub fn new(of: Side) -> Self {
        Self { of, state: NEXT, within_message: false }
    }

    /// The next piece of `input`, which is left behind it; `None` asks for more. Nothing follows a Close.
    ///
    /// # Errors
    /// After one there is nothing more to read.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Piece>, FrameError> {
        loop {
            match &mut self.state {
                Reading::Closed => {
                    input.clear();
                    return Ok(None);
                }
                Reading::Head { head, have } => {
                    let wanted = wanted(&head[..*have]);
                    if *have < wanted {
                        if input.is_empty() {
                            return Ok(None);
                        }
                        let taken = input.len().min(wanted - *have);
                        head[*have..*have + taken].copy_from_slice(&input[..taken]);
                        input.advance(taken);
                        *have += taken;
                        continue;
                    }
                    let head = *head;
                    self.state = self.begin(&head)?;
                }
                Reading::Data { left: 0, .. } => self.state = NEXT,
                Reading::Data { left, mask } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    *left -= taken as u64;
                    let data = mask.undo(input.split_to(taken), self.of);
                    return Ok(Some(Piece::Data(data)));
                }
                Reading::Control { kind, left, mask, payload } => {
                    let taken = (*left).min(input.len());
                    payload.extend_from_slice(&mask.undo(input.split_to(taken), self.of));
                    *left -= taken;
                    if *left > 0 {
                        return Ok(None);
                    }
                    let (kind, payload) = (*kind, std::mem::take(payload).freeze());
                    self.state = if kind == CLOSE { Reading::Closed } else { NEXT };
                    return match (kind, &payload[..]) {
                        (PING, _) => Ok(Some(Piece::Ping(payload))),
                        (PONG, _) => Ok(Some(Piece::Pong)),
                        (_, []) => Ok(Some(Piece::Close(None))),
                        (_, [high, low, ..]) => {
                            Ok(Some(Piece::Close(Some(u16::from_be_bytes([*high, *low])))))
                        }
                        (_, [_]) => Err(FrameError::Control),
                    };
                }
            }
        }
    }

    /// Whether what was read last ends a message, for those to whom messages mean something.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        !self.within_message && !matches!(self.state, Reading::Data { left: 1.., .. })
    }

    /// What follows a head.
    fn begin(&mut self, head: &[u8; LONGEST_HEAD]) -> Result<Reading, FrameError> {
        let (first, second) = (head[0], head[1]);
        if first & RESERVED != 0 {
            return Err(FrameError::Reserved);
        }
        if (second & MASKED != 0) != (self.of == Side::Client) {
            return Err(FrameError::Mask);
        }
        let (length, behind) = match second & !MASKED {
            126 => (u64::from(u16::from_be_bytes([head[2], head[3]])), 4),
            127 => ((&head[2..10]).get_u64(), 10),
            length => (u64::from(length), 2),
        };
        if length >> 63 != 0 {
            return Err(FrameError::Length);
        }
        let key = match self.of {
            Side::Client => [head[behind], head[behind + 1], head[behind + 2], head[behind + 3]],
            Side::Server => [0; 4],
        };
        let (kind, is_final, mask) = (first & OPCODE, first & FINAL != 0, Mask { key, at: 0 });
        match kind {
            CONTINUATION | TEXT | BINARY => {
                if (kind == CONTINUATION) != self.within_message {
                    return Err(FrameError::Order);
                }
                self.within_message = !is_final;
                Ok(Reading::Data { left: length, mask })
            }
            CLOSE | PING | PONG => match usize::try_from(length) {
                Ok(left) if left <= LONGEST_CONTROL && is_final => {
                    Ok(Reading::Control { kind, left, mask, payload: BytesMut::with_capacity(left) })
                }
                Ok(_) | Err(_) => Err(FrameError::Control),
            },
            kind => Err(FrameError::Kind(kind)),
        }
    }
}

/// How long a head is, as far as what there is of it says.
fn wanted(head: &[u8]) -> usize {
    let Some(second) = head.get(1) else { return 2 };
    let length = match second & !MASKED {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    length + if second & MASKED == 0 { 0 } else { 4 }
}

impl Mask {
    /// What a frame of this side was before it was masked.
    fn undo(&mut self, data: Bytes, of: Side) -> Bytes {
        if of == Side::Server {
            return data;
        }
        // In place where nobody else has these bytes.
        let mut data = data.try_into_mut().unwrap_or_else(|data| BytesMut::from(&data[..]));
        mask(&mut data, self.turned());
        self.at += data.len();
        data.freeze()
    }

    fn turned(self) -> [u8; 4] {
        std::array::from_fn(|place| self.key[(self.at + place) % 4])
    }
}

/// Masks bytes, or takes the mask off them.
pub fn mask(data: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = data.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mixed = chunk.try_into().map_or(0, u64::from_ne_bytes) ^ wide;
        chunk.copy_from_slice(&mixed.to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// The head of a binary frame with so many bytes, right-aligned: what of it counts begins at the number that is
/// returned. `key` is what a client masks with.
#[must_use]
pub fn data_head(length: usize, key: Option<[u8; 4]>) -> ([u8; LONGEST_HEAD], usize) {
    head(FINAL | BINARY, length, key)
}

fn head(first: u8, length: usize, key: Option<[u8; 4]>) -> ([u8; LONGEST_HEAD], usize) {
    let mut head = [0; LONGEST_HEAD];
    let masked = if key.is_some() { MASKED } else { 0 };
    let mut begin = LONGEST_HEAD;
    let mut put = |bytes: &[u8]| {
        begin -= bytes.len();
        head[begin..begin + bytes.len()].copy_from_slice(bytes);
    };
    if let Some(key) = key {
        put(&key);
    }
    match length {
        0..126 => put(&[first, masked | length as u8]),
        126..=0xffff => {
            put(&(length as u16).to_be_bytes());
            put(&[first, masked | 126]);
        }
        _ => {
            put(&(length as u64).to_be_bytes());
            put(&[first, masked | 127]);
        }
    }
    (head, begin)
}

/// A message of text that is one frame.
#[must_use]
pub fn text(message: &[u8], key: Option<[u8; 4]>) -> Bytes {
    whole(TEXT, message, key)
}

/// A frame that asks whether the other side is there.
#[must_use]
pub fn ping(key: Option<[u8; 4]>) -> Bytes {
    control(PING, &[], key)
}

/// The answer to one with these bytes.
#[must_use]
pub fn pong(payload: &[u8], key: Option<[u8; 4]>) -> Bytes {
    control(PONG, &payload[..payload.len().min(LONGEST_CONTROL)], key)
}

/// The last frame of a side, which says why.
#[must_use]
pub fn close_saying(code: u16, reason: &str, key: Option<[u8; 4]>) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(LONGEST_CONTROL - size_of_val(&code))];
    control(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat(), key)
}

/// The last frame of a side.
#[must_use]
pub fn close(code: u16, key: Option<[u8; 4]>) -> Bytes {
    control(CLOSE, &code.to_be_bytes(), key)
}

fn control(kind: u8, payload: &[u8], key: Option<[u8; 4]>) -> Bytes {
    whole(kind, payload, key)
}

fn whole(kind: u8, payload: &[u8], key: Option<[u8; 4]>) -> Bytes {
    let (head, begin) = head(FINAL | kind, payload.len(), key);
    let mut frame = BytesMut::from(&head[begin..]);
    let length = frame.len();
    frame.extend_from_slice(payload);
    if let Some(key) = key {
        mask(&mut frame[length..], key);
    }
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);

    fn data(payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
        let (head, begin) = data_head(payload.len(), key);
        let mut frame = [&head[begin..], payload].concat();
        let length = frame.len();
        if let Some(key) = key {
            mask(&mut frame[length - payload.len()..], key);
        }
        frame
    }

    /// What of these bytes is read when they come in pieces of `size`.
    fn read(of: Side, bytes: &[u8], size: usize) -> Result<(Vec<u8>, Vec<Piece>), FrameError> {
        let (mut reader, mut stream, mut others) = (Reader::new(of), Vec::new(), Vec::new());
        for chunk in bytes.chunks(size) {
            let mut input = Bytes::copy_from_slice(chunk);
            while let Some(piece) = reader.next(&mut input)? {
                match piece {
                    Piece::Data(data) => stream.extend_from_slice(&data),
                    word @ (Piece::Ping(_) | Piece::Pong | Piece::Close(_)) => others.push(word),
                }
            }
            assert!(input.is_empty());
        }
        Ok((stream, others))
    }

    #[test]
    fn a_stream_is_whole_however_it_is_framed_and_cut() {
        let stream: Vec<u8> = (0..70_000_u32).map(|at| (at % 251) as u8).collect();
        for (of, key) in [(Side::Client, KEY), (Side::Server, None)] {
            for frames in [&[0, 1, 125, 126, 127, 65_535][..], &[65_536], &[16_384, 3]] {
                let (mut bytes, mut rest) = (Vec::new(), &stream[..]);
                for length in frames {
                    let (now, later) = rest.split_at((*length).min(rest.len()));
                    bytes.extend(data(now, key));
                    bytes.extend_from_slice(&pong(b"", key));
                    rest = later;
                }
                bytes.extend(data(rest, key));
                bytes.extend_from_slice(&close(NORMAL, key));
                bytes.extend_from_slice(b"nobody looks at this");
                for size in [1, 2, 3, 7, 16_384, usize::MAX] {
                    let (read, others) = read(of, &bytes, size.min(bytes.len())).unwrap();
                    assert!(read == stream, "{of:?} {frames:?} {size}");
                    assert_eq!(others.last(), Some(&Piece::Close(Some(NORMAL))));
                }
            }
        }
    }

    #[test]
    fn messages_in_parts_are_one_stream_with_control_frames_between_them() {
        let bytes = [
            &[0x02, 2, b'a', b'b'][..],
            &[0x89, 2, b'h', b'i'],
            &[0x00, 1, b'c'],
            &[0x80, 0],
            &[0x81, 1, b'd'],
            &[0x88, 0],
        ]
        .concat();
        let (stream, others) = read(Side::Server, &bytes, 1).unwrap();
        assert_eq!(stream, b"abcd");
        assert_eq!(others, [Piece::Ping(Bytes::from_static(b"hi")), Piece::Close(None)]);
    }

    #[test]
    fn what_is_no_frame_is_refused_for_its_reason() {
        for (of, bytes, wanted) in [
            (Side::Client, &[0x82, 1, 0, 0, 0, 0, 0][..], FrameError::Mask),
            (Side::Server, &[0x82, 0x81, 0, 0, 0, 0, 0], FrameError::Mask),
            (Side::Server, &[0xc2, 0], FrameError::Reserved),
            (Side::Server, &[0x83, 0], FrameError::Kind(3)),
            (Side::Server, &[0x8b, 0], FrameError::Kind(11)),
            (Side::Server, &[0x80, 0], FrameError::Order),
            (Side::Server, &[0x02, 0, 0x82, 0], FrameError::Order),
            (Side::Server, &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], FrameError::Length),
            (Side::Server, &[0x09, 0], FrameError::Control),
            (Side::Server, &[0x89, 126, 0, 126], FrameError::Control),
            (Side::Server, &[0x88, 1, 3], FrameError::Control),
        ] {
            assert_eq!(read(of, bytes, 1), Err(wanted), "{bytes:?}");
        }
    }

    #[test]
    fn control_frames_are_read_as_they_were_written() {
        for (of, key) in [(Side::Client, KEY), (Side::Server, None)] {
            let bytes = [ping(key), pong(b"x", key), close(END_OF_DIRECTION, key)].concat();
            let (_, others) = read(of, &bytes, 2).unwrap();
            assert_eq!(
                others,
                [Piece::Ping(Bytes::new()), Piece::Pong, Piece::Close(Some(END_OF_DIRECTION))]
            );
        }
    }
}
