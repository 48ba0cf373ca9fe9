//! Objects of load balancing by the control API of a running edge: what is kept and shown of them, what is refused,
//! and whose they are.

use adit_edge::{Provisioning, TokenRequest};
use http::{Method, Request};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{AnyBody, empty, full};
use crate::office::{Office, Reply};

impl Office {
    /// Of the account, such as `pools`.
    pub(crate) fn objects(&self, rest: &str) -> String {
        format!("/accounts/{}/load_balancers/{rest}", self.account)
    }

    /// Of the zone.
    pub(crate) fn balancers(&self, rest: &str) -> String {
        format!("/zones/{}/load_balancers{rest}", self.zone)
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// A tunnel; its id and its token.
    pub(crate) async fn tunnel_named(&self, name: &str) -> (String, String) {
        let made = self.create(name).await;
        (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
    }

    /// A pool of tunnels; its id.
    pub(crate) async fn pool(&self, name: &str, tunnels: &[&str]) -> String {
        let origins: Vec<_> = tunnels.iter().map(|id| endpoint(id)).collect();
        let made = self.post(&self.objects("pools"), json!({ "name": name, "origins": origins })).await;
        id(&made.done())
    }

    /// A load balancer of such pools, the last of which is the fallback; its id.
    pub(crate) async fn balancer(&self, name: &str, pools: &[&str], more: Value) -> String {
        let mut body = json!({ "name": name, "default_pools": pools, "fallback_pool": pools.last() });
        merge(&mut body, more);
        id(&self.post(&self.balancers(""), body).await.done())
    }

    pub(crate) async fn edit(&self, path: &str, body: Value) -> Value {
        self.ask(Method::PATCH, path, Some(body)).await.done()
    }
}

impl Reply {
    /// What a call has done, whatever it says about it.
    pub(crate) fn done(self) -> Value {
        assert_eq!((self.status.as_u16(), &self.json["success"]), (200, &json!(true)), "{}", self.json);
        self.json["result"].clone()
    }

    fn says(&self, what: &str) {
        let lines = self.json["messages"].as_array().unwrap();
        assert!(lines.iter().any(|line| line.as_str().unwrap().contains(what)), "{what}: {}", self.json);
    }

    /// The places of everything that is wrong.
    pub(crate) fn faults(&self) -> Vec<&str> {
        assert_eq!(self.status.as_u16(), 400, "{}", self.json);
        let errors = self.json["errors"].as_array().unwrap();
        let place = |error: &Value| {
            assert_eq!(error["code"], 1002);
            assert!(error["message"].as_str().unwrap().ends_with("validation failed"), "{error}");
        };
        errors.iter().for_each(place);
        errors.iter().map(|error| error["message"].as_str().unwrap().split('`').nth(1).unwrap()).collect()
    }
}

pub(crate) fn endpoint(tunnel: &str) -> Value {
    json!({ "name": "a", "address": format!("{tunnel}.cfargotunnel.com") })
}

pub(crate) fn id(object: &Value) -> String {
    object["id"].as_str().unwrap().to_owned()
}

fn merge(body: &mut Value, more: Value) {
    let Value::Object(more) = more else { return };
    for (name, value) in more {
        body[name] = value;
    }
}

/// Everything of `wanted` is in `seen`.
pub(crate) fn has(seen: &Value, wanted: &Value) {
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&seen[name], value, "{name} of {seen}");
    }
}

