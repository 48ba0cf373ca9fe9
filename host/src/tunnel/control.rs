//! The control stream of a connection: registering, reporting the local configuration,
//! unregistering (wire.md, section 3).
//!
//! Cap'n Proto RPC is bound to one thread, so all control streams of the process live on a thread
//! of their own behind [`Control`], which can be used from any shard. Knows nothing of requests.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use adit_protocol::framing::rpc_reader_options;
use adit_protocol::rpc::{Configuration, ConfigurationAnswer};
use adit_protocol::rpc::{ConnectionDetails, ConnectionError, Registration, RegistrationAnswer};
use adit_protocol::schema::tunnelrpc_capnp::configuration_manager::{
    self, UpdateConfigurationParams, UpdateConfigurationResults,
};
use adit_protocol::schema::tunnelrpc_capnp::registration_server;
use anyhow::Context;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::proxy::{PushVerdict, Pushes};

/// How long an edge may take for one call.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Calls that may wait for the control thread.
const MOST_ASKS: usize = 64;

/// The two directions of a control stream.
pub struct Stream {
    pub read: Pin<Box<dyn AsyncRead + Send>>,
    pub write: Pin<Box<dyn AsyncWrite + Send>>,
}

/// Handle of the control thread. The thread ends when the last handle and session are gone.
#[derive(Clone)]
pub struct Control {
    asks: mpsc::Sender<Ask>,
}

/// A registered connection. Dropping it ends the control stream.
pub struct Session {
    pub details: ConnectionDetails,
    calls: mpsc::Sender<Call>,
}

/// Why a connection was not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("the edge refused this host: {}", .0.cause)]
    Refused(ConnectionError),
    #[error("no answer to the registration within {} s", CALL_LIMIT.as_secs())]
    TimedOut,
    #[error("control stream: {0}")]
    Stream(String),
}

struct Ask {
    stream: Stream,
    registration: Registration,
    answer: oneshot::Sender<Result<Session, RegisterError>>,
}

enum Call {
    ReportConfiguration { json: Vec<u8>, done: oneshot::Sender<anyhow::Result<()>> },
    Unregister { limit: Duration, done: oneshot::Sender<anyhow::Result<()>> },
}

