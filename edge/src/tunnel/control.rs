//! The control streams of all connections, on one thread: the RPC system is not `Send`. Translates
//! between calls and the registrar; decides nothing. The only file that names capnp-rpc.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_protocol::framing::rpc_reader_options;
use adit_protocol::rpc::{self, Configuration, ConfigurationAnswer, Registration};
use adit_protocol::schema::tunnelrpc_capnp::configuration_manager;
use adit_protocol::schema::tunnelrpc_capnp::registration_server::{
    Client, RegisterConnectionParams, RegisterConnectionResults, Server, UnregisterConnectionParams,
    UnregisterConnectionResults, UpdateLocalConfigurationParams, UpdateLocalConfigurationResults,
};
use capnp::message::ReaderOptions;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use tokio::io::AsyncRead;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::registrar::Registrar;
use crate::transport::connection::ControlStream;

/// Handle of the control thread.
#[derive(Clone)]
pub(crate) struct Control {
    streams: mpsc::Sender<Work>,
}

/// What the control thread is given to do.
struct Served {
    stream: ControlStream,
    registrar: Arc<Registrar>,
    ended: oneshot::Sender<()>,
}

enum Work {
    Serve(Served),
    Push { stream: ControlStream, configuration: Configuration, answer: oneshot::Sender<PushResult> },
}

type PushResult = anyhow::Result<ConfigurationAnswer>;

/// The other end of [`Control`].
pub(crate) struct Inbox(mpsc::Receiver<Work>);

/// The handle and what [`Inbox::serve`] needs.
pub(crate) fn channel() -> (Control, Inbox) {
    let (streams, inbox) = mpsc::channel(WAITING_STREAMS);
    (Control { streams }, Inbox(inbox))
}

impl Control {
    /// Serves one control stream; done when the host ends it or the connection closes. Dropped midway
    /// it ends the stream.
    pub(crate) async fn serve(&self, stream: ControlStream, registrar: Arc<Registrar>) {
        let (ended, end) = oneshot::channel();
        let stream = Served { stream, registrar, ended };
        if self.streams.send(Work::Serve(stream)).await.is_ok() {
            let _ = end.await;
        }
    }

