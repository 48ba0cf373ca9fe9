//! `route lb`: a tunnel becomes an endpoint of a pool behind a load balancer, also where many ask at once.

use futures_util::future::join_all;
use http::Method;
use serde_json::json;
use uuid::Uuid;

use crate::balancing::has;
use crate::office::{Office, Reply};

impl Office {
    async fn route_lb(&self, tunnel: &str, name: &str, pool: &str) -> Reply {
        let body = json!({ "type": "lb", "lb_name": name, "lb_pool": pool });
        self.ask(Method::PUT, &format!("/zones/{}/tunnels/{tunnel}/routes", self.zone), Some(body)).await
    }
}

/// load-balancing by `route lb`: all that can be there before, and what becomes of it.
#[tokio::test]
async fn routing_to_a_load_balancer_makes_what_is_not_there_and_nothing_twice() {
    let office = Office::open().await;
    let (one, _) = office.tunnel_named("one").await;
    let (other, _) = office.tunnel_named("other").await;
    let outcome = |reply: Reply| {
        let result = reply.result();
        format!("{},{}", result["load_balancer"].as_str().unwrap(), result["pool"].as_str().unwrap())
    };
    for (tunnel, name, pool, wanted) in [
        (&one, "a.example.com", "p", "new,new"),
        (&one, "a.example.com", "p", "unchanged,unchanged"),
        (&other, "a.example.com", "p", "unchanged,updated"),
        (&one, "b.example.com", "p", "new,unchanged"),
        (&one, "b.example.com", "q", "updated,new"),
        (&other, "*.c.example.com", "q", "new,updated"),
        (&one, "*.c.example.com", "p", "updated,unchanged"),
        (&one, "a.example.com", "r", "updated,new"),
        // `r` without the other one, and `d` without `r`.
        (&one, "d", "p", "new,unchanged"),
        (&other, "d.example.com.", "r", "updated,updated"),
        (&other, "d.example.com", "r", "unchanged,unchanged"),
        // The zone of a whole name is found by the name.
        (&one, "e.deep.example.com", "p", "new,unchanged"),
    ] {
        let seen = outcome(office.route_lb(tunnel, name, pool).await);
        assert_eq!(seen, wanted, "{name} {pool}");
    }
    let pools = office.get(&office.objects("pools")).await;
    let names: Vec<_> = pools.as_array().unwrap().iter().map(|pool| pool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["p", "q", "r"]);
    let endpoint = &pools[0]["origins"][0];
    has(
        endpoint,
        &json!({ "name": "one", "address": format!("{one}.cfargotunnel.com"), "enabled": true, "weight": 1 }),
    );
    let all = office.get(&office.balancers("")).await;
    let names: Vec<_> = all.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a.example.com", "b.example.com", "*.c.example.com", "d.example.com"]);
    let ids: Vec<_> = pools.as_array().unwrap().iter().map(|pool| &pool["id"]).collect();
    assert_eq!(all[0]["default_pools"], json!([ids[0], ids[2]]), "appended");
    assert_eq!(all[0]["fallback_pool"], *ids[0]);

    let before = (office.get(&office.objects("pools")).await, office.get(&office.balancers("")).await);
    for (tunnel, name, pool, status, reason) in [
        (Uuid::new_v4().to_string(), "f.example.com", "p", 404, "tunnel not found"),
        (one.clone(), "f.other.org", "p", 400, "is in no zone"),
        (one.clone(), "a b", "p", 400, "no host name"),
        (one.clone(), "f.example.com", "a.b", 400, "letters, digits"),
        (one.clone(), "f.example.com", "", 400, "at least one"),
    ] {
        office.route_lb(&tunnel, name, pool).await.refused(status, reason);
    }
    let after = (office.get(&office.objects("pools")).await, office.get(&office.balancers("")).await);
    assert_eq!(before, after, "a pool is not made for a load balancer that cannot be");
}

#[tokio::test]
async fn changes_of_many_at_once_all_count_and_one_name_has_one_owner() {
    let office = Office::open().await;
    let mut tunnels = Vec::new();
    for at in 0..8 {
        tunnels.push(office.tunnel_named(&format!("t{at}")).await.0);
    }
    let routes = join_all(tunnels.iter().map(|tunnel| office.route_lb(tunnel, "app.example.com", "p"))).await;
    let made = routes.iter().filter(|reply| reply.json["result"]["pool"] == "new").count();
    assert_eq!(made, 1, "{routes:?}");
    let routed = routes.iter().filter(|reply| reply.status == 200).count();
    let pool = &office.get(&office.objects("pools")).await[0];
    assert_eq!(pool["origins"].as_array().unwrap().len(), routed);
    assert_eq!(routed, 8, "{routes:?}");
    let body =
        || json!({ "name": "x.example.com", "default_pools": [pool["id"]], "fallback_pool": pool["id"] });
    let path = office.balancers("");
    let replies = join_all((0..8).map(|_| office.post(&path, body()))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1, "{replies:?}");
    assert!(replies.iter().all(|reply| [200, 409].contains(&reply.status.as_u16())), "{replies:?}");
}

#[tokio::test]
async fn a_restarted_edge_has_what_was_made() {
    let mut office = Office::open().await;
    let (tunnel, _) = office.tunnel_named("one").await;
    office.route_lb(&tunnel, "app.example.com", "p").await.result();
    let before = (office.get(&office.objects("pools")).await, office.get(&office.balancers("")).await);
    office.edge.stop.cancel();
    let _ = (&mut office.edge.running).await;
    office.reopen();
    let after = (office.get(&office.objects("pools")).await, office.get(&office.balancers("")).await);
    assert_eq!(before, after);
    assert_eq!(office.visit("app.example.com").await, 530);
}
