//! Routes as DNS records of a running edge: a record is a route, in both directions, and of its zone's account alone.

use adit_edge::{Provisioning, TokenRequest};
use http::Method;
use serde_json::{Value, json};

use crate::office::{Office, Reply};

impl Office {
    pub(crate) fn records(&self) -> String {
        format!("/zones/{}/dns_records", self.zone)
    }

    async fn record(&self, name: &str, content: &str) -> Reply {
        let body = json!({ "type": "CNAME", "name": name, "content": content });
        self.ask(Method::POST, &self.records(), Some(body)).await
    }

    async fn made(&self, name: &str) -> String {
        self.create(name).await["id"].as_str().unwrap().to_owned()
    }
}

fn id(record: &Value) -> &str {
    record["id"].as_str().unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_record_is_a_route_and_a_route_is_a_record() {
    let office = Office::open().await;
    let (one, other) = (office.made("one").await, office.made("other").await);
    let routes = format!("/zones/{}/tunnels/routes", office.zone);

    let record = office.record("app", &format!("{one}.tunnels.test")).await.result();
    assert_eq!(office.visit("app.example.com").await, 530, "visitors reach it as soon as it is made");
    assert_eq!(names(&office.get(&routes).await), ["app.example.com"]);
    let path = format!("{}/{}", office.records(), id(&record));
    let moved = office.ask(Method::PATCH, &path, Some(json!({ "name": "web" }))).await.result();
    assert_eq!((&moved["name"], id(&moved)), (&json!("web.example.com"), id(&record)));
    assert_eq!(office.visit("app.example.com").await, 404);
    assert_eq!(office.visit("web.example.com").await, 530);
    let gone = office.ask(Method::DELETE, &path, None).await.result();
    assert_eq!(gone, json!({ "id": record["id"] }));
    assert_eq!(office.visit("web.example.com").await, 404);
    office.ask(Method::GET, &path, None).await.refused(404, "does not exist");

    office.route(&one, "*.example.com", false).await.result();
    let list = office.get(&office.records()).await;
    let (record, path) = (&list[0], format!("{}/{}", office.records(), id(&list[0])));
    assert_eq!(record["name"], "*.example.com");
    assert_eq!(record["content"], format!("{one}.tunnels.test"), "by the edge's own name of the tunnel");
    assert_eq!((&record["proxied"], &record["ttl"]), (&json!(true), &json!(1)));
    let noted = json!({ "comment": "of the shop", "tags": ["team:shop"] });
    office.ask(Method::PATCH, &path, Some(noted)).await.result();
    assert_eq!(office.route(&other, "*.example.com", true).await.result()["cname"], "updated");
    let led = office.get(&path).await;
    assert_eq!(led["content"], format!("{other}.tunnels.test"), "the same record leads elsewhere");
    assert_eq!((&led["comment"], &led["tags"]), (&json!("of the shop"), &json!(["team:shop"])));
    office.ask(Method::DELETE, &format!("{routes}/*.example.com"), None).await.result();
    assert_eq!(office.get(&office.records()).await, json!([]));
}

#[tokio::test]
async fn the_operator_sees_records_and_may_take_them_away() {
    let office = Office::open().await;
    let tunnel = office.made("one").await;
    let record = office.record("app", &format!("{tunnel}.tunnels.test")).await.result();
    let lines = office.ledger.records(Some("Example.com.")).await.unwrap();
    let seen = (&*lines[0].id, &*lines[0].name, &*lines[0].zone, &*lines[0].tunnel_name);
    assert_eq!(seen, (id(&record), "app.example.com", "example.com", "one"));
    assert!(office.ledger.records(Some("deep.example.com")).await.unwrap().is_empty());
    assert!(office.ledger.records(Some("other.org")).await.is_err());
    office.ledger.delete_record("App.example.com").await.unwrap();
    assert!(office.ledger.delete_record("app.example.com").await.is_err());
    assert_eq!(office.get(&office.records()).await, json!([]), "the next call of the API knows");
    assert_eq!(office.visit("app.example.com").await, 404);
    let accounts = office.ledger.accounts().await.unwrap();
    assert_eq!((&*accounts[0].name, accounts[0].zones.len(), accounts[0].tunnels), ("main", 2, 1));
}

#[tokio::test]
async fn a_batch_is_made_as_a_whole_and_its_changes_see_each_other() {
    let office = Office::open().await;
    let tunnel = office.made("one").await;
    let content = format!("{tunnel}.cfargotunnel.com");
    let a = office.record("a", &content).await.result();
    let b = office.record("b", &content).await.result();
    let batch = format!("{}/batch", office.records());
    let ask = |body: Value| office.ask(Method::POST, &batch, Some(body));
    // Two names change places by way of a third one, which nobody sees.
    let swap = json!({ "patches": [
        { "id": a["id"], "name": "c" }, { "id": b["id"], "name": "a" }, { "id": a["id"], "name": "b" },
    ]});
    ask(swap).await.result();
    assert_eq!(office.get(&format!("{}/{}", office.records(), id(&a))).await["name"], "b.example.com");
    assert_eq!(office.get(&format!("{}/{}", office.records(), id(&b))).await["name"], "a.example.com");
    assert_eq!(office.visit("c.example.com").await, 404);

    let before = office.get(&office.records()).await;
    let post = |name: &str| json!({ "type": "CNAME", "name": name, "content": content });
    for (body, status, reason) in [
        (json!({ "deletes": [{ "id": a["id"] }], "posts": [post("a")] }), 400, "has a record already"),
        (json!({ "posts": [post("new"), post("new")] }), 400, "has a record already"),
        (json!({ "deletes": [{ "id": a["id"] }, { "id": a["id"] }] }), 404, "does not exist"),
        (json!({ "posts": [post("new"), { "type": "MX", "name": "mx" }] }), 400, "no MX records"),
        (
            json!({ "posts": [post("new"), { "type": "CNAME", "name": "x", "content": "a.b" }] }),
            400,
            "posts[1]",
        ),
        (json!({ "puts": [{ "type": "CNAME", "name": "x", "content": content }] }), 400, "`id` is missing"),
        (json!({ "posts": [{ "type": "CNAME", "name": "a b", "content": content }] }), 400, "no host name"),
        (json!({ "posts": [post("demo.localhost")], "deletes": 7 }), 400, "wrong kind"),
    ] {
        ask(body).await.refused(status, reason);
        assert_eq!(office.get(&office.records()).await, before, "nothing was changed");
    }
    let many: Vec<_> = (0..200).map(|number| post(&format!("n{number}"))).collect();
    let made = ask(json!({ "deletes": [{ "id": a["id"] }], "posts": many })).await.result();
    assert_eq!(made["posts"].as_array().unwrap().len(), 200);
    assert_eq!(ask(json!({})).await.result()["posts"], json!([]));
    let lines = office.ledger.audit(1).await.unwrap();
    assert_eq!(lines[0].action, "record.batch");
    assert!(lines[0].subject.ends_with("and 193 more"), "{}", lines[0].subject);
}

#[tokio::test]
async fn of_many_who_want_a_name_at_once_one_has_it() {
    let office = Office::open().await;
    let tunnel = office.made("one").await;
    let content = format!("{tunnel}.tunnels.test");
    let replies = futures_util::future::join_all((0..16).map(|_| office.record("app", &content))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1, "{replies:?}");
    assert!(replies.iter().all(|reply| [200, 400, 409].contains(&reply.status.as_u16())), "{replies:?}");
    let record = office.get(&office.records()).await[0].clone();
    let path = format!("{}/{}", office.records(), id(&record));
    let deletes = (0..16).map(|_| office.ask(Method::DELETE, &path, None));
    let replies = futures_util::future::join_all(deletes).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1, "{replies:?}");
}

