//! The name server with its sockets, and the look at the nodes that it names.

use std::net;
use std::sync::Arc;

use adit_net::admission::Admission;
use adit_net::outbound::Client;
use tokio_util::sync::CancellationToken;

use crate::dns::serve::NameServer;

pub(super) struct Names {
    pub(super) server: NameServer,
    /// Asks the nodes how they are.
    pub(super) client: Client,
    pub(super) udp: net::UdpSocket,
    pub(super) tcp: net::TcpListener,
    pub(super) room: Arc<Admission>,
}

impl Names {
    pub(super) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { server, client, udp, tcp, room } = self;
        let nodes = server.nodes.clone().keep(server.terms.nodes.clone(), client, stop.clone());
        let (served, ()) = tokio::join!(server.run(udp, tcp, room, stop), nodes);
        served
    }
}
