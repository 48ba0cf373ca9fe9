//! The admin API's part for configurations: `PUT /tunnels/TUNNEL/config` gives one to every replica of a tunnel
//! and answers with the verdict of each; `GET` shows both again. TUNNEL is its id or its name.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use adit_net::admission::Guest;
use adit_protocol::rpc::MAX_CONFIGURATION;
use bytes::Bytes;
use http::header::{ALLOW, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::warn;
use uuid::Uuid;

use super::{Admin, json as page, problem};
use crate::registry::Tunnel;
use crate::tunnel::push;

/// The tunnel that a path speaks of, if it is about the configuration of one.
pub(super) fn tunnel_of(path: &str) -> Option<&str> {
    path.strip_prefix("/tunnels/")?.strip_suffix("/config").filter(|tunnel| !tunnel.contains('/'))
}

pub(super) async fn answer(
    admin: &Admin,
    request: Request<Incoming>,
    guest: &Guest,
) -> Response<Full<Bytes>> {
    let name = tunnel_of(request.uri().path()).unwrap_or_default();
    let Some((id, tunnel)) = find(admin, name) else {
        return problem(StatusCode::NOT_FOUND, "this edge has no such tunnel");
    };
    match *request.method() {
        Method::GET | Method::HEAD => page(StatusCode::OK, &state(admin, id, &tunnel)),
        Method::PUT => put(admin, request, guest, id, &tunnel).await,
        _ => {
            let mut response =
                problem(StatusCode::METHOD_NOT_ALLOWED, "method not allowed; try GET, HEAD, PUT");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, PUT"));
            response
        }
    }
}

async fn put(
    admin: &Admin,
    request: Request<Incoming>,
    guest: &Guest,
    id: Uuid,
    tunnel: &Arc<Tunnel>,
) -> Response<Full<Bytes>> {
    let body = match timeout(BODY, Limited::new(request.into_body(), MAX_CONFIGURATION).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return problem(StatusCode::PAYLOAD_TOO_LARGE, "the configuration is larger than 1 MiB");
        }
        Ok(Err(_)) => return problem(StatusCode::BAD_REQUEST, "the configuration did not arrive whole"),
        Err(_) => return problem(StatusCode::REQUEST_TIMEOUT, "the configuration did not arrive in time"),
    };
    let _busy = guest.busy();
    // What only some hosts have is for the replicas to say; what none could serve is refused here.
    let config: Value = match serde_json::from_slice(&body) {
        Ok(config @ Value::Object(_)) => config,
        _ => return problem(StatusCode::BAD_REQUEST, "the configuration is not a JSON object"),
    };
    let fleet = &admin.registry.fleet;
    if fleet.is_followed(&id) {
        return problem(
            StatusCode::CONFLICT,
            "the control API keeps this tunnel's configuration; PUT it to \
             /accounts/ACCOUNT/cfd_tunnel/TUNNEL/configurations there",
        );
    }
    let checked = tokio::task::spawn_blocking(move || adit_rules::remote::check(&body)).await;
    if let Err(reasons) = checked.unwrap_or_else(|_| Err(vec!["it cannot be read".to_owned()])) {
        return page(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "tunnel": id, "reasons": reasons }));
    }
    let mut above = -1;
    for _ in 0..ROUNDS {
        let kept = tokio::task::spawn_blocking({
            let (fleet, config) = (fleet.clone(), config.clone());
            move || fleet.put(id, &config, above)
        });
        let kept = kept.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        if let Err(error) = kept {
            warn!(tunnel = %id, %error, "a configuration cannot be kept");
            return problem(StatusCode::INSUFFICIENT_STORAGE, "the configuration cannot be kept");
        }
        push::to_all(fleet, id, tunnel, &admin.control).await;
        // Replicas may remember more than an edge that lost its data.
        let wanted = fleet.wanted(&id).map_or(-1, |wanted| wanted.version);
        let connected = push::connectors(&tunnel.connections());
        let highest = fleet.replicas(&id, &connected).iter().filter_map(|replica| replica.applied).max();
        match highest {
            Some(highest) if highest > wanted => above = highest,
            _ => break,
        }
    }
    let page_of_all = state(admin, id, tunnel);
    let refused = page_of_all["refused"].as_u64().unwrap_or_default();
    let status = if refused == 0 { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    page(status, &page_of_all)
}

/// What is wanted, and what each replica made of it.
fn state(admin: &Admin, id: Uuid, tunnel: &Tunnel) -> Value {
    let fleet = &admin.registry.fleet;
    let connected = push::connectors(&tunnel.connections());
    let replicas = fleet.replicas(&id, &connected);
    let wanted = fleet.wanted(&id);
    let version = wanted.as_ref().map(|wanted| wanted.version);
    let applied =
        replicas.iter().filter(|replica| replica.applied == version && replica.error.is_none()).count();
    let config = wanted.and_then(|wanted| serde_json::from_slice::<Value>(&wanted.config).ok());
    json!({
        "tunnel": id,
        "version": version,
        "connected": connected.len(),
        "applied": applied,
        "refused": replicas.iter().filter(|replica| replica.error.is_some()).count(),
        "replicas": replicas,
        "config": config,
    })
}

fn find(admin: &Admin, name: &str) -> Option<(Uuid, Arc<Tunnel>)> {
    let tunnels = admin.registry.tunnels();
    let found = tunnels.iter().find(|(id, tunnel)| *tunnel.name() == name || id.to_string() == name);
    found.map(|(id, tunnel)| (*id, tunnel.clone()))
}

/// How long a client may take to send a configuration.
const BODY: Duration = Duration::from_secs(30);
/// The first, and one more above what a replica has.
const ROUNDS: usize = 2;
