//! A registered connection from the moment at which it serves to its end: what becomes of it and how it
//! finishes. Does not know why it came about, or what comes after it.

use std::future::pending;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{Instrument, info, warn};

use super::connection::{Connection, Dialer};
use super::control::Session;
use super::handler::Handler;
use super::notice::Notices;
use super::slot::Shared;
use super::status::QuicPath;
use super::suspicion::{Ended, FailureDetector, PeerHealth};
use crate::proxy::Proxy;

/// How often a connection is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long an edge may take to acknowledge that a connection leaves.
const UNREGISTER_LIMIT: Duration = Duration::from_secs(5);

/// A connection that serves.
pub struct RegisteredConnection {
    pub edge: SocketAddr,
    connection: Rc<Connection>,
    session: Rc<Session>,
    handler: Rc<Handler>,
    requests: TaskTracker,
    /// Moves requests from the connection to the handler.
    task: AbortOnDropHandle<Ended>,
    watch: FailureDetector,
    is_suspect: bool,
    /// Done when the edge's machine says that nobody listens there any more.
    knock: Option<AbortOnDropHandle<()>>,
    dialer: Dialer,
    /// Cancelled by the edge's word that it goes away.
    leave: CancellationToken,
    has_left: bool,
    retired: CancellationToken,
}

/// What there is to say about a connection that serves.
pub enum ConnectionEvent {
    Ended(Ended),
    Suspect,
    Recovered,
    ToldToLeave,
    /// Nothing in particular; time has passed.
    Well,
}

impl RegisteredConnection {
    /// Begins to serve, on the thread of the shard.
    pub fn begin(
        slot: usize,
        shared: &Arc<Shared>,
        proxy: &Rc<Proxy>,
        (connection, session): (Connection, Session),
        edge: SocketAddr,
    ) -> Self {
        let (leave, retired) = (CancellationToken::new(), CancellationToken::new());
        let notices = Notices::new(shared.clone(), proxy.clone(), slot, leave.clone(), retired.clone());
        let (connection, session) = (Rc::new(connection), Rc::new(session));
        let whose = Rc::downgrade(&connection);
        let round_trip = Box::new(move || Some(whose.upgrade()?.traffic().round_trip));
        let handler = Rc::new(Handler::new(proxy.clone(), notices, slot, shared.clone(), round_trip));
        let requests = TaskTracker::new();
        let report = report(slot, shared.clone(), session.clone());
        let task = {
            let (connection, handler, requests) = (connection.clone(), handler.clone(), requests.clone());
            async move {
                let serve = async { connection.serve(&handler, &requests).await };
                let mut serve = std::pin::pin!(serve);
                tokio::select! {
                    ended = &mut serve => return ended,
                    () = report => {}
                }
                serve.await
            }
        };
        let task = AbortOnDropHandle::new(tokio::task::spawn_local(task.in_current_span()));
        Self {
            edge,
            connection,
            session,
            handler,
            requests,
            task,
            watch: FailureDetector::default(),
            is_suspect: false,
            knock: None,
            dialer: shared.dialer.clone(),
            leave,
            has_left: false,
            retired,
        }
    }

    pub fn path(&self) -> Option<QuicPath> {
        self.connection.path()
    }

    pub fn protocol(&self) -> &'static str {
        self.connection.transport().name()
    }

    /// Waits for something to say. May be dropped midway.
    pub async fn sign(&mut self) -> ConnectionEvent {
        tokio::select! {
            biased;
            ended = &mut self.task => {
                return ConnectionEvent::Ended(ended.unwrap_or_else(|_| Ended {
                    reason: "the connection's task failed".to_owned(),
                    is_reset: false,
                }));
            }
            () = self.leave.cancelled(), if !self.has_left => {
                self.has_left = true;
                return ConnectionEvent::ToldToLeave;
            }
            () = knocked(&mut self.knock), if !self.is_suspect => {
                self.is_suspect = true;
                return ConnectionEvent::Suspect;
            }
            () = sleep(LOOK_EVERY) => {}
        }
        let was_suspect = self.is_suspect;
        match self.watch.look(self.connection.traffic(), Instant::now().into_std()) {
            PeerHealth::Well => (self.is_suspect, self.knock) = (false, None),
            PeerHealth::Uneasy if self.knock.is_none() => {
                let (dialer, edge, transport) = (self.dialer.clone(), self.edge, self.connection.transport());
                let knock = async move { dialer.refusal(transport, edge).await };
                self.knock = Some(AbortOnDropHandle::new(tokio::task::spawn_local(knock)));
            }
            PeerHealth::Uneasy => {}
            PeerHealth::Suspect => self.is_suspect = true,
        }
        match (was_suspect, self.is_suspect) {
            (false, true) => ConnectionEvent::Suspect,
            (true, false) => ConnectionEvent::Recovered,
            _ => ConnectionEvent::Well,
        }
    }

    /// Unregisters, so that the edge sends nothing new; what it opened before it said that it knows is still
    /// served, and what comes later is turned away unread. Then lets what runs finish, for `grace` at most,
    /// and closes. The edge may close earlier.
    pub async fn finish(mut self, grace: Duration) {
        self.retired.cancel();
        let finish = async {
            if let Err(error) = self.session.unregister(UNREGISTER_LIMIT.min(grace)).await {
                info!(edge = %self.edge, error = format!("{error:#}"), "the edge did not take the word that this connection leaves");
            }
            self.handler.refuse();
            self.connection.leave();
            self.requests.close();
            self.requests.wait().await;
        };
        let mut is_cut = false;
        tokio::select! {
            _ = &mut self.task => {}
            finished = timeout(grace, finish) => if finished.is_err() {
                is_cut = true;
                warn!(edge = %self.edge, open = self.requests.len(), "requests were cut off at the end of the grace period");
            },
        }
        // Ends the control stream.
        drop(self.session);
        self.connection.close(is_cut).await;
    }
}

async fn knocked(knock: &mut Option<AbortOnDropHandle<()>>) {
    if let Some(knock) = knock
        && knock.await.is_ok()
    {
        return;
    }
    // One that failed says nothing.
    pending().await
}

/// Tells the edge what this host serves; once per connection of slot 0.
async fn report(slot: usize, shared: Arc<Shared>, session: Rc<Session>) {
    if slot != 0 || session.details.tunnel_is_remotely_managed {
        return;
    }
    let counts = shared.status.counts();
    match session.report_configuration(shared.reported.clone()).await {
        Ok(()) => drop(counts.reported.fetch_add(1, Ordering::Relaxed)),
        Err(error) => {
            counts.unreported.fetch_add(1, Ordering::Relaxed);
            warn!(error = format!("{error:#}"), "the edge did not take the report of the configuration");
        }
    }
}
