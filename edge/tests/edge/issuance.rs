//! Certificates from an authority: ordered because a name leads somewhere, once by all edges of a state, and never
//! because somebody asks for a name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use http::Method;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::alerts::{END, Hook, START, TELLING};
use crate::authority::{Authority, Planned};
use crate::balancing::id;
use crate::harness::{Fixture, LocalSet, get, start_told};
use crate::names;
use crate::office::{API, Office};
use crate::shown_certificates::{client, metrics, shown, until};

const APP: &str = "app.example.com";
const YEARS: u64 = 5 * 365 * 24 * 60 * 60;

/// An edge with an authority and a tunnel.
async fn open(keys: &str, seconds: u64) -> Option<(Office, Authority, String)> {
    let planned = Planned::new()?;
    let office = Office::open_with(&planned.section(keys)).await;
    let authority = planned.start(office.edge.http, office.edge.https, seconds).await;
    let tunnel = office.create("one").await["id"].as_str().unwrap().to_owned();
    Some((office, authority, tunnel))
}

/// What the edge has from the authority for this name.
async fn issued(edge: &Fixture, name: &str) -> Option<Value> {
    let (_, page) = edge.admin("/certificates").await;
    page["issued"].as_array().unwrap().iter().find(|one| one["name"] == name).cloned()
}

async fn failing(edge: &Fixture, name: &str) -> Option<Value> {
    let (_, page) = edge.admin("/certificates").await;
    let all = page["orders"].as_array().unwrap();
    all.iter().find(|one| one["name"] == name && one["failures"].as_u64() > Some(0)).cloned()
}

/// Whether whoever asks for `visited` is shown what the edge has from the authority for `name`.
pub(crate) async fn is_shown(edge: &Fixture, name: &str, visited: &str) -> Option<Value> {
    let one = issued(edge, name).await?;
    let certificate = shown(edge.https, visited, &["h2"]).await.ok()?;
    let serial = one["serial"].as_str().unwrap();
    let hex: String = certificate.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.contains(serial).then_some(one)
}

#[tokio::test]
async fn a_route_brings_a_certificate_and_a_name_that_somebody_asks_for_brings_none() {
    LocalSet::new()
        .run_until(async {
            for kind in ["http-01", "tls-alpn-01"] {
                let Some((office, authority, tunnel)) =
                    open(&format!("challenges = [\"{kind}\"]"), YEARS).await
                else {
                    return;
                };
                for number in 0..40 {
                    let name = format!("made-up-{number}.example.com");
                    shown(office.edge.https, &name, &[]).await.unwrap();
                }
                assert_eq!(authority.orders(), 0, "{kind}");
                office.route(&tunnel, APP, false).await.result();
                let one = until(async || is_shown(&office.edge, APP, APP).await).await;
                assert_eq!(one["directory"].as_str().unwrap().split(':').next(), Some("https"));
                assert_eq!(authority.orders(), 1, "{kind}");
                // Nothing is left of what was looked for.
                let path = "/.well-known/acme-challenge/anything";
                let mut request = get(path);
                request.headers_mut().insert("host", "app.example.com".parse().unwrap());
                assert_eq!(office.edge.page(request).await.status, 530, "a visitor's request like any other");
                let error = shown(office.edge.https, "app.example.com", &["acme-tls/1"]).await;
                assert!(error.is_err(), "{kind}");
                let metrics = metrics(&office.edge).await;
                assert!(metrics.contains("adit_edge_orders_total{outcome=\"issued\"} 1"), "{metrics}");
            }
        })
        .await;
}

