//! `/ws`: every message comes back. Knows frames of RFC 6455, as far as an echo needs them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::SEC_WEBSOCKET_KEY;
use http::{Response, StatusCode, request};
use http_body::{Body as HttpBody, Frame};

use super::super::{Body, BoxError, status_only, switched};

/// Accepts an upgrade; `body` is what the visitor sends.
pub(in crate::origin) fn echo(head: &request::Parts, body: Body) -> Response<Body> {
    let echo = Echo { body, pending: BytesMut::new(), is_over: false };
    let key = head.headers.get(SEC_WEBSOCKET_KEY);
    let response = key.and_then(|key| switched(key, Box::pin(echo)));
    response.unwrap_or_else(|| status_only(StatusCode::BAD_REQUEST))
}

struct Echo {
    body: Body,
    /// Arrived, and not a whole frame yet.
    pending: BytesMut,
    is_over: bool,
}

impl HttpBody for Echo {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            if this.is_over {
                return Poll::Ready(None);
            }
            match returned(&mut this.pending) {
                Step::Answer(frame) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
                Step::End(frame) => {
                    this.is_over = true;
                    return Poll::Ready(Some(Ok(Frame::data(frame))));
                }
                Step::Nothing => {}
                Step::More => match ready!(this.body.as_mut().poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        this.pending.extend_from_slice(frame.data_ref().map_or(&[], |data| data))
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => return Poll::Ready(None),
                },
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Not a whole frame yet.
    More,
    /// One that asks for no answer.
    Nothing,
    Answer(Bytes),
    /// The last.
    End(Bytes),
}

/// Takes one frame of a visitor, and says what goes back.
fn returned(pending: &mut BytesMut) -> Step {
    let [first, second, ..] = **pending else { return Step::More };
    let (length, begin) = match second & 0x7f {
        126 if pending.len() >= 4 => (u64::from(u16::from_be_bytes([pending[2], pending[3]])), 4),
        127 if pending.len() >= 10 => ((&pending[2..10]).get_u64(), 10),
        126 | 127 => return Step::More,
        length => (u64::from(length), 2),
    };
    let length = match usize::try_from(length) {
        // Visitors mask what they send.
        Ok(length) if length <= LARGEST && second & 0x80 != 0 => length,
        Ok(length) if length <= LARGEST => return Step::End(written(CLOSE, &PROTOCOL_ERROR.to_be_bytes())),
        Ok(_) | Err(_) => return Step::End(written(CLOSE, &TOO_LARGE.to_be_bytes())),
    };
    if pending.len() < begin + MASK + length {
        return Step::More;
    }
    let mut frame = pending.split_to(begin + MASK + length);
    frame.advance(begin);
    let mask = frame.split_to(MASK);
    for (at, byte) in frame.iter_mut().enumerate() {
        *byte ^= mask[at % MASK];
    }
    match first & 0x0f {
        CLOSE_CODE => Step::End(written(first, &frame)),
        PING_CODE => Step::Answer(written(PONG, &frame)),
        PONG_CODE => Step::Nothing,
        _ => Step::Answer(written(first, &frame)),
    }
}

fn written(first: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(10 + payload.len());
    frame.put_u8(first);
    match payload.len() {
        length @ 0..126 => frame.put_u8(length as u8),
        length @ 126..=0xffff => {
            frame.put_u8(126);
            frame.put_u16(length as u16);
        }
        length => {
            frame.put_u8(127);
            frame.put_u64(length as u64);
        }
    }
    frame.extend_from_slice(payload);
    frame.freeze()
}

const MASK: usize = 4;
/// The longest frame that comes back, bytes.
const LARGEST: usize = 1 << 20;
const CLOSE_CODE: u8 = 8;
const PING_CODE: u8 = 9;
const PONG_CODE: u8 = 10;
const CLOSE: u8 = 0x80 | CLOSE_CODE;
const PONG: u8 = 0x80 | PONG_CODE;
const PROTOCOL_ERROR: u16 = 1002;
const TOO_LARGE: u16 = 1009;

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = written(first, payload).to_vec();
        frame[1] |= 0x80;
        let begin = frame.len() - payload.len();
        let mask = [1, 2, 3, 4];
        for (at, byte) in frame[begin..].iter_mut().enumerate() {
            *byte ^= mask[at % 4];
        }
        frame.splice(begin..begin, mask);
        frame
    }

    #[test]
    fn frames_come_back_unmasked_however_they_arrive() {
        for length in [0, 1, 125, 126, 70_000] {
            let payload = vec![7; length];
            let mut pending = BytesMut::new();
            for byte in masked(0x82, &payload) {
                assert_eq!(returned(&mut pending), Step::More);
                pending.put_u8(byte);
            }
            assert_eq!(returned(&mut pending), Step::Answer(written(0x82, &payload)), "{length}");
        }
        let mut pending =
            BytesMut::from(&[masked(0x89, b"hi"), masked(0x8a, b""), masked(0x88, b"")].concat()[..]);
        assert_eq!(returned(&mut pending), Step::Answer(written(PONG, b"hi")));
        assert_eq!(returned(&mut pending), Step::Nothing);
        assert_eq!(returned(&mut pending), Step::End(written(CLOSE, b"")));
        for (bytes, code) in
            [(&[0x82, 1, 7][..], PROTOCOL_ERROR), (&[0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 0], TOO_LARGE)]
        {
            let mut pending = BytesMut::from(bytes);
            assert_eq!(returned(&mut pending), Step::End(written(CLOSE, &code.to_be_bytes())));
        }
    }
}
