//! The guards of the shelf keep out whom their pages say, and what the others make of answers is what they say.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::{Origin, RawOrigin, nobody};
use e2e::process::{Process, component};
use e2e::product::{Lent, Product, Site, Stage};
use e2e::visitor::{Answer, Speaks, bare, to, with_text};
use tokio::sync::OnceCell;

use crate::shelf::{ask, received};

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Lent {
    STAGE.get_or_init(build).await.lend()
}

/// A plugin that forwards questions there.
fn asks(url: &str) -> String {
    format!(
        "timeout = \"10s\"\n[plugin.config]\nurl = \"{url}/verify\"\ntake = [\"x-user\", \"x-groups\"]\nopen = [\"/echo/asked/open\"]\n\
         [plugin.grants]\nhttp = [\"{url}\"]"
    )
}

fn list(url: &str) -> String {
    format!(
        "tick = \"1h\"\n[plugin.config]\nurl = \"{url}/list.txt\"\n[plugin.grants]\nhttp = [\"{url}\"]\nbuckets = {{ list = \"4MiB\" }}"
    )
}

fn hook(kind: &str) -> String {
    format!(
        "[plugin.config]\nkind = \"{kind}\"\n[plugin.grants]\nsecrets = {{ webhook = {{ file = \"webhook.key\" }} }}\n\
         buckets = {{ deliveries = \"1MiB\" }}"
    )
}