#[tokio::test]
async fn an_edge_that_starts_again_shows_what_was_issued_and_orders_nothing() {
    LocalSet::new()
        .run_until(async {
            let Some((mut office, authority, tunnel)) = open("", YEARS).await else { return };
            office.route(&tunnel, APP, false).await.result();
            let one = until(async || is_shown(&office.edge, APP, APP).await).await;
            let state = std::fs::read(office.edge.folder.path().join("edge-data/state.db")).unwrap();
            let is_within = |text: &[u8]| state.windows(text.len()).any(|part| part == text);
            assert!(!is_within(b"PRIVATE KEY"));
            office.edge.stop.cancel();
            let _ = (&mut office.edge.running).await;
            let document = std::fs::read_to_string(office.edge.folder.path().join("edge.toml")).unwrap();
            let acme = &document[document.find("[acme]").unwrap()..];
            office.reopen_with(acme);
            let again = until(async || is_shown(&office.edge, APP, APP).await).await;
            assert_eq!(again["serial"], one["serial"]);
            assert_eq!(authority.orders(), 1);
        })
        .await;
}

#[tokio::test]
async fn what_an_authority_says_against_a_name_is_shown_and_the_name_is_left_alone_for_a_while() {
    LocalSet::new()
        .run_until(async {
            let Some(planned) = Planned::new() else { return };
            let office = Office::open_with(&planned.section("challenges = [\"http-01\"]")).await;
            // It looks where nobody is.
            let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let authority = planned.start(nobody, office.edge.https, YEARS).await;
            let tunnel = office.create("one").await["id"].as_str().unwrap().to_owned();
            office.route(&tunnel, APP, false).await.result();
            let order = until(async || failing(&office.edge, APP).await).await;
            assert!(order["error"].as_str().unwrap().contains("connection refused"), "{order}");
            assert_eq!(order["failures"], 1, "{order}");
            let next = humantime::parse_rfc3339(order["next"].as_str().unwrap()).unwrap();
            assert!(next > std::time::SystemTime::now() + Duration::from_secs(30), "{order}");
            assert_eq!(authority.orders(), 1);
            // A name that leads nowhere any more has no order to wait for.
            let path = format!("/zones/{}/tunnels/routes/{APP}", office.zone);
            assert_eq!(office.ask(Method::DELETE, &path, None).await.status, 200);
            until(async || failing(&office.edge, APP).await.is_none().then_some(())).await;
        })
        .await;
}

/// Two edges of one state order these names; the authority looks for one of them by this challenge, whoever orders.
async fn two_edges(kind: &str, count: usize) {
    let Some(planned) = Planned::new() else { return };
    let dns = "[dns]\nlisten = \"127.0.0.1:0\"\nzones = [\"example.com\"]\nname-servers = [\"ns1.example.net\"]\n\
        [[dns.node]]\nregion = \"west\"\naddresses = [\"127.0.0.1\"]\nports = [7844]\n";
    let section = format!("{}{dns}", planned.section(&format!("challenges = [\"{kind}\"]")));
    let office = Office::open_with(&section).await;
    let other = start_told(office.edge.folder.clone(), "", &format!("{API}{section}"));
    let (http, https) = (office.edge.http, office.edge.https);
    let authority = match office.edge.dns {
        Some(server) if kind == "dns-01" => planned.start_asking(http, https, YEARS, server).await,
        _ => planned.start(http, https, YEARS).await,
    };
    let tunnel = office.create("one").await["id"].as_str().unwrap().to_owned();
    let names: Vec<String> = (0..count).map(|number| format!("n{number}.example.com")).collect();
    for name in &names {
        office.route(&tunnel, name, false).await.result();
    }
    for name in &names {
        let one = until(async || is_shown(&office.edge, name, name).await).await;
        let same = until(async || is_shown(&other, name, name).await).await;
        assert_eq!(one["serial"], same["serial"]);
    }
    // With `dns-01` the domain of tunnels is not in the zone, so that no wildcard is ordered.
    assert_eq!(authority.orders(), names.len());
}

#[tokio::test]
async fn two_edges_of_one_state_order_each_name_once_and_both_show_it() {
    LocalSet::new().run_until(two_edges("http-01", 8)).await;
}

#[tokio::test]
async fn an_edge_that_did_not_order_answers_a_look_over_tls() {
    LocalSet::new().run_until(two_edges("tls-alpn-01", 4)).await;
}

