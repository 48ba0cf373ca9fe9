//! Bytes in, gzip out, as much at a time as is handed in.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

/// One body on its way.
pub struct Gzip {
    // Takes what it is given in memory, so that none of its writes fails.
    encoder: GzEncoder<Vec<u8>>,
    /// Whether it keeps bytes of which the reader has seen nothing.
    holds: bool,
}

impl Gzip {
    pub fn new(level: u32) -> Self {
        Self { encoder: GzEncoder::new(Vec::new(), Compression::new(level)), holds: false }
    }

    /// What `piece` adds to the output; often nothing, for it is kept until there is enough.
    pub fn press(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        self.encoder.write_all(piece)?;
        self.holds |= !piece.is_empty();
        Ok(self.taken())
    }

    /// Whatever is kept, so that a reader can read all that came in so far.
    pub fn flush(&mut self) -> io::Result<Vec<u8>> {
        if std::mem::take(&mut self.holds) {
            self.encoder.flush()?;
        }
        Ok(self.taken())
    }

    /// The rest, with the checksum.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        self.encoder.finish()
    }

    fn taken(&mut self) -> Vec<u8> {
        std::mem::take(self.encoder.get_mut())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    fn plain(gzip: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        GzDecoder::new(gzip).read_to_end(&mut plain).unwrap();
        plain
    }

    /// All that a reader can make of the beginning of a body.
    fn readable(gzip: &[u8]) -> Vec<u8> {
        let (mut decoder, mut plain, mut buffer) = (GzDecoder::new(gzip), Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = decoder.read(&mut buffer) {
            plain.extend_from_slice(&buffer[..count]);
        }
        plain
    }

    #[test]
    fn what_goes_in_comes_out_whatever_the_pieces() {
        let text: Vec<u8> =
            (0..200_000_u32).flat_map(|number| (number / 7).to_string().into_bytes()).collect();
        for size in [1_usize << 20, 16 << 10, 4001] {
            for level in [1, 6, 9] {
                let mut gzip = Gzip::new(level);
                let mut out = Vec::new();
                for piece in text.chunks(size) {
                    out.extend(gzip.press(piece).unwrap());
                }
                out.extend(gzip.finish().unwrap());
                assert!(out.len() < text.len() / 3, "{size} {level}: {}", out.len());
                assert!(plain(&out) == text, "{size} {level}");
            }
        }
        assert_eq!(plain(&Gzip::new(6).finish().unwrap()), b"");
    }

    #[test]
    fn a_flush_lets_a_reader_read_all_that_came_in() {
        let (mut gzip, mut out) = (Gzip::new(6), Vec::new());
        for (piece, so_far) in [("one\n", "one\n"), ("two\n", "one\ntwo\n")] {
            out.extend(gzip.press(piece.as_bytes()).unwrap());
            assert_ne!(readable(&out), so_far.as_bytes(), "it would not need to be flushed");
            out.extend(gzip.flush().unwrap());
            assert_eq!(readable(&out), so_far.as_bytes());
            assert!(gzip.flush().unwrap().is_empty(), "there is nothing to flush");
        }
        out.extend(gzip.finish().unwrap());
        assert_eq!(plain(&out), b"one\ntwo\n");
    }
}