#[tokio::test]
async fn objects_are_kept_word_for_word_with_what_goes_without_saying() {
    let office = Office::open().await;
    let (tunnel, _) = office.tunnel_named("one").await;

    let reply = office
        .post(
            &office.objects("monitors"),
            json!({ "header": { "Host": ["a.test"] }, "probe_zone": "example.com" }),
        )
        .await;
    reply.says("`probe_zone` has no effect");
    let monitor = reply.done();
    let usual = json!({
        "type": "http", "method": "GET", "path": "/", "port": 0, "interval": 60, "timeout": 5, "retries": 2,
        "consecutive_up": 0, "consecutive_down": 0, "expected_codes": "", "expected_body": "",
        "follow_redirects": false, "allow_insecure": false, "description": "", "probe_zone": "example.com",
        "header": { "Host": ["a.test"] },
    });
    has(&monitor, &usual);

    let members = json!([{
        "monitor_id": monitor["id"], "enabled": true, "must_be_healthy": false, "monitoring_only": false,
    }]);
    let group = json!({ "description": "both", "members": members });
    let group = office.post(&office.objects("monitor_groups"), group).await.done();
    has(&group, &json!({ "description": "both", "members": members }));
    assert_eq!((&group["created_on"], &group["modified_on"]), (&group["created_at"], &group["updated_at"]));

    let said = json!({
        "name": "east_1", "monitor": monitor["id"], "latitude": 52.5, "longitude": 13.4,
        "origins": [
            { "name": "a", "address": format!("{tunnel}.tunnels.test"), "weight": 0.56,
              "header": { "Host": ["shop.example.com"] } },
            { "name": "b", "address": "192.0.2.1", "enabled": false, "port": 8080 },
        ],
        "load_shedding": { "default_percent": 55.5, "default_policy": "random" },
        "origin_steering": { "policy": "least_outstanding_requests" },
        "notification_filter": { "pool": { "healthy": false }, "origin": { "disable": true } },
        "check_regions": ["WEU", "ENAM"],
    });
    let reply = office.post(&office.objects("pools"), said.clone()).await;
    for what in ["`192.0.2.1` is not the name of a tunnel", "`load_shedding`", "`notification_filter`"] {
        reply.says(what);
    }
    let pool = reply.done();
    let mut wanted = said.clone();
    (wanted["origins"][0]["enabled"], wanted["origins"][1]["weight"]) = (json!(true), json!(1));
    wanted["origins"][1]["disabled_at"] = pool["origins"][1]["disabled_at"].clone();
    assert!(wanted["origins"][1]["disabled_at"].is_string());
    has(&pool, &wanted);
    has(
        &pool,
        &json!({ "description": "", "enabled": true, "minimum_origins": 1, "notification_email": "" }),
    );

    let pool_path = office.objects(&format!("pools/{}", id(&pool)));
    let same = office.ask(Method::PUT, &pool_path, Some(said)).await.done();
    assert_eq!(same, pool, "what is said again changes nothing");
    let reset = json!({ "load_shedding": null, "notification_filter": null, "enabled": false });
    let reset = office.edit(&pool_path, reset).await;
    assert!(reset.get("load_shedding").is_none() && reset.get("notification_filter").is_none(), "{reset}");
    assert!(reset["disabled_at"].is_string() && reset["origins"] == pool["origins"], "{reset}");
    assert_eq!(office.get(&pool_path).await, reset);
    office.edit(&pool_path, json!({ "enabled": true, "notification_email": "a@b.test" })).await;
    let all = office.edit(&office.objects("pools"), json!({ "notification_email": "" })).await;
    assert_eq!(all[0]["notification_email"], "");

    let said = json!({
        "name": "app.example.com", "default_pools": [pool["id"]], "fallback_pool": pool["id"],
        "session_affinity": "cookie", "steering_policy": "", "country_pools": {}, "region_pools": null,
        "rules": [{ "name": "r", "condition": "dns.qry.type == 28", "fixed_response": { "status_code": 403 } }],
        "adaptive_routing": { "failover_across_pools": true }, "location_strategy": { "mode": "pop" },
        "random_steering": { "default_weight": 0.2, "pool_weights": { id(&pool): 0.4 } },
    });
    let reply = office.post(&office.balancers(""), said.clone()).await;
    reply.says("`location_strategy`");
    assert_eq!(reply.json["messages"].as_array().unwrap().len(), 1, "the rest counts: {}", reply.json);
    let balancer = reply.done();
    let mut wanted = said.clone();
    wanted.as_object_mut().unwrap().retain(|name, _| !["country_pools", "region_pools"].contains(&&**name));
    has(&balancer, &wanted);
    let usual = json!({
        "proxied": false, "ttl": 30, "session_affinity_ttl": 82_800, "enabled": true, "description": "",
        "session_affinity_attributes": {
            "drain_duration": 0, "samesite": "Auto", "secure": "Auto", "zero_downtime_failover": "none",
        },
        "zone_name": "example.com",
    });
    has(&balancer, &usual);
    assert!(balancer.get("country_pools").is_none() && balancer.get("region_pools").is_none());
    let path = office.balancers(&format!("/{}", id(&balancer)));
    assert_eq!(office.ask(Method::PUT, &path, Some(said)).await.done(), balancer);

    let by_monitor = format!("{}?monitor={}", office.objects("pools"), id(&monitor));
    assert_eq!(office.get(&by_monitor).await[0]["id"], pool["id"]);
    assert_eq!(office.get(&format!("{}?monitor=none", office.objects("pools"))).await, json!([]));
    let references = office.get(&format!("{pool_path}/references")).await;
    let seen: Vec<_> = references.as_array().unwrap().iter().map(|one| &one["resource_id"]).collect();
    assert_eq!(seen, [&balancer["id"], &monitor["id"]]);

    // What is named goes last.
    let monitor = office.objects(&format!("monitors/{}", id(&monitor)));
    let group = office.objects(&format!("monitor_groups/{}", id(&group)));
    for path in [&monitor, &pool_path] {
        let kept = office.ask(Method::DELETE, path, None).await;
        assert_eq!((kept.status.as_u16(), &kept.json["errors"][0]["code"]), (412, &json!(1005)), "{kept:?}");
    }
    for path in [&path, &pool_path, &group, &monitor] {
        let gone = office.ask(Method::DELETE, path, None).await.result();
        assert!(path.ends_with(gone["id"].as_str().unwrap()));
        office.ask(Method::GET, path, None).await.refused(404, "not found");
    }
    let lines = office.ledger.audit(20).await.unwrap();
    assert!(lines.iter().any(|line| line.action == "pool.delete" && line.subject.contains("east_1")));
}

