//! A client of the control API. Knows its envelope and its paths; does not know what is done with answers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adit_protocol::credentials::{MAX_CREDENTIALS, OriginCert};
use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use uuid::Uuid;

use super::{Options, as_id, places};
use crate::access::websocket_key;

/// Who asks, and where.
pub(super) struct Client {
    pub(super) account: String,
    pub(super) zone: String,
    api: Api,
}

/// The API without an account.
pub(crate) struct Api {
    base: Uri,
    tls: Option<TlsConnector>,
    token: Option<HeaderValue>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What the API said no with.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {reason} (HTTP {status})")]
pub(super) struct Refusal {
    what: &'static str,
    pub(super) status: StatusCode,
    reason: String,
}

struct Exchanged {
    status: StatusCode,
    /// After how long the API wants to be asked again.
    wait: Option<Duration>,
    text: Bytes,
}

struct Reply {
    result: Value,
    messages: Vec<String>,
    info: Value,
}

impl Client {
    /// The client that cert.pem speaks for.
    pub(super) fn new(options: &Options) -> anyhow::Result<Self> {
        let found = options.origin_cert.clone().or_else(|| places::find(&["cert.pem"]));
        let path = found.context(
            "there is no cert.pem; `adit tunnel login` makes one, --origincert says where it is, and `adit edge init` makes the first",
        )?;
        let text = adit_files::read_text(&path, MAX_CREDENTIALS)
            .with_context(|| format!("reading {}", path.display()))?;
        let OriginCert { zone_id, account_id, api_token, .. } =
            OriginCert::from_pem(&text).with_context(|| path.display().to_string())?;
        let api = Api::new(options, Some(api_token.as_str()))?;
        Ok(Self { account: account_id, zone: zone_id, api })
    }

    fn tunnels(&self) -> String {
        format!("/accounts/{}/cfd_tunnel", self.account)
    }

    pub(super) async fn create(&self, body: &Value) -> anyhow::Result<Value> {
        self.api.call("creating the tunnel", Method::POST, &self.tunnels(), Some(body)).await
    }

    /// The tunnels that fit the filters.
    pub(super) async fn list(&self, filters: &[(&str, String)]) -> anyhow::Result<Vec<Value>> {
        self.pages("listing tunnels", &self.tunnels(), filters).await
    }

    /// A whole list, page by page.
    async fn pages(
        &self,
        what: &'static str,
        list: &str,
        filters: &[(&str, String)],
    ) -> anyhow::Result<Vec<Value>> {
        let mut all = Vec::new();
        for page in 1..=MOST_PAGES {
            let filters = filters.iter().map(|(name, value)| format!("{name}={}", encode(value)));
            let query: Vec<String> = filters.chain([format!("page={page}")]).collect();
            let path = format!("{list}?{}", query.join("&"));
            let Reply { result, info, .. } = self.api.reply(what, Method::GET, &path, None).await?;
            let Value::Array(mut shown) = result else { bail!("{what}: the API did not answer with a list") };
            let (count, per_page, total) =
                (number(&info, "count"), number(&info, "per_page"), number(&info, "total_count"));
            all.append(&mut shown);
            if count < per_page || all.len() as u64 >= total {
                return Ok(all);
            }
        }
        bail!("{what}: the list does not end")
    }

    /// The id of a tunnel, by its id or by the name of a living one.
    pub(super) async fn find(&self, tunnel: &str) -> anyhow::Result<Uuid> {
        if let Some(id) = as_id(tunnel) {
            return Ok(id);
        }
        self.known(tunnel).await?.with_context(|| {
            format!("there is no tunnel named `{tunnel}`; `adit tunnel list` shows those that are")
        })
    }

    /// The id of the living tunnel of this name, if there is one.
    pub(super) async fn known(&self, name: &str) -> anyhow::Result<Option<Uuid>> {
        let found = self.list(&[("is_deleted", "false".to_owned()), ("name", name.to_owned())]).await?;
        Ok(found.first().and_then(|tunnel| as_id(tunnel["id"].as_str()?)))
    }

