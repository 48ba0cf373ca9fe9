//! Bytes in, encoded ones out, as much at a time as is handed in.

use std::io::{self, Write};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::accept::Coding;
use crate::plan::Plan;

/// One body on its way.
pub struct Encoder {
    // Takes what it is given in memory, so that none of its writes fails.
    inner: Inner,
    /// Whether it keeps bytes of which the reader has seen nothing.
    holds: bool,
}

enum Inner {
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Encoder {
    pub fn new(plan: &Plan, coding: Coding) -> Self {
        let inner = match coding {
            Coding::Brotli => Inner::Brotli(Box::new(brotli(plan.brotli_level))),
            Coding::Gzip => Inner::Gzip(GzEncoder::new(Vec::new(), Compression::new(plan.level))),
        };
        Self { inner, holds: false }
    }

    /// What `piece` adds to the output; often nothing, for it is kept until there is enough.
    pub fn press(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        self.inner.writer().write_all(piece)?;
        self.holds |= !piece.is_empty();
        Ok(self.taken())
    }

    /// Whatever is kept, so that a reader can read all that came in so far.
    pub fn flush(&mut self) -> io::Result<Vec<u8>> {
        if std::mem::take(&mut self.holds) {
            self.inner.writer().flush()?;
        }
        Ok(self.taken())
    }

    /// The rest, with gzip's checksum.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        match self.inner {
            Inner::Brotli(encoder) => Ok(encoder.into_inner()),
            Inner::Gzip(encoder) => encoder.finish(),
        }
    }

    fn taken(&mut self) -> Vec<u8> {
        std::mem::take(match &mut self.inner {
            Inner::Brotli(encoder) => encoder.get_mut(),
            Inner::Gzip(encoder) => encoder.get_mut(),
        })
    }
}

impl Inner {
    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Brotli(encoder) => encoder,
            Self::Gzip(encoder) => encoder,
        }
    }
}

fn brotli(level: u32) -> CompressorWriter<Vec<u8>> {
    let params = BrotliEncoderParams {
        quality: i32::try_from(level).unwrap_or(i32::MAX),
        lgwin: WINDOW,
        ..BrotliEncoderParams::default()
    };
    CompressorWriter::with_params(Vec::new(), BUFFER, &params)
}

/// Of what went before brotli looks back at 256 KiB, its binary logarithm: a larger window takes memory for each answer
/// under way.
const WINDOW: i32 = 18;
/// Of the output, bytes.
const BUFFER: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    const BOTH: [Coding; 2] = [Coding::Brotli, Coding::Gzip];

    fn encoder(coding: Coding, level: u32) -> Encoder {
        let config = format!(r#"{{"level": {level}, "brotli-level": {level}}}"#);
        Encoder::new(&Plan::read(&config).unwrap(), coding)
    }

    fn decoder(coding: Coding, encoded: &[u8]) -> Box<dyn Read + '_> {
        match coding {
            Coding::Brotli => Box::new(brotli::Decompressor::new(encoded, 4096)),
            Coding::Gzip => Box::new(GzDecoder::new(encoded)),
        }
    }

    fn plain(coding: Coding, encoded: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        decoder(coding, encoded).read_to_end(&mut plain).unwrap();
        plain
    }

    /// All that a reader can make of the beginning of a body.
    fn readable(coding: Coding, encoded: &[u8]) -> Vec<u8> {
        let (mut decoder, mut plain, mut buffer) = (decoder(coding, encoded), Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = decoder.read(&mut buffer) {
            plain.extend_from_slice(&buffer[..count]);
        }
        plain
    }

    #[test]
    fn what_goes_in_comes_out_whatever_the_pieces() {
        let text: Vec<u8> =
            (0..200_000_u32).flat_map(|number| (number / 7).to_string().into_bytes()).collect();
        for coding in BOTH {
            for size in [1_usize << 20, 16 << 10, 4001] {
                for level in [1, 4, 9] {
                    let mut encoder = encoder(coding, level);
                    let mut out = Vec::new();
                    for piece in text.chunks(size) {
                        out.extend(encoder.press(piece).unwrap());
                    }
                    out.extend(encoder.finish().unwrap());
                    assert!(out.len() < text.len() / 3, "{coding:?} {size} {level}: {}", out.len());
                    assert!(plain(coding, &out) == text, "{coding:?} {size} {level}");
                }
            }
            assert_eq!(plain(coding, &encoder(coding, 6).finish().unwrap()), b"");
        }
    }

    #[test]
    fn a_flush_lets_a_reader_read_all_that_came_in() {
        for coding in BOTH {
            let (mut encoder, mut out) = (encoder(coding, 6), Vec::new());
            for (piece, so_far) in [("one\n", "one\n"), ("two\n", "one\ntwo\n")] {
                out.extend(encoder.press(piece.as_bytes()).unwrap());
                assert_ne!(readable(coding, &out), so_far.as_bytes(), "it would not need to be flushed");
                out.extend(encoder.flush().unwrap());
                assert_eq!(readable(coding, &out), so_far.as_bytes(), "{coding:?}");
                assert!(encoder.flush().unwrap().is_empty(), "there is nothing to flush");
            }
            out.extend(encoder.finish().unwrap());
            assert_eq!(plain(coding, &out), b"one\ntwo\n");
        }
    }
}
