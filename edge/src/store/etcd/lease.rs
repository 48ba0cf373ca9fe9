//! A record that goes with whoever holds it: etcd removes it some seconds after it was heard of last. Knows leases; does
//! not know what is held. It is a slow hint and never the judge of who is alive.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::client::{Client, Failure, PATIENCE, TXN};
use super::messages::{
    LeaseGrant, LeaseGranted, LeaseKeepAlive, LeaseKept, LeaseRevoke, LeaseRevoked, PutRequest, Request,
    TxnRequest, TxnResponse,
};

/// Holds a record until `stop`, through whatever becomes of etcd meanwhile.
pub(super) async fn hold(client: Arc<Client>, key: String, value: Bytes, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let pause = tokio::select! {
            () = stop.cancelled() => return,
            granted = grant(&client, &key, &value) => match granted {
                Ok(lease) => {
                    keep(&client, lease, &stop).await;
                    if stop.is_cancelled() {
                        let question = LeaseRevoke { id: lease };
                        let revoke = client.ask::<_, LeaseRevoked>(REVOKE, &question, PATIENCE);
                        if !matches!(timeout(LAST, revoke).await, Ok(Ok(_))) {
                            debug!(key, "a record that is held goes by itself in some seconds");
                        }
                        return;
                    }
                    SHORT
                }
                Err(failure) => {
                    let error = client.store_error(failure);
                    warn!(%error, key, "a record cannot be held now");
                    LONG
                }
            },
        };
        // Not all edges at the same moment.
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(pause.mul_f64(0.5 + fastrand::f64())) => {}
        }
    }
}

/// A new lease with the record on it.
async fn grant(client: &Client, key: &str, value: &Bytes) -> Result<i64, Failure> {
    let seconds = i64::try_from(LIFE.as_secs()).unwrap_or(i64::MAX);
    let granted: LeaseGranted = client.ask(GRANT, &LeaseGrant { ttl: seconds, id: 0 }, PATIENCE).await?;
    let put = PutRequest { key: client.keys.record(key).into(), value: value.clone(), lease: granted.id };
    let question = TxnRequest { success: vec![Request::Put(put).into()], ..TxnRequest::default() };
    let _: TxnResponse = client.ask(TXN, &question, PATIENCE).await?;
    Ok(granted.id)
}

/// Until it is over, or `stop`.
async fn keep(client: &Client, lease: i64, stop: &CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(LIFE / 3) => {}
        }
        // A stream of one question, which is all that it takes.
        let question = LeaseKeepAlive { id: lease };
        let kept = client.ask::<_, LeaseKept>(KEEP, &question, PATIENCE);
        let kept = tokio::select! {
            () = stop.cancelled() => return,
            kept = kept => kept,
        };
        match kept {
            Ok(kept) if kept.ttl > 0 => {}
            Ok(_) => return,
            Err(failure) => {
                // Whether it is still there is asked again.
                let error = client.store_error(failure);
                debug!(%error, "a lease cannot be kept now");
            }
        }
    }
}

const GRANT: &str = "Lease/LeaseGrant";
const KEEP: &str = "Lease/LeaseKeepAlive";
const REVOKE: &str = "Lease/LeaseRevoke";
/// How long a record outlives whoever held it.
const LIFE: Duration = Duration::from_secs(15);
const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(5);
/// How long whoever ends waits for its record to go.
const LAST: Duration = Duration::from_secs(2);