#[tokio::test]
async fn everything_that_is_wrong_is_said_at_once() {
    let office = Office::open().await;
    let (tunnel, _) = office.tunnel_named("one").await;
    let pool = office.pool("one", &[&tunnel]).await;
    let pools = office.objects("pools");
    let monitors = office.objects("monitors");
    let nobody = Uuid::new_v4();
    for (path, body, places) in [
        (&monitors, json!({ "type": "ftp", "path": "x", "interval": 0 }), vec!["type", "interval"]),
        (&monitors, json!({ "interval": 10, "timeout": 5, "retries": 2 }), vec!["interval"]),
        (&monitors, json!({ "type": "tcp" }), vec!["port"]),
        (&monitors, json!({ "path": "x y", "port": "80" }), vec!["path", "port"]),
        (
            &monitors,
            json!({ "expected_codes": "2xx,7", "header": { "User-Agent": ["x"] }, "method": "PUT" }),
            vec!["method", "expected_codes", "header"],
        ),
        (&office.objects("monitor_groups"), json!({}), vec!["description", "members"]),
        (
            &office.objects("monitor_groups"),
            json!({ "description": "", "members": [{ "monitor_id": "x" }] }),
            vec![
                "members[0].monitor_id",
                "members[0].enabled",
                "members[0].must_be_healthy",
                "members[0].monitoring_only",
            ],
        ),
        (&pools, json!({}), vec!["name", "origins"]),
        (&pools, json!({ "name": "a.b", "origins": [] }), vec!["name", "origins"]),
        (
            &pools,
            json!({ "name": "a", "monitor": "x", "monitor_group": "y", "latitude": 91, "check_regions": ["MARS"],
                "origins": [
                    { "address": format!("{nobody}.cfargotunnel.com"), "weight": 0.005 },
                    { "address": "a.test", "header": { "Host": ["elsewhere.org"] } },
                    { "address": "A.test.", "port": 99_999 }, {},
                ] }),
            vec![
                "origins[0].address",
                "origins[0].weight",
                "origins[1].header.Host",
                "origins[2].address",
                "origins[2].port",
                "origins[3].address",
                "monitor",
                "monitor_group",
                "monitor_group",
                "latitude",
                "longitude",
                "check_regions",
            ],
        ),
        (&office.balancers(""), json!({}), vec!["name", "default_pools", "fallback_pool"]),
        (
            &office.balancers(""),
            json!({ "name": "app.other.org", "default_pools": ["x"], "fallback_pool": "y", "ttl": 0,
                "steering_policy": "best", "session_affinity": "header", "session_affinity_ttl": 9_999,
                "session_affinity_attributes": { "samesite": "None", "secure": "Never" },
                "region_pools": { "WEU": ["z"] }, "rules": [{ "fixed_response": { "location": "a\nb" } }] }),
            vec![
                "name",
                "ttl",
                "default_pools",
                "fallback_pool",
                "region_pools",
                "steering_policy",
                "session_affinity_ttl",
                "session_affinity_attributes.samesite",
                "rules[0].name",
                "rules[0].fixed_response.location",
            ],
        ),
        // One within it is of that zone.
        (
            &office.balancers(""),
            json!({ "name": "a.deep.example.com", "default_pools": [pool], "fallback_pool": pool }),
            vec!["name"],
        ),
        (
            &office.balancers(""),
            json!({ "name": "demo.localhost", "default_pools": [], "fallback_pool": 7 }),
            vec!["name", "default_pools", "fallback_pool"],
        ),
    ] {
        let reply = office.post(path, body.clone()).await;
        assert_eq!(reply.faults(), places, "{body}: {reply:?}");
    }
    office
        .post(&pools, json!({ "name": "one", "origins": [endpoint(&tunnel)] }))
        .await
        .refused(409, "already");
    assert_eq!(office.get(&pools).await.as_array().unwrap().len(), 1, "nothing was made");
    let refused = office.ask(Method::GET, &office.objects("search"), None).await;
    assert_eq!((refused.status.as_u16(), &refused.json["errors"][0]["code"]), (400, &json!(1099)));
}

