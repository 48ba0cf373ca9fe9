//! One exchange of a component of `wasi:http` 0.3, service or middleware. Each gets a fresh instance,
//! which lives until the tasks of the guest are done, and is ended with whoever reads its answer.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::Request;
use http_body::Body;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi_http::p3::bindings::{Service, ServiceIndices};
use wasmtime_wasi_http::p3::{self};
use wasmtime_wasi_http::{Error, WasiHttpView};

use super::failure::CallError;
use super::imports::handler::Next;
use super::member::LoadedPlugin;
use super::meter::{Meter, drive};
use super::service::{Answer, Exchange, setting_up};
use super::store::{State, begin, store, trouble};

/// Has a fresh instance answer a request, to the end of its tasks. `broken` is set before the answer's body
/// ends if the guest breaks.
pub(super) async fn run<B>(
    member: &LoadedPlugin,
    indices: &ServiceIndices,
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
    let meter = Arc::new(Meter::new());
    let mut store = store(&member.linked_component, &member.sandbox, &meter);
    begin(&mut store, exchange.id);
    store.data_mut().next = next;
    let ended = {
        let call = pin!(serve(&mut store, member, indices, exchange, request, answer));
        let mut call = pin!(drive(&meter, exchange.budget, call));
        poll_fn(|context| {
            let _running = member.engine.clock().running(exchange.shard);
            call.as_mut().poll(context)
        })
        .await
    };
    ended.map_err(|stop| {
        // Before the store goes, and with it the other end of the answer's body.
        broken.store(true, Ordering::Release);
        trouble(&store, stop)
    })
}

async fn serve<B>(
    store: &mut Store<State>,
    member: &LoadedPlugin,
    indices: &ServiceIndices,
    exchange: &Exchange<'_>,
    request: Request<B>,
    answer: oneshot::Sender<Answer>,
) -> wasmtime::Result<()>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Error>,
{
    let instance = setting_up(member, exchange.shard, store).await?;
    let service: Service = indices.load(&mut *store, &instance)?;
    let (request, sent) = p3::Request::from_http(store.data_mut().http().hooks, request);
    let request = store.data_mut().http().table.push(request)?;
    let serving = async |accessor: &wasmtime::component::Accessor<State>| {
        let answered = service.wasi_http_handler().call_handle(accessor, request).await?;
        let answered = match answered {
            Ok(response) => accessor.with(|mut access| {
                let response = access.data_mut().http().table.delete(response)?;
                wasmtime::error::Ok(Ok(response.into_http(&mut access, sent)?))
            })?,
            Err(code) => Err(format!("{code:?}")),
        };
        // One that has gone wants no answer; its going ends this.
        let _ = answer.send(answered);
        // What the guest still does: it writes the rest of its answer.
        poll_fn(|context| accessor.poll_no_interesting_tasks(context)).await;
        Ok(())
    };
    store.run_concurrent(serving).await?
}
