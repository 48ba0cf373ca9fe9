//! What an edge shows of itself in a browser, and to whom.

use e2e::document::{EdgeDocument, HostDocument};
use e2e::product::{Product, Site};

use super::{BEARER, Browser, LOCAL, TOKEN, ask};

async fn product(keys: &str, names: usize) -> Product {
    let site = Site::new();
    site.write("admin-token", format!("{TOKEN}\n"));
    let mut edge = EdgeDocument::new(&["west"], 1);
    edge.more = format!("{keys}\n");
    edge.hostnames.extend((0..names).map(|number| format!("n{number}.example.test")));
    let host = HostDocument::new().over(crate::PROTOCOL).otherwise("hello_world");
    Product::start_at(site, edge, host).await
}

async fn replicas(product: &Product) -> serde_json::Value {
    let path = format!("/tunnels/{}/replicas", product.site.credentials.tunnel_id);
    ask(product.edge.admin, "GET", &path, &[LOCAL, BEARER], None).await.json()
}

const PAGES: [&str; 6] = ["/ui/", "/ui/names", "/ui/balancers", "/ui/certificates", "/ui/nodes", "/ui/audit"];

#[tokio::test]
async fn whoever_is_on_the_machine_reads_what_the_api_tells_and_changes_want_the_token() {
    let product = product("token-file = \"admin-token\"", 10_000).await;
    let admin = product.edge.admin;
    assert_eq!(ask(admin, "POST", "/ui/code", &[LOCAL], None).await.status, 401);
    let browser = Browser::sign_in(admin).await;
    let tunnel = format!("/ui/tunnels/{}", product.site.credentials.tunnel_id);
    for path in PAGES.iter().copied().chain([tunnel.as_str()]) {
        let page = browser.page(path).await;
        assert!(page.contains("<table>") || page.contains("<p>"), "{page}");
        assert!(
            !page.contains("style=") && !page.contains("<script>") && !page.contains(" onclick"),
            "{page}"
        );
        for host in [browser.host.as_str(), "localhost", "127.0.0.1"] {
            assert_eq!(
                ask(admin, "GET", path, &[("host", host)], None).await.status,
                401,
                "{path} for {host}"
            );
        }
        for host in ["evil.example", "adit.localhost"] {
            let answer = ask(admin, "GET", path, &[("host", host), ("cookie", &browser.cookie)], None).await;
            assert_eq!(answer.status, 403, "{path} for {host}");
        }
        for foreign in [("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site"), ("origin", "null")]
        {
            assert_eq!(browser.ask("GET", path, &[foreign], None).await.status, 403, "{path}: {foreign:?}");
        }
    }
    // However many there are, a page has an end, and says how many it leaves out.
    let names = browser.page("/ui/names").await;
    assert_eq!(names.matches("<tr>").count(), 1_001);
    assert!(names.contains("9002 more are not shown"), "{}", &names[names.len() - 200..]);
    let one = browser.page("/ui/names?q=N9999.ex").await;
    assert!(one.contains("n9999.example.test") && one.matches("<tr>").count() == 2, "{one}");

    let known = replicas(&product).await;
    let replica = known["replicas"][0]["connector"].as_str().unwrap();
    let change = format!("{tunnel}/replicas/{replica}");
    let form = format!("sign={}&what=drain", browser.sign);
    for foreign in
        [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site"), ("sec-fetch-site", "none")]
    {
        assert_eq!(browser.ask("POST", &change, &[foreign], Some(&form)).await.status, 403, "{foreign:?}");
    }
    assert_eq!(browser.ask("POST", &change, &[], Some("what=drain")).await.status, 403);
    assert_eq!(ask(admin, "POST", &change, &[("host", &browser.host)], Some(&form)).await.status, 401);
    assert_eq!(browser.send(&change, "what=weight&weight=101").await.status, 400);
    assert_eq!(browser.send(&change, "what=weight").await.status, 400);
    assert_eq!(browser.send(&format!("{tunnel}/replicas/nobody"), "what=drain").await.status, 404);
    let share = replicas(&product).await["replicas"][0].clone();
    assert_eq!((&share["draining"], &share["weight"]), (&false.into(), &100.into()), "{share}");
    assert_eq!(browser.send(&change, "what=weight&weight=7").await.status, 303);
    assert_eq!(browser.send(&change, "what=drain").await.status, 303);
    let share = replicas(&product).await["replicas"][0].clone();
    assert_eq!((&share["draining"], &share["weight"]), (&true.into(), &7.into()), "{share}");
    // Who leaves is gone.
    assert_eq!(browser.send("/ui/leave", "").await.status, 303);
    assert_eq!(browser.ask("GET", "/ui/", &[], None).await.status, 401);
}

#[tokio::test]
async fn an_edge_without_a_token_shows_what_its_api_tells_and_lets_nobody_in() {
    let product = product("", 0).await;
    let admin = product.edge.admin;
    assert_eq!(ask(admin, "POST", "/ui/code", &[LOCAL, BEARER], None).await.status, 403);
    for path in PAGES {
        let wanted = if path == "/ui/audit" { 401 } else { 200 };
        let answer = ask(admin, "GET", path, &[LOCAL], None).await;
        assert_eq!(answer.status, wanted, "{path}");
        assert!(!answer.text().contains("name=\"weight\""), "{path}");
        assert_eq!(ask(admin, "GET", path, &[("host", "evil.example")], None).await.status, 403, "{path}");
    }
    for header in ["content-security-policy", "x-content-type-options", "x-frame-options", "cache-control"] {
        assert!(!ask(admin, "GET", "/ui/", &[LOCAL], None).await.header(header).is_empty(), "{header}");
    }
}
