//! Large bodies that are made and checked as they pass, so that no test holds one in memory.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// A body of known content: the same bytes for the same length.
pub struct Bulk {
    block: Bytes,
    left: u64,
    says_length: bool,
}

impl Bulk {
    pub fn new(length: u64) -> Self {
        Self { block: block(), left: length, says_length: true }
    }

    /// Sent in chunks: its head does not say how long it is.
    pub fn without_length(length: u64) -> Self {
        Self { says_length: false, ..Self::new(length) }
    }
}

impl Body for Bulk {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = self.left.min(BLOCK as u64);
        self.left -= length;
        Poll::Ready(Some(Ok(Frame::data(self.block.slice(..length as usize)))))
    }

    fn is_end_stream(&self) -> bool {
        self.says_length && self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.says_length { SizeHint::with_exact(self.left) } else { SizeHint::new() }
    }
}

/// FNV-1a over everything that was added, with the count of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    pub bytes: u64,
    pub hash: u64,
}

impl Digest {
    pub fn new() -> Self {
        Self { bytes: 0, hash: 0xcbf2_9ce4_8422_2325 }
    }

    pub fn add(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        for byte in data {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// What a [`Bulk`] of this length must come to.
    pub fn of_bulk(length: u64) -> Self {
        let block = block();
        let mut digest = Self::new();
        while digest.bytes < length {
            let next = (length - digest.bytes).min(BLOCK as u64);
            digest.add(&block[..next as usize]);
        }
        digest
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.bytes, self.hash)
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

fn block() -> Bytes {
    (0..BLOCK).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// A prime: pieces that change places change the digest, whatever their power of two.
const BLOCK: usize = 65_521;
