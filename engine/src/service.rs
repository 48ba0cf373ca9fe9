//! A component that takes whole exchanges: any `wasi:http` service as an origin, and middleware. Both
//! bodies stream, and the guest runs on until its answer is complete. A fresh instance answers each
//! request, or, of version 0.2, one that is used again.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;
use wasmtime::Store;
use wasmtime::component::Instance;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyIndices};
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpView};

use super::component::{Handler, LinkedComponent};
use super::concurrent;
use super::failure::{CallError, Failure, FailureKind, LoadError};
use super::imports::handler::{Next, NextRequest};
use super::member::LoadedPlugin;
use super::meter::{CallBudget, LOADING, Meter, Stop, drive};
use super::store::{CallLimit, State, begin, store, trouble};

/// How long a service may take to begin its answer.
const HEAD: Duration = Duration::from_secs(30);
/// How long one exchange may last. Whoever asks may leave earlier, which ends it.
const WALL: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a guest that is used again may take from the end of its answer to its return.
const RETURN: Duration = Duration::from_secs(1);
/// About so many requests an instance answers where instances are used again.
const REQUESTS: u32 = 128;
/// What an instance is asked to find out whether it can be used again.
const PROBE: &str = "http://localhost/";

/// The body of a service's answer. Dropping it ends the guest; one that is used again may return first if the
/// body is complete.
pub struct ServiceBody {
    body: WasiBody,
    /// Whether the guest broke: the body then ends as if it were complete.
    broken: Arc<AtomicBool>,
    /// Whether all of it was read.
    is_read: bool,
    /// Whether the guest answers another request when it has returned.
    is_used_again: bool,
    guest: Option<Answering>,
}

/// The task of a guest, which ends with this.
type Answering = AbortOnDropHandle<Result<(), Failure>>;

/// The head of an answer, or the name of the guest's own error.
pub(super) type Answer = Result<Response<WasiBody>, String>;

/// What an exchange is about besides its request.
pub(super) struct Exchange<'a> {
    pub(super) shard: usize,
    /// Names the request in every log.
    pub(super) id: &'a str,
    /// Whether the visitor came by HTTPS.
    pub(super) secure: bool,
    pub(super) budget: CallBudget,
}

/// What became of a request that was given to middleware.
pub enum MiddlewareOutcome {
    Response(Response<ServiceBody>),
    /// It gave up since nobody behind it answered.
    Unreachable,
}

/// Has an instance answer a request whose URI is absolute. Returns with the head of the answer.
/// May be dropped midway, which ends the guest.
pub(super) async fn serve<B>(
    member: &Arc<LoadedPlugin>,
    shard: usize,
    id: &str,
    secure: bool,
    request: Request<B>,
) -> Result<Response<ServiceBody>, Failure>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    match ask(member, shard, id, secure, request, None).await? {
        Ok(response) => Ok(response),
        Err(code) => Err(member.report(shard, id, FailureKind::fault("wasi:http", &code).into())),
    }
}

