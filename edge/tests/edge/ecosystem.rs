//! What programs of the ecosystem ask of the API, in the forms in which they ask it: bodies of our own with the
//! fields that these programs send and read (docs/ecosystem.md). The programs themselves are not run.

use adit_protocol::credentials::Credentials;
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::connector::Connector;
use crate::harness::LocalSet;
use crate::office::Office;

/// external-dns with `--registry=noop --managed-record-types=CNAME`.
#[tokio::test]
async fn external_dns_keeps_the_records_of_its_services() {
    let office = Office::open().await;
    let tunnel = office.create("shop").await["id"].as_str().unwrap().to_owned();
    let target = format!("{tunnel}.tunnels.test");
    // Zones by pages until one is empty, or one by its id.
    assert_eq!(office.get("/zones?page=1").await.as_array().unwrap().len(), 2);
    assert_eq!(office.get("/zones?page=2").await, json!([]));
    let zone = office.get(&format!("/zones/{}", office.zone)).await;
    assert_eq!((&zone["name"], &zone["plan"]["is_subscribed"]), (&json!("example.com"), &json!(false)));
    // It sends every field, with or without a value.
    let wish = |name: &str, proxied: bool| {
        json!({
            "name": name, "type": "CNAME", "content": target, "ttl": 1, "proxied": proxied,
            "priority": 0, "comment": "", "tags": null,
        })
    };
    let batch = format!("{}/batch", office.records());
    let posts = json!({ "posts": [wish("a.example.com", false), wish("b.example.com", true)] });
    let made = office.ask(Method::POST, &batch, Some(posts)).await.result();
    let list = office.get(&format!("{}?per_page=100", office.records())).await;
    assert_eq!(list, made["posts"]);
    for (record, proxied) in list.as_array().unwrap().iter().zip([false, true]) {
        // What it compares its wishes with; where one differs it would write again and again.
        for (field, value) in
            [("content", json!(target)), ("ttl", json!(1)), ("proxied", json!(proxied)), ("tags", json!([]))]
        {
            assert_eq!(record[field], value, "{field}");
        }
    }
    let mut put = wish("a.example.com", true);
    put["id"] = list[0]["id"].clone();
    let change = json!({ "deletes": [{ "id": list[1]["id"] }], "puts": [put] });
    office.ask(Method::POST, &batch, Some(change)).await.result();
    assert_eq!(office.get(&office.records()).await[0]["proxied"], true);
    // The registry of its own that it has unless told otherwise.
    let text =
        json!({ "name": "cname-a.example.com", "type": "TXT", "content": "\"heritage=external-dns\"" });
    office.ask(Method::POST, &office.records(), Some(text)).await.refused(400, "no TXT records");
}

/// pl4nty/cloudflare-kubernetes-gateway: a Gateway is a tunnel, an HTTPRoute its rules and records.
#[tokio::test]
async fn a_gateway_controller_makes_a_tunnel_with_its_rules_and_records() {
    LocalSet::new().run_until(gateway()).await
}