impl Control {
    /// Starts the control thread.
    pub fn start() -> anyhow::Result<Self> {
        let (asks, mut inbox) = mpsc::channel::<Ask>(MOST_ASKS);
        std::thread::Builder::new().name("control".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default());
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return tracing::error!(%error, "the control thread has no runtime"),
            };
            runtime.block_on(async move {
                let mut sessions = tokio::task::JoinSet::new();
                loop {
                    tokio::select! {
                        ask = inbox.recv() => match ask {
                            Some(ask) => { sessions.spawn_local(session(ask)); }
                            None => break,
                        },
                        Some(_) = sessions.join_next() => {}
                    }
                }
                while sessions.join_next().await.is_some() {}
            });
        })?;
        Ok(Self { asks })
    }

    /// Registers one connection over its control stream.
    pub async fn register(
        &self,
        stream: Stream,
        registration: Registration,
    ) -> Result<Session, RegisterError> {
        let (answer, answered) = oneshot::channel();
        let gone = || RegisterError::Stream("the control thread has ended".into());
        self.asks.send(Ask { stream, registration, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl Session {
    /// Tells the edge what this host serves.
    pub async fn report_configuration(&self, json: Vec<u8>) -> anyhow::Result<()> {
        let (done, answer) = oneshot::channel();
        self.calls
            .send(Call::ReportConfiguration { json, done })
            .await
            .context("the control stream has ended")?;
        answer.await.context("the control stream has ended")?
    }

    /// Asks the edge to send nothing new, and waits for its answer.
    pub async fn unregister(&self, limit: Duration) -> anyhow::Result<()> {
        let (done, answer) = oneshot::channel();
        self.calls.send(Call::Unregister { limit, done }).await.context("the control stream has ended")?;
        answer.await.context("the control stream has ended")?
    }
}

/// The life of one control stream, on the control thread.
async fn session(ask: Ask) {
    let Ask { stream, registration, answer } = ask;
    let network = twoparty::VatNetwork::new(
        stream.read.compat(),
        stream.write.compat_write(),
        Side::Client,
        rpc_reader_options(),
    );
    let mut system = RpcSystem::new(Box::new(network), None);
    let server: registration_server::Client = system.bootstrap(Side::Server);
    let disconnect = system.get_disconnector();
    let driver = AbortOnDropHandle::new(tokio::task::spawn_local(system));

    let registered = match timeout(CALL_LIMIT, register(&server, &registration)).await {
        Ok(Ok(RegistrationAnswer::Registered(details))) => Ok(details),
        Ok(Ok(RegistrationAnswer::Refused(refusal))) => Err(RegisterError::Refused(refusal)),
        Ok(Err(error)) => Err(RegisterError::Stream(format!("{error:#}"))),
        Err(_) => Err(RegisterError::TimedOut),
    };
    let (calls, mut inbox) = mpsc::channel(1);
    let refused = registered.is_err();
    let _ = answer.send(registered.map(|details| Session { details, calls }));
    while !refused && let Some(call) = inbox.recv().await {
        match call {
            Call::ReportConfiguration { json, done } => {
                let _ = done.send(in_time(CALL_LIMIT, report(&server, &json)).await);
            }
            Call::Unregister { limit, done } => {
                let _ = done.send(in_time(limit, unregister(&server)).await);
            }
        }
    }
    drop(server);
    // Ends with an Abort message and the end of the stream, as the reference client does.
    if timeout(CALL_LIMIT, disconnect).await.is_err() {
        debug!("the control stream did not close in time");
    }
    drop(driver);
}

/// Serves an RPC stream that the edge has opened to push a configuration, until the edge ends it or is
/// silent for too long. Runs on the thread that calls it.
pub async fn serve_configuration(stream: Stream, pushes: Pushes) -> anyhow::Result<()> {
    let mut limits = rpc_reader_options();
    limits.traversal_limit_in_words(Some(LARGEST_PUSH_WORDS));
    let network =
        twoparty::VatNetwork::new(stream.read.compat(), stream.write.compat_write(), Side::Server, limits);
    let desk = ConfigurationDesk { pushes, calls: Cell::new(0) };
    let client: configuration_manager::Client = capnp_rpc::new_client(desk);
    let system = RpcSystem::new(Box::new(network), Some(client.client));
    timeout(PUSH_LIMIT, system).await.context("an RPC stream took too long")?.context("RPC stream")
}

/// The capability that the edge gets on such a stream.
struct ConfigurationDesk {
    pushes: Pushes,
    calls: Cell<u32>,
}

impl configuration_manager::Server for ConfigurationDesk {
    async fn update_configuration(
        self: Rc<Self>,
        params: UpdateConfigurationParams,
        mut results: UpdateConfigurationResults,
    ) -> Result<(), capnp::Error> {
        self.calls.set(self.calls.get().saturating_add(1));
        if self.calls.get() > MOST_PUSHES {
            return Err(capnp::Error::failed("too many calls on one stream".to_owned()));
        }
        let read = Configuration::read(params.get()?);
        let Configuration { version, config } =
            read.map_err(|error| capnp::Error::failed(error.to_string()))?;
        let PushVerdict { version, error } = self.pushes.push(version, config.into()).await;
        let answer = ConfigurationAnswer { latest_applied_version: version, error };
        answer.write(results.get().init_result());
        Ok(())
    }
}

/// 2 MiB: the largest configuration, its frame, and reading it once.
const LARGEST_PUSH_WORDS: usize = 2 * 1024 * 1024 / 8;
/// How long one stream may be used, the building of generations included.
const PUSH_LIMIT: Duration = Duration::from_secs(10 * 60);
/// Configurations pushed on one stream.
const MOST_PUSHES: u32 = 64;

async fn in_time(limit: Duration, call: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    timeout(limit, call).await.context("no answer in time")?
}

async fn register(
    server: &registration_server::Client,
    registration: &Registration,
) -> anyhow::Result<RegistrationAnswer> {
    let mut request = server.register_connection_request();
    registration.write(request.get());
    let response = request.send().promise.await?;
    Ok(RegistrationAnswer::read(response.get()?.get_result()?)?)
}

async fn report(server: &registration_server::Client, json: &[u8]) -> anyhow::Result<()> {
    let mut request = server.update_local_configuration_request();
    request.get().set_config(json);
    request.send().promise.await?;
    Ok(())
}

async fn unregister(server: &registration_server::Client) -> anyhow::Result<()> {
    server.unregister_connection_request().send().promise.await?;
    Ok(())
}
