//! The other nodes of the fleet on the page of metrics: as many rows as there are nodes.

use adit_metrics::{Kind, Page, number};

use crate::peers::PeerFigures;

pub(super) fn write(page: &mut Page, all: &[PeerFigures]) {
    let name = "adit_edge_peer_connected";
    page.family(name, Kind::Gauge, "1 while requests can be handed to another node of the fleet");
    for one in all {
        let connected = if one.is_connected { 1.0 } else { 0.0 };
        page.sample(name, &[("node", &one.name), ("region", &one.region)], connected);
    }
    let name = "adit_edge_peer_silent_seconds";
    page.family(name, Kind::Gauge, "How long nothing was heard of what another node has");
    for one in all {
        page.sample(name, &[("node", &one.name)], one.silent.as_secs_f64());
    }
    let name = "adit_edge_peer_requests_total";
    page.family(name, Kind::Counter, "Requests that were handed to another node, by what became of them");
    for one in all {
        for (outcome, count) in one.peer.tally.counts() {
            page.sample(name, &[("node", &one.name), ("outcome", outcome)], number(count));
        }
    }
    let name = "adit_edge_peer_bytes_total";
    page.family(name, Kind::Counter, "Bytes on the connections that this node has made to another one");
    for one in all {
        let (sent, received) = one.peer.volume.read();
        page.sample(name, &[("node", &one.name), ("direction", "sent")], number(sent));
        page.sample(name, &[("node", &one.name), ("direction", "received")], number(received));
    }
}
