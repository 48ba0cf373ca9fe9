//! What a host answers who asks it about itself through its edge: whether it is there, which machine it is, and its
//! log as it grows. The edge has looked at the token; here it is looked at once more, as far as that can be seen. Knows
//! the words of the reference; does not know transports, nor rules, plugins and services, none of which see any of it.

mod session;
mod tail;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use adit_inspector::Redactor;
use adit_protocol::management::{
    self, ACCESS_TOKEN, Claims, HOST_DETAILS, HOSTNAME, LOGS, PING, Resource, is_host, of_query,
};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, SEC_WEBSOCKET_KEY};
use http::{HeaderValue, Method, Response, StatusCode, request};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::origin::{Body, empty, full, switched};
use session::Session;

pub use tail::{Happened, Tail};

/// What a host is asked about itself, the same for all shards.
pub struct Management {
    tunnel: Uuid,
    connector: Uuid,
    /// What people call this host.
    label: Option<String>,
    tail: Arc<Tail>,
    redactor: Redactor,
    /// Ends who watches, so that nobody keeps a host from ending.
    stop: CancellationToken,
}

impl Management {
    /// Until `stop`.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn new(
        tunnel: Uuid,
        connector: Uuid,
        label: Option<String>,
        tail: Arc<Tail>,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        Ok(Self { tunnel, connector, label, tail, redactor: Redactor::new()?, stop })
    }

    /// Whether this is asked of the host itself.
    #[inline]
    pub(crate) fn is_for(head: &request::Parts) -> bool {
        let host = head.headers.get(HOST).map(HeaderValue::as_bytes);
        // Of nearly all requests the length says it.
        host.is_some_and(|host| host.len() >= HOSTNAME.len() && str::from_utf8(host).is_ok_and(is_host))
    }

    /// Answers. On the thread of a shard; `body` is what the other side says behind a handshake.
    pub(crate) fn answer(
        self: &Arc<Self>,
        head: &request::Parts,
        body: Body,
        is_websocket: bool,
    ) -> Response<Body> {
        let token = of_query(head.uri.query(), ACCESS_TOKEN);
        let claims = match self.claims(token) {
            Ok(claims) => claims,
            Err(why) => return refusal(why),
        };
        let wanted = match head.uri.path() {
            LOGS => Some(Resource::Logs),
            HOST_DETAILS => Some(Resource::HostDetails),
            PING => None,
            _ => return status(StatusCode::NOT_FOUND),
        };
        if wanted.is_some_and(|wanted| !claims.reach(wanted)) {
            return refusal("this access_token is good for something else");
        }
        if head.method != Method::GET && !(head.method == Method::HEAD && head.uri.path() == PING) {
            return status(StatusCode::METHOD_NOT_ALLOWED);
        }
        match head.uri.path() {
            LOGS if is_websocket => {
                let Some(key) = head.headers.get(SEC_WEBSOCKET_KEY) else {
                    return status(StatusCode::BAD_REQUEST);
                };
                let session = Session::new(self.clone(), claims);
                switched(key, session.serve(body)).unwrap_or_else(|| status(StatusCode::BAD_REQUEST))
            }
            LOGS => status(StatusCode::UPGRADE_REQUIRED),
            HOST_DETAILS => page(StatusCode::OK, &self.details()),
            _ => status(StatusCode::OK),
        }
    }

    /// What a token says that is good here; the edge alone knows who has signed it.
    fn claims(&self, token: Option<&str>) -> Result<Claims, &'static str> {
        let claims = token.and_then(Claims::unverified).ok_or("missing access_token query parameter")?;
        if claims.tun.id != self.tunnel {
            return Err("this access_token is for another tunnel");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if claims.exp != 0 && claims.exp.saturating_add(CLOCKS) < now {
            return Err("this access_token is over");
        }
        Ok(claims)
    }

    fn details(&self) -> Value {
        let name = match &self.label {
            Some(label) => format!("custom:{label}"),
            None => machine().unwrap_or_else(|| "unknown".to_owned()),
        };
        json!({ "connector_id": self.connector, "hostname": name })
    }
}

/// What the system calls this machine.
fn machine() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// As the reference says no to a token.
fn refusal(why: &str) -> Response<Body> {
    page(StatusCode::BAD_REQUEST, &json!({ "errors": [{ "code": management::REFUSED, "message": why }] }))
}

fn page(status: StatusCode, json: &Value) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(json.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    response
}

/// How far the clocks of edge and host may be apart, seconds.
const CLOCKS: u64 = 60;

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use http::Request;
    use http_body_util::BodyExt;

    use super::*;

    const TUNNEL: Uuid = Uuid::from_u128(7);

    fn management() -> Arc<Management> {
        let tail = Arc::new(Tail::default());
        let stop = CancellationToken::new();
        Arc::new(Management::new(TUNNEL, Uuid::from_u128(8), Some("one".to_owned()), tail, stop).unwrap())
    }

    fn token(tunnel: Uuid, resource: &str, expires: u64) -> String {
        let claims = json!({
            "tun": { "id": tunnel, "account_tag": "a" }, "actor": { "id": "me" }, "res": [resource], "exp": expires,
        });
        format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    async fn asked(method: &str, path: &str, token: &str) -> (u16, String) {
        let uri = format!("http://{HOSTNAME}{path}?access_token={token}");
        let (head, ()) = Request::builder().method(method).uri(uri).body(()).unwrap().into_parts();
        let response = management().answer(&head, empty(), false);
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn only_a_token_for_this_tunnel_and_this_question_gets_an_answer() {
        let later = u64::from(u32::MAX);
        let good = token(TUNNEL, "host_details", later);
        assert_eq!(asked("GET", "/ping", &good).await, (200, String::new()));
        assert_eq!(asked("HEAD", "/ping", &good).await.0, 200);
        let (status, details) = asked("GET", "/host_details", &good).await;
        assert_eq!(status, 200);
        let details: Value = serde_json::from_str(&details).unwrap();
        assert_eq!(details["hostname"], "custom:one");
        assert_eq!(details["connector_id"], Uuid::from_u128(8).to_string());
        assert_eq!(asked("GET", "/metrics", &good).await.0, 404, "nothing else is there");
        assert_eq!(asked("POST", "/ping", &good).await.0, 405);
        for (token, why) in [
            (String::new(), "missing"),
            ("x.y.z".to_owned(), "missing"),
            (token(Uuid::from_u128(9), "host_details", later), "another tunnel"),
            (token(TUNNEL, "logs", later), "something else"),
            (token(TUNNEL, "host_details", 1), "is over"),
        ] {
            let (status, page) = asked("GET", "/host_details", &token).await;
            assert!(status == 400 && page.contains(why) && page.contains("1001"), "{token}: {status} {page}");
        }
        assert_eq!(asked("GET", "/logs", &token(TUNNEL, "logs", later)).await.0, 426);
    }

    #[test]
    fn what_is_asked_of_services_is_none_of_it() {
        let is_for = |host: &str| {
            let (head, ()) = Request::builder().header(HOST, host).body(()).unwrap().into_parts();
            Management::is_for(&head)
        };
        assert!(is_for(HOSTNAME) && is_for("MANAGEMENT.argotunnel.com:443"));
        for other in
            ["app.example.com", "management.argotunnel.com.example.com", "xmanagement.argotunnel.com"]
        {
            assert!(!is_for(other), "{other}");
        }
    }
}
