//! Origins over TCP, TLS or a Unix socket; here those that speak HTTP/1.1.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::header::{CONNECTION, HOST, HeaderName, SEC_WEBSOCKET_VERSION, TE, UPGRADE};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, request};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio_util::task::AbortOnDropHandle;

use super::body::{Answer, Held, Upgraded};
use super::connect::{Address, Target, Tls};
use super::dial::Dial;
use super::http2::{Http2, STREAM_WINDOW};
use super::measure::{PATIENCE, measured};
use super::metered::Metered;
use super::pool::{Connected, Key, Lease, Pool, Reached};
use super::replay::Repeatable;
use super::{Body, LARGEST_HEAD, OriginError, Unread, answer, empty, tls};
use crate::config::plan::{self, HeaderCase, OriginPlan, Service};

/// What a service at a socket is called that is called nothing else.
const LOCAL: &str = "localhost";
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Most header lines of an answer.
const MOST_HEADERS: usize = 512;

pub struct HttpOrigin {
    way: Way,
    /// Whether the host of a request is its name in TLS.
    named_by_host: bool,
    /// Whether bodies of unknown length are sent in chunks.
    chunked: bool,
    header_case: HeaderCase,
    host_header: Option<HeaderValue>,
    keep_alive: Duration,
    keep_alive_connections: usize,
}

/// What connections to an origin have in common.
struct Way {
    target: Target,
    key: Key,
    /// If it speaks HTTP/2: all but WebSockets go there.
    http2: Option<Http2>,
}

impl fmt::Debug for HttpOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.way.target.name)
    }
}

