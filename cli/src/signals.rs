//! What stops a running command: SIGINT or SIGTERM once for a clean stop, twice for an end at once.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use adit_host::revision::Reload;
use adit_host::revision::history::Source;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::telemetry;
use crate::tunnel::go_duration;

/// The usual exit code of a process that a signal ended: 128 and SIGINT's number.
const INTERRUPTED: i32 = 130;

/// Cancels `stop` at the first signal and ends the process at the second, as long as the handle lives.
/// `with_stdin`: the end of standard input is a signal too, so that a parent's end is never missed.
pub(crate) fn watch(stop: CancellationToken, with_stdin: bool) -> std::io::Result<AbortOnDropHandle<()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::select! {
            () = either(&mut interrupt, &mut terminate) => {}
            () = end_of_stdin(), if with_stdin => {}
        }
        info!("stopping; once more ends it at once");
        stop.cancel();
        either(&mut interrupt, &mut terminate).await;
        warn!("ended at once");
        // Not without having said so.
        tokio::time::sleep(telemetry::GATHER * 2).await;
        std::process::exit(INTERRUPTED);
    })))
}

/// Reloads at every SIGHUP, as long as the handle lives. The verdict is in the log.
pub(crate) fn reload_on_hangup(reload: Reload) -> std::io::Result<AbortOnDropHandle<()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reload.reread(Source::Signal).await;
        }
    })))
}

/// Says at every SIGHUP that nothing is read again, as long as the handle lives; without that it would end the
/// process.
pub(crate) fn nothing_reloads() -> std::io::Result<AbortOnDropHandle<()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            warn!("SIGHUP changes nothing: an edge reads its configuration when it starts");
        }
    })))
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Takes the reference's commands from standard input: `reconnect`, with a time after it or without.
pub(crate) fn commands_on_stdin(reconnect: impl Fn(Duration) + Send + 'static) {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(std::io::stdin());
        let mut line = String::new();
        // What is longer is no command.
        while lines.by_ref().take(LONGEST_COMMAND).read_line(&mut line).is_ok_and(|length| length > 0) {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("reconnect"), None) => reconnect(Duration::ZERO),
                (Some("reconnect"), Some(delay)) => match go_duration(delay) {
                    Some(delay) => reconnect(delay),
                    None => warn!("standard input: `{}` is no time such as 30s", delay.escape_debug()),
                },
                (None, _) => {}
                (Some(_), _) => info!("standard input takes: reconnect [time]"),
            }
            line.clear();
        }
    });
}

/// Bytes.
const LONGEST_COMMAND: u64 = 1024;

/// A thread of its own waits, because a runtime would not end before its read does.
async fn end_of_stdin() {
    let (ended, end) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(ended);
    });
    let _ = end.await;
}
