//! The head of a request, which is the same at every attempt but for what the host of the connection
//! understands. Encoded once for all hosts that understand the same.

use std::time::Duration;

use adit_protocol::extensions::{self, VisitorFacts};
use adit_protocol::management::is_host;
use adit_protocol::stream::Connect;
use bytes::Bytes;
use http::header::{HeaderValue, TE, TRAILER};
use http::uri::Authority;
use http::{HeaderMap, Uri};

use super::Failure;
use crate::forward::headers::Trailers;
use crate::transport::connection::{StreamPermit, WriteError};
use crate::transport::stream::{Downstream, Upstream};

pub(super) struct Head {
    connect: Connect,
    /// No body follows.
    is_whole: bool,
    trailers: Option<Trailers>,
    speech: Speech,
    encoded: Option<Bytes>,
    /// As which host it asks, if not as which the visitor did; that one is kept beside it.
    host: Option<(Authority, Uri)>,
    /// What it says of how the visitor came.
    visitor: Option<VisitorFacts>,
}

/// What the head says about trailers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    Nothing,
    /// Only what the visitor says, which over HTTP/2 is enough for every host.
    Plain,
    Welcome,
    /// Besides, the body of the request is framed.
    Framed,
}

impl Head {
    pub(super) fn new(connect: Connect, is_whole: bool, trailers: Option<Trailers>) -> Self {
        let (speech, encoded) = (Speech::Nothing, None);
        Self { connect, is_whole, trailers, speech, encoded, host: None, visitor: None }
    }

    /// Has it say how the visitor came, or nothing of it to a host that does not listen to that.
    pub(super) fn tell(&mut self, visitor: Option<VisitorFacts>) {
        if visitor == self.visitor {
            return;
        }
        self.visitor = visitor;
        self.change(|headers| match visitor {
            Some(visitor) => drop(headers.insert(extensions::VISITOR, visitor.header())),
            None => drop(headers.remove(extensions::VISITOR)),
        });
    }

    /// What the next attempt says otherwise than the one before.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut HeaderMap)) {
        self.encoded = None;
        let (Connect::Http(request) | Connect::WebSocket(request)) = &mut self.connect else { return };
        change(request.headers_mut());
    }

    /// What it says of how long the request was here before; nothing to who would not understand it.
    pub(super) fn waited(&mut self, time: Option<Duration>) {
        let (Connect::Http(request) | Connect::WebSocket(request)) = &mut self.connect else { return };
        let headers = request.headers_mut();
        let before = match time {
            Some(time) => headers.insert(extensions::WAITED, extensions::waited(time)),
            None => headers.remove(extensions::WAITED),
        };
        if time.is_some() || before.is_some() {
            self.encoded = None;
        }
    }

    /// Has it ask as another host, or as the visitor did.
    pub(super) fn ask_as(&mut self, host: Option<Authority>) {
        // Hosts believe who asks as that one about themselves.
        let host = host.filter(|host| !is_host(host.as_str()));
        if host.as_ref() == self.host.as_ref().map(|(host, _)| host) {
            return;
        }
        let (Connect::Http(request) | Connect::WebSocket(request)) = &mut self.connect else { return };
        let own = self.host.take().map_or_else(|| request.uri().clone(), |(_, own)| own);
        self.encoded = None;
        let Some(host) = host else {
            *request.uri_mut() = own;
            return;
        };
        let mut parts = own.clone().into_parts();
        parts.authority = Some(host.clone());
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        self.host = Some((host, own));
    }

    /// Sends the head, and the end of the stream too if no body follows. `is_able` says that the host
    /// understands our words about trailers; over HTTP/2 every host carries them.
    pub(super) async fn send(
        &mut self,
        channel: StreamPermit,
        is_able: bool,
    ) -> Result<(Upstream, Downstream), Failure> {
        match channel {
            StreamPermit::Quic(send, recv) => {
                let head = self.encoded(is_able)?;
                let mut up = Upstream::quic(send);
                let down = Downstream::quic(recv);
                up.write(head).await.map_err(not_sent)?;
                if self.is_whole {
                    up.finish();
                } else if self.speech == Speech::Framed {
                    up.frame();
                }
                Ok((up, down))
            }
            StreamPermit::Http2(channel) => {
                self.adapt(match self.trailers {
                    Some(_) if is_able => Speech::Welcome,
                    Some(_) => Speech::Plain,
                    None => Speech::Nothing,
                });
                let sent = channel.send(&self.connect, self.is_whole);
                let (up, down) = sent.map_err(|lost| Failure::NotSent(lost.reason))?;
                Ok((Upstream::Http2(up), Downstream::http2(down)))
            }
        }
    }

    /// Whether the answer to what was sent last may have trailers.
    pub(super) fn takes_trailers(&self) -> bool {
        self.speech != Speech::Nothing
    }

    fn encoded(&mut self, is_able: bool) -> Result<Bytes, Failure> {
        self.adapt(match &self.trailers {
            Some(trailers) if is_able && trailers.follow_upload => Speech::Framed,
            Some(_) if is_able => Speech::Welcome,
            Some(_) | None => Speech::Nothing,
        });
        match &self.encoded {
            Some(head) => Ok(head.clone()),
            None => Ok(self.encoded.insert(self.connect.encode().map_err(Failure::Head)?).clone()),
        }
    }

    fn adapt(&mut self, speech: Speech) {
        if speech == self.speech {
            return;
        }
        self.speech = speech;
        self.encoded = None;
        let (Connect::Http(request), Some(trailers)) = (&mut self.connect, &self.trailers) else { return };
        say(request.headers_mut(), trailers, speech);
    }
}

fn say(headers: &mut HeaderMap, trailers: &Trailers, speech: Speech) {
    for name in [TE, TRAILER, extensions::TRAILERS] {
        headers.remove(name);
    }
    let word = match speech {
        Speech::Nothing => return,
        Speech::Plain => None,
        Speech::Welcome => Some(extensions::WELCOME),
        Speech::Framed => Some(extensions::FRAMED),
    };
    if let Some(word) = word {
        headers.insert(extensions::TRAILERS, word);
    }
    if trailers.are_taken {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    for names in &trailers.announced {
        headers.append(TRAILER, names.clone());
    }
}

fn not_sent(error: WriteError) -> Failure {
    match error {
        // A head of which a part is missing is no request.
        WriteError::Lost(lost) => Failure::NotSent(lost.reason),
        WriteError::Refused => Failure::TurnedAway,
        error @ WriteError::Unwanted => Failure::Write(error),
    }
}
