//! What systemd is told (sd_notify(3)): of a host when it is ready, that it reloads or stops, how many of its
//! connections serve, and that it lives; of an edge when it serves, that it stops and that it lives. Says nothing
//! without `NOTIFY_SOCKET`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use adit_edge::Watchdog;
use adit_host::Host;
use adit_host::health::Health;
use sd_notify::NotifyState;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How often it is looked whether there is anything new to say.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What may wait for systemd, which reads nothing while it is busy with itself.
const MOST_MESSAGES: usize = 16;

/// Tells systemd about a host that `stop` stops, as long as the answer lives.
pub(crate) fn watch(host: &mut Host, stop: CancellationToken) -> io::Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(tasks) };
    let notifier = Notifier::start(socket)?;
    let is_ready = Arc::new(AtomicBool::new(false));
    let (was_ready, reloads) = (is_ready.clone(), notifier.clone());
    host.observe_reloads(move |begins| {
        // Before the start is complete there is nothing that could be reloaded.
        if !was_ready.load(Ordering::Relaxed) {
            return;
        }
        match NotifyState::monotonic_usec_now() {
            Ok(now) if begins => reloads.tell(&[NotifyState::Reloading, now]),
            Ok(_) | Err(_) => reloads.tell(&[NotifyState::Ready]),
        }
    });
    let health = host.health(stop);
    if let Some(limit) = sd_notify::watchdog_enabled() {
        tasks.spawn(feed_watchdog(health.clone(), limit / 2, notifier.clone()));
    }
    tasks.spawn(report(health, is_ready, notifier));
    Ok(tasks)
}

/// Tells systemd about an edge that `stop` stops, as long as the answer lives.
pub(crate) fn watch_edge(watchdog: Watchdog, stop: CancellationToken) -> io::Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(tasks) };
    let notifier = Notifier::start(socket)?;
    if let Some(limit) = sd_notify::watchdog_enabled() {
        tasks.spawn(feed_for_edge(watchdog.clone(), limit / 2, notifier.clone()));
    }
    tasks.spawn(async move {
        if stop.run_until_cancelled(watchdog.started()).await.is_some() {
            notifier.tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
            stop.cancelled().await;
        }
        notifier
            .tell(&[NotifyState::Stopping, NotifyState::Status("stopping: requests under way are finished")]);
    });
    Ok(tasks)
}

/// Feeds the watchdog for as long as every shard answers.
async fn feed_for_edge(watchdog: Watchdog, every: Duration, notifier: Notifier) {
    // Before that no shard answers, and systemd does not count yet.
    watchdog.started().await;
    let every = every.max(Duration::from_millis(1));
    let mut clock = interval(every);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let silent = watchdog.silent(every).await;
        if silent.is_empty() {
            notifier.tell(&[NotifyState::Watchdog]);
        } else {
            warn!(shards = ?silent, "the watchdog is not fed");
        }
    }
}

/// Says what has changed, until the host was asked to stop.
async fn report(health: Health, is_ready: Arc<AtomicBool>, notifier: Notifier) {
    let mut said = String::new();
    let mut clock = interval(LOOK_EVERY);
    while health.stop.run_until_cancelled(clock.tick()).await.is_some() {
        let (serving, all) = health.connections();
        let status = format!("{serving} of {all} connections to the edge serve");
        // Origins do not count: a start that waits for one would be taken for a failed one.
        if serving >= health.wanted && !is_ready.swap(true, Ordering::Relaxed) {
            notifier.tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
        } else if status != said {
            notifier.tell(&[NotifyState::Status(&status)]);
        }
        said = status;
    }
    notifier.tell(&[NotifyState::Stopping, NotifyState::Status("stopping: requests under way are finished")]);
}

/// Feeds the watchdog for as long as every thread that serves requests answers.
async fn feed_watchdog(health: Health, every: Duration, notifier: Notifier) {
    let mut clock = interval(every.max(Duration::from_millis(1)));
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let life = health.life().await;
        if life.alive {
            notifier.tell(&[NotifyState::Watchdog]);
        } else {
            warn!(shards = ?life.shards, "the watchdog is not fed");
        }
    }
}

/// Hands messages to a thread of their own, which may have to wait.
#[derive(Clone)]
struct Notifier(SyncSender<String>);

impl Notifier {
    fn start(socket: OsString) -> io::Result<Self> {
        let (messages, inbox) = sync_channel::<String>(MOST_MESSAGES);
        thread::Builder::new().name("systemd".into()).spawn(move || {
            while let Ok(message) = inbox.recv() {
                if let Err(error) = send(&socket, &message) {
                    warn!(%error, "systemd could not be told");
                }
            }
        })?;
        Ok(Self(messages))
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        let lines: Vec<String> = state.iter().map(ToString::to_string).collect();
        if self.0.try_send(lines.join("\n")).is_err() {
            warn!("systemd does not listen");
        }
    }
}

/// The name of the socket begins with `@` where it is in no file system; sd-notify does not know that.
fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => in_no_file_system(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    sender.send_to_addr(message.as_bytes(), &address).map(drop)
}

#[cfg(target_os = "linux")]
fn in_no_file_system(name: &[u8]) -> io::Result<SocketAddr> {
    <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn in_no_file_system(_name: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}
