//! How clients of the edge's own listeners are let in: so many at once, each served by a task of its own. Knows
//! sockets; does not know what is spoken on them. Visitors and connectors have listeners of their own.

use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

/// Who is let in, for messages, and how many of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clients {
    pub(crate) whose: &'static str,
    /// Connections at once; further ones wait in the system's queue.
    pub(crate) most: usize,
    /// How long the last answers may take once there are to be no more.
    pub(crate) farewell: Duration,
}

impl Clients {
    /// Hands every client to `converse` until `stop`.
    pub(crate) async fn serve<F>(
        self,
        socket: net::TcpListener,
        stop: CancellationToken,
        converse: impl Fn(TcpStream, SocketAddr) -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { whose, most, farewell } = self;
        let socket = TcpListener::from_std(socket).with_context(|| format!("listening for {whose}"))?;
        let permits = Arc::new(Semaphore::new(most));
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = async {
                    let permit = permits.clone().acquire_owned().await;
                    (socket.accept().await, permit)
                } => accepted,
            };
            match accepted {
                (Ok((stream, address)), permit) => {
                    let conversation = converse(stream, address);
                    connections.spawn(async move {
                        conversation.await;
                        drop(permit);
                    });
                }
                (Err(error), _) => {
                    warn!(%error, "cannot accept {whose}");
                    sleep(AFTER_ERROR).await;
                }
            }
        }
        connections.close();
        // The last answer may be on its way; a connection that only waits is no reason to wait.
        let _ = timeout(farewell, connections.wait()).await;
        Ok(())
    }
}

/// Mostly there is no file descriptor left, and a while later there is.
const AFTER_ERROR: Duration = Duration::from_millis(100);
