//! The control API of a running edge: what it answers, and what visitors and hosts notice of it.

use std::sync::Arc;
use std::time::Duration;

use adit_edge::{Provisioning, TokenRequest};
use adit_protocol::credentials::Credentials;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::connector::{Connector, Habits, registration};
use crate::harness::{Fixture, LocalSet, empty, full, read, start_in};
use crate::office::{API, Office};

fn id(tunnel: &Value) -> &str {
    tunnel["id"].as_str().unwrap()
}

#[tokio::test]
async fn a_tunnel_made_by_the_api_is_served_at_once_and_gone_when_it_is_deleted() {
    LocalSet::new().run_until(serve_and_delete()).await
}

async fn serve_and_delete() {
    let mut office = Office::open().await;
    let tunnel = office.create("shop").await;
    let (id, path) = (id(&tunnel).to_owned(), office.tunnel(id(&tunnel)));
    assert_eq!((&tunnel["status"], &tunnel["deleted_at"]), (&json!("inactive"), &Value::Null));
    assert_eq!(office.visit("shop.example.com").await, 404, "nothing leads there yet");
    assert_eq!(office.route(&id, "shop.example.com", false).await.result()["cname"], "new");
    assert_eq!(office.visit("shop.example.com").await, 530, "nothing is proxied unless the tunnel runs");
    assert_eq!(office.visit(&format!("{id}.tunnels.test")).await, 530, "every tunnel has its own name");
    assert_eq!(office.visit(&format!("{}.tunnels.test", Uuid::new_v4())).await, 404);

    office.edge.credentials = Credentials::from_token(tunnel["token"].as_str().unwrap()).unwrap();
    let replicas = [Uuid::new_v4(), Uuid::new_v4()];
    let mut connectors = Vec::new();
    for replica in replicas {
        for index in 0..4 {
            connectors
                .push(Connector::registered(&office.edge, usize::from(index % 2), replica, index).await);
        }
    }
    let seen = office.get(&path).await;
    assert_eq!(seen["status"], "healthy");
    assert_eq!(seen["connections"].as_array().unwrap().len(), 8);
    let list = office.get(&format!("{path}/connections")).await;
    let mut found: Vec<_> =
        list.as_array().unwrap().iter().map(|conn| conn["id"].as_str().unwrap().to_owned()).collect();
    let mut wanted = replicas.map(|id| id.to_string());
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    assert!(
        list.as_array().unwrap().iter().all(|connector| connector["conns"].as_array().unwrap().len() == 4)
    );
    let one = office.get(&format!("{path}/connectors/{}", replicas[0])).await;
    assert_eq!(one["id"], json!(replicas[0]));

    connectors.pop().unwrap().connection.close(0_u32.into(), b"");
    wait_for(&office, &path, "degraded").await;
    office.ask(Method::DELETE, &path, None).await.refused(400, "active connections");
    let cleaned = format!("{path}/connections?client_id={}", replicas[0]);
    assert_eq!(office.ask(Method::DELETE, &cleaned, None).await.result(), Value::Null);
    for connector in connectors.drain(..4) {
        connector.connection.closed().await;
    }
    let deleted = office.ask(Method::DELETE, &format!("{path}?cascade=true"), None).await.result();
    assert_ne!(deleted["deleted_at"], Value::Null);
    for connector in connectors {
        connector.connection.closed().await;
    }
    assert_eq!(office.visit("shop.example.com").await, 404, "its routes went with it");
    refused(&office.edge).await;
    assert!(office.create("shop").await["id"].is_string(), "its name is free again");
}

/// The edge takes no connection with these credentials.
async fn refused(edge: &Fixture) {
    let connector = Connector::connect(&edge.ca, edge.servers[0], Habits::default()).await;
    let error = connector.expect_refusal(&registration(&edge.credentials, Uuid::new_v4(), 0)).await;
    assert!(!error.should_retry, "{error:?}");
}

