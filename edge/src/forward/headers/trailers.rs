//! Trailers: who wants them, and what may stand in them. They cross only to and from hosts that say they
//! understand them (extensions.rs).

use http::header;

use super::*;

/// What a request says about trailers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trailers {
    /// The visitor takes them in the answer.
    pub(crate) are_taken: bool,
    /// The visitor's own body may end with some.
    pub(crate) follow_upload: bool,
    /// What the visitor announces of its own.
    pub(crate) announced: Vec<HeaderValue>,
}

impl Trailers {
    /// What the visitor says, `None` if it is nothing. To be asked before the headers are cut.
    pub(crate) fn of(parts: &Parts, upload: Upload) -> Option<Self> {
        let headers = &parts.headers;
        // Not every client of gRPC says so, and none can do without.
        let is_grpc = parts.version == Version::HTTP_2
            && headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let are_taken = is_grpc || has_token(headers, &TE, "trailers");
        let announced: Vec<_> = match upload {
            Upload::None | Upload::Upgrade => Vec::new(),
            Upload::Sized(_) | Upload::Chunked => headers.get_all(TRAILER).iter().cloned().collect(),
        };
        let follow_upload = !announced.is_empty() || (are_taken && upload == Upload::Chunked);
        (are_taken || follow_upload).then_some(Self { are_taken, follow_upload, announced })
    }
}

/// Turns the visitor's trailers into what the origin gets.
pub(crate) fn trailers_for_origin(trailers: &mut HeaderMap) {
    cut(trailers, |name| is_forgery(name) || is_forbidden(name));
}

/// Turns the origin's trailers into what the visitor gets.
pub(crate) fn trailers_for_visitor(trailers: &mut HeaderMap) {
    let is_internal = |name: &str| INTERNAL_TO_TUNNEL.iter().any(|prefix| name.starts_with(prefix));
    cut(trailers, |name| name == CF_RAY || is_internal(name) || is_forbidden(name));
}

/// RFC 9110 6.5.1: whatever decides about framing, routing, authentication, how the request is to be
/// understood or how the content is has to be known before the content.
fn is_forbidden(name: &str) -> bool {
    name.starts_with("if-")
        || HOP_BY_HOP.iter().any(|hop| hop == name)
        || NOT_IN_TRAILERS.iter().any(|known| known == name)
}

const NOT_IN_TRAILERS: [HeaderName; 24] = [
    header::AGE,
    header::ALLOW,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    header::DATE,
    EXPECT,
    header::EXPIRES,
    HOST,
    header::LOCATION,
    header::MAX_FORWARDS,
    header::PRAGMA,
    header::RANGE,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    header::STRICT_TRANSPORT_SECURITY,
    header::VARY,
    header::WARNING,
    header::WWW_AUTHENTICATE,
];