/// The same of middleware, whose calls for what stands behind it come to the receiver that is handed back
/// with the future. One that is dropped means that nobody answered.
pub(super) fn mediate<'a, B>(
    member: &'a Arc<LoadedPlugin>,
    shard: usize,
    id: &'a str,
    secure: bool,
    request: Request<B>,
) -> (impl Future<Output = Result<MiddlewareOutcome, Failure>> + use<'a, B>, mpsc::Receiver<NextRequest>)
where
    B: Body<Data = Bytes> + Send + 'static,
{
    let (next, next_requests) = Next::new();
    let mediation = async move {
        match ask(member, shard, id, secure, request, Some(next.clone())).await? {
            Ok(response) => Ok(MiddlewareOutcome::Response(response)),
            Err(_) if next.went_unanswered() => Ok(MiddlewareOutcome::Unreachable),
            Err(code) => Err(member.report(shard, id, FailureKind::fault("wasi:http", &code).into())),
        }
    };
    (mediation, next_requests)
}

/// Has an instance answer, or say which error it has for an answer.
async fn ask<B>(
    member: &Arc<LoadedPlugin>,
    shard: usize,
    id: &str,
    secure: bool,
    request: Request<B>,
    next: Option<Next>,
) -> Result<Result<Response<ServiceBody>, String>, Failure>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    let request = request.map(|body| body.map_err(|_| Error::ConnectionTerminated));
    let refuse = |kind: FailureKind| member.report(shard, id, kind.into());
    member.admit(shard).map_err(refuse)?;
    let seat = member.pool.sit(shard).ok_or_else(|| refuse(FailureKind::Busy))?;
    let (answer, answered) = oneshot::channel();
    let broken = Arc::new(AtomicBool::new(false));
    let mut guest = {
        let (member, id, broken, next) = (member.clone(), id.to_owned(), broken.clone(), next.clone());
        let trace = crate::outbound::trace();
        let work = async move {
            let _seat = seat;
            let budget = CallBudget { wall: WALL, ..member.budget };
            let exchange = Exchange { shard, id: &id, secure, budget };
            match run(&member, &exchange, request, next, answer, &broken).await {
                Ok(()) => {
                    member.returned();
                    Ok(())
                }
                Err(trouble) => Err(member.report(shard, &id, trouble)),
            }
        };
        // What it asks for belongs to the trace of its request.
        AbortOnDropHandle::new(match trace {
            None => tokio::spawn(work),
            Some(context) => tokio::spawn(crate::outbound::tracing_on(context, work)),
        })
    };
    let answer = {
        let mut head = pin!(async {
            match answered.await {
                Ok(answer) => Ok(answer),
                // It went without an answer, and has said why if it broke.
                Err(_) => match (&mut guest).await {
                    Ok(Err(failure)) => Err(failure),
                    Ok(Ok(())) => Err(refuse(FailureKind::invalid("it ended without an answer"))),
                    Err(_) => Err(refuse(FailureKind::Trap { reason: "the host panicked".to_owned() })),
                },
            }
        });
        loop {
            match timeout(HEAD, &mut head).await {
                Ok(answer) => break answer?,
                // Those behind it have limits of their own.
                Err(_) if next.as_ref().is_some_and(Next::is_under_way) => {}
                Err(_) => return Err(refuse(FailureKind::Timeout)),
            }
        }
    };
    let is_used_again = member.guests_stay.load(Ordering::Relaxed);
    Ok(answer.map(|response| {
        response.map(|body| ServiceBody { body, broken, is_read: false, is_used_again, guest: Some(guest) })
    }))
}

/// Has an instance answer a request, to the end of its answer.
async fn run<B>(
    member: &LoadedPlugin,
    exchange: &Exchange<'_>,
    request: Request<B>,
    next: Option<Next>,
    answer: oneshot::Sender<Answer>,
    broken: &AtomicBool,
) -> Result<(), CallError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Error>,
{
    let indices = match member.linked_component.handler.as_ref().expect("only what takes exchanges is asked")
    {
        Handler::Wasi2(indices) => indices,
        Handler::Wasi3(indices) | Handler::Middleware(indices) => {
            return concurrent::run(member, indices, exchange, request, next, answer, broken).await;
        }
    };
    let shard = exchange.shard;
    let mut guest = member.pool.guest(shard).unwrap_or_else(|| Guest::new(member));
    let ended = guest.serve(member, indices, exchange, request, answer).await;
    ended.map_err(|stop| {
        // Before the store goes, and with it the other end of the answer's body.
        broken.store(true, Ordering::Release);
        trouble(&guest.store, stop)
    })?;
    if member.guests_stay.load(Ordering::Relaxed) && guest.requests.stays() {
        member.pool.keep_guest(shard, guest);
    }
    Ok(())
}

/// Finds out whether an instance survives a second request; only then are instances used again. Many
/// services of good standing do not.
///
/// # Errors
/// It runs in its start without an end.
pub(super) async fn probe(member: &LoadedPlugin) -> Result<(), LoadError> {
    let plugin = &member.plan.name;
    let Some(Handler::Wasi2(indices)) = &member.linked_component.handler else {
        warn!(plugin, "instances of wasi:http 0.3 are not used again: each request gets a fresh one");
        return Ok(());
    };
    let mut guest = Guest::new(member);
    if let Err(stop @ Stop::Timeout) = guest.start(member, indices).await {
        let CallError { kind, backtrace } = trouble(&guest.store, stop);
        return Err(LoadError::Broken { during: "instantiation", kind, backtrace });
    }
    for count in 1..=2 {
        let request = Request::get(PROBE).header("host", "localhost").header("user-agent", "adit-probe");
        let request = request.body(Empty::<Bytes>::new().map_err(|_| Error::ConnectionTerminated));
        let request = request.expect("a good request");
        let (answer, answered) = oneshot::channel::<Answer>();
        // What comes of the body is of no interest, but a guest waits until somebody takes it.
        let drain = async {
            let response = answered.await.ok()?.ok()?;
            response.into_body().collect().await.ok()
        };
        // Whoever asked for a change waits for it.
        let run = member.budget.run.min(LOADING.run);
        let budget = CallBudget { run, wall: HEAD, ..LOADING };
        let exchange = Exchange { shard: 0, id: "probe", secure: false, budget };
        let serving = guest.serve(member, indices, &exchange, request, answer);
        let both = async { tokio::join!(serving, drain) };
        if !matches!(timeout(HEAD, both).await, Ok((Ok(()), Some(_)))) {
            warn!(plugin, count, "a service did not answer a probe: each request gets a fresh instance");
            return Ok(());
        }
    }
    member.guests_stay.store(true, Ordering::Relaxed);
    member.pool.keep_guest(0, guest);
    Ok(())
}