async fn wait_for(office: &Office, path: &str, status: &str) {
    let reached = async {
        while office.get(path).await["status"] != status {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, reached).await.is_err() {
        panic!("not {status} in time: {}", office.get(path).await);
    }
}

/// For what takes a moment, and longer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn after_a_rotation_both_secrets_work_until_the_old_one_is_cut_off() {
    LocalSet::new().run_until(rotate_twice()).await
}

async fn rotate_twice() {
    let mut office = Office::open().await;
    let tunnel = office.create("shop").await;
    let path = office.tunnel(id(&tunnel));
    let old = Credentials::from_token(tunnel["token"].as_str().unwrap()).unwrap();
    let secret = |byte: u8| base64(&[byte; 32]);
    let rotate = |body: Value| office.ask(Method::PATCH, &path, Some(body));
    rotate(json!({ "tunnel_secret": secret(1) })).await.result();
    rotate(json!({ "tunnel_secret": "c2hvcnQ=" })).await.refused(400, "at least 32 bytes");
    let new = Credentials::from_token(office.get(&format!("{path}/token")).await.as_str().unwrap()).unwrap();
    assert_ne!(old, new);
    for credentials in [&old, &new] {
        office.edge.credentials = credentials.clone();
        Connector::registered(&office.edge, 0, Uuid::new_v4(), 0).await;
    }
    let now = json!({ "tunnel_secret": secret(2), "previous_secret_valid_for": 0 });
    office.ask(Method::PATCH, &path, Some(now)).await.result();
    for credentials in [old, new] {
        office.edge.credentials = credentials;
        refused(&office.edge).await;
    }
}

fn base64(bytes: &[u8]) -> String {
    let secret = adit_protocol::credentials::TunnelSecret::new(bytes).unwrap();
    serde_json::to_value(secret).unwrap().as_str().unwrap().to_owned()
}

#[tokio::test]
async fn lists_are_filtered_and_come_in_pages() {
    let office = Office::open().await;
    for name in ["a-1", "a-2", "b-1"] {
        office.create(name).await;
    }
    let gone = office.create("gone").await;
    office.ask(Method::DELETE, &office.tunnel(id(&gone)), None).await.result();
    let names = async |query: &str| {
        let reply = office.ask(Method::GET, &format!("{}?{query}", office.tunnels()), None).await;
        let info = reply.json["result_info"].clone();
        let result = reply.result();
        let names: Vec<String> = result
            .as_array()
            .unwrap()
            .iter()
            .map(|tunnel| tunnel["name"].as_str().unwrap().to_owned())
            .collect();
        (names.join(" "), info["count"].as_u64().unwrap(), info["total_count"].as_u64().unwrap())
    };
    for (query, wanted) in [
        ("", ("a-1 a-2 b-1 gone", 4, 4)),
        ("is_deleted=false", ("a-1 a-2 b-1", 3, 3)),
        ("is_deleted=true", ("gone", 1, 1)),
        ("name_prefix=a-&is_deleted=false&page=1", ("a-1 a-2", 2, 2)),
        ("exclude_prefix=a-&is_deleted=false", ("b-1", 1, 1)),
        ("name=b-1", ("b-1", 1, 1)),
        ("status=inactive&is_deleted=false", ("a-1 a-2 b-1", 3, 3)),
        ("status=healthy", ("", 0, 0)),
        ("existed_at=2020-01-01T00:00:00Z", ("", 0, 0)),
        ("per_page=2&page=1", ("a-1 a-2", 2, 4)),
        ("per_page=2&page=2", ("b-1 gone", 2, 4)),
        ("per_page=2&page=3", ("", 0, 4)),
    ] {
        let (names, count, total) = names(query).await;
        assert_eq!((names.as_str(), count, total), wanted, "{query}");
    }
    let uuid = format!("{}?uuid={}", office.tunnels(), id(&gone));
    assert_eq!(office.get(&uuid).await[0]["name"], "gone");
    for bad in [
        "page=x",
        "is_deleted=perhaps",
        "uuid=1",
        "status=good",
        "existed_at=today",
        "name=%zz",
        "name=a&name=b",
    ] {
        office.ask(Method::GET, &format!("{}?{bad}", office.tunnels()), None).await.refused(400, "query");
    }
}