async fn gateway() {
    let mut office = Office::open().await;
    assert_eq!(office.get("/user/tokens/verify").await["status"], "active");
    let find = format!("/accounts/{}/tunnels?is_deleted=false&name=gateway", office.account);
    assert_eq!(office.get(&find).await, json!([]));
    office.ask(Method::POST, &office.tunnels(), Some(json!({ "name": "gateway" }))).await.result();
    let tunnel = office.get(&find).await[0]["id"].as_str().unwrap().to_owned();
    let path = office.tunnel(&tunnel);
    let rules = format!("{path}/configurations");
    let first = json!({ "config": {
        "ingress": [{ "service": "http_status:404" }],
        "originRequest": { "keepAliveConnections": -1 },
    }});
    let now = office.get(&rules).await;
    assert!(now.as_object().unwrap().contains_key("config") && now["config"].is_null(), "{now}");
    office.ask(Method::PUT, &rules, Some(first)).await.result();
    let now = office.get(&rules).await;
    assert_eq!(now["config"]["originRequest"]["keepAliveConnections"], -1);
    let ingress = json!({ "config": { "ingress": [
        { "hostname": "app.example.com", "path": "/", "service": "http://shop.default:80" },
        { "service": "http_status:404" },
    ]}});
    office.ask(Method::PUT, &rules, Some(ingress)).await.result();
    // The zone of a name is looked for from the longest one on.
    for (name, found) in [("app.example.com", 0), ("example.com", 1)] {
        let zones = format!("/zones?account.id={}&name={name}&status=active", office.account);
        assert_eq!(office.get(&zones).await.as_array().unwrap().len(), found, "{name}");
    }
    let find = format!("{}?proxied=true&type=CNAME&name.exact=app.example.com", office.records());
    assert_eq!(office.get(&find).await, json!([]));
    let wish = || {
        Some(json!({
            "type": "CNAME", "name": "app.example.com", "content": format!("{tunnel}.cfargotunnel.com"),
            "proxied": true, "comment": "Managed by a controller",
        }))
    };
    office.ask(Method::POST, &office.records(), wish()).await.result();
    let record = office.get(&find).await[0]["id"].as_str().unwrap().to_owned();
    let again = office.ask(Method::PUT, &format!("{}/{record}", office.records()), wish()).await.result();
    assert_eq!(again["id"], record);
    assert_eq!(
        office.visit("app.example.com").await,
        530,
        "it leads to the tunnel, which nothing serves yet"
    );

    // What serves it has the token, and the end is a new secret, no connections and no tunnel.
    let token = office.get(&format!("{path}/token")).await;
    office.edge.credentials = Credentials::from_token(token.as_str().unwrap()).unwrap();
    let connector = Connector::registered(&office.edge, 0, Uuid::new_v4(), 0).await;
    let secret = json!({ "tunnel_secret": "bm9uZSBvZiB0aGVzZSB0aGF0IGhvc3RzIGhhdmUsIGFuZCBsb25n" });
    office.ask(Method::PATCH, &path, Some(secret)).await.result();
    office.ask(Method::DELETE, &format!("{path}/connections"), None).await.result();
    office.ask(Method::DELETE, &path, None).await.result();
    connector.connection.closed().await;
    assert_eq!(office.get(&office.records()).await, json!([]));
}

/// The resources and data of the Terraform provider: what it has written it reads again and compares.
#[tokio::test]
async fn terraform_finds_what_it_has_written() {
    let office = Office::open().await;
    let same = |read: &Value, written: &Value| {
        for (field, value) in written.as_object().unwrap() {
            assert!(*value == read[field] || value.is_null(), "{field}: {value} and {}", read[field]);
        }
    };
    let resource = json!({ "name": "tf", "config_src": "cloudflare" });
    let tunnel = office.ask(Method::POST, &office.tunnels(), Some(resource.clone())).await.result();
    let path = office.tunnel(tunnel["id"].as_str().unwrap());
    let read = office.get(&path).await;
    same(&read, &resource);
    for computed in
        ["account_tag", "created_at", "status", "tun_type", "remote_config", "connections", "metadata"]
    {
        assert_eq!(read[computed], tunnel[computed], "{computed}");
    }
    // A change sends what differs.
    let read = office.ask(Method::PATCH, &path, Some(json!({ "name": "tf-2" }))).await.result();
    same(&read, &json!({ "id": tunnel["id"], "name": "tf-2", "config_src": "cloudflare" }));

    let config = json!({ "config": {
        "ingress": [
            { "hostname": "tf.example.com", "path": "/x", "service": "https://shop:443",
              "originRequest": { "connectTimeout": 30, "noTLSVerify": true, "originServerName": "shop" } },
            { "service": "http_status:404" },
        ],
        "originRequest": { "connectTimeout": 10, "http2Origin": true },
    }, "source": "cloudflare" });
    let rules = format!("{path}/configurations");
    office.ask(Method::PUT, &rules, Some(config.clone())).await.result();
    let read = office.get(&rules).await;
    same(&read, &config);
    assert_eq!(read["version"], 1);

    let record = json!({
        "name": "tf", "type": "CNAME", "content": format!("{}.cfargotunnel.com", tunnel["id"].as_str().unwrap()),
        "ttl": 1, "proxied": true, "comment": "from a plan", "tags": ["team:shop"], "settings": {},
    });
    let made = office.ask(Method::POST, &office.records(), Some(record.clone())).await.result();
    let at = format!("{}/{}", office.records(), made["id"].as_str().unwrap());
    let read = office.get(&at).await;
    // A name without its zone comes back whole, and the provider knows both for the same.
    let mut whole = record.clone();
    whole["name"] = json!("tf.example.com");
    same(&read, &whole);
    for computed in ["created_on", "modified_on", "proxiable", "meta", "tags_modified_on"] {
        assert!(!read[computed].is_null(), "{computed}");
    }
    // What was taken from a plan is null in the whole that it sends.
    let (mut change, mut after) = (record.clone(), whole.clone());
    (change["comment"], change["ttl"], change["proxied"]) = (Value::Null, json!(300), json!(false));
    (after["ttl"], after["proxied"]) = (json!(300), json!(false));
    after.as_object_mut().unwrap().remove("comment");
    let read = office.ask(Method::PUT, &at, Some(change)).await.result();
    same(&read, &after);
    assert_eq!(read["comment"], Value::Null);
    // Data: the record by its name, the zone by its name, the account by its id.
    let found = office.get(&format!("{}?name.exact=tf.example.com&type=CNAME", office.records())).await;
    assert_eq!(found, json!([read]));
    assert_eq!(office.get("/zones?name=example.com").await[0]["id"], office.zone);
    assert_eq!(office.get(&format!("/accounts/{}", office.account)).await["name"], "main");
    // What is gone is no error of a plan: it is made anew.
    office.ask(Method::DELETE, &at, None).await.result();
    office.ask(Method::GET, &at, None).await.refused(404, "does not exist");
    office.ask(Method::DELETE, &path, None).await.result();
    assert!(!office.get(&path).await["deleted_at"].is_null());
}

