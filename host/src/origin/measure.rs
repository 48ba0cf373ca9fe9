//! Bodies for services that take none in chunks: read before they are sent, to know how long they are.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRAILER};
use http::{HeaderValue, request};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::{Body, OriginError, full};

/// The longest body that is read before it is sent, bytes. One whose length the visitor has said passes
/// through, however long it is.
const LARGEST: usize = 1 << 20;
/// What a visitor has for all of it: nothing else ends a body that trickles, while the request, its place and
/// what has come of it are held.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Says in the head how long the body is, if it is there within `patience`. Trailers are lost: there is no
/// place for them.
pub(super) async fn measured(
    head: &mut request::Parts,
    body: Body,
    target: &str,
    patience: Duration,
) -> Result<Body, OriginError> {
    let is_known = head.headers.contains_key(CONTENT_LENGTH) || body.size_hint().exact().is_some();
    if is_known || body.is_end_stream() {
        return Ok(body);
    }
    let read = timeout(patience, gather(body, target)).await;
    let whole =
        read.unwrap_or_else(|_| Err(OriginError::Trickling { target: target.to_owned(), limit: patience }))?;
    head.headers.remove(TRAILER);
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(whole.len()));
    Ok(full(whole))
}

/// All of a body, if that is not too much.
async fn gather(mut body: Body, target: &str) -> Result<Bytes, OriginError> {
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| OriginError::Request { source: source.into() })?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > LARGEST {
            return Err(OriginError::Unmeasured { target: target.to_owned(), limit: LARGEST });
        }
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { [&first[..], &rest[..]].concat().into() })
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http::Request;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_end_is_not_waited_for_without_end() {
        let (mut head, ()) = Request::post("/").body(()).unwrap().into_parts();
        let piece = stream::once(async { Ok(Frame::data(Bytes::from_static(b"one"))) });
        let body: Body = Box::pin(StreamBody::new(stream::StreamExt::chain(piece, stream::pending())));
        let read = measured(&mut head, body, "http://a", Duration::from_millis(20));
        let refused = timeout(Duration::from_secs(30), read).await.expect("it gives up").err().unwrap();
        assert!(matches!(refused, OriginError::Trickling { .. }), "{refused}");
        assert!(refused.wants_length() && !refused.is_unsent(), "{refused}");
        assert!(!head.headers.contains_key(CONTENT_LENGTH));
    }
}
