//! One account takes no more of an edge than its share, whatever its tokens ask for, and no other one notices.

use adit_edge::TokenRequest;
use http::Method;
use serde_json::{Value, json};

use crate::office::{Office, Reply};

/// Another account of the same edge.
struct Other {
    account: String,
    zone: String,
    token: String,
}

impl Other {
    async fn of(office: &Office) -> Self {
        let account = office.ledger.create_account("other").await.unwrap();
        let (_, zone) = office.ledger.add_zone(&account, "other.test").await.unwrap();
        let wish = TokenRequest { account: Some(account.clone()), ..TokenRequest::default() };
        Self { zone, token: office.token(wish).await, account }
    }

    async fn create(&self, office: &Office, name: &str) -> Reply {
        let path = format!("/accounts/{}/cfd_tunnel", self.account);
        office.ask_as(&self.token, Method::POST, &path, Some(json!({ "name": name }))).await
    }
}

fn code(reply: &Reply) -> &Value {
    &reply.json["errors"][0]["code"]
}

#[tokio::test]
async fn an_account_has_its_share_of_tunnels_and_those_that_it_deleted_take_none() {
    let office = Office::open_with("tunnels-per-account = 3\n").await;
    let other = Other::of(&office).await;
    let mut ids = Vec::new();
    for name in ["one", "two", "three"] {
        ids.push(office.create(name).await["id"].as_str().unwrap().to_owned());
    }
    let create =
        async |name: &str| office.ask(Method::POST, &office.tunnels(), Some(json!({ "name": name }))).await;
    let refused = create("four").await;
    assert_eq!(code(&refused), 1014);
    refused.refused(409, "this account has 3 tunnels, which is its share");
    other.create(&office, "theirs").await.result();
    // What it has still changes, and goes.
    let renamed = json!({ "name": "1" });
    office.ask(Method::PATCH, &office.tunnel(&ids[0]), Some(renamed)).await.result();
    for round in 0..5 {
        let gone = ids.pop().unwrap();
        office.ask(Method::DELETE, &office.tunnel(&gone), None).await.result();
        ids.push(create(&format!("again {round}")).await.result()["id"].as_str().unwrap().to_owned());
    }
    create("four").await.refused(409, "share");
}

#[tokio::test]
async fn an_account_has_its_share_of_records_whichever_call_makes_them() {
    let office = Office::open_with("records-per-account = 3\n").await;
    let other = Other::of(&office).await;
    let id = office.create("one").await["id"].as_str().unwrap().to_owned();
    let theirs = other.create(&office, "theirs").await.result();
    let records = format!("/zones/{}/dns_records", office.zone);
    let record =
        |name: &str| json!({ "type": "CNAME", "name": name, "content": format!("{id}.tunnels.test") });
    let post = async |path: String, body: Value| office.ask(Method::POST, &path, Some(body)).await;

    office.route(&id, "a.example.com", false).await.result();
    let b = post(records.clone(), record("b")).await.result();
    // All of a batch or nothing, and what makes room in it counts.
    let batch = format!("{records}/batch");
    let refused = post(batch.clone(), json!({ "posts": [record("c"), record("d")] })).await;
    assert_eq!(code(&refused), 81045);
    refused.refused(400, "this account has 3 records, which is its share");
    let swap = json!({ "deletes": [{ "id": b["id"] }], "posts": [record("c"), record("d")] });
    post(batch, swap).await.result();

    let refused = [office.route(&id, "e.example.com", false).await, post(records.clone(), record("e")).await];
    for refused in refused {
        assert_eq!(code(&refused), 81045);
        refused.refused(400, "share");
    }
    // The zone within the first one is the account's too.
    office.route(&id, "a.deep.example.com", false).await.refused(400, "share");
    let path = format!("/zones/{}/tunnels/{}/routes", other.zone, theirs["id"].as_str().unwrap());
    let body = json!({ "type": "dns", "user_hostname": "a.other.test" });
    office.ask_as(&other.token, Method::PUT, &path, Some(body)).await.result();
    // What is there already leads elsewhere, and goes.
    let second = office.create("two").await["id"].as_str().unwrap().to_owned();
    office.route(&second, "a.example.com", true).await.result();
    let gone = format!("/zones/{}/tunnels/routes/a.example.com", office.zone);
    office.ask(Method::DELETE, &gone, None).await.result();
    office.route(&id, "e.example.com", false).await.result();
}

#[tokio::test]
async fn an_account_has_its_share_of_the_state_that_every_edge_keeps_in_memory() {
    let office = Office::open_with("state-per-account = \"1MiB\"\n").await;
    let other = Other::of(&office).await;
    let mut ids = Vec::new();
    for name in ["one", "two", "three"] {
        ids.push(office.create(name).await["id"].as_str().unwrap().to_owned());
    }
    let large = |bytes: usize| {
        let remark = "x".repeat(bytes);
        json!({ "config": { "ingress": [{ "service": "http://127.0.0.1:1" }], "remark": remark } })
    };
    let configure = async |id: &str, bytes: usize| {
        let path = format!("{}/configurations", office.tunnel(id));
        office.ask(Method::PUT, &path, Some(large(bytes))).await
    };
    configure(&ids[0], 600_000).await.result();
    let refused = configure(&ids[1], 600_000).await;
    assert_eq!(code(&refused), 1014);
    refused.refused(409, "more than 1MiB, which is its share");
    configure(&ids[1], 400_000).await.result();
    // Other kinds of records count as well.
    let metadata = json!({ "metadata": { "remark": "x".repeat(60_000) } });
    office.ask(Method::PATCH, &office.tunnel(&ids[2]), Some(metadata)).await.refused(409, "share");
    // So do the objects of load balancing.
    let origin = json!({ "name": "x".repeat(60), "address": "192.0.2.1" });
    let pool = async |name: String, origins: usize| {
        let origins: Vec<Value> = (0..origins)
            .map(|at| json!({ "name": origin["name"], "address": format!("192.0.2.{at}") }))
            .collect();
        let body = json!({ "name": name, "description": "x".repeat(900), "origins": origins });
        office
            .ask(Method::POST, &format!("/accounts/{}/load_balancers/pools", office.account), Some(body))
            .await
    };
    let mut pools = Vec::new();
    let refused = loop {
        let reply = pool(format!("pool-{}", pools.len()), 100).await;
        if reply.status.as_u16() != 200 {
            break reply;
        }
        pools.push(reply.json["result"]["id"].as_str().unwrap().to_owned());
        assert!(pools.len() < 20, "48 KB are free");
    };
    refused.refused(409, "share");
    assert!(!pools.is_empty());
    for id in &pools {
        let path = format!("/accounts/{}/load_balancers/pools/{id}", office.account);
        // One that gets shorter is always taken.
        let fewer = json!({ "description": "" });
        assert_eq!(office.ask(Method::PATCH, &path, Some(fewer)).await.status.as_u16(), 200);
        office.ask(Method::DELETE, &path, None).await.result();
    }
    // Less is always taken, and a deletion makes room.
    configure(&ids[0], 500_000).await.result();
    office.ask(Method::DELETE, &office.tunnel(&ids[1]), None).await.result();
    configure(&ids[0], 900_000).await.result();
    other.create(&office, "theirs").await.result();
}
