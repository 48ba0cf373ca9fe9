//! Taking connections off a listener, whatever goes wrong with one of them. Knows sockets; does not know
//! what is spoken on them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::admission::Admission;
use crate::log_limiter::LogLimiter;

/// The next connection of `whose`, however long it takes. Where the system has no room for one more,
/// somebody in `admission` has to go. May be dropped midway: no connection is lost.
pub async fn next(
    listener: &TcpListener,
    whose: &str,
    admission: Option<&Admission>,
) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // Small answers must not wait for an acknowledgement; a refusal costs only time.
                let _ = stream.set_nodelay(true);
                return (stream, address);
            }
            Err(error) if is_about_one_peer(&error) => debug!(%error, whose, "left before it was accepted"),
            Err(error) => {
                if let Some(unlogged) = FAILURES.take() {
                    warn!(%error, whose, unlogged, "cannot accept a connection");
                }
                if let Some(admission) = admission {
                    admission.relieve();
                }
                sleep(AFTER_ERROR).await;
            }
        }
    }
}

/// accept(2): these say that one connection is gone already, not that something is wrong here.
fn is_about_one_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::InvalidInput
    )
}

/// Mostly there is no file descriptor left, and a while later there is.
const AFTER_ERROR: Duration = Duration::from_millis(20);
static FAILURES: LogLimiter = LogLimiter::new(1);
