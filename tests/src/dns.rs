//! A real name server on loopback that knows where edge servers are. Knows no promise.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hickory_server::Server;
use hickory_server::proto::rr::rdata::{A, SOA, SRV};
use hickory_server::proto::rr::{Name, RData, Record};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneHandler, ZoneType};
use tokio::net::UdpSocket;

/// Serves the zone `test.` until it is dropped.
pub struct NameServer {
    pub address: SocketAddr,
    zone: Arc<InMemoryZoneHandler>,
    _server: Server<Catalog>,
}

impl NameServer {
    /// Knows no edge yet.
    pub async fn start() -> Self {
        let zone: InMemoryZoneHandler =
            InMemoryZoneHandler::empty(name("test"), ZoneType::Primary, AxfrPolicy::Deny);
        let authority = SOA::new(name("ns.test"), name("admin.test"), 1, 60, 60, 60, 60);
        zone.upsert(Record::from_rdata(name("test"), 60, RData::SOA(authority)), 1).await;
        let zone = Arc::new(zone);
        let mut catalog = Catalog::new();
        catalog.upsert(name("test").into(), vec![zone.clone() as Arc<dyn ZoneHandler>]);
        let mut server = Server::new(catalog);
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback binds");
        let address = socket.local_addr().expect("a bound socket has an address");
        server.register_socket(socket);
        Self { address, zone, _server: server }
    }

    /// Tells of an edge at `domain` with these servers on loopback: a region and a port each.
    pub async fn add_edge(&self, domain: &str, servers: &[(&str, u16)]) {
        let service = format!("_v2-origintunneld._tcp.{domain}");
        for (region, port) in servers {
            let target = format!("{region}.{domain}");
            // The second server of a region adds no address.
            self.add(&target, RData::A(A(Ipv4Addr::LOCALHOST))).await;
            self.add(&service, RData::SRV(SRV::new(1, 1, *port, name(&target)))).await;
        }
    }

    async fn add(&self, owner: &str, data: RData) {
        self.zone.upsert(Record::from_rdata(name(owner), 60, data), 1).await;
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).expect("tests write names")
}