#[tokio::test]
async fn an_edge_that_did_not_order_answers_a_look_at_dns() {
    LocalSet::new().run_until(two_edges("dns-01", 4)).await;
}

#[tokio::test]
async fn what_cannot_come_to_anything_is_not_ordered_and_says_why() {
    LocalSet::new()
        .run_until(async {
            let Some((office, authority, tunnel)) = open("", YEARS).await else { return };
            office.route(&tunnel, "nowhere.example.com", false).await.result();
            let order = until(async || failing(&office.edge, "nowhere.example.com").await).await;
            let said = order["error"].as_str().unwrap();
            assert!(
                said.contains("there is no such name in DNS: lead nowhere.example.com to this edge"),
                "{said}"
            );
            assert_eq!(authority.orders(), 0);
            // Others go on.
            office.route(&tunnel, APP, false).await.result();
            until(async || is_shown(&office.edge, APP, APP).await).await;
            assert_eq!(authority.orders(), 1);
        })
        .await;
}

#[tokio::test]
async fn a_name_that_leads_to_other_addresses_is_not_ordered() {
    LocalSet::new()
        .run_until(async {
            let Some((office, authority, tunnel)) = open("addresses = [\"192.0.2.7\"]", YEARS).await else {
                return;
            };
            office.route(&tunnel, APP, false).await.result();
            let order = until(async || failing(&office.edge, APP).await).await;
            let said = order["error"].as_str().unwrap();
            assert!(said.contains("leads to 127.0.0.1, and not to this edge at 192.0.2.7"), "{said}");
            assert_eq!(authority.orders(), 0);
        })
        .await;
}

#[tokio::test]
async fn an_authority_that_wants_to_know_its_customers_is_told() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    LocalSet::new()
        .run_until(async {
            let Some(planned) = Planned::new() else { return };
            let planned = planned.of_customer("kid-1", KEY);
            let folder = Arc::new(tempfile::tempdir().unwrap());
            std::fs::write(folder.path().join("eab.key"), format!("{KEY}\n")).unwrap();
            let keys = "external-account = \"kid-1\"\nexternal-account-key-file = \"eab.key\"";
            let stranger = planned.section("");
            let office = Office::open_in_with(folder, &planned.section(keys)).await;
            let authority = planned.start(office.edge.http, office.edge.https, YEARS).await;
            let tunnel = office.create("one").await["id"].as_str().unwrap().to_owned();
            office.route(&tunnel, APP, false).await.result();
            until(async || is_shown(&office.edge, APP, APP).await).await;
            assert_eq!(authority.orders(), 1);
            let state = std::fs::read(office.edge.folder.path().join("edge-data/state.db")).unwrap();
            assert!(!state.windows(KEY.len()).any(|part| part == KEY.as_bytes()));
            // Who says nothing hears what the authority wants.
            let other = Office::open_with(&stranger).await;
            let tunnel = other.create("one").await["id"].as_str().unwrap().to_owned();
            other.route(&tunnel, APP, false).await.result();
            let order = until(async || failing(&other.edge, APP).await).await;
            let said = order["error"].as_str().unwrap();
            assert!(
                said.contains("externalAccount") || said.to_lowercase().contains("external account"),
                "{said}"
            );
        })
        .await;
}

