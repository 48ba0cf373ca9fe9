//! An edge's pages in a real browser.

use e2e::chromium::Chromium;
use e2e::document::{EdgeDocument, HostDocument};
use e2e::process::Process;
use e2e::product::{Product, Site};

use super::{TOKEN, keep, pictures};

/// With a state, two tunnels of it, a load balancer, and a tunnel of the document with a host.
async fn product() -> Product {
    let site = Site::new();
    site.write("admin-token", format!("{TOKEN}\n"));
    let mut edge = EdgeDocument::new(&["west", "east"], 1).with_https();
    edge.more =
        "token-file = \"admin-token\"\n[api]\nlisten = \"127.0.0.1:0\"\ntunnel-domain = \"tunnels.test\"\n"
            .to_owned();
    site.write("edge.toml", edge.to_toml());
    let init = ["edge", "init", "--config", "edge.toml", "--zone", "example.test"];
    let made = Process::run(&init, site.folder(), "").await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let host = HostDocument::new().connections(2).over(crate::PROTOCOL).otherwise("hello_world");
    let product = Product::start_at(site, edge, host).await;
    let api = product.edge.process.event("listening", |fields| fields["kind"] == "api").await;
    let api = format!("http://{}", api["address"].as_str().unwrap());
    for words in [
        &["tunnel", "create", "one"][..],
        &["tunnel", "create", "<b>two</b>"],
        &["tunnel", "route", "dns", "one", "www.example.test"],
        &["pool", "create", "shop", "one", "<b>two</b>=0.5"],
        &["lb", "create", "app.example.test", "shop"],
    ] {
        let (group, rest) = words.split_at(1);
        let flags = ["--api-url", &api, "--origincert", "cert.pem"];
        // Where users of the reference write them.
        let words =
            if group == ["tunnel"] { [group, &flags, rest].concat() } else { [words, &flags].concat() };
        let told = Process::run(&words, product.site.folder(), "").await;
        assert_eq!(told.code, Some(0), "{words:?}: {told:?}");
    }
    product.get("/").await;
    product
}

#[tokio::test]
async fn every_page_of_an_edge_works_by_keyboard_on_a_small_screen_in_the_dark_and_keeps_text_text() {
    let Some(mut browser) = Chromium::start().await else { return };
    let product = product().await;
    browser.look(1280, false).await;
    let admin = product.edge.admin.to_string();
    let arguments = ["dashboard", "--edge", "--admin", &admin, "--admin-token-file", "admin-token"];
    let told = Process::run(&arguments, product.site.folder(), "").await;
    assert_eq!(told.code, Some(0), "{told:?}");
    let address = told.output.lines().next().unwrap().to_owned();
    assert_eq!(browser.open(&address).await, None);
    browser.until("location.pathname === '/ui/' && location.hash === ''").await;
    let base = address.split("/ui/").next().unwrap().to_owned();
    let mut all = Vec::new();
    for (path, name, words) in [
        ("/ui/", "edge-tunnels", &["demo", "<b>two</b>", "connected"][..]),
        ("/ui/names", "edge-names", &["app.example.test", "www.example.test", "ID.tunnels.test"]),
        ("/ui/balancers", "edge-balancers", &["shop", "no host of the tunnel is connected", "0.50"]),
        ("/ui/certificates", "edge-certificates", &["visitors", "development"]),
        ("/ui/nodes", "edge-nodes", &["west-0", "east-1", "its last revision"]),
        ("/ui/audit", "edge-audit", &["tunnel.create", "balancer"]),
    ] {
        assert_eq!(browser.open(&format!("{base}{path}")).await, None);
        let text = browser.value("document.querySelector('main').innerText").await;
        let text = text.as_str().unwrap();
        for word in words {
            assert!(text.contains(word), "{word} is not in\n{text}");
        }
        all.extend(pictures(&mut browser, name).await);
    }
    // What a replica gets is changed by its form, and read without a script.
    browser.scripts(false).await;
    browser.open(&format!("{base}/ui/tunnels/{}", product.site.credentials.tunnel_id)).await;
    let state = "document.querySelector('main').innerText";
    browser.until(&format!("{state}.includes('serving')")).await;
    browser.value("document.querySelector('button[value=drain]').focus()").await;
    browser.key("Enter").await;
    browser.until(&format!("{state}.includes('draining')")).await;
    browser.scripts(true).await;
    all.extend(pictures(&mut browser, "edge-tunnel").await);
    assert!(browser.console.is_empty(), "{:#?}", browser.console);
    keep(&all);
}
