//! One request, from whichever transport it came: rule, plugin chain, origin, plugin chain, answer.
//!
//! Knows nothing of QUIC, HTTP/2 framing or configuration files.

mod again;
mod capture;
mod carry;
mod explain;
mod held;
mod middleware;
mod observe;
pub mod probe;
mod push;
mod request;
mod request_log;
mod respond;
mod service;
mod streams;
mod tags;
mod traced;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_engine::{BodyFailure, Chain, Exchange, Facts, RequestOutcome, ResponseOutcome, VisitorFacts};
use adit_inspector::Keeper;
use adit_net::network::source;
use adit_protocol::extensions::{self, HttpVersion, TlsVersion};
use adit_traces::Tracer;
use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header, request as heads};

pub use again::{NotReplayed, Outcome, Replayed, Replays};
pub use carry::Refused;
pub use explain::explain;
pub use push::{Push, PushVerdict, Pushes};
pub use request::{Before, Kind, Request};
pub use respond::{Answer, ProxyError, RequestContext};
pub use streams::Streams;
pub use tags::Tags;

use crate::generation::{Backend, Generation, Rule};
use crate::management::Management;
use crate::origin::{Circuits, Pool, Reached, Room, Trace};
use capture::Capture;
use held::{Gathering, Held};
use observe::Observation;
use probe::{Probe, Prober};
use request::remove_hop_by_hop;
use request_log::{Plugins, RequestLog};
use traced::Traced;

/// Where the edge puts the visitor's address.
const CONNECTING_IP: HeaderName = HeaderName::from_static("cf-connecting-ip");
/// Where the edge puts where the visitor is.
const COUNTRY: HeaderName = HeaderName::from_static("cf-ipcountry");
/// Where the edge puts how the visitor reached it.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Says to an origin that trailers reach the visitor.
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// What runs now. A request takes one snapshot and keeps it to its end.
pub type Current = ArcSwap<Generation>;

/// Handles the requests of one shard.
pub struct Proxy {
    pub current: Arc<Current>,
    pub pool: Pool,
    pub streams: Streams,
    pub pushes: Pushes,
    pub circuits: Circuits,
    pub prober: Prober,
    pub shard: usize,
    pub tags: Tags,
    pub inspector: Arc<Keeper>,
    /// Where traces are on.
    pub tracer: Option<Tracer>,
    /// What this host answers about itself.
    pub management: Arc<Management>,
}

impl Proxy {
    /// Looks whether the origins of the running generation can be reached; serialised, it is what an edge
    /// that sent a probe is told.
    pub async fn probe(&self) -> Arc<Probe> {
        self.prober.probe().await
    }

    /// Answers one request. May be dropped midway: the exchange with the origin is then cancelled.
    pub async fn handle(self: Rc<Self>, mut request: Request) -> Answer {
        let generation = self.current.load_full();
        request::settle(&mut request.head);
        if Management::is_for(&request.head) {
            let Request { kind, head, body, .. } = request;
            return Answer::Response(self.management.answer(&head, body, kind == Kind::WebSocket));
        }
        let asked = RequestContext::of(&request.head);
        let visitor = client_ip(request.head.headers.get(&CONNECTING_IP));
        let capture = Capture::begin(&self.inspector, &request.head, visitor);
        let traced = self.tracer.as_ref().map(|tracer| Traced::begin(tracer, &mut request.head));
        let mut note =
            RequestLog::begin(&generation, self.shard, &asked.id, &request.head, (capture, traced));
        let answer = self.answer(&generation, &asked, request, &mut note).await;
        note.follow(answer, &self.streams)
    }

