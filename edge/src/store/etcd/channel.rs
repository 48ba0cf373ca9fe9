//! One connection to one member of etcd, and calls of gRPC on it. Knows TCP, TLS, HTTP/2 and the framing of gRPC; does
//! not know what is called, and tries nothing twice.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Channel, Full, channel};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::address::Endpoint;

/// How a call failed.
#[derive(Debug, Clone)]
pub(super) enum CallError {
    /// Nothing of it was sent.
    NotSent(String),
    /// It may have been done or not.
    Broken(String),
    /// etcd has said no.
    Refused { code: Code, message: String },
    /// The answer is longer than is taken in.
    TooLong,
}

/// The codes of gRPC that make a difference here; their numbers are fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// 8: a quota, or more at once than etcd takes.
    ResourceExhausted,
    /// 11: a revision that is compacted, or has not come yet.
    OutOfRange,
    /// 14: no leader, or it changes; whether a change was made is not known.
    Unavailable,
    Other(u32),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(reason) | Self::Broken(reason) => f.write_str(reason),
            Self::Refused { message, code: Code::Other(code) } => write!(f, "{message} (code {code})"),
            Self::Refused { message, .. } => f.write_str(message),
            Self::TooLong => write!(f, "an answer is longer than {} MiB", LARGEST_ANSWER >> 20),
        }
    }
}

type Body = BoxBody<Bytes, std::convert::Infallible>;