/// One instance of a service of `wasi:http` 0.2, between requests.
pub(super) struct Guest {
    store: Store<State>,
    meter: Arc<Meter>,
    /// `None` before its first request.
    proxy: Option<Proxy>,
    requests: CallLimit,
}

impl Guest {
    fn new(member: &LoadedPlugin) -> Self {
        let meter = Arc::new(Meter::new());
        let store = store(&member.linked_component, &member.sandbox, &meter);
        Self { store, meter, proxy: None, requests: CallLimit::after(REQUESTS) }
    }

    /// Has it start before its first request. A guest that does not is to be asked for one all the same, which says
    /// what is wrong, unless it is its time that is over.
    async fn start(&mut self, member: &LoadedPlugin, indices: &ProxyIndices) -> Result<(), Stop> {
        let Self { store, meter, proxy, .. } = self;
        begin(store, "probe");
        let call = pin!(async {
            let instance = setting_up(member, 0, store).await?;
            *proxy = Some(indices.load(&mut *store, &instance)?);
            Ok(())
        });
        let mut call = pin!(drive(meter, LOADING, call));
        poll_fn(|context| {
            let _running = member.engine.clock().running(0);
            call.as_mut().poll(context)
        })
        .await
    }

    /// Answers one request. A guest whose request did not end well must be dropped.
    async fn serve<B>(
        &mut self,
        member: &LoadedPlugin,
        indices: &ProxyIndices,
        exchange: &Exchange<'_>,
        request: Request<B>,
        answer: oneshot::Sender<Answer>,
    ) -> Result<(), Stop>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        let Self { store, meter, proxy, .. } = self;
        let Exchange { shard, id, secure, budget } = *exchange;
        begin(store, id);
        let call = pin!(async {
            let proxy = match proxy {
                Some(proxy) => proxy,
                None => {
                    let instance = setting_up(member, shard, store).await?;
                    proxy.insert(indices.load(&mut *store, &instance)?)
                }
            };
            let scheme = if secure { Scheme::Https } else { Scheme::Http };
            let request = store.data_mut().http().new_incoming_request(scheme, request)?;
            let answer = store.data_mut().http().new_response_outparam_from_callback(move |answered| {
                // One that has gone wants no answer; its going ends this.
                let _ = answer.send(answered.map_err(|code| format!("{code:?}")));
            })?;
            proxy.wasi_http_incoming_handler().call_handle(store, request, answer).await
        });
        let mut call = pin!(drive(meter, budget, call));
        // A guest may wait for hours: the clock ticks for it only while it runs.
        poll_fn(|context| {
            let _running = member.engine.clock().running(shard);
            call.as_mut().poll(context)
        })
        .await
    }
}

/// A new instance, configured if it takes a configuration.
pub(super) async fn setting_up(
    member: &LoadedPlugin,
    shard: usize,
    store: &mut Store<State>,
) -> wasmtime::Result<Instance> {
    let LinkedComponent { pre, phases, .. } = &member.linked_component;
    let instance = pre.instantiate_async(&mut *store).await?;
    member.pool.tally(shard).instantiations.fetch_add(1, Ordering::Relaxed);
    if let Some(phases) = phases {
        let lifecycle = phases.lifecycle.load(&mut *store, &instance)?;
        let faults = lifecycle.call_configure(&mut *store, &member.plan.config).await?;
        // The first instance took the same configuration.
        faults.map_err(|_| wasmtime::Error::msg("it refuses its configuration"))?;
    }
    Ok(instance)
}

impl Body for ServiceBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = loop {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
            // What a guest writes with nothing in it is no frame, and not the end.
            let is_nothing = |frame: &Frame<Bytes>| frame.data_ref().is_some_and(Bytes::is_empty);
            if !matches!(&frame, Some(Ok(frame)) if is_nothing(frame)) {
                break frame;
            }
        };
        if frame.is_none() && self.broken.swap(false, Ordering::Acquire) {
            return Poll::Ready(Some(Err("the guest broke before the end of its answer".into())));
        }
        self.is_read = frame.is_none();
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ServiceBody {
    fn drop(&mut self) {
        let Some(guest) = self.guest.take() else { return };
        let is_complete = self.is_read || self.is_end_stream();
        // A guest that was interrupted between the end of its body and its return would be lost, and another made.
        if is_complete
            && self.is_used_again
            && !guest.is_finished()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(timeout(RETURN, guest));
        }
    }
}