#[tokio::test]
async fn names_lead_to_one_tunnel_until_somebody_says_overwrite() {
    let office = Office::open().await;
    let (one, other) = (office.create("one").await, office.create("other").await);
    let (one, other) = (id(&one), id(&other));
    let change = async |tunnel: &str, hostname: &str, overwrite| {
        office.route(tunnel, hostname, overwrite).await.result()["cname"].as_str().unwrap().to_owned()
    };
    assert_eq!(change(one, "app.example.com", false).await, "new");
    assert_eq!(change(one, "App.Example.com.", false).await, "unchanged");
    office.route(other, "app.example.com", false).await.refused(409, "leads to another tunnel already");
    assert_eq!(change(other, "app.example.com", true).await, "updated");
    assert_eq!(change(one, "*.example.com", false).await, "new");
    assert_eq!(office.visit("anything.example.com").await, 530);
    let short = office.route(one, "www", false).await.result();
    assert_eq!(short["name"], "www.example.com", "a short name is in the zone of the path");
    // As rules write it, and as visitors ask for it.
    let international = office.route(one, "B\u{fc}cher.example.com", false).await.result();
    assert_eq!(international["name"], "xn--bcher-kva.example.com");
    assert_eq!(change(one, "xn--bcher-kva.example.com", false).await, "unchanged");
    assert_eq!(office.visit("xn--bcher-kva.example.com").await, 530);
    let deep = office.route(one, "a.deep.example.com", false).await.result();
    assert_ne!(deep["zone"], json!(office.zone), "the longest zone that fits");
    office.route(one, "app.example.org", false).await.refused(400, "in no zone");
    office.route(one, "notexample.com", false).await.refused(400, "in no zone");
    office.route(one, "a.*.example.com", false).await.refused(400, "no host name");
    office.route(one, "", false).await.refused(400, "no host name");
    let path = format!("/zones/{}/tunnels/{one}/routes", office.zone);
    let other = json!({ "type": "tcp", "user_hostname": "app.example.com" });
    office.ask(Method::PUT, &path, Some(other)).await.refused(400, "`dns` or `lb`");

    let routes = office.get(&format!("/zones/{}/tunnels/routes", office.zone)).await;
    let names: Vec<_> =
        routes.as_array().unwrap().iter().map(|route| route["name"].as_str().unwrap()).collect();
    let all = ["*.example.com", "app.example.com", "www.example.com", "xn--bcher-kva.example.com"];
    assert_eq!(names, all);
    let gone = format!("/zones/{}/tunnels/routes/*.example.com", office.zone);
    office.ask(Method::DELETE, &gone, None).await.result();
    office.ask(Method::DELETE, &gone, None).await.refused(404, "route");
    assert_eq!(office.visit("anything.example.com").await, 404);
}

#[tokio::test]
async fn the_edges_own_document_wins_over_routes() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let zones = ["demo.localhost".to_owned()];
    let (ledger, founding) =
        Provisioning::found(&folder.path().join("edge-data"), "main", &zones).await.unwrap();
    let (_, token) = ledger.create_token(TokenRequest::default()).await.unwrap();
    let zone = founding.zones[0].1.clone();
    let token = token.as_str().to_owned();
    let office = Office { edge: start_in(folder, API), ledger, account: founding.account, zone, token };
    let tunnel = office.create("one").await;
    office.route(id(&tunnel), "demo.localhost", true).await.refused(409, "own configuration");
    office.route(id(&tunnel), "*.demo.localhost", true).await.refused(409, "own configuration");
    assert_eq!(office.route(id(&tunnel), "a.demo.localhost", false).await.result()["cname"], "new");
}