#[tokio::test]
async fn regions_are_found_by_a_country_and_by_a_part_of_one() {
    let office = Office::open().await;
    let all = office.get(&office.objects("regions")).await;
    let countries = |region: &Value| region["countries"].as_array().unwrap().len();
    let regions = all["regions"].as_array().unwrap();
    assert_eq!((regions.len(), regions.iter().map(countries).sum::<usize>()), (13, 252), "CA and US twice");
    for (asked, found) in [
        ("country_code_a2=DE", json!([["WEU", "DE", "Germany"]])),
        (
            "country_code_a2=us&subdivision_code_a2=ca",
            json!([["WNAM", "US", "United States", "CA", "California"]]),
        ),
        ("subdivision_code=QC", json!([["ENAM", "CA", "Canada", "QC", "Quebec"]])),
        ("country_code_a2=DE&subdivision_code_a2=BE", json!([])),
        ("country_code_a2=ZZ", json!([])),
    ] {
        let answer = office.get(&office.objects(&format!("regions?{asked}"))).await;
        let rows = answer["regions"].as_array().unwrap().iter().map(|region| {
            let country = &region["countries"][0];
            let mut row = vec![&region["region_code"], &country["country_code_a2"], &country["country_name"]];
            if let Some(part) = country["country_subdivisions"].get(0) {
                row.extend([&part["subdivision_code_a2"], &part["subdivision_name"]]);
            }
            json!(row)
        });
        assert_eq!(Value::Array(rows.collect()), found, "{asked}");
    }
    let one = office.get(&office.objects("regions/SAS")).await;
    assert!(one["name"] == "Southern Asia" && one["countries"][0]["country_code_a2"] == "AF", "{one}");
}