async fn build() -> Stage {
    let origin = Origin::start();
    let service = origin.service();
    let admits = RawOrigin::start(b"HTTP/1.1 200 OK\r\nx-user: ada\r\ncontent-length: 0\r\n\r\n").service();
    let refuses = RawOrigin::start(
        b"HTTP/1.1 302 Found\r\nlocation: /login\r\nset-cookie: a=b\r\nserver: hidden\r\ncontent-length: 6\r\n\r\nlog in",
    )
    .service();
    let absent = format!("http://{}", nobody());
    let bad = RawOrigin::start(b"HTTP/1.1 200 OK\r\ncontent-length: 25\r\n\r\n# us\n127.0.0.0/8\n::1/128\n")
        .service();
    let other = RawOrigin::start(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n192.0.2.0/24").service();
    let page = RawOrigin::start(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\netag: \"1\"\r\ncontent-length: 28\r\n\r\n<a href=http://inside/>a</a>",
    )
    .service();
    let picture = RawOrigin::start(
        b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 14\r\n\r\nhttp://inside/",
    )
    .service();
    let replaces =
        "[plugin.config]\nrules = [{ find = \"http://inside/\", replace = \"https://outside.example/\" }]";
    let mut host = HostDocument::new()
        .plugin("github", &component("webhook_verify"), &hook("github"))
        .plugin("standard", &component("webhook_verify"), &hook("standard"))
        .plugin("stripe", &component("webhook_verify"), &hook("stripe"))
        .plugin("slack", &component("webhook_verify"), &hook("slack"))
        .plugin(
            "browsers",
            &component("cors"),
            "[plugin.config]\norigins = [\"https://app.example.com\"]\ncredentials = true",
        )
        .plugin("on-list", &component("block_list"), &list(&bad))
        .plugin("off-list", &component("block_list"), &list(&other))
        .plugin("admits", &component("forward_auth"), &asks(&admits))
        .plugin("refuses", &component("forward_auth"), &asks(&refuses))
        .plugin("absent", &component("forward_auth"), &asks(&absent))
        .plugin("replaces", &component("body_replace"), replaces)
        .plugin("here", &component("geo_block"), "[plugin.config]\nallow = [\"DE\"]\nstatus = 451");
    for (path, plugin) in [
        ("^/echo/github", "github"),
        ("^/status/503$", "github"),
        ("^/echo/standard", "standard"),
        ("^/echo/stripe", "stripe"),
        ("^/echo/slack", "slack"),
        ("^/echo/cors", "browsers"),
        ("^/echo/on-list", "on-list"),
        ("^/echo/off-list", "off-list"),
        ("^/echo/asked", "admits"),
        ("^/echo/refused", "refuses"),
        ("^/echo/unanswered", "absent"),
        ("^/echo/here", "here"),
    ] {
        host = host.rule(&format!("path = \"{path}\"\nservice = \"{service}\"\nplugins = [\"{plugin}\"]"));
    }
    for (path, service) in [("page", page), ("picture", picture)] {
        host = host.rule(&format!("path = \"^/{path}$\"\nservice = \"{service}\"\nplugins = [\"replaces\"]"));
    }
    let host = host.otherwise(&service);
    let site = Site::new();
    site.write("webhook.key", KEY);
    Stage::new(Product::start_at(site, EdgeDocument::new(&["west"], 1), host).await, origin)
}

/// Of Standard Webhooks, whose keys are written so; the others take it as it is.
const KEY: &str = "whsec_bm9ib2R5IGd1ZXNzZXMgdGhpcw==";

fn tag(key: &[u8], parts: &[&str]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, parts.concat().as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

async fn deliver(product: &Product, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let request =
        headers.iter().fold(to("POST", path), |request, (name, value)| request.header(*name, *value));
    product.visitor(Speaks::Http1).send(with_text(request, body)).await
}

#[tokio::test]
async fn a_delivery_passes_once_if_it_was_signed_and_again_if_the_service_did_not_take_it() {
    let stage = stage().await;
    let body = r#"{"action": "opened"}"#;
    let signature = format!("sha256={}", hex(&tag(KEY.as_bytes(), &[body])));
    let send = async |path: &str, id: &str, signature: &str| {
        let headers = [("x-hub-signature-256", signature), ("x-github-delivery", id)];
        deliver(&stage.product, path, &headers, body).await
    };
    let first = send("/echo/github", "d-1", &signature).await;
    assert_eq!((first.status, first.json()["body"].as_str()), (200, Some(body)));
    let again = send("/echo/github", "d-1", &signature).await;
    assert_eq!((again.status, again.text()), (200, "this was delivered before\n"));
    assert_eq!(send("/echo/github", "d-2", &signature).await.json()["body"].as_str(), Some(body));
    let forged = signature.replace("sha256=", "sha256=00");
    for wrong in ["", "sha256=", &signature[..40], &forged, &signature.to_uppercase()] {
        assert_eq!(send("/echo/github", "d-3", wrong).await.status, 401, "{wrong}");
    }
    // What the service did not take may come again.
    assert_eq!(send("/status/503", "d-4", &signature).await.status, 503);
    assert_eq!(send("/status/503", "d-4", &signature).await.status, 503);
    assert_eq!(send("/echo/github", "d-4", &signature).await.json()["body"].as_str(), Some(body));
    assert_eq!(send("/echo/github", "d-4", &signature).await.text(), "this was delivered before\n");
    let none = bare(to("GET", "/echo/github"));
    assert_eq!(stage.product.visitor(Speaks::Http1).send(none).await.status, 401);
}

#[tokio::test]
async fn each_service_signs_in_its_own_way_and_an_old_delivery_is_none() {
    let stage = stage().await;
    let body = r#"{"id": "evt_1", "event_id": "Ev1"}"#;
    for (age, status) in [(0, 200), (3600, 401)] {
        let time = (now() - age).to_string();
        let standard = STANDARD.encode(tag(b"nobody guesses this", &["m-1", ".", &time, ".", body]));
        let stripe = hex(&tag(KEY.as_bytes(), &[&time, ".", body]));
        let slack = hex(&tag(KEY.as_bytes(), &["v0:", &time, ":", body]));
        let standard = [
            ("webhook-id", "m-1"),
            ("webhook-timestamp", &*time),
            ("webhook-signature", &format!("v1,AAAA v1,{standard}")),
        ];
        let answer = deliver(&stage.product, "/echo/standard", &standard, body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let stripe = format!("t={time},v1=00,v1={stripe},v0=aa");
        let answer = deliver(&stage.product, "/echo/stripe", &[("stripe-signature", &stripe)], body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let slack = format!("v0={slack}");
        let slack = [("x-slack-request-timestamp", &*time), ("x-slack-signature", &*slack)];
        let answer = deliver(&stage.product, "/echo/slack", &slack, body).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

#[tokio::test]
async fn a_browser_is_told_which_origins_may_ask() {
    let stage = stage().await;
    let preflight = |origin: &str| {
        bare(
            to("OPTIONS", "/echo/cors")
                .header("origin", origin)
                .header("access-control-request-method", "PUT"),
        )
    };
    let visitor = stage.product.visitor(Speaks::Http1);
    let answer = visitor.send(preflight("https://app.example.com")).await;
    assert_eq!((answer.status, answer.text()), (204, ""));
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example.com");
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    let answer = visitor.send(preflight("https://evil.example")).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, ""));
    let answer = ask(&stage.product, "/echo/cors", &[("origin", "https://app.example.com")]).await;
    assert_eq!((answer.status, answer.header("vary")), (200, "Origin"));
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example.com");
    let answer =
        ask(&stage.product, "/echo/cors", &[("origin", "https://app.example.com.evil.example")]).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, ""));
}

#[tokio::test]
async fn who_is_on_a_list_that_was_fetched_is_kept_out_from_the_first_request_on() {
    let stage = stage().await;
    assert_eq!(ask(&stage.product, "/echo/on-list", &[("x-forwarded-for", "192.0.2.1")]).await.status, 403);
    assert_eq!(ask(&stage.product, "/echo/off-list", &[("x-forwarded-for", "192.0.2.1")]).await.status, 200);
}

#[tokio::test]
async fn a_list_that_is_none_or_is_not_to_be_had_refuses_the_configuration() {
    let site = Site::new();
    site.write("edge-ca.pem", e2e::certificate::Certificate::new(&["quic.cftunnel.com"]).ca_pem);
    let html =
        RawOrigin::start(b"HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\n10.0.0.0/8\n<html></h>\n").service();
    let empty = RawOrigin::start(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n#\n").service();
    let gone = RawOrigin::start(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").service();
    for (url, said) in [
        (html, "line 2"),
        (empty, "no network in it"),
        (gone, "status 404"),
        (format!("http://{}", nobody()), "fetch"),
    ] {
        let host = HostDocument { edge_ca: "edge-ca.pem".into(), ..HostDocument::new() }
            .plugin("list", &component("block_list"), &list(&url))
            .rule("service = \"hello_world\"\nplugins = [\"list\"]");
        site.write("host.toml", host.to_toml(&["127.0.0.1:1".parse().unwrap()]));
        let checked = Process::run(&["config", "check", "host.toml"], site.folder(), "").await;
        let told = format!("{}{}", checked.output, checked.log);
        assert!(checked.code != Some(0) && told.contains(said), "{said}: {checked:?}");
    }
}

#[tokio::test]
async fn who_is_asked_about_each_request_decides_and_names_the_visitor() {
    let stage = stage().await;
    let forged = [("x-user", "root"), ("x-groups", "admins")];
    let answer = ask(&stage.product, "/echo/asked", &forged).await;
    assert_eq!(answer.status, 200);
    assert_eq!(received(&answer, "x-user").as_deref(), Some("ada"));
    assert_eq!(received(&answer, "x-groups"), None, "nobody but the asked may name them");
    let answer = ask(&stage.product, "/echo/asked/open", &forged).await;
    assert_eq!((answer.status, received(&answer, "x-user")), (200, None));
    let answer = ask(&stage.product, "/echo/refused", &[]).await;
    assert_eq!((answer.status, answer.text(), answer.header("location")), (302, "log in", "/login"));
    assert_eq!((answer.header("set-cookie"), answer.header("server")), ("a=b", ""));
    let answer = ask(&stage.product, "/echo/unanswered", &[]).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "5"));
}

#[tokio::test]
async fn texts_of_answers_are_replaced_and_pictures_are_not() {
    let stage = stage().await;
    let page = ask(&stage.product, "/page", &[]).await;
    assert_eq!(page.text(), "<a href=https://outside.example/>a</a>");
    assert_eq!((page.header("content-length"), page.header("etag")), ("38", "W/\"1\""));
    assert_eq!(ask(&stage.product, "/picture", &[]).await.text(), "http://inside/");
}

/// Of the country that an edge has said, whatever a visitor says.
#[tokio::test]
async fn a_country_decides_where_the_edge_says_one() {
    let stage = stage().await;
    for headers in [&[][..], &[("cf-ipcountry", "DE")]] {
        assert_eq!(ask(&stage.product, "/echo/here", headers).await.status, 451, "{headers:?}");
    }
    let host = |countries: &str| {
        HostDocument::new()
            .plugin("here", &component("geo_block"), &format!("[plugin.config]\nallow = [{countries}]"))
            .rule("service = \"hello_world\"\nplugins = [\"here\"]")
    };
    let place = "[[geography.network]]\naddresses = [\"127.0.0.0/8\", \"::1/128\"]\ncountry = \"DE\"\n";
    for (countries, status) in [("\"DE\"", 200), ("\"FR\"", 403)] {
        let edge = EdgeDocument { more: place.to_owned(), ..EdgeDocument::new(&["west"], 1) };
        let product = Product::start(edge, host(countries)).await;
        let answer = ask(&product, "/", &[("cf-ipcountry", "FR")]).await;
        assert_eq!(answer.status, status, "{countries}");
    }
}
