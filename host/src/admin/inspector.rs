//! The admin API's part for the inspector: whether it watches, from when to when, and what of.
//!
//! | request | answer |
//! |---|---|
//! | `GET /inspector` | how it stands |
//! | `PUT /inspector` | watches: `{"for": "10m", "bodies": 65536, "rule": "api"}`, of which `for` is needed |
//! | `DELETE /inspector` | stops and forgets |

use std::time::{Duration, Instant};

use adit_inspector::{LONGEST, MOST_BODY, Setting};
use adit_net::admission::Guest;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::{Admin, problem};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    r#for: String,
    #[serde(default)]
    bodies: usize,
    rule: Option<String>,
}

pub(super) async fn answer(
    admin: &Admin,
    request: Request<Incoming>,
    guest: &Guest,
) -> Response<Full<Bytes>> {
    let inspector = &admin.inspector;
    match *request.method() {
        Method::GET | Method::HEAD => {}
        Method::DELETE => inspector.stop(),
        Method::PUT => {
            let body = timeout(BODY_LIMIT, Limited::new(request.into_body(), LARGEST).collect()).await;
            let Ok(Ok(body)) = body else {
                return problem(StatusCode::BAD_REQUEST, "what is wanted did not arrive whole");
            };
            match setting(&body.to_bytes()) {
                Ok(setting) => inspector.start(setting, Instant::now()),
                Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
            }
        }
        _ => return problem(StatusCode::METHOD_NOT_ALLOWED, "GET, PUT and DELETE are served here"),
    }
    let _busy = guest.busy();
    super::json(StatusCode::OK, &json!(inspector.standing(Instant::now())))
}

fn setting(body: &[u8]) -> Result<Setting, String> {
    let wanted: Wanted = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    read(&wanted.r#for, wanted.bodies, wanted.rule)
}

/// What somebody wants to be kept, as it is written.
///
/// # Errors
/// Says what of it cannot be.
pub(super) fn read(period: &str, bodies: usize, rule: Option<String>) -> Result<Setting, String> {
    let period = humantime::parse_duration(period).map_err(|error| format!("for {period:?}: {error}"))?;
    if period > LONGEST || period.is_zero() {
        return Err(format!("for: at most {}", humantime::format_duration(LONGEST)));
    }
    if bodies > MOST_BODY {
        return Err(format!("bodies: at most {MOST_BODY} bytes of each are kept"));
    }
    Ok(Setting { bodies, rule: rule.filter(|rule| !rule.is_empty()), period: Some(period) })
}

/// What may be asked, bytes, and how long it may take to arrive.
const LARGEST: usize = 64 << 10;
const BODY_LIMIT: Duration = Duration::from_secs(10);