impl HttpOrigin {
    pub(super) fn new(service: &Service, wanted: &OriginPlan, ca: Option<&[u8]>) -> anyhow::Result<Self> {
        let dial = Dial { keep_alive: wanted.tcp_keep_alive, side_by_side: wanted.happy_eyeballs };
        let (address, name, tls) = match service {
            Service::Http { authority } => (tcp(authority, 80, dial), format!("http://{authority}"), None),
            Service::Https { authority } => {
                let name = wanted.server_name.as_deref().unwrap_or_else(|| authority.host());
                let tls = tls_of(name.trim_start_matches('[').trim_end_matches(']'), wanted, ca)?;
                (tcp(authority, 443, dial), format!("https://{authority}"), Some(tls))
            }
            Service::Unix { path, tls: false } => {
                (Address::Unix(path.clone()), format!("unix:{}", path.display()), None)
            }
            Service::Unix { path, tls: true } => {
                let tls = tls_of(wanted.server_name.as_deref().unwrap_or(LOCAL), wanted, ca)?;
                (Address::Unix(path.clone()), format!("unix+tls:{}", path.display()), Some(tls))
            }
            Service::Tcp { .. }
            | Service::Bastion
            | Service::Socks
            | Service::Status(_)
            | Service::HelloWorld
            | Service::Component(_) => {
                anyhow::bail!("not an HTTP origin")
            }
        };
        let OriginPlan { server_name, ca_file, tls_verify, http2, tcp_keep_alive, header_case, .. } = wanted;
        let key = format!(
            "{name} {server_name:?} {ca_file:?} {tls_verify} {http2:?} {tcp_keep_alive:?} {header_case:?}"
        );
        let host_header = wanted
            .host_header
            .as_deref()
            .map(HeaderValue::from_str)
            .transpose()
            .context("the host-header of the origin")?;
        let target = Target {
            address,
            tls,
            connect_timeout: wanted.connect_timeout,
            tls_timeout: wanted.tls_timeout,
            response_timeout: wanted.response_timeout,
            is_http2: false,
            name,
        };
        let key: Key = key.into();
        let is_optional = wanted.http2 == plan::Http2::IfOffered;
        // Only TLS can offer.
        let speaks = wanted.http2 == plan::Http2::Only || (is_optional && target.tls.is_some());
        let http2 = speaks.then(|| Http2 {
            target: Arc::new(target.over_http2(is_optional)),
            key: key.clone(),
            scheme: if target.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP },
            authority: match service {
                Service::Http { authority } | Service::Https { authority } => authority.clone(),
                Service::Unix { .. }
                | Service::Tcp { .. }
                | Service::Bastion
                | Service::Socks
                | Service::Status(_)
                | Service::HelloWorld
                | Service::Component(_) => Authority::from_static(LOCAL),
            },
            keep: wanted.keep_alive_timeout,
            is_optional,
        });
        Ok(Self {
            // A socket has no name of its own.
            named_by_host: target.tls.is_some()
                && (wanted.server_name_from_host
                    || (matches!(service, Service::Unix { .. }) && wanted.server_name.is_none())),
            way: Way { target, key, http2 },
            chunked: wanted.chunked,
            header_case: wanted.header_case,
            host_header,
            keep_alive: wanted.keep_alive_timeout,
            keep_alive_connections: wanted.keep_alive_connections,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.way.target.name
    }

    pub(super) fn key(&self) -> &str {
        &self.way.key
    }

    pub(super) async fn probe(&self) -> Result<(), OriginError> {
        let required = self.way.http2.as_ref().filter(|http2| !http2.is_optional);
        let target = required.map_or(&self.way.target, |http2| &http2.target);
        let mut stream = target.connect().await?;
        // A goodbye spares the origin a line in its log.
        let _ = stream.shutdown().await;
        Ok(())
    }

    /// A connection that a request with this host would go on, or an error that says that there is none. Over HTTP/2
    /// it stays in the pool.
    pub(super) async fn reach(
        &self,
        pool: &Pool,
        host: Option<&HeaderValue>,
    ) -> Result<Reached, OriginError> {
        let named = self.named_after(self.host_header.as_ref().or(host), pool);
        let way = named.as_ref().unwrap_or(&self.way);
        if let Some(http2) = &way.http2
            && http2.reach(pool).await?
        {
            return Ok(Reached::default());
        }
        self.reach_by(way, pool).await
    }

    async fn reach_by(&self, way: &Way, pool: &Pool) -> Result<Reached, OriginError> {
        let connected = match pool.take(&way.key) {
            Some(connected) => connected,
            None => {
                let mut opened = way.open(self.header_case).await?;
                // It takes a request once its driver has begun. One that breaks now is found out by whoever uses it.
                let _ = opened.sender.ready().await;
                opened
            }
        };
        Ok(Reached(Some(Lease {
            connected,
            pool: pool.clone(),
            key: way.key.clone(),
            keep: self.keep_alive,
            limit: self.keep_alive_connections,
        })))
    }

    pub(super) async fn send(
        &self,
        mut reached: Reached,
        pool: &Pool,
        head: request::Parts,
        body: Body,
    ) -> Result<Response<Body>, OriginError> {
        let mut head = self.address_head(head);
        let named = self.named(&head, pool);
        let way = named.as_ref().unwrap_or(&self.way);
        if let Some(http2) = &way.http2
            && http2.is_spoken(pool).await?
        {
            let (mut response, exchange) = Box::pin(http2.send(pool, head, body)).await?;
            response.extensions_mut().insert(Unread(STREAM_WINDOW.into()));
            return Ok(
                response.map(|incoming| Box::pin(Answer::new(incoming, Held::Exchange(exchange))) as Body)
            );
        }
        if head.headers.contains_key(TE) {
            // RFC 9110, 10.1.4: it concerns this connection only, and must be named as such.
            head.headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        if !self.chunked && !body.is_end_stream() && reached.0.is_none() {
            // Before any of the body is taken.
            reached = Box::pin(self.reach_by(way, pool)).await?;
        }
        let body = match self.chunked {
            true => body,
            false => measured(&mut head, body, &way.target.name, PATIENCE).await?,
        };
        let mut request = Request::from_parts(head, body);
        let mut may_reuse = true;
        if !request.method().is_idempotent() {
            // What is sent to an origin that has just left is lost: its goodbye may be here and not yet heard.
            tokio::task::yield_now().await;
        }
        loop {
            let made = reached.0.take().filter(|lease| lease.key == way.key);
            let pooled = match made {
                Some(Lease { connected, .. }) if connected.sender.is_ready() => Some(connected),
                _ if may_reuse => pool.take(&way.key),
                _ => None,
            };
            let (mut connected, repeatable) = match pooled {
                Some(connected) => {
                    let (repeatable, first) = Repeatable::of(request);
                    request = first;
                    (connected, Some(repeatable))
                }
                // Seldom: no request should be as large as this.
                None => (Box::pin(way.open(self.header_case)).await?, None),
            };
            let before = connected.traffic.get();
            let mut error = match way.target.in_time(connected.sender.try_send_request(request)).await? {
                Ok(response) => {
                    if let Some(repeatable) = repeatable {
                        repeatable.release();
                    }
                    let response = answer::settle(response, &way.target.name)?;
                    let lease = Lease {
                        connected,
                        pool: pool.clone(),
                        key: way.key.clone(),
                        keep: answer::kept(response.headers(), self.keep_alive),
                        limit: self.keep_alive_connections,
                    };
                    return Ok(
                        response.map(|incoming| Box::pin(Answer::new(incoming, Held::Lease(lease))) as Body)
                    );
                }
                Err(error) => error,
            };
            // On a connection that has served before, the origin's goodbye may have crossed the request.
            let Some(repeatable) = repeatable else { return Err(way.target.exchange(error.into_error())) };
            if let Some(unsent) = error.take_message() {
                repeatable.release();
                request = unsent;
                continue;
            }
            let now = connected.traffic.get();
            let may_repeat = now.written == before.written || repeatable.is_idempotent();
            let again = (may_repeat && now.read == before.read).then(|| repeatable.again()).flatten();
            let Some(again) = again else { return Err(way.target.exchange(error.into_error())) };
            repeatable.release();
            request = again;
            may_reuse = false;
        }
    }

    pub(super) async fn upgrade(
        &self,
        head: request::Parts,
        body: Body,
    ) -> Result<Response<Body>, OriginError> {
        let mut head = self.address_head(head);
        head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        head.headers.entry(SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
        let named = self.named(&head, &Pool::default());
        let Way { target, key, .. } = named.as_ref().unwrap_or(&self.way);
        let stream = target.connect().await?;
        let (mut sender, connection) = handshake(self.header_case)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| target.exchange(error))?;
        let driver = AbortOnDropHandle::new(tokio::task::spawn_local(async move {
            let _ = connection.with_upgrades().await;
        }));
        let response = target
            .in_time(sender.send_request(Request::from_parts(head, empty())))
            .await?
            .map_err(|error| target.exchange(error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let response = answer::settle(response, &target.name)?;
            let lease = Lease {
                connected: Connected { sender, traffic: Rc::default(), _driver: driver },
                pool: Pool::default(),
                key: key.clone(),
                keep: Duration::ZERO,
                limit: 0,
            };
            return Ok(response.map(|incoming| Box::pin(Answer::new(incoming, Held::Lease(lease))) as Body));
        }
        let (head, incoming) = response.into_parts();
        let upgraded = hyper::upgrade::on(Response::from_parts(head.clone(), incoming))
            .await
            .map_err(|error| target.exchange(error))?;
        let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
        let feeding = AbortOnDropHandle::new(tokio::task::spawn_local(feed(body, writer)));
        Ok(Response::from_parts(head, Box::pin(Upgraded::new(reader, feeding))))
    }

    /// Points a head at this origin: origin-form target, HTTP/1.1, the Host that the rule asks for.
    pub(super) fn address_head(&self, mut head: request::Parts) -> request::Parts {
        head.version = Version::HTTP_11;
        if let Some(path) = head.uri.path_and_query().cloned() {
            head.uri = Uri::from(path);
        }
        if let Some(wanted) = &self.host_header
            && let Some(original) = head.headers.insert(HOST, wanted.clone())
        {
            head.headers.insert(X_FORWARDED_HOST, original);
        }
        head
    }

    /// The way of a request that names this origin. What is no name leaves it the one that it has.
    fn named(&self, head: &request::Parts, pool: &Pool) -> Option<Way> {
        self.named_after(head.headers.get(HOST), pool)
    }

    fn named_after(&self, host: Option<&HeaderValue>, pool: &Pool) -> Option<Way> {
        if !self.named_by_host {
            return None;
        }
        let host = Authority::try_from(host?.as_bytes()).ok()?;
        let name = host.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let server_name = ServerName::try_from(name.as_str()).ok()?.to_owned();
        let key: Key = format!("{} {name}", self.way.key).into();
        let http2 = self.way.http2.as_ref().map(|http2| Http2 {
            target: Arc::new(http2.target.named(&server_name)),
            key: key.clone(),
            scheme: http2.scheme.clone(),
            authority: http2.authority.clone(),
            keep: if pool.is_full() { Duration::ZERO } else { http2.keep },
            is_optional: http2.is_optional,
        });
        Some(Way { target: self.way.target.named(&server_name), key, http2 })
    }
}

impl Way {
    async fn open(&self, header_case: HeaderCase) -> Result<Connected, OriginError> {
        let (stream, traffic) = Metered::new(self.target.connect().await?);
        let (sender, connection) = handshake(header_case)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.target.exchange(error))?;
        let driver = AbortOnDropHandle::new(tokio::task::spawn_local(async move {
            // Whoever waits for an answer on this connection is told the reason.
            let _ = connection.await;
        }));
        Ok(Connected { sender, traffic, _driver: driver })
    }
}

fn handshake(header_case: HeaderCase) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(LARGEST_HEAD as usize)
        .max_headers(MOST_HEADERS)
        // Old origins write both, and both are to be read and not passed on (RFC 9112, 5.1 and 5.2).
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .title_case_headers(header_case == HeaderCase::Title);
    builder
}

fn tls_of(name: &str, wanted: &OriginPlan, ca: Option<&[u8]>) -> anyhow::Result<Tls> {
    let server_name = ServerName::try_from(name.to_owned())
        .with_context(|| format!("{name} as the name in the origin's certificate"))?;
    let ca = wanted.ca_file.as_deref().zip(ca);
    Ok(Tls { config: tls::client_config(ca, wanted.tls_verify)?, server_name })
}

fn tcp(authority: &Authority, default_port: u16, dial: Dial) -> Address {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    Address::Tcp { host, port: authority.port_u16().unwrap_or(default_port), dial }
}

/// What the visitor sends on an upgraded connection. Its end closes only this direction.
async fn feed(mut body: Body, mut writer: tokio::io::WriteHalf<TokioIo<hyper::upgrade::Upgraded>>) {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return };
        let Ok(data) = frame.into_data() else { continue };
        if writer.write_all(&data).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}
