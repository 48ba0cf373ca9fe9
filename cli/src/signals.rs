//! What stops a running command: SIGINT or SIGTERM once for a clean stop, twice for an end at once.

use adit_host::history::Source;
use adit_host::reload::Reload;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::telemetry;

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

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// A thread of its own waits, because a runtime would not end before its read does.
async fn end_of_stdin() {
    let (ended, end) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(ended);
    });
    let _ = end.await;
}