    /// A call about one tunnel; `rest` begins with `/` or `?`, or is empty.
    pub(super) async fn tunnel(
        &self,
        what: &'static str,
        method: Method,
        id: Uuid,
        rest: &str,
    ) -> anyhow::Result<Value> {
        self.api.call(what, method, &format!("{}/{id}{rest}", self.tunnels()), None).await
    }

    /// Where what belongs to load balancing is, of the account or of a zone.
    fn load_balancers(&self, zone: Option<&str>) -> String {
        let of = zone.map_or_else(|| format!("/accounts/{}", self.account), |zone| format!("/zones/{zone}"));
        format!("{of}/load_balancers")
    }

    /// All that there is of a kind, such as `/pools`.
    pub(super) async fn objects(&self, zone: Option<&str>, kind: &str) -> anyhow::Result<Vec<Value>> {
        self.pages("listing", &format!("{}{kind}", self.load_balancers(zone)), &[]).await
    }

    /// A call about load balancing, of the account or of a zone: what it has done, and what the API says about it.
    pub(super) async fn balancing(
        &self,
        what: &'static str,
        method: Method,
        zone: Option<&str>,
        rest: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(Value, Vec<String>)> {
        let path = format!("{}{rest}", self.load_balancers(zone));
        let Reply { result, messages, .. } = self.api.reply(what, method, &path, body).await?;
        Ok((result, messages))
    }

    /// The zones of the account.
    pub(super) async fn zones(&self) -> anyhow::Result<Vec<Value>> {
        self.pages("listing zones", "/zones", &[]).await
    }

    pub(super) async fn route(&self, id: Uuid, body: &Value) -> anyhow::Result<Value> {
        let path = format!("/zones/{}/tunnels/{id}/routes", self.zone);
        self.api.call("adding the route", Method::PUT, &path, Some(body)).await
    }
}

impl Api {
    pub(super) fn new(options: &Options, token: Option<&str>) -> anyhow::Result<Self> {
        let is_ours = token.is_none_or(|token| token.starts_with("adit_"));
        let base = match &options.api_url {
            Some(url) => url.as_str(),
            None if is_ours => bail!(
                "say where the edge's control API is: --api-url URL, TUNNEL_API_URL or `api-url` in config.yml"
            ),
            None => PUBLIC,
        };
        Self::at(base, options.api_ca.as_deref(), token)
    }

