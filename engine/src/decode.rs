//! Undoes the compression of bodies for plugins that want to see what they say: a step at a time, so that however much a
//! little becomes, no more than a step of it is held. Knows gzip and deflate; does not know plugins.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// Most bytes of a compressed body that are undone in one step: as gzip they become a MiB at most.
const STEP: usize = 1024;
/// The same of deflate, and most bytes that it makes in one.
const DEFLATED: usize = 16 * 1024;
const OUTPUT: usize = 64 * 1024;

/// What the bytes of a body are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coded {
    Plain,
    Known(Coding),
    /// In another way, or in several.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
}

impl Coded {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let codings = headers.get_all(CONTENT_ENCODING).iter();
        let codings = codings.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        let mut found = Self::Plain;
        for coding in codings.map(<[u8]>::trim_ascii) {
            if coding.is_empty() || coding.eq_ignore_ascii_case(b"identity") {
                continue;
            }
            let is = |name: &[u8]| coding.eq_ignore_ascii_case(name);
            let known = if found != Self::Plain {
                None
            } else if is(b"gzip") || is(b"x-gzip") {
                Some(Coding::Gzip)
            } else {
                is(b"deflate").then_some(Coding::Deflate)
            };
            found = known.map_or(Self::Unknown, Self::Known);
        }
        found
    }
}

/// Undoes one body.
pub(crate) struct Decoder {
    input: Bytes,
    has_begun: bool,
    inner: Inner,
}

enum Inner {
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    /// RFC 9110 means zlib's format by this word, and some send what is in it.
    Deflate(Option<Box<Decompress>>),
    /// Its end was seen.
    Ended,
}

impl Decoder {
    pub(crate) fn new(coding: Coding) -> Self {
        let inner = match coding {
            Coding::Gzip => Inner::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
            Coding::Deflate => Inner::Deflate(None),
        };
        Self { input: Bytes::new(), has_begun: false, inner }
    }

    /// More of it. What was pushed before has been taken with [`Self::step`].
    pub(crate) fn push(&mut self, input: Bytes) {
        self.has_begun |= !input.is_empty();
        self.input = input;
    }

    /// What comes next of it, which may be empty although more follows; `None` if there has to be more of it first.
    pub(crate) fn step(&mut self) -> io::Result<Option<Bytes>> {
        let output = match &mut self.inner {
            Inner::Gzip(decoder) => {
                if self.input.is_empty() {
                    return Ok(None);
                }
                let step = self.input.split_to(self.input.len().min(STEP));
                decoder.write_all(&step)?;
                decoder.flush()?;
                std::mem::take(decoder.get_mut())
            }
            Inner::Deflate(decoder) => {
                let Some(first) = self.input.first() else {
                    // It may still hold something back.
                    let Some(decoder) = decoder else { return Ok(None) };
                    let mut output = Vec::with_capacity(OUTPUT);
                    let status = decoder.decompress_vec(&[], &mut output, FlushDecompress::None)?;
                    if status == Status::StreamEnd {
                        self.inner = Inner::Ended;
                    }
                    return Ok((!output.is_empty()).then(|| output.into()));
                };
                let is_zlib = first & 0x0f == 8;
                let decoder = decoder.get_or_insert_with(|| Box::new(Decompress::new(is_zlib)));
                let mut output = Vec::with_capacity(OUTPUT);
                let before = decoder.total_in();
                let input = &self.input[..self.input.len().min(DEFLATED)];
                let status = decoder.decompress_vec(input, &mut output, FlushDecompress::None)?;
                let taken = usize::try_from(decoder.total_in() - before).unwrap_or(usize::MAX);
                let _ = self.input.split_to(taken.min(self.input.len()));
                if status == Status::StreamEnd {
                    self.inner = Inner::Ended;
                } else if taken == 0 && output.is_empty() {
                    return Err(broken());
                }
                output
            }
            Inner::Ended if self.input.is_empty() => return Ok(None),
            Inner::Ended => return Err(broken()),
        };
        Ok(Some(output.into()))
    }