#[tokio::test]
async fn the_control_api_has_a_certificate_of_the_authority() {
    LocalSet::new()
        .run_until(async {
            let Some(planned) = Planned::new() else { return };
            let own = "certificate = \"acme\"\nhostname = \"api.example.com\"\n";
            let folder = Arc::new(tempfile::tempdir().unwrap());
            let acme = planned.section("challenges = [\"http-01\"]");
            let more = format!("{API}{own}{acme}{}", names::section(names::HERE));
            // The edge orders at once, so the authority is there before it, and finds it where it is by then.
            let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = door.local_addr().unwrap();
            let authority = planned.start(at, at, YEARS).await;
            let edge = start_told(folder, "", &more);
            let (api, http) = (edge.api.unwrap(), edge.http);
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = door.accept().await {
                    let mut there = TcpStream::connect(http).await.unwrap();
                    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut there).await });
                }
            });
            let (_, here) = names::ask(edge.dns.unwrap(), "api.example.com", RecordType::A).await;
            assert_eq!(here, ["127.0.0.1"], "its name leads here as well");
            let one = until(async || issued(&edge, "api.example.com").await).await;
            let serial = one["serial"].as_str().unwrap();
            // Whatever name it is asked for, or none: callers reach it by its address as well.
            for name in ["api.example.com", "other.example.com", "127.0.0.1"] {
                until(async || {
                    let certificate = shown(api, name, &[]).await.ok()?;
                    let hex: String = certificate.iter().map(|byte| format!("{byte:02x}")).collect();
                    hex.contains(serial).then_some(())
                })
                .await;
            }
            assert_eq!(authority.orders(), 1);
        })
        .await;
}

