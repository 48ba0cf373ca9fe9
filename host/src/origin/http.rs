//! Origins that speak HTTP/1.1, over TCP, TLS or a Unix socket.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use http::header::{CONNECTION, HOST, HeaderName, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, request};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::body::{Answer, Upgraded};
use super::connect::{Address, Target, Tls};
use super::pool::{Connected, Key, Lease, Pool};
use super::{Body, OriginError, empty, tls};
use crate::config::plan::{OriginPlan, Service};

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Largest head of an answer, bytes; what the edge accepts is no larger.
const LARGEST_HEAD: usize = 256 * 1024;
/// Most header lines of an answer.
const MOST_HEADERS: usize = 512;

pub struct HttpOrigin {
    target: Target,
    key: Key,
    host_header: Option<HeaderValue>,
    response_timeout: Option<Duration>,
    keep_alive: Duration,
    keep_alive_connections: usize,
}

impl fmt::Debug for HttpOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.target.name)
    }
}

impl HttpOrigin {
    pub(super) fn new(service: &Service, plan: &OriginPlan) -> anyhow::Result<Self> {
        let (address, name, tls) = match service {
            Service::Http { authority } => (tcp(authority, 80), format!("http://{authority}"), None),
            Service::Https { authority } => {
                let name = plan.server_name.as_deref().unwrap_or_else(|| authority.host());
                let name = name.trim_start_matches('[').trim_end_matches(']');
                let server_name = ServerName::try_from(name.to_owned())
                    .with_context(|| format!("{name} as the name in the origin's certificate"))?;
                let config = tls::client_config(plan.ca_file.as_deref(), plan.tls_verify)?;
                (tcp(authority, 443), format!("https://{authority}"), Some(Tls { config, server_name }))
            }
            Service::Unix { path } => (Address::Unix(path.clone()), format!("unix:{}", path.display()), None),
            Service::Status(_) | Service::HelloWorld | Service::Component(_) => {
                anyhow::bail!("not an HTTP origin")
            }
        };
        let key = format!("{name} {:?} {:?} {}", plan.server_name, plan.ca_file, plan.tls_verify);
        let host_header = plan
            .host_header
            .as_deref()
            .map(HeaderValue::from_str)
            .transpose()
            .context("the host-header of the origin")?;
        Ok(Self {
            target: Target {
                address,
                tls,
                connect_timeout: plan.connect_timeout,
                tls_timeout: plan.tls_timeout,
                name,
            },
            key: key.into(),
            host_header,
            response_timeout: plan.response_timeout,
            keep_alive: plan.keep_alive_timeout,
            keep_alive_connections: plan.keep_alive_connections,
        })
    }

    pub(super) async fn send(
        &self,
        pool: &Pool,
        head: request::Parts,
        body: Body,
    ) -> Result<Response<Body>, OriginError> {
        let mut request = Request::from_parts(self.address_head(head), body);
        loop {
            let (mut connected, reused) = match pool.take(&self.key) {
                Some(connected) => (connected, true),
                None => (self.open().await?, false),
            };
            match self.in_time(connected.sender.try_send_request(request)).await? {
                Ok(response) => {
                    let lease = Lease {
                        connected,
                        pool: pool.clone(),
                        key: self.key.clone(),
                        keep: self.keep_alive,
                        limit: self.keep_alive_connections,
                    };
                    return Ok(response.map(|incoming| Box::pin(Answer::new(incoming, lease)) as Body));
                }
                Err(mut error) => match error.take_message() {
                    // The origin closed an idle connection just now and has not seen a byte of this.
                    Some(unsent) if reused => request = unsent,
                    _ => return Err(self.exchange(error.into_error())),
                },
            }
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
        let stream = self.target.connect().await?;
        let (mut sender, connection) =
            handshake().handshake(TokioIo::new(stream)).await.map_err(|error| self.exchange(error))?;
        let driver = AbortOnDropHandle::new(tokio::task::spawn_local(async move {
            let _ = connection.with_upgrades().await;
        }));
        let response = self
            .in_time(sender.send_request(Request::from_parts(head, empty())))
            .await?
            .map_err(|error| self.exchange(error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let lease = Lease {
                connected: Connected { sender, _driver: driver },
                pool: Pool::default(),
                key: self.key.clone(),
                keep: Duration::ZERO,
                limit: 0,
            };
            return Ok(response.map(|incoming| Box::pin(Answer::new(incoming, lease)) as Body));
        }
        let (head, incoming) = response.into_parts();
        let upgraded = hyper::upgrade::on(Response::from_parts(head.clone(), incoming))
            .await
            .map_err(|error| self.exchange(error))?;
        let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
        let feeding = AbortOnDropHandle::new(tokio::task::spawn_local(feed(body, writer)));
        Ok(Response::from_parts(head, Box::pin(Upgraded::new(reader, feeding))))
    }

    /// Points a head at this origin: origin-form target, HTTP/1.1, the Host that the rule asks for.
    fn address_head(&self, mut head: request::Parts) -> request::Parts {
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

    async fn open(&self) -> Result<Connected, OriginError> {
        let stream = self.target.connect().await?;
        let (sender, connection) =
            handshake().handshake(TokioIo::new(stream)).await.map_err(|error| self.exchange(error))?;
        let driver = AbortOnDropHandle::new(tokio::task::spawn_local(async move {
            // Whoever waits for an answer on this connection is told the reason.
            let _ = connection.await;
        }));
        Ok(Connected { sender, _driver: driver })
    }

    async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T, OriginError> {
        let Some(limit) = self.response_timeout else { return Ok(answer.await) };
        timeout(limit, answer).await.map_err(|_| OriginError::ResponseTimeout {
            target: self.target.name.clone(),
            seconds: limit.as_secs(),
        })
    }

    fn exchange(&self, source: hyper::Error) -> OriginError {
        OriginError::Exchange { target: self.target.name.clone(), source }
    }
}

fn handshake() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(LARGEST_HEAD).max_headers(MOST_HEADERS);
    builder
}

fn tcp(authority: &http::uri::Authority, default_port: u16) -> Address {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    Address::Tcp { host, port: authority.port_u16().unwrap_or(default_port) }
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
