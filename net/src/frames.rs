//! A row of frames as it passes (RFC 9113 4.1), looked at for those with little data. Keeps nothing of them.

use bytes::Buf;

use crate::unread::SMALL;

/// A place within the row.
#[derive(Debug)]
pub(crate) struct Frames {
    head: [u8; HEAD],
    /// So much of a head is there.
    have: usize,
    /// So much is to come before the next head.
    left: usize,
}

impl Frames {
    /// What the one says who has dialled HTTP/2, or the one who was.
    pub(crate) fn new(of_client: bool) -> Self {
        Self { head: [0; HEAD], have: 0, left: if of_client { PREFACE } else { 0 } }
    }

    /// Tells of each frame of little data whose head ends in these bytes of which stream it is.
    pub(crate) fn look(&mut self, mut bytes: &[u8], mut small: impl FnMut(u32)) {
        while !bytes.is_empty() {
            let passed = self.left.min(bytes.len());
            self.left -= passed;
            bytes.advance(passed);
            let taken = if self.left > 0 { 0 } else { (HEAD - self.have).min(bytes.len()) };
            bytes.copy_to_slice(&mut self.head[self.have..self.have + taken]);
            self.have += taken;
            if self.have == HEAD {
                let [a, b, c, kind, flags, stream @ ..] = self.head;
                self.left = u32::from_be_bytes([0, a, b, c]) as usize;
                self.have = 0;
                // Without data there is nothing to be kept.
                let is_small = (1..SMALL).contains(&self.left) || flags & PADDED != 0;
                if kind == DATA && is_small {
                    small(u32::from_be_bytes(stream) & !RESERVED);
                }
            }
        }
    }
}

const HEAD: usize = 9;
const DATA: u8 = 0;
const PADDED: u8 = 8;
/// A bit beside the number of the stream.
const RESERVED: u32 = 1 << 31;
/// RFC 9113 3.4, in bytes.
pub(crate) const PREFACE: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_frames_of_little_data_are_told_of_however_they_are_cut() {
        let frame = |kind: u8, flags: u8, length: usize, stream: u8| {
            let [_, a, b, c] = (length as u32).to_be_bytes();
            [&[a, b, c, kind, flags, 0x80, 0, 1, stream][..], &vec![0; length]].concat()
        };
        let bytes = [
            vec![1; PREFACE],
            frame(DATA, 0, 1, 1),
            frame(DATA, 0, SMALL, 3),
            frame(DATA, PADDED, SMALL, 5),
            frame(4, 0, 0, 0),
            frame(DATA, 1, 0, 7),
            frame(DATA, 1, 2, 9),
        ]
        .concat();
        for step in [1, 2, 7, 100, bytes.len()] {
            let (mut frames, mut streams) = (Frames::new(true), Vec::new());
            bytes.chunks(step).for_each(|part| frames.look(part, |stream| streams.push(stream)));
            assert_eq!((streams, frames.left, frames.have), (vec![257, 261, 265], 0, 0), "{step}");
        }
    }
}
