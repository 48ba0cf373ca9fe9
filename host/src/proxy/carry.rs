//! A stream that the edge opens to an address by itself: no request, so no plugin looks at it, and only what rules
//! without plugins name is reached, or what the host's own document allows.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderValue, Method, Request, Response};
use tracing::{debug, warn};

use super::respond::{Answer, RequestContext, chain};
use super::{Proxy, RequestLog};
use crate::origin::{Body, Trace};

/// Why a stream is carried nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub reason: String,
    /// There are too many circuits already.
    pub is_full: bool,
}

impl Proxy {
    /// Opens a circuit to `to`. What comes of it has no head to be sent, but the word that it is accepted. May be
    /// dropped midway.
    ///
    /// # Errors
    /// Nothing was connected.
    pub async fn carry(self: Rc<Self>, to: SocketAddr, body: Body) -> Result<Response<Body>, Refused> {
        let generation = self.current.load_full();
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = Method::CONNECT;
        if let Ok(host) = HeaderValue::try_from(to.to_string()) {
            head.headers.insert(HOST, host);
        }
        let asked = RequestContext::of(&head);
        let mut note = RequestLog::begin(&generation, self.shard, &asked.id, &head, (None, None));
        let refused = |reason: String, is_full: bool| Refused { reason, is_full };
        let outcome = match generation.stream(to) {
            Err(none) => {
                // An edge can have these written as often as it likes.
                debug!(id = &*asked.id, reason = %none, "stream refused");
                Err(refused(none.to_string(), false))
            }
            Ok(carrier) => {
                if let Some(rule) = carrier.rule {
                    note.routed(rule);
                }
                // Nothing says whose it is.
                let room = self.room("", carrier.most_circuits);
                match carrier.origin.carry(room, to, body).await {
                    Ok(response) => {
                        let trace = response.extensions().get::<Arc<Trace>>();
                        note.circuit = trace.map(|trace| (trace.clone(), Arc::downgrade(carrier.origin)));
                        Ok(response)
                    }
                    Err(error) => {
                        let reason = chain(&error);
                        if error.is_forbidden() {
                            debug!(id = &*asked.id, reason, "stream refused");
                        } else {
                            warn!(id = &*asked.id, reason, "origin gave no answer");
                        }
                        Err(refused(reason, error.is_full()))
                    }
                }
            }
        };
        let (answer, refused) = match outcome {
            Ok(response) => (Answer::Response(response), None),
            Err(refused) => {
                let reason = refused.reason.clone();
                (Answer::Unreachable { reason, not_here: false }, Some(refused))
            }
        };
        match (note.follow(answer, &self.streams), refused) {
            (Answer::Response(response), _) => Ok(response),
            (Answer::Unreachable { reason, .. }, refused) => {
                Err(refused.unwrap_or(Refused { reason, is_full: false }))
            }
        }
    }
}
