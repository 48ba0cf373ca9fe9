//! The way to an edge: TCP, TLS, and a request for a WebSocket. Knows HTTP; carries nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adit_protocol::websocket::{self, HALF_CLOSE};
use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use http::header::{
    CONNECTION, HOST, HeaderMap, LOCATION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::circuit::Mode;

/// How one edge is asked for one host name.
pub(super) struct Way {
    /// HOST:PORT that is dialled.
    address: String,
    authority: Authority,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    headers: HeaderMap,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Way {
    /// `hostname` may have a scheme and a port.
    pub(super) fn new(hostname: &str, connect_to: Option<&str>, ca: Option<&Path>) -> anyhow::Result<Self> {
        let (is_secure, rest) = match hostname.split_once("://") {
            Some(("http" | "ws", rest)) => (false, rest),
            Some((_, rest)) => (true, rest),
            None => (true, hostname),
        };
        let authority: Authority = rest
            .trim_end_matches('/')
            .parse()
            .map_err(|_| anyhow!("--hostname {hostname:?} is neither a host name nor one with a port"))?;
        ensure!(!authority.as_str().contains('@'), "--hostname has a user name");
        let host = authority.host();
        let port = authority.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let address = match connect_to {
            Some(to) if to.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
                to.to_owned()
            }
            Some(to) => format!("{to}:{port}"),
            None => format!("{host}:{port}"),
        };
        let tls = if is_secure {
            let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(name).with_context(|| format!("{host:?} as a name in TLS"))?;
            Some((tls(ca)?, name))
        } else {
            None
        };
        let headers = HeaderMap::new();
        Ok(Self { address, authority, tls, headers })
    }

    pub(super) fn add(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.append(name, value);
    }

    /// A circuit that the service behind the edge has accepted.
    pub(super) async fn open(&self) -> anyhow::Result<(TokioIo<Upgraded>, Mode)> {
        timeout(PATIENCE, self.ask())
            .await
            .map_err(|_| anyhow!("no answer of {} within {} s", self.authority, PATIENCE.as_secs()))?
    }

    async fn ask(&self) -> anyhow::Result<(TokioIo<Upgraded>, Mode)> {
        let tcp = TcpStream::connect(&self.address)
            .await
            .with_context(|| format!("connecting to {}", self.address))?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some((tls, name)) => {
                let shaken = tls.connect(name.clone(), tcp).await;
                Box::new(shaken.with_context(|| format!("TLS with {}", self.address))?)
            }
        };
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(LONGEST_HEAD)
            .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await?;
        tokio::spawn(async move {
            // Whoever waits for the answer is told.
            let _ = connection.with_upgrades().await;
        });
        let answer = sender
            .send_request(self.request()?)
            .await
            .with_context(|| format!("asking {} for a circuit", self.authority))?;
        match answer.status() {
            StatusCode::SWITCHING_PROTOCOLS => {}
            status => bail!("{}", refused(&self.authority, status, answer.headers())),
        }
        let taken = answer.headers().get_all(websocket::PROTOCOL);
        let half_close = taken.iter().any(|word| word.as_bytes() == HALF_CLOSE.as_bytes());
        let upgraded = hyper::upgrade::on(answer).await?;
        Ok((TokioIo::new(upgraded), Mode { half_close }))
    }

    fn request(&self) -> anyhow::Result<Request<Empty<Bytes>>> {
        let mut request = Request::get("/").body(Empty::new())?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(self.authority.as_str())?);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key()?)?);
        headers.insert(websocket::PROTOCOL, HeaderValue::from_static(HALF_CLOSE));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("adit/", env!("CARGO_PKG_VERSION"))));
        headers.extend(self.headers.clone());
        Ok(request)
    }
}

/// Why there is no circuit, for whoever has to do something about it.
fn refused(authority: &Authority, status: StatusCode, headers: &HeaderMap) -> String {
    let to = headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
    let why = match status {
        _ if to.contains("/cdn-cgi/access/login") => {
            "it wants a login by browser, which this program does not do: give it a service token"
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "whoever asks may not",
        StatusCode::NOT_FOUND => "no rule of its host leads anywhere by this name",
        StatusCode::OK | StatusCode::UPGRADE_REQUIRED => "what is behind it is no service of bytes",
        StatusCode::BAD_GATEWAY => "its host did not reach the service",
        _ if status.as_u16() == 530 => "no host of its tunnel is connected",
        _ => "it opened no circuit",
    };
    format!("{authority} answered {}: {why}", status.as_u16())
}

/// 16 bytes that nobody has guessed (RFC 6455, 4.1), in base64.
pub(crate) fn key() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("random numbers")?;
    // A header of ours knows the alphabet already.
    Ok(base64(&bytes))
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |group: u32, shift: u32| char::from(LETTERS[(group >> shift & 0x3f) as usize]);
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        text.extend((0..=chunk.len() as u32).map(|at| letter(group, 18 - 6 * at)));
        text.extend(std::iter::repeat_n('=', 3 - chunk.len()));
    }
    text
}

fn tls(ca: Option<&Path>) -> anyhow::Result<TlsConnector> {
    let roots = match ca {
        Some(file) => adit_trust::of_file(file)?,
        None => adit_trust::of_system(),
    };
    ensure!(!roots.is_empty(), "there is no certificate authority to believe; name one with --cacert");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = adit_trust::by_roots(roots, &provider);
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // An edge that may choose would speak HTTP/2, in which there is no upgrade.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// From the first packet to the head of the answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest head of an answer, bytes.
const LONGEST_HEAD: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_base64() {
        for (bytes, wanted) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"the sample nonce", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            assert_eq!(base64(bytes), wanted);
        }
        assert_ne!(key().unwrap(), key().unwrap());
    }

    #[test]
    fn a_host_name_says_where_and_how_it_is_asked_for() {
        for (hostname, connect_to, address, is_secure) in [
            ("ssh.example.com", None, "ssh.example.com:443", true),
            ("https://ssh.example.com/", None, "ssh.example.com:443", true),
            ("ssh.example.com:8443", None, "ssh.example.com:8443", true),
            ("http://ssh.example.com", None, "ssh.example.com:80", false),
            ("http://ssh.example.com:8080", Some("127.0.0.1:9"), "127.0.0.1:9", false),
            ("ssh.example.com", Some("127.0.0.1"), "127.0.0.1:443", true),
        ] {
            // Where the system believes nobody there is no way by TLS.
            if is_secure && adit_trust::of_system().is_empty() {
                continue;
            }
            let way = Way::new(hostname, connect_to, None).unwrap();
            assert_eq!((way.address.as_str(), way.tls.is_some()), (address, is_secure), "{hostname}");
        }
        for wrong in ["", "a b", "me@host"] {
            assert!(Way::new(&format!("http://{wrong}"), None, None).is_err(), "{wrong}");
        }
    }
}
