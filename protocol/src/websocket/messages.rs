//! Whole messages of a WebSocket, for those to whom they mean something. Knows frames; does not know what is in them.

use bytes::{Bytes, BytesMut};

use super::{FrameError, Piece, Reader, Side};

/// Gathers messages.
#[derive(Debug)]
pub struct Messages {
    reader: Reader,
    gathered: BytesMut,
    most: usize,
}

/// What the other side has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Message(Bytes),
    Ping(Bytes),
    Pong,
    Close(Option<u16>),
}

/// What the other side says is nothing that can be gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a message of more than {0} bytes")]
    TooLong(usize),
}

impl Messages {
    /// Of this side, each of `most` bytes at most.
    #[must_use]
    pub fn new(of: Side, most: usize) -> Self {
        Self { reader: Reader::new(of), gathered: BytesMut::new(), most }
    }

    /// The next thing in `input`, which is left behind it; `None` asks for more.
    ///
    /// # Errors
    /// After one there is nothing more to read.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Said>, MessageError> {
        while let Some(piece) = self.reader.next(input)? {
            return Ok(Some(match piece {
                Piece::Data(data) => {
                    if self.gathered.len() + data.len() > self.most {
                        return Err(MessageError::TooLong(self.most));
                    }
                    self.gathered.extend_from_slice(&data);
                    if !self.reader.is_between_messages() {
                        continue;
                    }
                    Said::Message(self.gathered.split().freeze())
                }
                Piece::Ping(payload) => Said::Ping(payload),
                Piece::Pong => Said::Pong,
                Piece::Close(code) => Said::Close(code),
            }));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::{close_saying, text};
    use super::*;

    const KEY: Option<[u8; 4]> = Some([1, 2, 3, 4]);

    fn said(of: Side, bytes: &[u8], size: usize) -> Result<Vec<Said>, MessageError> {
        let (mut messages, mut all) = (Messages::new(of, 8), Vec::new());
        for chunk in bytes.chunks(size) {
            let mut input = Bytes::copy_from_slice(chunk);
            while let Some(one) = messages.next(&mut input)? {
                all.push(one);
            }
        }
        Ok(all)
    }

    #[test]
    fn messages_are_whole_however_they_are_cut() {
        let word = |word: &'static str| Said::Message(Bytes::from_static(word.as_bytes()));
        for (of, key) in [(Side::Client, KEY), (Side::Server, None)] {
            let bytes = [text(b"one", key), text(b"", key), text(b"eighteen"[..8].as_ref(), key)].concat();
            for size in 1..bytes.len() {
                let all = said(of, &bytes, size).unwrap();
                assert_eq!(all, [word("one"), word("eighteen")], "{of:?} {size}");
            }
        }
        // In two frames with a question between them.
        let bytes = [&[0x01, 1, b'a'][..], &[0x89, 0], &[0x80, 1, b'b'], &[0x81, 1, b'c']].concat();
        assert_eq!(said(Side::Server, &bytes, 1).unwrap(), [Said::Ping(Bytes::new()), word("ab"), word("c")]);
        assert_eq!(said(Side::Server, &text(b"ninebytes", None), 4), Err(MessageError::TooLong(8)));
        let last = close_saying(4001, &"é".repeat(100), None);
        assert_eq!(said(Side::Server, &last, 3).unwrap(), [Said::Close(Some(4001))]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..200), size in 1_usize..50) {
            let _ = said(Side::Client, &bytes, size);
            let _ = said(Side::Server, &bytes, size);
        }
    }
}
