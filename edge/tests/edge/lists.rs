//! Every list of the control API: who pages comes to an end, has seen everything once, and is told the truth about
//! what there is.

use std::collections::BTreeSet;
use std::time::Duration;

use adit_protocol::credentials::Credentials;
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::alerts::{Hook, TELLING};
use crate::balancing::id;
use crate::connector::Connector;
use crate::harness::LocalSet;
use crate::office::Office;

/// The lists of the API by its own description: what may be asked for a page of.
const DESCRIBED: &str = include_str!("../../src/api/openapi.json");

/// An account with some of everything, and for each list as it is described, where it is and what it has.
async fn filled() -> (Office, Vec<(&'static str, String, usize)>, Vec<Connector>) {
    let mut office = Office::open_with(TELLING).await;
    let made = office.create("one").await;
    let tunnel = id(&made);
    for name in ["two", "three"] {
        office.create(name).await;
    }
    for name in ["a.example.com", "b.example.com"] {
        office.route(&tunnel, name, false).await.result();
    }
    office.edge.credentials = Credentials::from_token(made["token"].as_str().unwrap()).unwrap();
    let mut connectors = Vec::new();
    for _ in 0..3 {
        connectors.push(Connector::registered(&office.edge, 0, Uuid::new_v4(), 0).await);
    }
    let mut monitors = Vec::new();
    for _ in 0..3 {
        monitors.push(id(&office.post(&office.objects("monitors"), json!({ "type": "http" })).await.done()));
    }
    let mut groups = Vec::new();
    for name in ["g1", "g2"] {
        let member = json!({
            "monitor_id": monitors[0], "enabled": true, "must_be_healthy": false, "monitoring_only": false,
        });
        let group = json!({ "description": name, "members": [member] });
        groups.push(id(&office.post(&office.objects("monitor_groups"), group).await.done()));
    }
    let mut pools = Vec::new();
    for name in ["p1", "p2", "p3"] {
        pools.push(office.pool(name, &[&tunnel]).await);
    }
    for pool in &pools[..2] {
        office.edit(&office.objects(&format!("pools/{pool}")), json!({ "monitor_group": groups[0] })).await;
    }
    for name in ["x.example.com", "y.example.com"] {
        office.balancer(name, &[&pools[0]], Value::Null).await;
    }
    told(&office, &pools[2]).await;
    let zone = |rest: &str| format!("/zones/{}/{rest}", office.zone);
    let lists = vec![
        ("/accounts", "/accounts".to_owned(), 1),
        ("/accounts/{account}/tunnels", format!("/accounts/{}/tunnels", office.account), 3),
        ("/accounts/{account}/cfd_tunnel", office.tunnels(), 3),
        (
            "/accounts/{account}/cfd_tunnel/{tunnel}/connections",
            format!("{}/connections", office.tunnel(&tunnel)),
            3,
        ),
        ("/accounts/{account}/load_balancers/monitors", office.objects("monitors"), 3),
        ("/accounts/{account}/load_balancers/monitor_groups", office.objects("monitor_groups"), 2),
        ("/accounts/{account}/load_balancers/pools", office.objects("pools"), 3),
        (
            "/accounts/{account}/load_balancers/monitors/{monitor}/references",
            office.objects(&format!("monitors/{}/references", monitors[0])),
            2,
        ),
        (
            "/accounts/{account}/load_balancers/monitor_groups/{group}/references",
            office.objects(&format!("monitor_groups/{}/references", groups[0])),
            2,
        ),
        (
            "/accounts/{account}/load_balancers/pools/{pool}/references",
            office.objects(&format!("pools/{}/references", pools[0])),
            3,
        ),
        (
            "/accounts/{account}/alerting/v3/destinations/webhooks",
            office.alerting("destinations/webhooks"),
            2,
        ),
        ("/accounts/{account}/alerting/v3/policies", office.alerting("policies"), 3),
        ("/accounts/{account}/alerting/v3/history", office.alerting("history"), 4),
        ("/zones", "/zones".to_owned(), 2),
        ("/zones/{zone}/dns_records", zone("dns_records"), 2),
        ("/zones/{zone}/load_balancers", office.balancers(""), 2),
        ("/zones/{zone}/tunnels/routes", zone("tunnels/routes"), 2),
    ];
    (office, lists, connectors)
}

/// Two webhooks, three policies, and four lines of their history.
async fn told(office: &Office, pool: &str) {
    const ALERT: &str = "load_balancing_pool_enablement_alert";
    let hook = Hook::open().await;
    let hooks = [office.hook(&hook.url(), None).await, office.hook(&hook.url(), None).await];
    for hook in &hooks {
        office.policy(&id(hook), ALERT, json!({})).await;
    }
    office.policy(&id(&hooks[0]), "tunnel_health_event", json!({})).await;
    for is_enabled in [false, true] {
        office.edit(&office.objects(&format!("pools/{pool}")), json!({ "enabled": is_enabled })).await;
    }
    hook.alerts(4, ALERT).await;
    // What was told is written down a moment later.
    let history = office.alerting("history");
    // No more often than a token may ask.
    let mut turns = tokio::time::interval(Duration::from_millis(50));
    while office.get(&history).await.as_array().unwrap().len() < 4 {
        turns.tick().await;
    }
}

/// The lists that are described, but for those that are not here yet.
fn described() -> BTreeSet<String> {
    let document: Value = serde_json::from_str(DESCRIBED).unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    let is_list = |call: &Value| {
        let result = &call["responses"]["200"]["content"]["application/json"]["schema"]["allOf"][1];
        result["properties"]["result"]["type"] == "array"
    };
    paths.filter(|(_, calls)| is_list(&calls["get"])).map(|(path, _)| path.clone()).collect()
}

#[tokio::test]
async fn every_list_has_all_of_it_once_and_nothing_beyond_its_last_page() {
    LocalSet::new()
        .run_until(async {
            let (office, lists, _connectors) = filled().await;
            let known: BTreeSet<String> = lists.iter().map(|(list, ..)| (*list).to_owned()).collect();
            assert_eq!(known, described(), "each list that is described, and no other");
            for (_, path, count) in lists {
                let whole = office.get(&path).await;
                assert_eq!(whole.as_array().unwrap().len(), count, "{path}: {whole}");
                for per_page in [1, 2, count, count + 1, 1000] {
                    pages(&office, &path, &whole, per_page).await;
                }
                // What is out of bounds is the nearest that is in them.
                for (asked, page, per_page) in
                    [("page=0&per_page=1", 1, 1), ("page=1&per_page=0", 1, 1), ("per_page=5000", 1, 1000)]
                {
                    let reply = office.ask(Method::GET, &format!("{path}?{asked}"), None).await;
                    let info = &reply.json["result_info"];
                    let seen = (&info["page"], &info["per_page"], &info["total_count"]);
                    assert_eq!(seen, (&json!(page), &json!(per_page), &json!(count)), "{path}?{asked}");
                }
                for asked in ["page=last", "page=-1", "per_page=all"] {
                    let name = asked.split('=').next().unwrap();
                    let reply = office.ask(Method::GET, &format!("{path}?{asked}"), None).await;
                    reply.refused(400, &format!("`{name}`"));
                }
            }
        })
        .await;
}

/// As a client does that goes on until a page is empty.
async fn pages(office: &Office, path: &str, whole: &Value, per_page: usize) {
    let whole = whole.as_array().unwrap();
    let total_pages = whole.len().div_ceil(per_page);
    let mut seen = Vec::new();
    for page in 1..=total_pages + 2 {
        let asked = format!("{path}?page={page}&per_page={per_page}");
        let reply = office.ask(Method::GET, &asked, None).await;
        let info = reply.json["result_info"].clone();
        let shown = reply.result().as_array().unwrap().clone();
        let wanted = json!({
            "page": page, "per_page": per_page, "count": shown.len(),
            "total_count": whole.len(), "total_pages": total_pages,
        });
        assert_eq!(info, wanted, "{asked}");
        assert_eq!(shown.is_empty(), page > total_pages, "{asked}");
        seen.extend(shown);
    }
    let ids = |list: &[Value]| -> Vec<Value> {
        let id = |one: &Value| one.get("id").or_else(|| one.get("resource_id")).unwrap_or(one).clone();
        list.iter().map(id).collect()
    };
    assert_eq!(ids(&seen), ids(whole), "{path} by {per_page}");
}