#[tokio::test]
async fn a_record_leads_within_its_account_and_none_is_seen_or_changed_from_another() {
    let office = Office::open().await;
    let zones = ["rival.test".to_owned(), "rival.example.com".to_owned()];
    let folder = office.edge.folder.path().join("edge-data");
    let (_, founding) = Provisioning::found(&folder, "rival", &zones).await.unwrap();
    let rival = TokenRequest { account: Some("rival".to_owned()), ..TokenRequest::default() };
    let rival = office.token(rival).await;
    let tunnel = office.made("demo").await;
    let content = format!("{tunnel}.tunnels.test");
    let record = office.record("app", &content).await.result();
    let tunnels = format!("/accounts/{}/cfd_tunnel", founding.account);
    let own = office.ask_as(&rival, Method::POST, &tunnels, Some(json!({ "name": "own" }))).await.result();
    let theirs = format!("{}.tunnels.test", id(&own));
    let zone = founding.zones.iter().find(|(name, _)| name == "rival.test").unwrap().1.clone();
    let (foreign, mine) = (office.records(), format!("/zones/{zone}/dns_records"));
    let there = format!("{foreign}/{}", id(&record));
    let here = format!("{mine}/{}", id(&record));
    let wish = |name: &str, content: &str| json!({ "type": "CNAME", "name": name, "content": content });
    for (method, path, body, status) in [
        (Method::GET, format!("/accounts/{}", office.account), None, 404),
        (Method::GET, format!("/accounts/{}/tokens/verify", office.account), None, 404),
        (Method::GET, format!("/accounts/{}/tunnels", office.account), None, 404),
        (Method::GET, format!("/zones/{}", office.zone), None, 404),
        (Method::GET, foreign.clone(), None, 404),
        (Method::POST, foreign.clone(), Some(wish("new", &theirs)), 404),
        (Method::POST, format!("{foreign}/batch"), Some(json!({ "deletes": [{ "id": record["id"] }] })), 404),
        (Method::GET, format!("{foreign}/export"), None, 404),
        (Method::GET, there.clone(), None, 404),
        (Method::PUT, there.clone(), Some(wish("app", &theirs)), 404),
        (Method::DELETE, there.clone(), None, 404),
        // The id of a record does not help in a zone of one's own, nor does the id of a tunnel.
        (Method::GET, here.clone(), None, 404),
        (Method::PUT, here.clone(), Some(wish("app", &theirs)), 404),
        (Method::PATCH, here.clone(), Some(json!({ "content": theirs })), 404),
        (Method::DELETE, here.clone(), None, 404),
        (Method::POST, format!("{mine}/batch"), Some(json!({ "deletes": [{ "id": record["id"] }] })), 404),
        (Method::POST, mine.clone(), Some(wish("app", &content)), 400),
        // Nor does a name of another zone, which is taken as one below one's own.
        (Method::POST, mine.clone(), Some(wish("x.example.com", &theirs)), 200),
    ] {
        let reply = office.ask_as(&rival, method.clone(), &path, body).await;
        assert_eq!(reply.status.as_u16(), status, "{method} {path}: {reply:?}");
        assert!(!reply.json["result"].to_string().contains(&tunnel), "{reply:?}");
    }
    assert_eq!(office.visit("x.example.com").await, 404);
    // A zone within a zone is its own account's.
    office.record("x.rival", &content).await.refused(400, "one within it");
    office.record("rival.example.com", &content).await.refused(400, "one within it");
    assert_eq!(office.get(&office.records()).await, json!([record]), "nothing was changed");
    let zones = office.ask_as(&rival, Method::GET, "/zones?match=any&name=example.com", None).await.result();
    assert_eq!(zones, json!([]));
    let accounts = office.ask_as(&rival, Method::GET, "/accounts", None).await.result();
    assert_eq!(names(&accounts), ["rival"]);
}

