//! `wasi:http/handler` as an import: what stands behind middleware. A call of it leaves the instance as
//! an [`NextRequest`], and whoever serves the request answers that.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::{mpsc, oneshot};
use wasmtime::component::{Accessor, Linker, Resource};
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p3::{Request, Response};
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpView};

use super::super::store::State;

/// The import, in the version that its look-up takes for all compatible ones.
const HANDLER: &str = "wasi:http/handler@0.3.0";
/// Calls that wait until they are looked at; a guest that makes more waits.
const WAITING: usize = 1;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What middleware hands on, and where the answer goes. Dropped, it answers that nobody is there.
pub struct NextRequest {
    /// Its URI is absolute.
    pub request: http::Request<UnsyncBoxBody<Bytes, BoxError>>,
    answer: oneshot::Sender<http::Response<WasiBody>>,
    asked: Asked,
}

impl NextRequest {
    /// Takes it apart into the request and what answers it.
    pub fn split(self) -> (http::Request<UnsyncBoxBody<Bytes, BoxError>>, NextResponder) {
        let Self { request, answer, asked } = self;
        (request, NextResponder { answer, _asked: asked })
    }
}

/// Where the answer to an [`NextRequest`] goes.
pub struct NextResponder {
    answer: oneshot::Sender<http::Response<WasiBody>>,
    _asked: Asked,
}

impl NextResponder {
    /// Hands the answer to the middleware, whose body it will read as it likes.
    pub fn answer<B>(self, response: http::Response<B>)
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        let response = response.map(|body| body.map_err(|_| Error::ConnectionTerminated).boxed_unsync());
        // One that has gone wants none.
        let _ = self.answer.send(response);
    }
}

/// What an instance of middleware hands requests on to.
#[derive(Clone)]
pub(crate) struct Next {
    next_requests: mpsc::Sender<NextRequest>,
    /// How many calls have no answer yet.
    under_way: Arc<AtomicUsize>,
    went_unanswered: Arc<AtomicBool>,
}

/// Counts a call until it has an answer.
struct Asked(Arc<AtomicUsize>);

impl Next {
    pub(crate) fn new() -> (Self, mpsc::Receiver<NextRequest>) {
        let (next_requests, receiver) = mpsc::channel(WAITING);
        (Self { next_requests, under_way: Arc::default(), went_unanswered: Arc::default() }, receiver)
    }

    /// Whether the guest may be waiting for others.
    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// Whether a call was answered by nobody.
    pub(crate) fn went_unanswered(&self) -> bool {
        self.went_unanswered.load(Ordering::Relaxed)
    }

    async fn ask(&self, request: http::Request<WasiBody>) -> Option<http::Response<WasiBody>> {
        let (answer, answered) = oneshot::channel();
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let asked = Asked(self.under_way.clone());
        let request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
        let sent = self.next_requests.send(NextRequest { request, answer, asked }).await;
        let answered = if sent.is_ok() { answered.await.ok() } else { None };
        if answered.is_none() {
            self.went_unanswered.store(true, Ordering::Relaxed);
        }
        answered
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.instance(HANDLER)?.func_wrap_concurrent(
        "handle",
        |accessor: &Accessor<State>, (request,): (Resource<Request>,)| {
            Box::pin(async move { Ok((handle(accessor, request).await?,)) })
        },
    )
}

async fn handle(
    accessor: &Accessor<State>,
    request: Resource<Request>,
) -> wasmtime::Result<Result<Resource<Response>, ErrorCode>> {
    // The guest learns that its request was sent when its body is done with.
    let (done, sent) = oneshot::channel();
    let taken = accessor.with(|mut access| {
        let request = access.data_mut().http().table.delete(request)?;
        let next = access.data_mut().next.clone();
        let request = request.into_http(&mut access, async {
            let _ = sent.await;
            Ok(())
        });
        match request {
            Ok((request, _)) => Ok(Ok((request, next))),
            Err(error) => error.downcast().map(Err),
        }
    })?;
    let (request, next) = match taken {
        Ok((request, Some(next))) => (request, next),
        Ok((_, None)) => return Ok(Err(ErrorCode::DestinationUnavailable)),
        Err(code) => return Ok(Err(code)),
    };
    let request = request.map(|body| Sent { body, _done: done }.boxed_unsync());
    let Some(response) = next.ask(request).await else { return Ok(Err(ErrorCode::DestinationUnavailable)) };
    accessor.with(|mut access| {
        let view = access.data_mut().http();
        // Nobody waits for what the guest makes of the answer.
        let (response, _) = Response::from_http(view.hooks, response);
        Ok(Ok(view.table.push(response)?))
    })
}

/// A request's body that says when it is done with.
struct Sent {
    body: WasiBody,
    _done: oneshot::Sender<()>,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
