//! A real name server on loopback with the zone `test.`, over UDP, TCP and TLS.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr::rdata::{A, AAAA, SOA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record};
use hickory_server::Server;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneHandler, ZoneType};
use rustls::RootCertStore;
use tokio::net::{TcpListener, UdpSocket};

pub(super) struct NameServer {
    pub(super) address: SocketAddr,
    pub(super) tls: SocketAddr,
    /// What a client must believe to use TLS; the name is `dns.test`.
    pub(super) roots: RootCertStore,
    zone: Arc<InMemoryZoneHandler>,
    server: Server<Catalog>,
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

impl NameServer {
    /// Serves these lines: `NAME SRV PRIORITY WEIGHT PORT TARGET` or `NAME IP`. Names are absolute.
    pub(super) async fn start(lines: &[&str]) -> Self {
        let zone: InMemoryZoneHandler =
            InMemoryZoneHandler::empty(name("test."), ZoneType::Primary, AxfrPolicy::Deny);
        let authority = SOA::new(name("ns.test."), name("admin.test."), 1, 60, 60, 60, 60);
        zone.upsert(Record::from_rdata(name("test."), 60, RData::SOA(authority)), 1).await;
        let zone = Arc::new(zone);
        let mut catalog = Catalog::new();
        catalog.upsert(name("test.").into(), vec![zone.clone() as Arc<dyn ZoneHandler>]);
        let mut server = Server::new(catalog);

        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            // The same port may be taken for TCP.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        server.register_socket(udp);
        server.register_listener(tcp, PATIENCE, 4096);

        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["dns.test".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key.into())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tls = listener.local_addr().unwrap();
        server.register_tls_listener_with_tls_config(listener, PATIENCE, Arc::new(config)).unwrap();

        let started = Self { address, tls, roots, zone, server };
        for line in lines {
            started.add(line).await;
        }
        started
    }

    /// Serves one more line.
    pub(super) async fn add(&self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let (owner, data) = match words[..] {
            [owner, "SRV", priority, weight, port, target] => {
                let [priority, weight, port] = [priority, weight, port].map(|it| it.parse().unwrap());
                (owner, RData::SRV(SRV::new(priority, weight, port, name(target))))
            }
            [owner, ip] => match ip.parse().unwrap() {
                IpAddr::V4(ip) => (owner, RData::A(A(ip))),
                IpAddr::V6(ip) => (owner, RData::AAAA(AAAA(ip))),
            },
            _ => panic!("{line}"),
        };
        assert!(self.zone.upsert(Record::from_rdata(name(owner), 60, data), 1).await, "{line}");
    }

    pub(super) async fn stop(mut self) {
        self.server.shutdown_gracefully().await.unwrap();
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