    /// Whether it is there to its end; what is left of it.
    pub(crate) fn finish(&mut self) -> io::Result<Bytes> {
        match &mut self.inner {
            // Nothing is nothing in every coding.
            Inner::Gzip(_) | Inner::Deflate(_) if !self.has_begun => Ok(Bytes::new()),
            Inner::Gzip(decoder) => {
                decoder.try_finish()?;
                Ok(std::mem::take(decoder.get_mut()).into())
            }
            Inner::Deflate(_) => Err(broken()),
            Inner::Ended => Ok(Bytes::new()),
        }
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the compressed body is damaged")
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::HeaderValue;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(text: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// Undoes it in pieces, and says how long the longest step was.
    fn undone(coding: Coding, coded: &[u8], piece: usize) -> io::Result<(Vec<u8>, usize)> {
        let mut decoder = Decoder::new(coding);
        let (mut all, mut longest) = (Vec::new(), 0);
        for piece in coded.chunks(piece) {
            decoder.push(Bytes::copy_from_slice(piece));
            while let Some(step) = decoder.step()? {
                longest = longest.max(step.len());
                all.extend_from_slice(&step);
            }
        }
        all.extend_from_slice(&decoder.finish()?);
        Ok((all, longest))
    }

    fn text() -> Vec<u8> {
        (0..40_000_u32).flat_map(|number| number.to_string().into_bytes()).collect()
    }

    #[test]
    fn what_was_compressed_is_as_it_was_however_it_is_cut() {
        let text = text();
        let twice = [gzip(&text[..1000]), gzip(&text[1000..])].concat();
        for (coding, coded) in [
            (Coding::Gzip, gzip(&text)),
            (Coding::Gzip, twice),
            (Coding::Deflate, zlib(&text)),
            (Coding::Deflate, raw(&text)),
        ] {
            for piece in [1, 7, 4096, 1 << 20] {
                assert!(undone(coding, &coded, piece).unwrap().0 == text, "{coding:?} in pieces of {piece}");
            }
        }
        assert!(undone(Coding::Gzip, b"", 1).unwrap().0.is_empty());
        assert!(undone(Coding::Deflate, b"", 1).unwrap().0.is_empty());
    }

    #[test]
    fn what_is_cut_or_damaged_is_not_taken_for_whole() {
        let text = text();
        for (coding, coded) in [(Coding::Gzip, gzip(&text)), (Coding::Deflate, zlib(&text))] {
            for length in [1, 5, 100, coded.len() - 1] {
                assert!(undone(coding, &coded[..length], 512).is_err(), "{coding:?}: {length}");
            }
            let mut damaged = coded.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 0x55;
            assert!(undone(coding, &damaged, 512).is_err(), "{coding:?}");
            let longer = [&coded[..], b"more"].concat();
            assert!(undone(coding, &longer, 512).is_err(), "{coding:?}: something behind it");
        }
        assert!(undone(Coding::Gzip, &text, 512).is_err());
        assert!(undone(Coding::Deflate, &text, 512).is_err());
    }

    #[test]
    fn however_much_a_little_becomes_a_step_is_small() {
        let bomb = vec![0; 64 << 20];
        for (coding, coded) in [(Coding::Gzip, gzip(&bomb)), (Coding::Deflate, zlib(&bomb))] {
            let (all, longest) = undone(coding, &coded, 1 << 20).unwrap();
            assert!(all.len() == bomb.len() && longest <= 2 << 20, "{coding:?}: {longest}");
        }
    }

    #[test]
    fn what_becomes_nothing_is_undone_in_small_steps_too() {
        let nothing = gzip(b"").repeat(10_000);
        let mut decoder = Decoder::new(Coding::Gzip);
        let length = nothing.len();
        decoder.push(nothing.into());
        let mut steps = 0;
        while let Some(step) = decoder.step().unwrap() {
            assert!(step.is_empty());
            steps += 1;
        }
        assert!(steps >= length / STEP, "{steps} steps of {length} bytes");
    }

    #[test]
    fn codings_are_known_by_their_names() {
        for (values, coded) in [
            (&[][..], Coded::Plain),
            (&["identity"], Coded::Plain),
            (&["GZIP"], Coded::Known(Coding::Gzip)),
            (&["identity, x-gzip"], Coded::Known(Coding::Gzip)),
            (&["deflate"], Coded::Known(Coding::Deflate)),
            (&["br"], Coded::Unknown),
            (&["gzip, gzip"], Coded::Unknown),
            (&["gzip", "br"], Coded::Unknown),
        ] {
            let headers: HeaderMap =
                values.iter().map(|value| (CONTENT_ENCODING, HeaderValue::from_static(value))).collect();
            assert_eq!(Coded::of(&headers), coded, "{values:?}");
        }
    }
}