#[tokio::test]
async fn a_certificate_is_renewed_under_load_and_nobody_notices() {
    LocalSet::new()
        .run_until(async {
            // Renewed at the half of its life.
            let Some((office, authority, tunnel)) = open("", 16).await else { return };
            office.route(&tunnel, APP, false).await.result();
            let first = until(async || is_shown(&office.edge, APP, APP).await).await;
            let (over, failed, done) = (
                Arc::new(AtomicBool::default()),
                Arc::new(AtomicUsize::default()),
                Arc::new(AtomicUsize::default()),
            );
            let visitors: Vec<_> = (0..4)
                .map(|_| {
                    let (https, over, failed, done) =
                        (office.edge.https, over.clone(), failed.clone(), done.clone());
                    tokio::spawn(async move {
                        while !over.load(Ordering::Relaxed) {
                            let outcome = visit(https, APP).await;
                            if outcome.is_err() { &failed } else { &done }.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            let second = until(async || {
                is_shown(&office.edge, APP, APP).await.filter(|now| now["serial"] != first["serial"])
            })
            .await;
            over.store(true, Ordering::Relaxed);
            for visitor in visitors {
                visitor.await.unwrap();
            }
            assert_eq!(failed.load(Ordering::Relaxed), 0, "of {}", done.load(Ordering::Relaxed));
            assert!(done.load(Ordering::Relaxed) > 20);
            assert!(second["not_after"].as_str() > first["not_after"].as_str());
            assert!(authority.orders() >= 2);
        })
        .await;
}

/// A whole visit: handshake, question and answer.
async fn visit(https: std::net::SocketAddr, name: &str) -> std::io::Result<()> {
    let stream = TcpStream::connect(https).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client(&["http/1.1"])));
    let stream = connector.connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let wrong = std::io::Error::other::<hyper::Error>;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(wrong)?;
    tokio::spawn(connection);
    let mut request = get("/");
    request.headers_mut().insert("host", name.parse().unwrap());
    let status = sender.send_request(request).await.map_err(wrong)?.status();
    if status == 530 { Ok(()) } else { Err(std::io::Error::other(status.to_string())) }
}

/// The first words of whoever asks for a name; what comes back is not looked at.
async fn knock(
    https: std::net::SocketAddr,
    name: &str,
    config: Arc<rustls::ClientConfig>,
) -> std::io::Result<()> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut hello = Vec::new();
    let mut client = rustls::ClientConnection::new(config, name).map_err(std::io::Error::other)?;
    client.write_tls(&mut hello)?;
    let mut stream = TcpStream::connect(https).await?;
    stream.write_all(&hello).await?;
    let mut answer = [0; 4096];
    stream.read(&mut answer).await.map(drop)
}

/// The 99th of a hundred visits of this time, one after the other.
async fn p99(https: std::net::SocketAddr, time: Duration) -> Duration {
    let (began, mut all) = (Instant::now(), Vec::new());
    while began.elapsed() < time {
        let visit_began = Instant::now();
        visit(https, APP).await.unwrap();
        all.push(visit_began.elapsed());
    }
    all.sort();
    all[all.len() * 99 / 100]
}

/// Knocks so often with names that nobody has led anywhere, while real visitors come; how often that was, and how long
/// the visitors took without and with it.
async fn made_up(rate: u64, time: Duration) -> Option<(usize, usize, Duration, Duration)> {
    let (office, authority, tunnel) = open("", YEARS).await?;
    office.route(&tunnel, APP, false).await.result();
    until(async || is_shown(&office.edge, APP, APP).await).await;
    let https = office.edge.https;
    let before = p99(https, time / 4).await;
    let config = Arc::new(client(&["h2"]));
    let knocks = async {
        let (mut tasks, mut ticks) = (JoinSet::new(), interval(Duration::from_micros(1_000_000 / rate)));
        let began = Instant::now();
        for number in 0.. {
            ticks.tick().await;
            if began.elapsed() > time {
                break;
            }
            let (name, config) = (format!("made-up-{number}.example.com"), config.clone());
            tasks.spawn(async move { knock(https, &name, config).await.is_ok() });
        }
        tasks.join_all().await.into_iter().filter(|answered| *answered).count()
    };
    let (answered, during) = tokio::join!(knocks, p99(https, time));
    Some((answered, authority.orders() - 1, before, during))
}

#[tokio::test]
async fn names_that_are_made_up_cause_no_order() {
    LocalSet::new()
        .run_until(async {
            let Some((answered, orders, ..)) = made_up(200, Duration::from_secs(2)).await else { return };
            assert!(answered > 50, "{answered}");
            assert_eq!(orders, 0);
        })
        .await;
}

/// `cargo test -p adit-edge --test edge -- --ignored --nocapture a_thousand_made_up_names_a_second`
#[ignore = "takes more than a minute, and a machine for itself"]
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_made_up_names_a_second_cause_no_order_and_hold_up_nobody() {
    let Some((answered, orders, before, during)) = made_up(1000, Duration::from_secs(60)).await else {
        return;
    };
    println!(
        "{answered} made-up names, {orders} orders; visitors' p99 {before:?} before, {during:?} meanwhile"
    );
    assert_eq!(orders, 0);
}

#[tokio::test]
async fn a_name_whose_order_fails_is_told_with_the_authoritys_words_and_again_when_it_is_well() {
    let Some(planned) = Planned::new() else { return };
    let office =
        Office::open_with(&format!("{TELLING}\n{}", planned.section("challenges = [\"http-01\"]"))).await;
    let hook = Hook::open().await;
    let made = id(&office.hook(&hook.url(), None).await);
    office.policy(&made, "universal_ssl_event_type", json!({ "new_status": ["failing", "issued"] })).await;
    // It looks where nobody is.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _authority = planned.start(nobody, office.edge.https, 3600).await;
    let tunnel = office.create("one").await["id"].as_str().unwrap().to_owned();
    office.route(&tunnel, "app.example.com", false).await.result();
    let told = hook.alerts(1, "universal_ssl_event_type").await;
    let failing = told[0].json();
    assert_eq!(failing["alert_event"], START, "{failing}");
    assert_eq!(
        (&failing["data"]["hostname"], &failing["data"]["new_status"]),
        (&json!("app.example.com"), &json!("failing"))
    );
    let text = failing["text"].as_str().unwrap();
    assert!(
        text.starts_with("No certificate for app.example.com was issued: ")
            && text.contains("connection refused"),
        "{text}"
    );
    // A name that leads nowhere any more is nobody's trouble.
    let path = format!("/zones/{}/tunnels/routes/app.example.com", office.zone);
    assert_eq!(office.ask(Method::DELETE, &path, None).await.status, 200);
    let told = hook.alerts(2, "universal_ssl_event_type").await;
    let over = told[1].json();
    assert_eq!((&over["alert_event"], &over["data"]["new_status"]), (&json!(END), &json!("issued")));
    assert_eq!(over["alert_correlation_id"], failing["alert_correlation_id"]);
}
