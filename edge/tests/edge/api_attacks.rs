//! The control API under attack, and against its own documentation.

use std::time::Duration;

use adit_edge::TokenRequest;
use http::{Method, Request};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{empty, full, raw};
use crate::office::{Office, Reply};

/// Every path and method of the OpenAPI document, with ids that exist.
async fn operations(office: &Office, tunnel: &str) -> Vec<(Method, String, Value)> {
    let records = office.get(&office.records()).await;
    let record = records[0]["id"].as_str().unwrap_or("none").to_owned();
    let first = async |path: String| office.get(&path).await[0]["id"].as_str().unwrap_or("none").to_owned();
    let monitor = first(office.objects("monitors")).await;
    let pool = first(office.objects("pools")).await;
    let balancer = first(office.balancers("")).await;
    let request = Request::get("/openapi.json").header("host", "api").body(empty()).unwrap();
    let document = office.send(request).await.json;
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let filled = path
            .replace("{account}", &office.account)
            .replace("{tunnel}", tunnel)
            .replace("{connector}", &Uuid::nil().to_string())
            .replace("{zone}", &office.zone)
            .replace("{record}", &record)
            .replace("{monitor}", &monitor)
            .replace("{pool}", &pool)
            .replace("{balancer}", &balancer)
            .replace("{webhook}", &first(office.alerting("destinations/webhooks")).await)
            .replace("{policy}", &first(office.alerting("policies")).await)
            .replace("{region}", "WEU")
            .replace("{resource}", "logs")
            .replace("{group}", "none")
            .replace("{preview}", "none")
            .replace("{hostname}", "none.example.com");
        for (method, operation) in methods.as_object().unwrap() {
            operations.push((method.to_uppercase().parse().unwrap(), filled.clone(), operation.clone()));
        }
    }
    assert!(operations.len() > 15);
    operations
}

fn is_open(operation: &Value) -> bool {
    operation["security"] == json!([])
}

fn documented(operation: &Value, reply: &Reply) {
    let known = operation["responses"].as_object().unwrap();
    assert!(known.contains_key(reply.status.as_str()), "{}: {reply:?}", operation["operationId"]);
    if operation["operationId"] != "openapi" {
        let (done, json) = (reply.status == 200, &reply.json);
        assert_eq!(json["success"], done, "{json}");
        assert_eq!(json["errors"].as_array().unwrap().is_empty(), done, "{json}");
        let asks_for_pages = known.get("200").is_some_and(|done| done.to_string().contains("PageInfo"));
        assert_eq!(json["result_info"].is_object(), done && asks_for_pages, "{json}");
    }
}

#[tokio::test]
async fn every_documented_call_answers_as_documented() {
    let office = Office::open().await;
    let tunnel = office.create("demo").await["id"].as_str().unwrap().to_owned();
    let bodies = [
        None,
        Some(json!({})),
        Some(json!([])),
        Some(json!({ "name": "made", "type": "dns", "user_hostname": "made.example.com", "config": {} })),
        Some(json!({ "name": 7, "type": "lb", "config": 7, "tunnel_secret": "%" })),
        Some(json!({ "name": "made", "type": "CNAME", "content": format!("{tunnel}.tunnels.test") })),
        Some(json!({ "name": "made", "type": "TXT", "content": "a text" })),
    ];
    office.route(&tunnel, "app.example.com", false).await.result();
    let monitor = office.post(&office.objects("monitors"), json!({})).await.done();
    let pool = office.pool("p", &[&tunnel]).await;
    let pool_path = office.objects(&format!("pools/{pool}"));
    office.edit(&pool_path, json!({ "monitor": monitor["id"] })).await;
    office.balancer("balanced.example.com", &[&pool], json!({})).await;
    let mut done = 0;
    for (method, path, operation) in operations(&office, &tunnel).await {
        if method == Method::DELETE && !path.contains("connections") && !path.contains("routes") {
            continue;
        }
        for body in &bodies {
            let reply = office.ask(method.clone(), &path, body.clone()).await;
            documented(&operation, &reply);
            done += usize::from(reply.status == 200);
        }
    }
    assert!(done > 40, "{done} calls were done");
    let gone = operations(&office, &tunnel)
        .await
        .into_iter()
        .find(|(method, path, _)| *method == Method::DELETE && path.ends_with(&tunnel));
    let (method, path, operation) = gone.unwrap();
    for _ in 0..2 {
        documented(&operation, &office.ask(method.clone(), &path, None).await);
    }
}