#[tokio::test]
async fn what_another_account_has_is_as_if_it_were_not_there() {
    let office = Office::open().await;
    let folder = office.edge.folder.path().join("edge-data");
    let (_, founding) = Provisioning::found(&folder, "rival", &["rival.test".to_owned()]).await.unwrap();
    let rival = TokenRequest { account: Some("rival".to_owned()), ..TokenRequest::default() };
    let rival = office.token(rival).await;
    let (tunnel, _) = office.tunnel_named("one").await;
    let monitor = id(&office.post(&office.objects("monitors"), json!({})).await.done());
    let pool = office.pool("one", &[&tunnel]).await;
    let balancer = office.balancer("app.example.com", &[&pool], json!({})).await;
    let theirs = |rest: &str| format!("/accounts/{}/load_balancers/{rest}", founding.account);
    let their_balancers = format!("/zones/{}/load_balancers", founding.zones[0].1);
    let own = json!({ "name": "own", "origins": [{ "address": "192.0.2.1" }] });
    let own = id(&office.ask_as(&rival, Method::POST, &theirs("pools"), Some(own)).await.done());
    let nobody = Uuid::new_v4();
    let same = |one: &Reply, other: &Reply, ids: [&str; 2]| {
        let text = one.json.to_string().replace(ids[0], ids[1]);
        assert_eq!((one.status, text), (other.status, other.json.to_string()));
    };
    for (path, body) in [
        (theirs("pools"), json!({ "name": "x", "origins": [endpoint("ID")] })),
        (theirs("pools"), json!({ "name": "x", "monitor": "ID", "origins": [{ "address": "192.0.2.1" }] })),
        (
            their_balancers.clone(),
            json!({ "name": "a.rival.test", "default_pools": [own], "fallback_pool": "ID" }),
        ),
        (
            theirs("monitor_groups"),
            json!({ "description": "x", "members": [{
                "monitor_id": "ID", "enabled": true, "must_be_healthy": true, "monitoring_only": false,
            }] }),
        ),
    ] {
        let with = |id: &str| Some(serde_json::from_str(&body.to_string().replace("ID", id)).unwrap());
        let foreign = match path.ends_with("pools") && body.get("monitor").is_none() {
            true => tunnel.clone(),
            false if path == their_balancers => pool.clone(),
            false => monitor.clone(),
        };
        let refused = office.ask_as(&rival, Method::POST, &path, with(&foreign)).await;
        assert_eq!(refused.status.as_u16(), 400, "{refused:?}");
        let unknown = office.ask_as(&rival, Method::POST, &path, with(&nobody.to_string())).await;
        same(&refused, &unknown, [&foreign, &nobody.to_string()]);
    }
    for (method, path, body) in [
        (Method::GET, office.objects("pools"), None),
        (Method::GET, office.balancers(""), None),
        (Method::GET, theirs(&format!("pools/{pool}")), None),
        (Method::GET, theirs(&format!("pools/{pool}/health")), None),
        (Method::GET, theirs(&format!("pools/{pool}/references")), None),
        (Method::PUT, theirs(&format!("pools/{pool}")), Some(json!({}))),
        (Method::PATCH, theirs(&format!("monitors/{monitor}")), Some(json!({}))),
        (Method::DELETE, theirs(&format!("pools/{pool}")), None),
        (Method::PATCH, format!("{their_balancers}/{balancer}"), Some(json!({ "enabled": false }))),
        (Method::DELETE, format!("{their_balancers}/{balancer}"), None),
    ] {
        office.ask_as(&rival, method, &path, body).await.refused(404, "not found");
    }
    let route = json!({ "type": "lb", "lb_name": "b.rival.test", "lb_pool": "own" });
    let path = format!("/zones/{}/tunnels/{tunnel}/routes", founding.zones[0].1);
    office.ask_as(&rival, Method::PUT, &path, Some(route)).await.refused(404, "tunnel not found");

    // Nor does a token reach beyond its zones or its tunnels.
    let zone =
        TokenRequest { zones: vec!["example.com".to_owned()], account: main(), ..TokenRequest::default() };
    let deep = TokenRequest {
        zones: vec!["deep.example.com".to_owned()],
        account: main(),
        ..TokenRequest::default()
    };
    let reader = TokenRequest { read_only: true, account: main(), ..TokenRequest::default() };
    let bound =
        TokenRequest { tunnels: vec![tunnel.parse().unwrap()], account: main(), ..TokenRequest::default() };
    let mut tokens = Vec::new();
    for wish in [zone, deep, reader, bound] {
        tokens.push(office.token(wish).await);
    }
    let one = office.balancers(&format!("/{balancer}"));
    let new = || Some(json!({ "name": "new", "origins": [{ "address": "192.0.2.1" }] }));
    let route = json!({ "type": "lb", "lb_name": "c.example.com", "lb_pool": "one" });
    for (method, path, body, wanted) in [
        (Method::GET, office.objects("pools"), None, [200, 200, 200, 403]),
        (Method::POST, office.objects("pools"), new(), [403; 4]),
        (Method::DELETE, office.objects(&format!("pools/{own}")), None, [403; 4]),
        (Method::GET, one.clone(), None, [200, 403, 200, 403]),
        (Method::PATCH, one.clone(), Some(json!({ "description": "x" })), [200, 403, 403, 403]),
        (Method::PUT, format!("/zones/{}/tunnels/{tunnel}/routes", office.zone), Some(route), [403; 4]),
    ] {
        for (token, wanted) in tokens.iter().zip(wanted) {
            let reply = office.ask_as(token, method.clone(), &path, body.clone()).await;
            assert_eq!(reply.status.as_u16(), wanted, "{method} {path}: {reply:?}");
        }
    }
}

fn main() -> Option<String> {
    Some("main".to_owned())
}

#[tokio::test]
async fn a_body_that_is_no_object_is_refused() {
    let office = Office::open().await;
    let send = |body: AnyBody| {
        let request = Request::post(office.objects("pools")).header("host", "api");
        office.send(request.header("authorization", format!("Bearer {}", office.token)).body(body).unwrap())
    };
    assert_eq!(send(empty()).await.status, 400);
    assert_eq!(send(full("[]")).await.status, 400);
    assert_eq!(
        send(full(format!("{{\"name\": {}1{}}}", "[".repeat(200), "]".repeat(200)))).await.status,
        400
    );
}
