//! Which edges are well, as they say themselves: their `/ready` is asked again and again. Knows HTTP; does not know what
//! is answered about them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adit_net::outbound::{Client, Target};
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Node;

/// How each node was found last; one that was not asked yet is taken for well.
#[derive(Clone)]
pub(crate) struct Nodes(Arc<[AtomicBool]>);

impl Nodes {
    pub(crate) fn new(count: usize) -> Self {
        Self((0..count).map(|_| AtomicBool::new(true)).collect())
    }

    pub(crate) fn are_up(&self) -> Vec<bool> {
        self.0.iter().map(|is_up| is_up.load(Ordering::Relaxed)).collect()
    }

    /// Asks until `stop`.
    pub(crate) async fn keep(self, nodes: Vec<Node>, client: Client, stop: CancellationToken) {
        let mut asking = JoinSet::new();
        for (index, node) in nodes.into_iter().enumerate() {
            let Some(url) = node.probe.and_then(|probe| probe.parse::<Uri>().ok()) else { continue };
            let (nodes, client, region) = (self.clone(), client.clone(), node.region);
            asking.spawn(async move {
                let mut ticks = interval(EVERY);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    let is_up = is_ready(&client, &url).await;
                    if nodes.0[index].swap(is_up, Ordering::Relaxed) != is_up {
                        let probe = url.to_string();
                        match is_up {
                            true => info!(region, probe, "an edge is back in the answers about names"),
                            false => warn!(
                                region,
                                probe, "an edge is not ready, and left out of answers about names"
                            ),
                        }
                    }
                }
            });
        }
        stop.cancelled().await;
    }
}

async fn is_ready(client: &Client, url: &Uri) -> bool {
    let Ok(target) = Target::of(url) else { return false };
    let Ok(request) = Request::get(url.clone()).body(Empty::<Bytes>::new()) else { return false };
    // The operator has named it, wherever it is.
    let answer = client.exchange(&target, request, |_| true, PATIENCE).await;
    answer.is_ok_and(|exchange| exchange.response.status() == StatusCode::OK)
}

const EVERY: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_millis(500);
/// Nodes that can be named; each is asked by itself.
pub(crate) const MOST_NODES: usize = 64;