/// A connection. Dropped, what is under way on it ends.
pub(super) struct Connection {
    requests: http2::SendRequest<Body>,
    authority: String,
    scheme: &'static str,
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    /// Must be called where the connection is to live.
    pub(super) async fn open(
        endpoint: &Endpoint,
        tls: Option<&Arc<rustls::ClientConfig>>,
    ) -> Result<Self, CallError> {
        let opened = timeout(CONNECT, async {
            let socket = TcpStream::connect((endpoint.host(), endpoint.port())).await?;
            socket.set_nodelay(true)?;
            match tls {
                None => handshake(TokioIo::new(socket)).await,
                Some(tls) => {
                    let name = ServerName::try_from(endpoint.host().to_owned())?;
                    handshake(TokioIo::new(TlsConnector::from(tls.clone()).connect(name, socket).await?))
                        .await
                }
            }
        });
        let not_sent = |reason: String| CallError::NotSent(format!("{endpoint}: {reason}"));
        let (requests, driver) = match opened.await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Err(not_sent(error.to_string())),
            Err(_) => return Err(not_sent("no answer".to_owned())),
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        Ok(Self { requests, authority: endpoint.to_string(), scheme, _driver: driver })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// One message there and one back.
    pub(super) async fn call<Q: Message, A: Message + Default>(
        &self,
        method: &'static str,
        question: &Q,
        until: Instant,
    ) -> Result<A, CallError> {
        let body = Full::new(framed(question)).boxed();
        let span = until.saturating_duration_since(Instant::now());
        let mut request = self.request(method, body)?;
        let limit = HeaderValue::from_str(&format!("{}m", span.as_millis().clamp(1, 99_999_999)));
        request.headers_mut().extend(limit.ok().map(|limit| ("grpc-timeout", limit)).map(named));
        let answered = async {
            let mut answer = Answer::begin(self.send(request).await?)?;
            let message = answer.next().await?;
            // Behind it there is how it ended.
            let end = answer.next::<A>().await;
            match (message, end) {
                (_, Err(error)) => Err(error),
                (Some(message), Ok(None)) => Ok(message),
                (None, Ok(_)) => Err(CallError::Broken("an answer without a message".to_owned())),
                (Some(_), Ok(Some(_))) => Err(CallError::Broken("two answers to one call".to_owned())),
            }
        };
        let late = |_| Err(CallError::Broken(format!("{}: no answer", self.authority)));
        timeout_at(until, answered).await.unwrap_or_else(late)
    }

    /// Messages both ways, until one side ends it.
    pub(super) async fn stream<Q: Message>(
        &self,
        method: &'static str,
        first: &Q,
        until: Instant,
    ) -> Result<(Questions, Answer), CallError> {
        let (mut questions, body) = Channel::<Bytes>::new(QUESTIONS);
        let closed = |_| CallError::NotSent("the stream has ended".to_owned());
        questions.send_data(framed(first)).await.map_err(closed)?;
        let mut request = self.request(method, body.boxed())?;
        // Of a member that has lost its leader nothing new is heard, and it does not say so by itself.
        request.headers_mut().insert("hasleader", HeaderValue::from_static("true"));
        let response = timeout_at(until, self.send(request)).await;
        let late = |_| Err(CallError::Broken(format!("{}: no answer", self.authority)));
        Ok((Questions(questions), Answer::begin(response.unwrap_or_else(late)?)?))
    }

    fn request(&self, method: &'static str, body: Body) -> Result<Request<Body>, CallError> {
        let uri = format!("{}://{}/etcdserverpb.{method}", self.scheme, self.authority);
        Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .map_err(|error| CallError::NotSent(error.to_string()))
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, CallError> {
        let mut requests = self.requests.clone();
        let closed = |error: hyper::Error| CallError::NotSent(format!("{}: {error}", self.authority));
        requests.ready().await.map_err(closed)?;
        let sent = requests.send_request(request).await;
        sent.map_err(|error| CallError::Broken(format!("{}: {error}", self.authority)))
    }
}

fn named((name, value): (&'static str, HeaderValue)) -> (http::HeaderName, HeaderValue) {
    (http::HeaderName::from_static(name), value)
}

async fn handshake<I>(
    socket: TokioIo<I>,
) -> Result<(http2::SendRequest<Body>, AbortOnDropHandle<()>), Box<dyn std::error::Error + Send + Sync>>
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (requests, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        // etcd ends connections that ask more often than every 5 s, or that ask without a stream.
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER)
        .keep_alive_while_idle(false)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(socket)
        .await?;
    let driver = tokio::spawn(async {
        // Whoever waits for an answer hears of it.
        let _ = connection.await;
    });
    Ok((requests, AbortOnDropHandle::new(driver)))
}

/// What is said on a stream.
pub(super) struct Questions(channel::Sender<Bytes>);

impl Questions {
    /// Whether it can still be said.
    pub(super) async fn send(&mut self, question: &impl Message) -> bool {
        self.0.send_data(framed(question)).await.is_ok()
    }
}

/// What is heard on a stream.
pub(super) struct Answer {
    body: Incoming,
    unread: BytesMut,
    /// How it ended, if that is known.
    end: Option<Result<(), CallError>>,
}

impl Answer {
    fn begin(response: Response<Incoming>) -> Result<Self, CallError> {
        let (head, body) = response.into_parts();
        if head.status != http::StatusCode::OK {
            return Err(CallError::Broken(format!("status {}; is this etcd?", head.status.as_u16())));
        }
        // An answer of nothing but an end has it in its head.
        let end = head.headers.contains_key(STATUS).then(|| ended(&head.headers));
        Ok(Self { body, unread: BytesMut::new(), end })
    }

    /// The next message; `None` at an end without a fault. May be dropped midway.
    pub(super) async fn next<A: Message + Default>(&mut self) -> Result<Option<A>, CallError> {
        loop {
            if let Some(message) = self.whole()? {
                let read = A::decode(message);
                return read.map(Some).map_err(|error| CallError::Broken(format!("no message: {error}")));
            }
            if let Some(end) = &self.end {
                return end.clone().map(|()| None);
            }
            let broken =
                |reason: &dyn fmt::Display| CallError::Broken(format!("the answer broke off: {reason}"));
            match self.body.frame().await {
                None => return Err(broken(&"it has no end")),
                Some(Err(error)) => return Err(broken(&error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.unread.put(data),
                    Err(frame) => {
                        if let Some(trailers) = frame.trailers_ref() {
                            self.end = Some(ended(trailers));
                        }
                    }
                },
            }
        }
    }

    /// Takes a message that is there completely.
    fn whole(&mut self) -> Result<Option<Bytes>, CallError> {
        let Some(head) = self.unread.first_chunk::<HEAD>() else { return Ok(None) };
        if head[0] != 0 {
            return Err(CallError::Broken("a message is compressed".to_owned()));
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > LARGEST_ANSWER {
            return Err(CallError::TooLong);
        }
        if self.unread.len() < HEAD + length {
            return Ok(None);
        }
        self.unread.advance(HEAD);
        Ok(Some(self.unread.split_to(length).freeze()))
    }
}

/// A message with its length before it.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(HEAD + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    framed.put(message.encode_to_vec().as_slice());
    framed.freeze()
}

fn ended(headers: &HeaderMap) -> Result<(), CallError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let code = text(STATUS).and_then(|code| code.parse::<u32>().ok());
    let message = text("grpc-message").unwrap_or_default();
    match code {
        Some(0) => Ok(()),
        Some(code) => {
            let message = message.chars().filter(|letter| !letter.is_control()).take(MESSAGE).collect();
            let code = match code {
                8 => Code::ResourceExhausted,
                11 => Code::OutOfRange,
                14 => Code::Unavailable,
                other => Code::Other(other),
            };
            Err(CallError::Refused { code, message })
        }
        None => Err(CallError::Broken("an answer without a status of gRPC; is this etcd?".to_owned())),
    }
}

const STATUS: &str = "grpc-status";
/// Whether a message is compressed, and its length.
const HEAD: usize = 5;
/// Longer ones are asked for in smaller pages. One record has at most 1.5 MiB.
pub(super) const LARGEST_ANSWER: usize = 16 << 20;
const WINDOW: u32 = 4 << 20;
/// Of what etcd says about a failure.
const MESSAGE: usize = 300;
/// Messages that wait on a stream.
const QUESTIONS: usize = 4;
const CONNECT: Duration = Duration::from_secs(2);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_good_only_if_it_says_so() {
        let with = |pairs: &[(&'static str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| named((name, value.parse().unwrap())));
            ended(&pairs.collect())
        };
        assert!(with(&[(STATUS, "0")]).is_ok());
        for no_status in [&[][..], &[(STATUS, "x")], &[(STATUS, "-1")]] {
            assert!(matches!(with(no_status), Err(CallError::Broken(_))), "{no_status:?}");
        }
        let refused = with(&[(STATUS, "8"), ("grpc-message", "etcdserver: mvcc: database space exceeded")]);
        let Err(CallError::Refused { code: Code::ResourceExhausted, message }) = refused else { panic!() };
        assert!(message.contains("space exceeded"));
    }
}
