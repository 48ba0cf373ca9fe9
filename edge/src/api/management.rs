//! Tokens by which the hosts of a tunnel can be asked about themselves, and the place where they are asked: on the
//! address of the API, at the paths that the reference has under a host name of its own. Knows tokens and paths; the
//! way to a host is `management::relay`.

use std::net::IpAddr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use adit_net::admission::Guest;
use adit_protocol::management::{
    self, ACCESS_TOKEN, ActorClaim, CONNECTOR_ID, Claims, HOST_DETAILS, HOSTNAME, LOGS, PING, Resource,
    TunnelClaim, of_query,
};
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Duration, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::envelope::{self, Answer, Problem};
use super::identity::Identity;
use super::{Api, note};
use crate::forward::ray::Ray;
use crate::management::relay::{self, NoAnswer};
use crate::management::token::{Issuer, NotGood};
use crate::store::Transaction;
use crate::store::records::management::ISSUER;
use crate::store::records::to_json;
use crate::store::timestamp::Timestamp;

/// What a token is to be good for, where the path does not say.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    pub(super) resources: Vec<Resource>,
}

/// Whether a host is asked, and not the API.
pub(super) fn is_path(path: &str) -> bool {
    [LOGS, PING, HOST_DETAILS].contains(&path)
}

impl Api {
    /// A token for one tunnel.
    pub(super) async fn management_token(
        &self,
        who: &Identity,
        tunnel: Uuid,
        resources: Vec<Resource>,
    ) -> Result<Answer, Problem> {
        if resources.is_empty() {
            return Err(Problem::Invalid(
                "resources: name at least one of logs, host_details and admin".to_owned(),
            ));
        }
        let issuer = self.issuer(who).await?;
        let now = seconds();
        let claims = Claims {
            tun: TunnelClaim { id: tunnel, account_tag: who.account().to_owned() },
            actor: ActorClaim { id: who.id().to_owned(), support: false },
            res: resources,
            iss: ISSUER_NAME.to_owned(),
            iat: now,
            exp: now + GOOD_FOR.as_secs(),
        };
        let token = issuer.sign(&claims).map_err(|error| {
            warn!(%error, "no management token can be signed");
            Problem::Unavailable
        })?;
        info!(actor = who.actor(), %tunnel, resources = ?claims.res, "management token issued");
        Ok(envelope::success(token))
    }

    /// What signs, made if there is none.
    async fn issuer(&self, who: &Identity) -> Result<Issuer, Problem> {
        for _ in 0..TRIES {
            if let Some(kept) = self.state.read(|snapshot| snapshot.issuer.clone()) {
                return Issuer::of(&kept).map_err(|error| {
                    warn!(%error, "no management token can be signed");
                    Problem::Unavailable
                });
            }
            let made = Issuer::make(Timestamp::now()).map_err(|_| Problem::Unavailable)?;
            let transaction = Transaction::new(note(who, "management.issuer", ISSUER));
            let transaction = transaction.if_absent(ISSUER).put(ISSUER, to_json(&made));
            match self.change(transaction, |_| Problem::ChangedMeanwhile).await {
                // Of two edges that make one at once, one is faster, and its key counts.
                Ok(()) | Err(Problem::ChangedMeanwhile) => self.state.catch_up().await,
                Err(problem) => return Err(problem),
            }
        }
        Err(Problem::Unavailable)
    }