/// STRRL/cloudflare-tunnel-ingress-controller: its client of an older kind pages by `total_pages`.
#[tokio::test]
async fn an_ingress_controller_gets_as_far_as_its_texts() {
    let office = Office::open().await;
    let list = format!("{}?is_deleted=false&page=1&per_page=1000", office.tunnels());
    let reply = office.ask(Method::GET, &list, None).await;
    assert_eq!(
        reply.json["result_info"],
        json!({ "count": 0, "page": 1, "per_page": 1000, "total_count": 0, "total_pages": 0 })
    );
    let made = json!({ "name": "ingress", "tunnel_secret": "0123456789abcdef".repeat(8), "config_src": "cloudflare" });
    let tunnel = office.ask(Method::POST, &office.tunnels(), Some(made)).await.result();
    let id = tunnel["id"].as_str().unwrap();
    let rules = json!({ "config": { "ingress": [
        { "hostname": "a.example.com", "path": "/", "service": "http://shop.default:80",
          "originRequest": { "noTLSVerify": false, "httpHostHeader": "shop", "proxyType": "" } },
        { "service": "http_status:404" },
    ], "warp-routing": { "enabled": false } } });
    office.ask(Method::PUT, &format!("{}/configurations", office.tunnel(id)), Some(rules)).await.result();
    let cname = json!({
        "type": "CNAME", "name": "a.example.com", "content": format!("{id}.cfargotunnel.com"), "proxied": true, "ttl": 1,
        "comment": "managed by a controller",
    });
    let record = office.ask(Method::POST, &office.records(), Some(cname.clone())).await.result();
    let at = format!("{}/{}", office.records(), record["id"].as_str().unwrap());
    office.ask(Method::PATCH, &at, Some(cname)).await.result();
    let reply =
        office.ask(Method::GET, &format!("{}?type=CNAME&page=1&per_page=100", office.records()), None).await;
    assert_eq!(reply.json["result_info"]["total_pages"], 1);
    assert_eq!(office.get(&format!("{}?type=TXT", office.records())).await, json!([]));
    // It wants to write who owns a name into a text beside it, which is no route.
    let text = json!({ "type": "TXT", "name": "_ctic_managed.a.example.com", "content": "{}", "ttl": 1 });
    office.ask(Method::POST, &office.records(), Some(text)).await.refused(400, "no TXT records");
}