    /// Where a circuit of this visitor counts.
    fn room(&self, client_ip: &str, most: usize) -> Room<'_> {
        let source = client_ip.parse().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), source);
        Room { circuits: &self.circuits, shard: self.shard, source, most }
    }

    async fn answer(
        &self,
        generation: &Generation,
        asked: &RequestContext,
        request: Request,
        note: &mut RequestLog,
    ) -> Answer {
        let Request { kind, mut head, mut body, takes_trailers } = request;
        let rule = match request::route(generation, &head) {
            Ok(rule) => rule,
            Err(trouble) => return asked.refuse(trouble),
        };
        note.routed(rule);
        // A share of the header's bytes: the header itself may be edited or removed.
        let client = head.headers.get(&CONNECTING_IP).cloned();
        let mut stopwatch = note.traced.as_ref().map(|traced| traced.stopwatch());
        if let Some(capture) = &mut note.capture {
            stopwatch = Some(capture.watched_by(stopwatch));
            // What follows a handshake is no body.
            if kind == Kind::Http {
                body = capture.tap(body);
            }
        }
        let exchange = rule.chain.sees_exchanges().then(|| Arc::new(exchange(rule, &head)));
        let facts = Facts {
            id: &asked.id,
            client_ip: client_ip(client.as_ref()),
            scheme: scheme(&head),
            stopwatch: stopwatch.as_deref(),
            exchange: exchange.as_ref(),
        };

        remove_hop_by_hop(&mut head.headers);
        if !rule.passes_path_headers {
            request::cut_path_headers(&mut head.headers);
        }
        let observation = rule
            .chain
            .observers()
            .map(|observers| Observation::begin(observers, self.shard, &rule.name, &facts, &head));
        let request = Request { kind, head, body, takes_trailers };
        let plugins = note.traced.as_ref().map(|traced| traced.of_plugins());
        let passing = self.pass(rule, &rule.chain, &facts, asked, request, note);
        let mut answer = match plugins {
            None => passing.await,
            // Boxed, because it is rare.
            Some(context) => Box::pin(adit_engine::outbound::tracing_on(context, passing)).await,
        };
        let status = answer.status();
        let is_asked_for = kind == Kind::WebSocket && status == StatusCode::SWITCHING_PROTOCOLS;
        if status.is_informational() && !is_asked_for {
            answer = asked.refuse(ProxyError::NoAnswer(status));
        }
        match observation {
            Some(observation) => observation.watch(answer),
            None => answer,
        }
    }

    /// Through the chain, which is the rule's or the rest of it, to whoever answers, and back.
    async fn pass(
        &self,
        rule: &Rule,
        chain: &Chain,
        facts: &Facts<'_>,
        asked: &RequestContext,
        request: Request,
        note: &mut RequestLog,
    ) -> Answer {
        let Request { kind, mut head, body, takes_trailers } = request;
        let begun = note.clock();
        let mut failures = Vec::new();
        let mut reached = Reached::default();
        let (outcome, body) = if chain.gathers_requests() {
            let held = if kind == Kind::Http { Held::new(body) } else { Held::upgrade(body) };
            let mut gathering = match &rule.backend {
                Backend::Origin(origin, _) if chain.link().is_none() => {
                    let host = head.headers.get(header::HOST).cloned();
                    let reaching = async move { origin.reach(&self.pool, host.as_ref()).await };
                    Gathering::after(held, Box::pin(reaching))
                }
                Backend::Origin(..) | Backend::Component(_) => Gathering::of(held),
            };
            // Boxed: most chains have no such plugin.
            let outcome =
                Box::pin(chain.on_whole_request(self.shard, facts, &mut head, &mut gathering)).await;
            let mut held;
            (held, reached) = match gathering.end() {
                Ok(gathered) => gathered,
                Err(trouble) => {
                    note.plugin_time += since(begun);
                    return asked.refuse(trouble.into());
                }
            };
            failures = held.take_failures();
            // One that others have gathered since may have broken off already.
            let outcome = match failures.iter().find_map(BodyFailure::get) {
                Some(failure) => RequestOutcome::Failed(failure.clone()),
                None => outcome,
            };
            (outcome, held.into_body())
        } else {
            (chain.on_request(self.shard, facts, &mut head).await, body)
        };
        note.plugin_time += since(begun);
        let (passage, reply) = match outcome {
            RequestOutcome::Continue(passage) => (passage, None),
            RequestOutcome::Respond(reply, passage) => {
                note.plugins = Plugins::Answered;
                (passage, Some(reply))
            }
            RequestOutcome::Failed(failure) => {
                note.plugins = Plugins::Failed(failure.plugin.clone());
                return asked.refuse(failure.into());
            }
        };
        let response = match (reply, chain.link()) {
            (Some(reply), _) => asked.reply(reply),
            (None, Some(link)) => {
                let request = Request { kind, head, body, takes_trailers };
                match middleware::pass(self, rule, link, facts, asked, request, note).await {
                    Ok(response) => response,
                    Err(answer) => return answer,
                }
            }
            (None, None) => {
                self.tags.put_into(&mut head.headers);
                if takes_trailers && kind == Kind::Http {
                    head.headers.insert(header::TE, TRAILERS);
                }
                let begun = note.clock();
                if let Some(traced) = &mut note.traced {
                    traced.asks(&mut head.headers);
                }
                let sent = match (&rule.backend, kind) {
                    (Backend::Origin(origin, _), Kind::Http) => {
                        origin.send_on(reached, &self.pool, head, body).await.map_err(ProxyError::from)
                    }
                    (Backend::Origin(origin, _), Kind::WebSocket) => {
                        let room = self.room(facts.client_ip, rule.most_circuits);
                        Box::pin(origin.upgrade(room, head, body)).await.map_err(ProxyError::from)
                    }
                    (Backend::Component(plugin), kind) => {
                        Box::pin(service::send(plugin, self.shard, facts, kind, head, body))
                            .await
                            .map_err(ProxyError::Service)
                    }
                };
                note.origin_answered(begun);
                match sent {
                    Ok(response) => {
                        if let (Some(trace), Backend::Origin(origin, _)) =
                            (response.extensions().get::<Arc<Trace>>(), &rule.backend)
                        {
                            note.circuit = Some((trace.clone(), Arc::downgrade(origin)));
                        }
                        response
                    }
                    Err(trouble) => {
                        if let Some(failure) = failures.iter().find_map(BodyFailure::get) {
                            note.plugins = Plugins::Failed(failure.plugin.clone());
                            return asked.refuse(failure.clone().into());
                        }
                        note.is_cancelled = trouble.is_cancelled();
                        return asked.refuse(trouble);
                    }
                }
            }
        };
        let (mut head, body) = response.into_parts();
        if has_other_coding(&head.headers) {
            return asked.refuse(ProxyError::Coding);
        }
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            remove_hop_by_hop(&mut head.headers);
        }
        extensions::strip(&mut head.headers);
        let begun = note.clock();
        let (outcome, body) = if chain.gathers_responses() {
            let is_upgrade = head.status == StatusCode::SWITCHING_PROTOCOLS;
            let mut held = if is_upgrade { Held::upgrade(body) } else { Held::new(body) };
            let outcome =
                Box::pin(chain.on_whole_response(passage, self.shard, facts, &mut head, &mut held)).await;
            (outcome, held.into_body())
        } else {
            (chain.on_response(passage, self.shard, facts, &mut head).await, body)
        };
        note.plugin_time += since(begun);
        match outcome {
            ResponseOutcome::Continue => Answer::Response(Response::from_parts(head, body)),
            ResponseOutcome::Respond(reply) => {
                note.plugins = Plugins::Answered;
                Answer::Response(asked.reply(reply))
            }
            ResponseOutcome::Failed(failure) => {
                note.plugins = Plugins::Failed(failure.plugin.clone());
                asked.refuse(failure.into())
            }
        }
    }
}

