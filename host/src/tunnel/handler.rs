//! What every stream of a connection is handed to, whatever its transport: notices of the edge are answered
//! here, all else goes to the proxy. Keeps the words between edge and host from whoever they do not concern.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use adit_protocol::extensions::{self, Instead, VisitorFacts};
use http::header::HeaderMap;
use http::{Response, request};

use super::notice::{Notice, Notices};
use super::pace::Flows;
use super::slot::Shared;
use crate::origin::Body;
use crate::proxy::{Answer, Before, Kind, Proxy, Refused, Request};

/// Handles the requests of one connection.
pub struct Handler {
    pub proxy: Rc<Proxy>,
    pub notices: Notices,
    /// Whether features of our own were offered to the edge; else their words are anybody's.
    pub speaks_own: bool,
    is_refusing: Cell<bool>,
    /// Streams under way.
    open: Cell<u64>,
    slot: usize,
    shared: Arc<Shared>,
    round_trip: RoundTrip,
}

/// How long the connection took last, there and back; `None` once it is gone.
pub type RoundTrip = Box<dyn Fn() -> Option<Duration>>;

/// A stream from its beginning to its end.
pub struct UnderWay<'h>(&'h Handler);

/// To be waited for before an answer is cut: a reset overtakes what was written before it, on its way as well
/// as in the buffers of both ends, and the visitor would not even get the head.
pub const SETTLING: Duration = Duration::from_millis(250);

/// What a request said about trailers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trailers {
    /// Nothing: they are dropped in both directions.
    Unwelcome,
    Welcome,
    /// Welcome, and the body of the request is framed.
    Framed,
}

impl Handler {
    /// For a connection of `slot`.
    pub fn new(
        proxy: Rc<Proxy>,
        notices: Notices,
        slot: usize,
        shared: Arc<Shared>,
        round_trip: RoundTrip,
    ) -> Self {
        let speaks_own = shared.identity.speaks_own;
        let (is_refusing, open) = (Cell::new(false), Cell::new(0));
        Self { proxy, notices, speaks_own, is_refusing, open, slot, shared, round_trip }
    }

    /// A stream begins.
    pub fn begin(&self) -> UnderWay<'_> {
        self.open.set(self.open.get() + 1);
        self.shared.status.busy(self.slot, self.open.get());
        UnderWay(self)
    }

    /// From now on streams are to be turned away unread.
    pub fn refuse(&self) {
        self.is_refusing.set(true);
    }

    pub fn is_refusing(&self) -> bool {
        self.is_refusing.get()
    }

    /// Reads what the head of a request says about trailers.
    pub fn trailers(&self, headers: &HeaderMap) -> Trailers {
        match headers.get(extensions::TRAILERS) {
            Some(value) if self.speaks_own && *value == extensions::WELCOME => Trailers::Welcome,
            Some(value) if self.speaks_own && *value == extensions::FRAMED => Trailers::Framed,
            Some(_) | None => Trailers::Unwelcome,
        }
    }

    /// What the bodies of a request with such headers, and of its answer, are watched by.
    pub fn flows(&self, headers: &HeaderMap) -> Flows {
        Flows::new(&self.shared.account, self.proxy.shard, headers)
    }

    /// Opens a circuit to where the edge says. May be dropped midway.
    ///
    /// # Errors
    /// Nothing was connected.
    pub async fn carry(&self, to: SocketAddr, body: Body) -> Result<Response<Body>, Refused> {
        self.proxy.clone().carry(to, body).await
    }

    /// Answers one request. May be dropped midway.
    pub async fn handle(
        &self,
        kind: Kind,
        mut head: request::Parts,
        body: Body,
        trailers: Trailers,
    ) -> Answer {
        if self.speaks_own
            && let Some(notice) = Notice::of(&head)
        {
            return Answer::Response(self.notices.answer(notice).await);
        }
        if self.speaks_own
            && let Some(facts) = head.headers.get(extensions::VISITOR).map(VisitorFacts::of)
        {
            head.extensions.insert(facts);
        }
        if self.proxy.inspector.is_on() {
            head.extensions.insert(self.before(&head.headers));
        }
        extensions::strip(&mut head.headers);
        let takes_trailers = trailers != Trailers::Unwelcome;
        let mut answer = self.proxy.clone().handle(Request { kind, head, body, takes_trailers }).await;
        if let Answer::Response(response) = &mut answer {
            self.say_instead(response);
        }
        answer
    }

    /// Where the request was before it came here. What an edge of others would pass on may be anybody's word.
    fn before(&self, headers: &HeaderMap) -> Before {
        Before {
            edge: extensions::has_waited(headers).filter(|_| self.speaks_own),
            tunnel: (self.round_trip)().map(|both_ways| both_ways / 2).filter(|time| !time.is_zero()),
        }
    }

    /// Tells the edge where it was not the service that has answered. Nobody else may say so: a plugin could have an
    /// endpoint that fails go on for ever.
    fn say_instead(&self, response: &mut Response<Body>) {
        response.headers_mut().remove(extensions::INSTEAD);
        if let Some(instead) = response.extensions().get::<Instead>().filter(|_| self.speaks_own).copied() {
            response.headers_mut().insert(extensions::INSTEAD, instead.word());
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}