#[tokio::test]
async fn a_token_reaches_the_records_of_its_zones_alone() {
    let office = Office::open().await;
    let tunnel = office.made("demo").await;
    let zone = TokenRequest { zones: vec!["example.com".to_owned()], ..TokenRequest::default() };
    let deep = TokenRequest { zones: vec!["deep.example.com".to_owned()], ..TokenRequest::default() };
    let reader = TokenRequest { read_only: true, ..TokenRequest::default() };
    let bound = TokenRequest { tunnels: vec![tunnel.parse().unwrap()], ..TokenRequest::default() };
    let tokens = [
        office.token(zone).await,
        office.token(deep).await,
        office.token(reader).await,
        office.token(bound).await,
    ];
    let content = format!("{tunnel}.tunnels.test");
    let record = office.record("app", &content).await.result();
    let list = office.records();
    let path = format!("{list}/{}", id(&record));
    let wish = || Some(json!({ "type": "CNAME", "name": "app", "content": content }));
    for (method, path, body, wanted) in [
        (Method::GET, list.clone(), None, [200, 403, 200, 403]),
        (Method::GET, path.clone(), None, [200, 403, 200, 403]),
        (Method::GET, format!("/zones/{}", office.zone), None, [200, 403, 200, 403]),
        (Method::PUT, path.clone(), wish(), [200, 403, 403, 403]),
        (Method::PATCH, path.clone(), Some(json!({})), [200, 403, 403, 403]),
        (Method::POST, format!("{list}/batch"), Some(json!({})), [200, 403, 403, 403]),
        (Method::GET, "/accounts".to_owned(), None, [200; 4]),
        (Method::DELETE, path.clone(), None, [200, 403, 403, 403]),
    ] {
        // Those who may not come first, so that a deed of the others does not decide.
        for (token, wanted) in tokens.iter().zip(wanted).rev() {
            let reply = office.ask_as(token, method.clone(), &path, body.clone()).await;
            assert_eq!(reply.status.as_u16(), wanted, "{method} {path}: {reply:?}");
        }
    }
}