    pub(crate) fn at(base: &str, ca: Option<&Path>, token: Option<&str>) -> anyhow::Result<Self> {
        let base: Uri = base.trim_end_matches('/').parse().with_context(|| format!("`{base}` is no URL"))?;
        let secure = match base.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!("`{base}` must begin with http:// or https://"),
        };
        let tls = secure.then(|| tls(ca)).transpose()?;
        let token = token.map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .context("the API token has characters that cannot be sent")?;
            value.set_sensitive(true);
            anyhow::Ok(value)
        });
        Ok(Self { base, tls, token: token.transpose()? })
    }

    pub(crate) async fn call(
        &self,
        what: &'static str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        Ok(self.reply(what, method, path, body).await?.result)
    }

    async fn reply(
        &self,
        what: &'static str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Reply> {
        let patient = async {
            loop {
                let exchanged = self.exchange(method.clone(), path, body).await?;
                // A call that was one too many was not looked at: what it asks for may be asked again.
                match exchanged.wait.filter(|_| exchanged.status == StatusCode::TOO_MANY_REQUESTS) {
                    Some(wait) if wait < LIMIT => sleep(wait).await,
                    _ => return anyhow::Ok(exchanged),
                }
            }
        };
        let exchanged =
            timeout(LIMIT, patient).await.map_err(|_| anyhow!("no answer within {} s", LIMIT.as_secs()));
        let Exchanged { status, text, .. } = exchanged
            .and_then(|exchanged| exchanged)
            .with_context(|| format!("{what}: asking {}", self.base))?;
        let envelope: Value = serde_json::from_slice(&text).unwrap_or_default();
        if status == StatusCode::OK && envelope["success"] == true {
            let messages = envelope["messages"].as_array().into_iter().flatten();
            let messages = messages.filter_map(|line| Some(line.as_str()?.to_owned())).collect();
            let (result, info) = (envelope["result"].clone(), envelope["result_info"].clone());
            return Ok(Reply { result, messages, info });
        }
        let errors = envelope["errors"].as_array().into_iter().flatten();
        let reasons: Vec<_> = errors.filter_map(|error| error["message"].as_str()).collect();
        let reason =
            if reasons.is_empty() { "the API gave no reason".to_owned() } else { reasons.join("; ") };
        Err(Refusal { what, status, reason }.into())
    }

    /// Has the API become a WebSocket at this path of its address.
    pub(crate) async fn watch(&self, path: &str) -> anyhow::Result<TokioIo<Upgraded>> {
        let authority = self.base.authority().context("the URL has no host")?.clone();
        let request = Request::get(path)
            .header(HOST, authority.as_str())
            .header(USER_AGENT, AGENT)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, websocket_key()?)
            .body(Empty::<Bytes>::new())?;
        let opening = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(self.connect().await?)).await?;
            tokio::spawn(async move {
                // Whoever waits for the answer is told.
                let _ = connection.with_upgrades().await;
            });
            let response = sender.send_request(request).await?;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(TokioIo::new(hyper::upgrade::on(response).await?));
            }
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST_REFUSAL).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            let envelope: Value = serde_json::from_slice(&body).unwrap_or_default();
            let errors = envelope["errors"].as_array().into_iter().flatten();
            let reasons: Vec<_> = errors.filter_map(|error| error["message"].as_str()).collect();
            let reason = if reasons.is_empty() { "it gave no reason".to_owned() } else { reasons.join("; ") };
            Err(Refusal { what: "watching the log", status, reason }.into())
        };
        let opened: anyhow::Result<_> =
            timeout(LIMIT, opening).await.map_err(|_| anyhow!("no answer within {} s", LIMIT.as_secs()))?;
        opened.with_context(|| format!("asking {authority}"))
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Stream>> {
        let authority = self.base.authority().context("the URL has no host")?;
        let port = authority.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, port)).await?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name =
                    ServerName::try_from(host.to_owned()).context("the URL's host is no name for TLS")?;
                Box::new(tls.connect(name, stream).await?)
            }
        })
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Exchanged> {
        let authority = self.base.authority().context("the URL has no host")?;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base.path().trim_end_matches('/')))
            .header(HOST, authority.as_str())
            .header(ACCEPT, "application/json;version=1")
            .header(USER_AGENT, AGENT);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body)))?;
        send(self.connect().await?, request).await
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Exchanged> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(|error| anyhow!(error))?;
    drop(driver);
    let wait = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Ok(Exchanged { status: head.status, wait: wait.map(Duration::from_secs), text: body.to_bytes() })
}

fn tls(ca: Option<&Path>) -> anyhow::Result<TlsConnector> {
    let roots = match ca {
        Some(path) => adit_trust::of_file(path)?,
        None => adit_trust::of_system(),
    };
    ensure!(!roots.is_empty(), "there is no certificate authority to believe; name one with --api-ca");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = adit_trust::by_roots(roots, &provider);
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn number(info: &Value, name: &str) -> u64 {
    info[name].as_u64().unwrap_or_default()
}

/// A value for a query.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(byte.into()),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

const AGENT: &str = concat!("adit/", env!("CARGO_PKG_VERSION"));
/// Asked only with a token that is not one of our edges'.
const PUBLIC: &str = "https://api.cloudflare.com/client/v4";
const LIMIT: Duration = Duration::from_secs(15);
const LONGEST_ANSWER: usize = 64 << 20;
const LONGEST_REFUSAL: usize = 64 << 10;
const MOST_PAGES: usize = 100_000;
