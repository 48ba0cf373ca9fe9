//! Bodies for services that take none in chunks: read before they are sent, to know how long they are.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRAILER};
use http::{HeaderValue, request};
use http_body_util::BodyExt;

use super::{Body, OriginError, full};

/// The longest body that is read before it is sent, bytes. One whose length the visitor has said passes
/// through, however long it is.
const LARGEST: usize = 1 << 20;

/// Says in the head how long the body is. Trailers are lost: there is no place for them.
pub(super) async fn measured(
    head: &mut request::Parts,
    mut body: Body,
    target: &str,
) -> Result<Body, OriginError> {
    let is_known = head.headers.contains_key(CONTENT_LENGTH) || body.size_hint().exact().is_some();
    if is_known || body.is_end_stream() {
        return Ok(body);
    }
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
    if !rest.is_empty() {
        first = [&first[..], &rest[..]].concat().into();
    }
    head.headers.remove(TRAILER);
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(first.len()));
    Ok(full(first))
}