#[tokio::test]
async fn a_configuration_is_checked_and_its_version_grows() {
    let office = Office::open().await;
    let tunnel = office.create("one").await;
    let path = format!("{}/configurations", office.tunnel(id(&tunnel)));
    let before = office.get(&path).await;
    assert_eq!(
        (&before["version"], &before["source"], &before["config"]),
        (&json!(0), &json!("local"), &Value::Null)
    );
    let rules = |service: &str| json!({ "config": { "ingress": [{ "service": service }] } });
    for version in 1..=2 {
        let put = office.ask(Method::PUT, &path, Some(rules("http_status:404"))).await.result();
        assert_eq!((&put["version"], &put["source"]), (&json!(version), &json!("cloudflare")));
    }
    let wrong = json!({ "config": { "ingress": [{ "hostname": "a.example.com", "service": "http://x" }] } });
    office.ask(Method::PUT, &path, Some(wrong)).await.refused(400, "the last rule");
    assert_eq!(office.get(&path).await["version"], 2, "a refused one changes nothing");
    assert_eq!(office.get(&path).await["replicas"], json!([]));
    // There is one place for it.
    let request = Request::put("/tunnels/one/config").header("host", "localhost");
    let request = request.body(full(json!({ "ingress": [] }).to_string())).unwrap();
    let (status, error) = office.edge.ask_admin(request).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(error["error"].as_str().is_some_and(|error| error.contains("/configurations")), "{error}");
}

#[tokio::test]
async fn what_no_host_could_serve_is_refused_with_every_reason_at_once() {
    let office = Office::open().await;
    let tunnel = office.create("one").await;
    let path = format!("{}/configurations", office.tunnel(id(&tunnel)));
    let config = json!({ "ingress": [
        { "hostname": "a.example.com", "service": "ftp://x" },
        { "hostname": "b.example.com", "path": "(", "service": "http://x" },
        { "hostname": "c.example.com", "path": "((a{999}){999}){999}", "service": "http://x" },
        { "service": "http://x/base", "originRequest": { "connectTimeout": -1, "noTLSVerify": "yes" } },
    ]});
    let reply = office.ask(Method::PUT, &path, Some(json!({ "config": config }))).await;
    assert_eq!(reply.status, 400);
    let errors = reply.json["errors"].as_array().unwrap();
    let places = [
        "ingress[0].service: no host knows",
        "ingress[1].path: not a regular expression",
        "ingress[2].path: this regular expression is too large",
        "ingress[3].service: a service has no path",
        "ingress[3].originRequest.connectTimeout: expected a number of seconds that is not negative, found -1",
        "ingress[3].originRequest.noTLSVerify: expected true or false",
    ];
    assert_eq!(errors.len(), places.len(), "{errors:?}");
    for place in places {
        let is_said = errors.iter().any(|error| error["message"].as_str().unwrap().starts_with(place));
        assert!(is_said, "{place} is not in {errors:?}");
    }
    assert_eq!(office.get(&path).await["version"], 0);
    // What some host could serve is for that host to say.
    let theirs = json!({ "config": { "ingress": [{ "service": "ssh://x:22", "plugins": ["theirs"] }] } });
    assert_eq!(office.ask(Method::PUT, &path, Some(theirs)).await.result()["version"], 1);
}

#[tokio::test]
async fn a_token_counts_from_the_moment_at_which_it_is_made_to_that_at_which_it_is_ended() {
    let office = Office::open().await;
    for _ in 0..5 {
        let (id, token) = office.ledger.create_token(TokenRequest::default()).await.unwrap();
        let verify = || office.ask_as(token.as_str(), Method::GET, "/user/tokens/verify", None);
        assert_eq!(verify().await.status, 200);
        office.ledger.revoke_token(&id).await.unwrap();
        assert_eq!(verify().await.status, 401);
    }
}

#[tokio::test]
async fn a_tunnel_is_known_to_the_administrator_by_the_name_that_it_has_now() {
    let office = Office::open().await;
    let tunnel = office.create("old").await;
    let known = async |name: &str| {
        let request = Request::get(format!("/tunnels/{name}/replicas")).header("host", "localhost");
        office.edge.ask_admin(request.body(empty()).unwrap()).await.0
    };
    assert_eq!((known("old").await, known("new").await), (StatusCode::OK, StatusCode::NOT_FOUND));
    let path = office.tunnel(id(&tunnel));
    office.ask(Method::PATCH, &path, Some(json!({ "name": "new" }))).await.result();
    assert_eq!((known("old").await, known("new").await), (StatusCode::NOT_FOUND, StatusCode::OK));
}