fn since(begun: Option<Instant>) -> Duration {
    begun.map_or(Duration::ZERO, |begun| begun.elapsed())
}

/// The visitor's address; empty if it is unknown.
fn client_ip(stated: Option<&HeaderValue>) -> &str {
    let text = stated.and_then(|value| value.to_str().ok()).unwrap_or_default();
    if text.parse::<IpAddr>().is_ok() { text } else { "" }
}

/// What plugins may ask of an exchange.
fn exchange(rule: &Rule, head: &heads::Parts) -> Exchange {
    let country = head.headers.get(&COUNTRY).and_then(|country| country.to_str().ok());
    let told = head.extensions.get::<extensions::VisitorFacts>().copied().unwrap_or_default();
    let visitor = VisitorFacts {
        attempt: told.attempt,
        port: told.port,
        http_version: told.http.map(HttpVersion::as_str).map(Cow::Borrowed),
        tls_version: told.tls.map(TlsVersion::as_str).map(Cow::Borrowed),
        country: country.map(str::to_owned),
    };
    Exchange::new(rule.names.clone(), Cow::Borrowed(scheme(head)), visitor)
}

/// How the visitor came.
fn scheme(head: &heads::Parts) -> &'static str {
    if head.headers.get(&FORWARDED_PROTO).is_some_and(|value| value == "https") { "https" } else { "http" }
}

/// Whether a body has a transfer coding that is not undone here (RFC 9112 6.1); without the word for it,
/// which ends with this connection, its bytes would mean something else.
fn has_other_coding(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut codings = codings.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    codings.any(|coding| {
        let coding = coding.trim_ascii();
        !coding.is_empty()
            && !coding.eq_ignore_ascii_case(b"chunked")
            && !coding.eq_ignore_ascii_case(b"identity")
    })
}
