//! Every answer of the control API, in the one envelope that its clients read: successes, and problems with
//! their statuses and codes. Knows forms; does not know what was asked.
//!
//! What the reference client is particular about: success is 200 and nothing else, `messages` holds strings,
//! and the type is exactly `application/json`.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::Value;

pub(super) type Answer = Response<Full<Bytes>>;

/// Why a call was not done. The caller reads the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    NoSuchPath,
    Method(&'static str),
    /// No token, or one that is not known, not valid any more, or malformed: one answer for all.
    Unauthenticated,
    /// The token is good, for something else.
    Forbidden,
    /// No such thing, or one that the token's account does not have.
    NotFound(&'static str),
    Invalid(String),
    /// Everything that is wrong with what was sent, an error each.
    Refused(Vec<String>),
    TooLong {
        limit: usize,
    },
    NameTaken,
    Conflict(String),
    /// Another object names it.
    Referenced(String),
    /// Something else was faster: the same call may succeed now.
    ChangedMeanwhile,
    NoRecord,
    /// A host name has one record.
    RecordTaken(String),
    /// The account has as many as it may.
    TooManyRecords(usize),
    /// A record that leads to no tunnel.
    NoTarget(String),
    HasConnections,
    Later(&'static str),
    /// The edge has no records of this type.
    RecordType(String),
    TooMany {
        seconds: u64,
    },
    Slow,
    /// The store does not take changes.
    Unavailable,
    /// It is not known whether a token is still good.
    Stale,
}

/// Where a page stands in its list.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct PageInfo {
    pub(super) count: usize,
    pub(super) page: usize,
    pub(super) per_page: usize,
    pub(super) total_count: usize,
    pub(super) total_pages: usize,
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    success: bool,
    errors: &'a [Error],
    messages: &'a [String],
    result: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_info: Option<PageInfo>,
}

#[derive(Serialize)]
struct Error {
    code: u32,
    message: String,
}

pub(super) fn success(result: impl Serialize) -> Answer {
    success_with(result, &[])
}

/// The same with something to be said about it.
pub(super) fn success_with(result: impl Serialize, messages: &[String]) -> Answer {
    answer(StatusCode::OK, &Envelope { success: true, errors: &[], messages, result, result_info: None })
}

pub(super) fn page<T: Serialize>(result: &[T], info: PageInfo) -> Answer {
    let result_info = Some(info);
    answer(StatusCode::OK, &Envelope { success: true, errors: &[], messages: &[], result, result_info })
}

/// A document that is no answer in an envelope.
pub(super) fn document(json: &'static str) -> Answer {
    whole(StatusCode::OK, Bytes::from_static(json.as_bytes()))
}

impl Problem {
    /// The same about one of several things.
    pub(super) fn at(mut self, list: &str, place: usize) -> Self {
        if let Self::Invalid(reason) | Self::NoTarget(reason) | Self::Conflict(reason) = &mut self {
            *reason = format!("{list}[{place}]: {reason}");
        }
        self
    }

    pub(super) fn answer(&self) -> Answer {
        let (status, code) = self.kind();
        let messages = if let Self::Refused(reasons) = self { reasons.clone() } else { vec![self.message()] };
        let errors: Vec<Error> = messages.into_iter().map(|message| Error { code, message }).collect();
        let envelope = Envelope {
            success: false,
            errors: &errors,
            messages: &[],
            result: Value::Null,
            result_info: None,
        };
        let mut response = answer(status, &envelope);
        let headers = response.headers_mut();
        if let Self::Method(allowed) = self {
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        if let Self::TooMany { seconds } = self {
            headers.insert(RETRY_AFTER, HeaderValue::from(*seconds));
        }
        if self.is_final() {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if *self == Self::Unauthenticated {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    /// Whether the same call fails again although its status lets clients hope: the official SDKs send a call
    /// with 409 up to three times unless they are told.
    fn is_final(&self) -> bool {
        matches!(self, Self::NameTaken | Self::Conflict(_) | Self::Referenced(_))
    }

    /// The status, and the number by which scripts tell problems apart; those of the public API where it
    /// has one for the case.
    fn kind(&self) -> (StatusCode, u32) {
        match self {
            Self::NoSuchPath => (StatusCode::NOT_FOUND, 7003),
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, 7001),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, 10000),
            Self::Forbidden => (StatusCode::FORBIDDEN, 9109),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, 1003),
            Self::Invalid(_) | Self::Refused(_) => (StatusCode::BAD_REQUEST, 1002),
            Self::TooLong { .. } => (StatusCode::PAYLOAD_TOO_LARGE, 1004),
            Self::NameTaken => (StatusCode::CONFLICT, 1013),
            Self::Conflict(_) | Self::ChangedMeanwhile => (StatusCode::CONFLICT, 1014),
            Self::Referenced(_) => (StatusCode::PRECONDITION_FAILED, 1005),
            Self::NoRecord => (StatusCode::NOT_FOUND, 81044),
            Self::TooManyRecords(_) => (StatusCode::BAD_REQUEST, 81045),
            Self::RecordTaken(_) => (StatusCode::BAD_REQUEST, 81053),
            Self::NoTarget(_) => (StatusCode::BAD_REQUEST, 9007),
            Self::HasConnections => (StatusCode::BAD_REQUEST, 1022),
            Self::Later(_) | Self::RecordType(_) => (StatusCode::BAD_REQUEST, 1099),
            Self::TooMany { .. } => (StatusCode::TOO_MANY_REQUESTS, 971),
            Self::Slow => (StatusCode::REQUEST_TIMEOUT, 1007),
            Self::Unavailable | Self::Stale => (StatusCode::SERVICE_UNAVAILABLE, 1006),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::NoSuchPath => "there is nothing at this path; /openapi.json lists what there is".to_owned(),
            Self::Method(allowed) => format!("this path takes {allowed}"),
            Self::Unauthenticated => "the API token is missing or not valid".to_owned(),
            Self::Forbidden => "this API token does not reach as far as this request".to_owned(),
            Self::NotFound(what) => format!("{what} not found"),
            Self::Invalid(reason)
            | Self::Conflict(reason)
            | Self::NoTarget(reason)
            | Self::Referenced(reason) => reason.clone(),
            Self::Refused(reasons) => reasons.join("; "),
            Self::TooLong { limit } => format!("the body is longer than {limit} bytes"),
            Self::NameTaken => {
                "a tunnel with this name already exists; choose another, or delete that one first".to_owned()
            }
            Self::ChangedMeanwhile => {
                "something else changed this at the same time; look again, then try again".to_owned()
            }
            Self::NoRecord => "record does not exist".to_owned(),
            Self::RecordTaken(name) => {
                format!("`{name}` has a record already; change that one, or delete it first")
            }
            Self::TooManyRecords(share) => format!(
                "this account has {share} records, which is its share of this edge; delete some first"
            ),
            Self::HasConnections => {
                "the tunnel has active connections; stop its hosts, or delete with cascade=true".to_owned()
            }
            Self::Later(what) => format!("this edge does not know {what} yet"),
            Self::RecordType(kind) => format!(
                "this edge has no {kind} records: of DNS it keeps what leads to its tunnels, which are CNAME records"
            ),
            Self::TooMany { seconds } => format!("too many requests; wait {seconds} s"),
            Self::Slow => "the body did not come in time".to_owned(),
            Self::Unavailable => {
                "the edge cannot change its state now; nothing was changed, or it is not known whether"
                    .to_owned()
            }
            Self::Stale => {
                "this edge is cut off from the fleet's store and does not know which tokens are still good; ask another edge, or the admin address of this one on its own machine"
                    .to_owned()
            }
        }
    }
}

fn answer(status: StatusCode, envelope: &impl Serialize) -> Answer {
    whole(status, serde_json::to_vec(envelope).expect("answers have a JSON form").into())
}

fn whole(status: StatusCode, body: Bytes) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