#[tokio::test]
async fn a_name_is_one_that_people_can_see_and_type() {
    let office = Office::open().await;
    let tunnel = office.create("good").await;
    for name in ["\u{202e}live", " one", "one ", ".", "..", "a\u{200b}b", ""] {
        office
            .ask(Method::POST, &office.tunnels(), Some(json!({ "name": name })))
            .await
            .refused(400, "a name");
        let path = office.tunnel(id(&tunnel));
        office.ask(Method::PATCH, &path, Some(json!({ "name": name }))).await.refused(400, "a name");
    }
}

#[tokio::test]
async fn a_change_is_refused_while_the_state_file_is_lost_and_kept_once_it_is_written_anew() {
    let mut office = Office::open().await;
    let before = office.create("before").await;
    std::fs::remove_file(office.edge.folder.path().join("edge-data/state.db")).unwrap();
    let made = office.ask(Method::POST, &office.tunnels(), Some(json!({ "name": "lost" }))).await;
    made.refused(503, "cannot change its state");
    assert_eq!(office.get(&office.tunnels()).await.as_array().unwrap().len(), 1, "it goes on serving");
    let restore = async || {
        let request = Request::post("/state").header("host", "localhost").body(empty()).unwrap();
        office.edge.ask_admin(request).await
    };
    assert_eq!(restore().await.0, StatusCode::OK);
    let after = office.create("after").await;
    office.edge.stop.cancel();
    (&mut office.edge.running).await.unwrap().unwrap();
    office.reopen();
    for (tunnel, name) in [(before, "before"), (after, "after")] {
        assert_eq!(office.get(&office.tunnel(id(&tunnel))).await["name"], name);
    }
}

#[tokio::test]
async fn a_quick_tunnel_needs_no_token_and_has_a_name_of_its_own() {
    LocalSet::new().run_until(quick_tunnel()).await
}

async fn quick_tunnel() {
    let mut office = Office::open().await;
    let request = Request::post("/tunnel").header("host", "api").body(empty()).unwrap();
    let quick = office.send(request).await.result();
    let hostname = quick["hostname"].as_str().unwrap().to_owned();
    assert!(hostname.ends_with(".try.test"));
    assert_eq!(office.visit(&hostname).await, 530);
    let file = json!({
        "AccountTag": quick["account_tag"],
        "TunnelSecret": quick["secret"],
        "TunnelID": quick["id"],
    });
    office.edge.credentials = Credentials::from_json(file.to_string().as_bytes()).unwrap();
    Connector::registered(&office.edge, 0, Uuid::new_v4(), 0).await;
    let list = office.get(&office.tunnels()).await;
    assert_eq!(list, json!([]), "it is in nobody's account");
}

#[tokio::test]
async fn what_was_made_is_there_after_a_restart() {
    let mut office = Office::open().await;
    let tunnel = office.create("shop").await;
    office.route(id(&tunnel), "shop.example.com", false).await.result();
    office.edge.stop.cancel();
    (&mut office.edge.running).await.unwrap().unwrap();
    office.reopen();
    assert_eq!(office.visit("shop.example.com").await, 530);
    assert_eq!(office.get(&office.tunnel(id(&tunnel))).await["name"], "shop");
}

#[tokio::test]
async fn with_a_certificate_the_api_speaks_tls_and_nothing_else() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("api.pem", made.cert.pem());
    write("api.key", made.signing_key.serialize_pem());
    let section = "[api]\nlisten = \"127.0.0.1:0\"\ncertificate = \"api.pem\"\nprivate-key = \"api.key\"\n";
    let edge = start_in(folder, section);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(edge.api.unwrap()).await.unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = tls.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/client/v4/openapi.json").header("host", "api").body(empty()).unwrap();
    assert_eq!(read(sender.send_request(request).await.unwrap()).await.status, 200);
    let answer =
        crate::harness::raw(edge.api.unwrap(), b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
}