    /// Asks a host of the tunnel that the token is for.
    pub(super) async fn ask_host(
        &self,
        mut request: Request<Incoming>,
        peer: IpAddr,
        guest: &Guest,
        stop: &CancellationToken,
    ) -> Answer {
        let upgrade = hyper::upgrade::on(&mut request);
        let (head, _) = request.into_parts();
        let claims = match self.proved(&head).await {
            Ok(claims) => claims,
            Err(refusal) => {
                let now = Instant::now();
                return match self.by_stranger.take(peer, now) {
                    Ok(()) => refusal.answer(),
                    Err(wait) => super::too_many(wait).answer(),
                };
            }
        };
        guest.vouch();
        let _busy = guest.busy();
        let connector = of_query(head.uri.query(), CONNECTOR_ID).map(str::parse::<Uuid>).transpose();
        let Ok(connector) = connector else {
            return refused(StatusCode::BAD_REQUEST, "connector_id is no id of a connector");
        };
        let Some(tunnel) = self.registry.tunnel(&claims.tun.id) else {
            return unreachable(&NoAnswer::NoConnection);
        };
        let live = match relay::choose(&tunnel, connector) {
            Ok(live) => live,
            Err(why) => return unreachable(&why),
        };
        let ray = self.rays.next();
        debug!(tunnel = %tunnel.id, connector = %live.connector, path = head.uri.path(), "a host is asked about itself");
        let Ok(asked) = to_host(&head, &ray) else {
            return refused(StatusCode::BAD_REQUEST, "the address cannot be passed on");
        };
        if !is_websocket(&head.headers) || head.method != Method::GET {
            return match relay::ask(&live, asked).await {
                Ok(reply) => passed(&reply.head, reply.body),
                Err(why) => unreachable(&why),
            };
        }
        let Ok(seat) = self.watchers.clone().try_acquire_owned() else {
            return refused(StatusCode::SERVICE_UNAVAILABLE, "too many watch hosts of this edge now");
        };
        let (response, switched) = match relay::switch(&live, asked).await {
            Ok(answered) => answered,
            Err(why) => return unreachable(&why),
        };
        let Some(switched) = switched else { return passed(&response, Bytes::new()) };
        // A watcher goes with its token, and with the edge.
        let (left, stop) = (claims.exp.saturating_sub(seconds()), stop.clone());
        tokio::spawn(async move {
            let watching = async {
                let watcher = upgrade.await.map_err(std::io::Error::other)?;
                switched.carry(TokioIo::new(watcher)).await
            };
            tokio::select! {
                ended = timeout(Duration::from_secs(left), watching) => debug!(?ended, "a watcher has gone"),
                () = stop.cancelled() => {}
            }
            drop(seat);
        });
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        if let Some(accept) = response.headers().get(SEC_WEBSOCKET_ACCEPT) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept.clone());
        }
        answer
    }

    /// What the token of a request says, if it is good for what is asked.
    async fn proved(&self, head: &Parts) -> Result<Claims, Refusal> {
        if self.state.silent_for() > super::STALE {
            return Err(Refusal::Stale);
        }
        let token = of_query(head.uri.query(), ACCESS_TOKEN).ok_or(Refusal::Missing)?;
        self.state.catch_up().await;
        let (issuer, is_there) = self.state.read(|snapshot| {
            let tunnel = Claims::unverified(token).and_then(|claims| {
                let kept = snapshot.tunnel(&claims.tun.account_tag, claims.tun.id)?;
                // One whose API token is gone watches no more.
                let actor = snapshot.tokens.get(&claims.actor.id)?;
                Some(!kept.record.is_deleted() && !actor.record.is_over(Timestamp::now()))
            });
            (snapshot.issuer.clone(), tunnel == Some(true))
        });
        let issuer =
            issuer.and_then(|kept| Issuer::of(&kept).ok()).ok_or(Refusal::NotGood(NotGood::Unknown))?;
        let claims = issuer.verify(token, seconds()).map_err(Refusal::NotGood)?;
        if !is_there {
            return Err(Refusal::NotGood(NotGood::Unknown));
        }
        let is_reached = match head.uri.path() {
            LOGS => claims.reach(Resource::Logs),
            HOST_DETAILS => claims.reach(Resource::HostDetails),
            _ => true,
        };
        if is_reached { Ok(claims) } else { Err(Refusal::Elsewhere) }
    }
}

/// Why a token does not count.
enum Refusal {
    Missing,
    NotGood(NotGood),
    /// It is good for something else.
    Elsewhere,
    Stale,
}

impl Refusal {
    fn answer(&self) -> Answer {
        match self {
            Self::Missing => refused(StatusCode::BAD_REQUEST, "missing access_token query parameter"),
            Self::NotGood(why) => refused(StatusCode::UNAUTHORIZED, &why.to_string()),
            Self::Elsewhere => refused(StatusCode::FORBIDDEN, "this access_token is good for something else"),
            Self::Stale => Problem::Stale.answer(),
        }
    }
}

/// What the host is asked: nothing of what was said but the path, the token and the handshake.
fn to_host(head: &Parts, ray: &Ray) -> http::Result<Request<()>> {
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(head.method.clone()).uri(format!("http://{HOSTNAME}{path}"));
    for name in [SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION] {
        if let Some(value) = head.headers.get(&name) {
            request = request.header(name, value);
        }
    }
    request.header(crate::forward::headers::CF_RAY, ray.header()).body(())
}

/// Whether this asks for a WebSocket (RFC 6455 4.1).
fn is_websocket(headers: &HeaderMap) -> bool {
    let says = |name, word: &str| {
        let values = headers.get_all(name).iter();
        let mut words = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        words.any(|known| known.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    };
    headers.contains_key(SEC_WEBSOCKET_KEY) && says(UPGRADE, "websocket") && says(CONNECTION, "upgrade")
}

/// A host's own answer.
fn passed(head: &Response<()>, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = head.status();
    if let Some(kind) = head.headers().get(CONTENT_TYPE) {
        answer.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn unreachable(why: &NoAnswer) -> Answer {
    debug!(reason = ?why, "no host was asked about itself");
    // As which programs of the reference know it.
    let status = StatusCode::from_u16(UNREACHED).unwrap_or(StatusCode::BAD_GATEWAY);
    refused(status, &why.to_string())
}

/// As the reference says no at these paths.
fn refused(status: StatusCode, why: &str) -> Answer {
    let page = json!({ "success": false, "errors": [{ "code": management::REFUSED, "message": why }] });
    let mut answer = Response::new(Full::new(Bytes::from(page.to_string())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// How long a token is good, and so how long a host is watched at most in one go.
const GOOD_FOR: Duration = Duration::from_secs(60 * 60);
/// Watchers of hosts at once.
pub(super) const MOST_WATCHERS: usize = 64;
/// Who signs, for those who read tokens.
const ISSUER_NAME: &str = "adit-edge";
/// No host is connected.
const UNREACHED: u16 = 530;
/// To have a key, where other edges make one at the same time.
const TRIES: usize = 3;
