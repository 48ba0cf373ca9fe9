//! Buckets that plugins of several hosts share, at a server of Redis's protocol: connections that are used again, a
//! deadline for each operation, and a word in the log when the server is away and when it is back. Does not know who
//! asks, nor what becomes of a request without an answer.

mod connection;
mod resp;
mod scripts;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use adit_engine::{Away, BucketAnswer, BucketCall, BucketServer};
use adit_rules::bucket_server::BucketServerPlan;
use rustls::ClientConfig;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tracing::{info, warn};

use connection::{Beginning, Connection};

/// Connections to the server, of all shards; operations beyond them wait.
const MOST_CONNECTIONS: usize = 16;
/// After a connection in vain nobody tries another one for so long.
const REST: Duration = Duration::from_millis(500);
/// A reason is cut to what a person reads, bytes.
const LONGEST_REASON: usize = 200;

/// The server that a document names, as all shards and plugins of the process use it.
pub(crate) struct Server {
    beginning: Beginning,
    room: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Connections that nobody uses, with the thread that sees to their sockets.
    idle: Vec<(ThreadId, Connection)>,
    /// Why the last one was in vain, and until when nobody tries again.
    away: Option<(Away, Instant)>,
}

impl Server {
    /// `tls` is for a server whose plan says so.
    pub(crate) fn new(
        plan: BucketServerPlan,
        password: Option<Vec<u8>>,
        tls: Option<Arc<ClientConfig>>,
    ) -> Self {
        let beginning = Beginning { plan, password, tls };
        Self { beginning, room: Semaphore::new(MOST_CONNECTIONS), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, call: BucketCall) -> Result<BucketAnswer, Away> {
        let plan = &self.beginning.plan;
        let command = scripts::command(&plan.prefix, &call);
        let asked = timeout(plan.timeout, async {
            let (mut connection, permit) = self.connection().await?;
            let reply = connection.ask(&command).await.map_err(|error| away(&error))?;
            Ok((reply, connection, permit))
        });
        let late = |_| Err(Away { reason: format!("no answer within {:?}", plan.timeout) });
        let (reply, connection, permit) = match asked.await.unwrap_or_else(late) {
            Ok(asked) => asked,
            Err(away) => {
                self.missed(&away, REST);
                return Err(away);
            }
        };
        let answer = scripts::answer(&call.operation, reply);
        self.keep(connection);
        drop(permit);
        match &answer {
            Ok(_) => self.came(),
            // It is there, and may do what somebody else wants.
            Err(away) => self.missed(away, Duration::ZERO),
        }
        answer
    }

    /// One that nobody else uses: of this thread, or a new one.
    async fn connection(&self) -> Result<(Connection, SemaphorePermit<'_>), Away> {
        if let Some((away, until)) = &self.state().away
            && Instant::now() < *until
        {
            return Err(away.clone());
        }
        let closed = |_| Away { reason: "nobody is let in any more".to_owned() };
        let permit = self.room.acquire().await.map_err(closed)?;
        let here = std::thread::current().id();
        loop {
            let found = {
                let mut state = self.state();
                let at = state.idle.iter().rposition(|(thread, _)| *thread == here);
                at.map(|at| state.idle.swap_remove(at).1)
            };
            let Some(mut connection) = found else { break };
            if !connection.is_stale().await {
                return Ok((connection, permit));
            }
        }
        let opened = Connection::open(&self.beginning).await.map_err(|error| away(&error))?;
        Ok((opened, permit))
    }

    fn keep(&self, connection: Connection) {
        let mut state = self.state();
        if state.idle.len() >= MOST_CONNECTIONS {
            // Those of other threads may have been used long ago.
            state.idle.remove(0);
        }
        state.idle.push((std::thread::current().id(), connection));
    }

    /// The server has done what it was asked.
    fn came(&self) {
        let was_away = self.state().away.take();
        if was_away.is_some() {
            let BucketServerPlan { host, port, .. } = &self.beginning.plan;
            info!(host, port, "the server of shared buckets is back");
        }
    }

    /// It has not; for so long nobody tries again.
    fn missed(&self, away: &Away, rest: Duration) {
        let mut state = self.state();
        let now = Instant::now();
        let is_known = state.away.as_ref().is_some_and(|(_, until)| now < *until);
        let was_away = state.away.is_some();
        if !is_known {
            state.away = Some((away.clone(), now + rest));
        }
        drop(state);
        if !was_away {
            let BucketServerPlan { host, port, .. } = &self.beginning.plan;
            warn!(
                host,
                port,
                reason = away.reason,
                "the server of shared buckets is away; it is asked again and again"
            );
        }
    }
}

impl BucketServer for Server {
    fn ask(&self, call: BucketCall) -> Pin<Box<dyn Future<Output = Result<BucketAnswer, Away>> + Send + '_>> {
        Box::pin(self.answer(call))
    }
}

fn away(error: &io::Error) -> Away {
    Away { reason: error.to_string().chars().take(LONGEST_REASON).collect() }
}
