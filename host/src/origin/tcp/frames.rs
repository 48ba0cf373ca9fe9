//! How the bytes of a service travel to the visitor: in frames, or as they are.

use adit_protocol::websocket;
use bytes::{Buf, Bytes, BytesMut};

/// Room in front of what is read, for the head of a server's frame.
const HEAD: usize = 10;
/// Bytes that are asked for at a time, at first and at most.
const LEAST: usize = 2 * 1024;
pub(super) const MOST: usize = 64 * 1024;

/// What a circuit's stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// `half_close`: each side may end its own direction.
    WebSocket { half_close: bool },
    /// Bytes as they are: of a stream that the edge opens by itself.
    Raw,
}

/// Room for what is read next: little for those who say little.
#[derive(Debug)]
pub(super) struct Buffers {
    framing: Framing,
    size: usize,
}

impl Framing {
    /// What is sent as these bytes.
    pub(super) fn wrap(self, data: &[u8]) -> Bytes {
        if self == Self::Raw {
            return Bytes::copy_from_slice(data);
        }
        let (head, begin) = websocket::data_head(data.len(), None);
        [&head[begin..], data].concat().into()
    }

    /// The last word of this side, where there is one.
    pub(super) fn farewell(self, code: u16) -> Option<Bytes> {
        (self != Self::Raw).then(|| websocket::close(code, None))
    }
}

impl Buffers {
    pub(super) fn new(framing: Framing) -> Self {
        Self { framing, size: LEAST }
    }

    /// A buffer to be read into.
    pub(super) fn fresh(&self) -> BytesMut {
        let head = self.head();
        let mut buffer = BytesMut::with_capacity(head + self.size);
        buffer.resize(head, 0);
        buffer
    }

    /// What a buffer is sent as. Empty if nothing was read into it.
    pub(super) fn filled(&mut self, mut buffer: BytesMut) -> (Bytes, usize) {
        let room = self.head();
        let length = buffer.len() - room;
        if length >= self.size {
            self.size = (self.size * 4).min(MOST);
        } else if length < self.size / 4 {
            self.size = (self.size / 2).max(LEAST);
        }
        if self.framing != Framing::Raw {
            let (head, begin) = websocket::data_head(length, None);
            let head = &head[begin..];
            buffer[HEAD - head.len()..HEAD].copy_from_slice(head);
            buffer.advance(HEAD - head.len());
        }
        (buffer.freeze(), length)
    }

    fn head(&self) -> usize {
        match self.framing {
            Framing::WebSocket { .. } => HEAD,
            Framing::Raw => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use websocket::{Piece, Reader, Side};

    use super::*;

    #[test]
    fn what_was_read_is_one_frame_and_buffers_grow_with_what_comes() {
        let mut buffers = Buffers::new(Framing::WebSocket { half_close: false });
        for length in [1, 125, 126, LEAST, 4 * LEAST, MOST, MOST, 3] {
            let mut buffer = buffers.fresh();
            let room = buffer.capacity() - buffer.len();
            let length = length.min(room);
            buffer.put_bytes(7, length);
            let (mut frame, counted) = buffers.filled(buffer);
            assert_eq!(counted, length);
            let piece = Reader::new(Side::Server).next(&mut frame).unwrap();
            assert_eq!(piece, Some(Piece::Data(vec![7; length].into())));
            assert!(frame.is_empty());
        }
        assert_eq!(buffers.size, MOST / 2);
    }
}