    /// Calls updateConfiguration on a stream that was opened for it and carries RPC. Dropped midway, the call
    /// goes on until the connection closes.
    pub(crate) async fn push(&self, stream: ControlStream, configuration: Configuration) -> PushResult {
        let (answer, answered) = oneshot::channel();
        let gone = || anyhow::anyhow!("the control thread has ended");
        self.streams.send(Work::Push { stream, configuration, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl Inbox {
    /// Serves every control stream until `stop`. Blocks its task in a [`LocalSet`].
    pub(crate) async fn serve(mut self, stop: CancellationToken) {
        let local = LocalSet::new();
        let serving = async {
            let mut streams = JoinSet::new();
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    stream = self.0.recv() => match stream {
                        // A task of its own each, so that a panic inside the RPC system ends one stream.
                        Some(Work::Serve(stream)) => { streams.spawn_local(serve(stream)); }
                        Some(Work::Push { stream, configuration, mut answer }) => {
                            streams.spawn_local(async move {
                                tokio::select! {
                                    pushed = push(stream, &configuration) => drop(answer.send(pushed)),
                                    () = answer.closed() => {}
                                }
                            });
                        }
                        None => return,
                    },
                    Some(_) = streams.join_next() => {}
                }
            }
        };
        local.run_until(serving).await;
    }
}

/// The calling side of an RPC stream of its own.
async fn push(stream: ControlStream, configuration: &Configuration) -> PushResult {
    let network = twoparty::VatNetwork::new(
        stream.read.compat(),
        stream.write.compat_write(),
        Side::Client,
        rpc_reader_options(),
    );
    let mut system = RpcSystem::new(Box::new(network), None);
    let replica: configuration_manager::Client = system.bootstrap(Side::Server);
    let disconnect = system.get_disconnector();
    let driver = AbortOnDropHandle::new(tokio::task::spawn_local(system));
    let mut request = replica.update_configuration_request();
    configuration.write(request.get());
    let response = request.send().promise.await?;
    let answer = ConfigurationAnswer::read(response.get()?.get_result()?)?;
    drop((response, replica));
    // Ends with an Abort message and the end of the stream.
    let _ = timeout(GOODBYE, disconnect).await;
    drop(driver);
    Ok(answer)
}

async fn serve(stream: Served) {
    let Served { stream: ControlStream { read, write }, registrar, mut ended } = stream;
    let read = Metered { stream: read.compat(), read: 0, registrar: registrar.clone() };
    let mut limits = ReaderOptions::new();
    limits.traversal_limit_in_words(Some(LONGEST_MESSAGE_WORDS)).nesting_limit(DEEPEST_MESSAGE);
    let network = twoparty::VatNetwork::new(read, write.compat_write(), Side::Server, limits);
    let client: Client = capnp_rpc::new_client(RegistrationServer { registrar, calls: Cell::new(0) });
    let mut system = RpcSystem::new(Box::new(network), Some(client.client));
    let disconnector = system.get_disconnector();
    let result = tokio::select! {
        result = &mut system => result,
        () = ended.closed() => {
            // Without this the streams would live as long as the references between both sides.
            let goodbye = async { tokio::join!(disconnector, system).1 };
            timeout(LAST_WORD, goodbye).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = result {
        debug!(%error, "control stream ended");
    }
}

/// The capability that a host gets: RegistrationServer (wire.md 3.2).
struct RegistrationServer {
    registrar: Arc<Registrar>,
    calls: Cell<u32>,
}

impl RegistrationServer {
    /// Answers of calls stay in memory until the caller lets go of them, so calls are limited too.
    fn count(&self) -> Result<(), capnp::Error> {
        self.calls.set(self.calls.get().saturating_add(1));
        if self.calls.get() > MOST_CALLS {
            return Err(capnp::Error::failed("too many calls on one control stream".to_owned()));
        }
        Ok(())
    }
}

impl Server for RegistrationServer {
    async fn register_connection(
        self: Rc<Self>,
        params: RegisterConnectionParams,
        mut results: RegisterConnectionResults,
    ) -> Result<(), capnp::Error> {
        self.count()?;
        let registration = Registration::read(params.get()?).map_err(refused)?;
        let answer = self.registrar.register(registration);
        answer.write(results.get().init_result());
        Ok(())
    }

    async fn unregister_connection(
        self: Rc<Self>,
        _: UnregisterConnectionParams,
        _: UnregisterConnectionResults,
    ) -> Result<(), capnp::Error> {
        self.count()?;
        if self.registrar.unregister() { Ok(()) } else { Err(unregistered()) }
    }

    async fn update_local_configuration(
        self: Rc<Self>,
        params: UpdateLocalConfigurationParams,
        _: UpdateLocalConfigurationResults,
    ) -> Result<(), capnp::Error> {
        self.count()?;
        let config = rpc::read_local_configuration(params.get()?).map_err(refused)?;
        if self.registrar.report(&config) { Ok(()) } else { Err(unregistered()) }
    }
}

fn refused(error: rpc::RpcError) -> capnp::Error {
    capnp::Error::failed(error.to_string())
}

fn unregistered() -> capnp::Error {
    capnp::Error::failed("this connection is not registered".to_owned())
}

/// Counts what a host sends: a stranger gets enough for a registration, and nobody fills memory.
struct Metered {
    stream: Compat<Box<dyn AsyncRead + Send + Unpin>>,
    read: u64,
    registrar: Arc<Registrar>,
}

impl futures_util::AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let is_registered = self.registrar.is_registered();
        let allowed = if is_registered { MOST_BYTES } else { MOST_BYTES_OF_STRANGER };
        // The room that a message wants is what its head announces, and is held until the message is whole.
        let is_too_long = !is_registered && into.len() as u64 > MOST_BYTES_OF_STRANGER;
        if self.read > allowed || is_too_long {
            return Poll::Ready(Err(io::Error::other("the host sent too much on its control stream")));
        }
        let read =
            std::task::ready!(futures_util::AsyncRead::poll_read(Pin::new(&mut self.stream), cx, into))?;
        self.read += read as u64;
        Poll::Ready(Ok(read))
    }
}

/// Connections that have opened their control stream and wait for the control thread to take it.
const WAITING_STREAMS: usize = 256;
/// 2 MiB: a configuration of 1 MiB, its frame, and reading it once.
const LONGEST_MESSAGE_WORDS: usize = 2 * 1024 * 1024 / 8;
/// A registration is nested about ten deep.
const DEEPEST_MESSAGE: i32 = 32;
/// Enough for a bootstrap and a registration, about 1 KiB in all.
const MOST_BYTES_OF_STRANGER: u64 = 64 * 1024;
/// A host reports its configuration when it connects and when it changes.
const MOST_BYTES: u64 = 64 * 1024 * 1024;
const MOST_CALLS: u32 = 4096;
/// How long the end of an RPC stream may take.
const GOODBYE: Duration = Duration::from_secs(1);
const LAST_WORD: Duration = Duration::from_millis(200);