#[tokio::test]
async fn without_a_good_token_nothing_is_done_on_any_path() {
    let office = Office::open().await;
    let tunnel = office.create("demo").await["id"].as_str().unwrap().to_owned();
    let short = TokenRequest { valid_for: Some(Duration::from_millis(400)), ..TokenRequest::default() };
    let expired = office.token(short).await;
    let revoked = office.token(TokenRequest::default()).await;
    let id = office.ledger.tokens().await.unwrap().pop().unwrap().id;
    office.ledger.revoke_token(&id).await.unwrap();
    let unknown = |token: &String| {
        let (token, office) = (token.clone(), &office);
        async move { office.ask_as(&token, Method::GET, "/user/tokens/verify", None).await.status == 401 }
    };
    for token in [&expired, &revoked] {
        while !unknown(token).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let before = office.get(&office.tunnel(&tunnel)).await;
    let other = format!("{}x", office.token);
    let mut limited = 0;
    for (method, path, operation) in operations(&office, &tunnel).await {
        if is_open(&operation) {
            continue;
        }
        for token in [&expired, &revoked, &other, ""] {
            let reply = office.ask_as(token, method.clone(), &path, Some(json!({}))).await;
            match reply.status.as_u16() {
                401 => reply.refused(401, "API token is missing or not valid"),
                status => {
                    assert_eq!(status, 429, "{method} {path}");
                    reply.refused(429, "too many requests");
                    limited += 1;
                }
            }
        }
    }
    assert!(limited > 0, "guessing is slowed down");
    assert_eq!(office.get(&office.tunnel(&tunnel)).await, before, "whoever has a token is not slowed down");
}

#[tokio::test]
async fn a_token_does_nothing_beyond_its_scope() {
    let office = Office::open().await;
    let mine = office.create("mine").await["id"].as_str().unwrap().to_owned();
    let other = office.create("other").await["id"].as_str().unwrap().to_owned();
    let tunnel = TokenRequest { tunnels: vec![mine.parse().unwrap()], ..TokenRequest::default() };
    let zone = TokenRequest { zones: vec!["deep.example.com".to_owned()], ..TokenRequest::default() };
    let reader = TokenRequest { read_only: true, ..TokenRequest::default() };
    let [tunnel, zone, reader] =
        [office.token(tunnel).await, office.token(zone).await, office.token(reader).await];
    let (list, mine, other) = (office.tunnels(), office.tunnel(&mine), office.tunnel(&other));
    let rules = || Some(json!({ "config": { "ingress": [] } }));
    let route = |hostname: &str| Some(json!({ "type": "dns", "user_hostname": hostname }));
    let zones = office.get("/zones").await;
    let deep = zones.as_array().unwrap().iter().find(|zone| zone["name"] == "deep.example.com").unwrap();
    let route_deep =
        format!("/zones/{}/tunnels/{}/routes", deep["id"].as_str().unwrap(), &mine[mine.len() - 36..]);
    let route_top = route_deep.replace(deep["id"].as_str().unwrap(), &office.zone);
    for (token, method, path, body, wanted) in [
        (&tunnel, Method::GET, mine.clone(), None, 200),
        (&tunnel, Method::GET, format!("{mine}/token"), None, 200),
        (&tunnel, Method::PUT, format!("{mine}/configurations"), rules(), 200),
        (&tunnel, Method::GET, other.clone(), None, 403),
        (&tunnel, Method::GET, format!("{other}/token"), None, 403),
        (&tunnel, Method::POST, list.clone(), Some(json!({ "name": "new" })), 403),
        (&tunnel, Method::DELETE, mine.clone(), None, 403),
        (&tunnel, Method::PUT, route_deep.clone(), route("a.deep.example.com"), 403),
        (&zone, Method::GET, mine.clone(), None, 200),
        (&zone, Method::GET, format!("{mine}/token"), None, 403),
        (&zone, Method::PUT, route_deep.clone(), route("a.deep.example.com"), 200),
        (&zone, Method::PUT, route_top.clone(), route("a.example.com"), 403),
        // The name decides about the zone, so it must not lead out of the token's reach.
        (&zone, Method::PUT, route_deep.clone(), route("a.example.com"), 400),
        (&reader, Method::GET, list.clone(), None, 200),
        (&reader, Method::GET, format!("{mine}/token"), None, 403),
        (&reader, Method::PATCH, mine.clone(), Some(json!({ "name": "new" })), 403),
        (&reader, Method::PUT, route_top.clone(), route("a.example.com"), 403),
    ] {
        let reply = office.ask_as(token, method.clone(), &path, body).await;
        assert_eq!(reply.status.as_u16(), wanted, "{method} {path}: {reply:?}");
    }
    let names = office.get(&list).await;
    assert_eq!(names.as_array().unwrap().len(), 2, "nothing was made");
    // Nor does a list tell of what it must not see, whatever it is asked for.
    for query in ["", "?name=other", "?include_prefix=o", "?per_page=1&page=2", "?is_deleted=false"] {
        let reply = office.ask_as(&tunnel, Method::GET, &format!("{list}{query}"), None).await;
        let shown = reply.json["result"].as_array().unwrap();
        assert!(shown.iter().all(|tunnel| tunnel["name"] == "mine"), "{query}: {reply:?}");
        let total = reply.json["result_info"]["total_count"].as_u64().unwrap();
        assert_eq!(
            total,
            u64::from(!query.contains('o') || query.contains("per_page") || query.contains("is_")),
            "{query}"
        );
    }
    let routes = office.get(&format!("/zones/{}/tunnels/routes", office.zone)).await;
    assert_eq!(routes, json!([]));
}

#[tokio::test]
async fn what_another_account_has_is_neither_shown_nor_changed() {
    let office = Office::open().await;
    let (_, founding) = adit_edge::Provisioning::found(
        &office.edge.folder.path().join("edge-data"),
        "rival",
        &["rival.test".to_owned()],
    )
    .await
    .unwrap();
    let rival = TokenRequest { account: Some("rival".to_owned()), ..TokenRequest::default() };
    let rival = office.token(rival).await;
    let tunnel = office.create("demo").await["id"].as_str().unwrap().to_owned();
    office.route(&tunnel, "app.example.com", false).await.result();
    let theirs = format!("/accounts/{}/cfd_tunnel", founding.account);
    let zone = &founding.zones[0].1;
    let nobody = Uuid::new_v4();
    for (method, path, wanted) in [
        (Method::GET, office.tunnels(), 404),
        (Method::GET, office.tunnel(&tunnel), 404),
        (Method::DELETE, office.tunnel(&tunnel), 404),
        // The right account in the path does not help with the wrong tunnel; it is as if it did not exist.
        (Method::GET, format!("{theirs}/{tunnel}"), 404),
        (Method::GET, format!("{theirs}/{nobody}"), 404),
        (Method::GET, format!("{theirs}/{tunnel}/token"), 404),
        (Method::DELETE, format!("{theirs}/{tunnel}/connections"), 404),
        (Method::DELETE, format!("{theirs}/{tunnel}?cascade=true"), 404),
        (Method::GET, format!("/zones/{}/tunnels/routes", office.zone), 404),
        (Method::GET, "/zones/none/tunnels/routes".to_owned(), 404),
        (Method::DELETE, format!("/zones/{}/tunnels/routes/app.example.com", office.zone), 404),
        (Method::DELETE, format!("/zones/{zone}/tunnels/routes/app.example.com"), 404),
    ] {
        let reply = office.ask_as(&rival, method.clone(), &path, None).await;
        assert_eq!(reply.status.as_u16(), wanted, "{method} {path}: {reply:?}");
        assert!(!reply.json.to_string().contains(&tunnel), "{reply:?}");
    }
    let own = office.ask_as(&rival, Method::POST, &theirs, Some(json!({ "name": "demo" }))).await.result();
    let steal = |hostname: &str| {
        Some(json!({ "type": "dns", "user_hostname": hostname, "overwrite_existing": true }))
    };
    let path = format!("/zones/{zone}/tunnels/{}/routes", own["id"].as_str().unwrap());
    for hostname in ["app.example.com", "x.example.com", "example.com"] {
        office.ask_as(&rival, Method::PUT, &path, steal(hostname)).await.refused(400, "in no zone");
    }
    let foreign = format!("/zones/{zone}/tunnels/{tunnel}/routes");
    office.ask_as(&rival, Method::PUT, &foreign, steal("app.rival.test")).await.refused(404, "tunnel");
    let zones = office.ask_as(&rival, Method::GET, "/zones", None).await.result();
    assert_eq!(zones.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn huge_bodies_and_crooked_paths_are_refused_before_anything_else() {
    let office = Office::open().await;
    let tunnel = office.create("demo").await["id"].as_str().unwrap().to_owned();
    let api = office.edge.api.unwrap();
    // Announced too long, by nobody: refused without a byte of it, and without a look at the token.
    let head =
        format!("POST {} HTTP/1.1\r\nhost: api\r\ncontent-length: 99999999999\r\n\r\n", office.tunnels());
    let answer = String::from_utf8(raw(api, head.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // Not announced: cut off where the limit is.
    let long = json!({ "name": "x".repeat(100_000) }).to_string();
    let chunked = format!(
        "POST {} HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
        office.tunnels(),
        office.token,
        long.len()
    );
    let answer = String::from_utf8(raw(api, chunked.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    for path in [
        format!("/accounts/{}/../{}/cfd_tunnel", office.account, office.account),
        format!("/accounts/{}/cfd_tunnel/{tunnel}/../{tunnel}", office.account),
        format!("/accounts/{}/cfd_tunnel/%2e%2e/{tunnel}", office.account),
        format!("/accounts/{}%2Fcfd_tunnel", office.account),
        format!("/accounts/{}//cfd_tunnel", office.account),
        format!("//accounts/{}/cfd_tunnel", office.account),
        "/../../etc/passwd".to_owned(),
        "/".to_owned(),
    ] {
        office.ask(Method::GET, &path, None).await.refused(404, "nothing at this path");
    }
    office.ask(Method::POST, "/zones", None).await.refused(405, "GET");
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let request = Request::post(office.tunnels())
        .header("host", "api")
        .header("authorization", format!("Bearer {}", office.token))
        .body(full(deep))
        .unwrap();
    office.send(request).await.refused(400, "not the JSON");
    assert_eq!(office.get(&office.tunnels()).await.as_array().unwrap().len(), 1, "nothing was made");
}

#[tokio::test]
async fn of_conflicting_writes_at_the_same_time_one_is_done() {
    let office = Office::open().await;
    let (path, body) = (office.tunnels(), json!({ "name": "demo" }));
    let creations = (0..16).map(|_| office.ask(Method::POST, &path, Some(body.clone())));
    let replies = futures_util::future::join_all(creations).await;
    let done: Vec<_> = replies.iter().filter(|reply| reply.status == 200).collect();
    assert_eq!(done.len(), 1);
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        reply.refused(409, "already exists");
    }
    let tunnel = office.tunnel(done[0].json["result"]["id"].as_str().unwrap());
    let renames = (0..16)
        .map(|name| office.ask(Method::PATCH, &tunnel, Some(json!({ "name": format!("demo-{name}") }))));
    let replies = futures_util::future::join_all(renames).await;
    assert!(replies.iter().any(|reply| reply.status == 200));
    assert!(replies.iter().all(|reply| [200, 409].contains(&reply.status.as_u16())), "{replies:?}");
    let name = office.get(&tunnel).await["name"].clone();
    assert!(office.create("demo").await["id"].is_string(), "the old name is free");
    office.ask(Method::POST, &path, Some(json!({ "name": name }))).await.refused(409, "already exists");
    let list = office.get(&path).await;
    assert_eq!(list.as_array().unwrap().len(), 2, "{list}");
}

#[tokio::test]
async fn the_edge_serves_on_when_its_state_cannot_be_written() {
    let office = Office::open().await;
    let tunnel = office.create("demo").await["id"].as_str().unwrap().to_owned();
    office.route(&tunnel, "app.example.com", false).await.result();
    // The tables are gone under its feet.
    let file = adit_edge::Provisioning::file(&office.edge.folder.path().join("edge-data"));
    let broken = rusqlite::Connection::open(file).unwrap();
    broken.execute_batch("DROP TABLE record; DROP TABLE change;").unwrap();
    office
        .ask(Method::POST, &office.tunnels(), Some(json!({ "name": "new" })))
        .await
        .refused(503, "cannot change its state");
    assert_eq!(office.get(&office.tunnel(&tunnel)).await["name"], "demo");
    let request = Request::get("/").header("host", "app.example.com").body(empty()).unwrap();
    assert_eq!(office.edge.page(request).await.status, 530, "the route is still known");
}
