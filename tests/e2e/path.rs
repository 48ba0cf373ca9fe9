//! A request crosses the edge, the host and its plugins to an origin, and the answer comes back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::certificate::Certificate;
use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::origin::Origin;
use e2e::process::{Process, component};
use e2e::product::{Lent, Product, Site, Stage};
use e2e::visitor::{Speaks, bare, get, to, with_text};
use http::Request;
use serde_json::Value;
use tokio::sync::OnceCell;

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Lent {
    STAGE.get_or_init(build).await.lend()
}

async fn build() -> Stage {
    let site = Site::new();
    let origin = Origin::start();
    let unix = Origin::start_unix(&site.path("origin.sock"));
    let certificate = Certificate::new(&["origin.internal"]);
    let secure = Origin::start_secure(&certificate);
    let unix_secure = Origin::start_unix_secure(&site.path("secure.sock"), &certificate);
    site.write("origin-ca.pem", &certificate.ca_pem);
    let password = Process::run(&["hash-password"], site.folder(), "open sesame\n").await.output;
    let host = HostDocument::new().over(super::PROTOCOL)
        .plugin(
            "marks",
            &component("headers"),
            "[plugin.config]\nrequest.set = { x-mark = \"request\" }\nrequest.remove = [\"x-secret\"]\n\
             response.set = { x-mark = \"response\" }\nresponse.append = { x-many = [\"one\", \"two\"] }",
        )
        .plugin(
            "auth",
            &component("basic_auth"),
            &format!("[plugin.config]\nrealm = \"e2e\"\nusers = [{{ name = \"ada\", password = \"{}\" }}]", password.trim()),
        )
        .rule("hostname = \"status.app.localhost\"\nservice = \"http_status:418\"")
        .rule("hostname = \"hello.app.localhost\"\nservice = \"hello_world\"\nplugins = [\"marks\"]")
        .rule("hostname = \"unix.app.localhost\"\nservice = \"unix:origin.sock\"")
        .rule(&format!(
            "hostname = \"secure.app.localhost\"\nservice = \"https://{}\"\n\
             [ingress.origin]\nca-file = \"origin-ca.pem\"\nserver-name = \"origin.internal\"",
            secure.address()
        ))
        .rule(
            "hostname = \"unix-secure.app.localhost\"\nservice = \"unix+tls:secure.sock\"\n\
             [ingress.origin]\nca-file = \"origin-ca.pem\"\nserver-name = \"origin.internal\"",
        )
        .rule("hostname = \"unix-mistrust.app.localhost\"\nservice = \"unix+tls:secure.sock\"\n[ingress.origin]\nserver-name = \"origin.internal\"")
        .rule(&format!(
            "hostname = \"mistrust.app.localhost\"\nservice = \"https://{}\"\n[ingress.origin]\nserver-name = \"origin.internal\"",
            secure.address()
        ))
        .rule(&format!(
            "hostname = \"{HOST}\"\npath = \"^/echo/private\"\nservice = \"{}\"\nplugins = [\"marks\", \"auth\"]",
            origin.service()
        ))
        .rule(&format!("hostname = \"{HOST}\"\nservice = \"{}\"\nplugins = [\"marks\"]", origin.service()))
        .otherwise("http_status:404");
    let edge = EdgeDocument::new(&["west"], 1).with_https();
    let product = Product::start_at(site, edge, host).await;
    Stage { product, origin, others: vec![unix, secure, unix_secure] }
}

#[tokio::test]
async fn a_request_passes_the_plugins_both_ways_in_every_version_of_http() {
    let stage = stage().await;
    for speaks in Speaks::ALL {
        let request = with_text(
            to("POST", "/echo/a%20b?x=1&y=%2F")
                .header("x-twice", "1")
                .header("x-twice", "2")
                .header("x-secret", "s"),
            "a body",
        );
        let answer = stage.product.visitor(speaks).send(request).await;
        assert_eq!(answer.status, 200, "{speaks:?}");
        assert_eq!(answer.header("x-mark"), "response");
        assert_eq!(answer.headers.get_all("x-many").iter().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(answer.header("x-origin"), "echo");
        let seen = answer.json();
        assert_eq!(seen["method"], "POST");
        assert_eq!(seen["path"], "/echo/a%20b?x=1&y=%2F");
        assert_eq!(seen["body"], "a body");
        assert_eq!(values(&seen, "x-mark"), ["request"]);
        assert_eq!(values(&seen, "x-twice"), ["1", "2"]);
        assert_eq!(values(&seen, "x-secret"), [""; 0]);
        assert_eq!(values(&seen, "host"), [HOST]);
        assert_eq!(values(&seen, "x-forwarded-proto"), [if speaks.is_secure() { "https" } else { "http" }]);
        // One id on both sides of the house.
        assert_eq!(values(&seen, "cf-ray"), [answer.header("cf-ray")]);
        assert!(!answer.header("cf-ray").is_empty());
    }
}

#[tokio::test]
async fn the_protected_path_opens_only_to_the_right_password() {
    let stage = stage().await;
    let visitor = stage.product.visitor(Speaks::Http1);
    let answer = visitor.send(get("/echo/private")).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("www-authenticate"), "Basic realm=\"e2e\", charset=\"UTF-8\"");
    // The plugin before it in the chain sees its answer too.
    assert_eq!(answer.header("x-mark"), "response");

    for (user, password, status) in [
        ("ada", "open says me", 401),
        ("ada", "open sesame", 200),
        ("ada", "", 401),
        ("eve", "open sesame", 401),
        ("ada", "open sesame", 200),
    ] {
        let credentials = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let request = bare(to("GET", "/echo/private").header("authorization", credentials));
        let answer = visitor.send(request).await;
        assert_eq!(answer.status, status, "{user}:{password}");
        if status == 200 {
            assert_eq!(
                values(&answer.json(), "authorization"),
                [""; 0],
                "the password stays with the plugin"
            );
        }
    }
    assert_eq!(visitor.send(get("/echo/open")).await.status, 200);
}

#[tokio::test]
async fn the_host_name_chooses_the_service() {
    let stage = stage().await;
    for (host, status) in [
        ("status.app.localhost", 418),
        ("STATUS.app.LOCALHOST:8080", 418),
        ("hello.app.localhost", 200),
        (HOST, 200),
        ("elsewhere.app.localhost", 404),
    ] {
        let request = bare(Request::get(format!("http://{host}/echo")));
        assert_eq!(stage.product.visitor(Speaks::Http1).send(request).await.status, status, "{host}");
    }
}

#[tokio::test]
async fn a_host_name_without_a_tunnel_gets_the_edges_own_page() {
    let stage = stage().await;
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let request = bare(Request::get("http://unknown.example/echo").header("accept", "application/json"));
        let answer = stage.product.visitor(speaks).send(request).await;
        assert_eq!(answer.status, 404);
        assert_eq!(answer.json()["error"], "unknown-host");
    }
    let request = bare(Request::get("http://unknown.example/echo"));
    let answer = stage.product.visitor(Speaks::Http1).send(request).await;
    assert!(answer.header("content-type").starts_with("text/html"));
    assert!(answer.text().contains("<html") || answer.text().contains("<!doctype"), "{}", answer.text());
}

#[tokio::test]
async fn nothing_that_a_visitor_says_about_itself_reaches_the_origin() {
    let stage = stage().await;
    for speaks in Speaks::ALL {
        let mut request = to("GET", "/echo")
            .header("x-forwarded-for", "6.6.6.6")
            .header("x_forwarded_for", "6.6.6.6")
            .header("x-forwarded-proto", "gopher")
            .header("x-forwarded-host", "evil.example")
            .header("x-real-ip", "6.6.6.6")
            .header("forwarded", "for=6.6.6.6")
            .header("cf-connecting-ip", "6.6.6.6")
            .header("true-client-ip", "6.6.6.6")
            .header("cf-ray", "6666666666666666-BAD")
            .header("cf-warp-tag-id", "6666")
            .header("cf-visitor", "6666");
        if matches!(speaks, Speaks::Http1 | Speaks::Tls1) {
            // If these were cut after the edge has added its own, the origin would see none at all.
            request = request
                .header("connection", "x-forwarded-for, cf-connecting-ip, cf-ray, x-hop")
                .header("x-hop", "6666");
        }
        let answer = stage.product.visitor(speaks).send(bare(request)).await;
        assert_eq!(answer.status, 200, "{speaks:?}");
        let seen = answer.json();
        assert_eq!(values(&seen, "x-forwarded-for"), ["127.0.0.1"], "{speaks:?}");
        assert_eq!(values(&seen, "cf-connecting-ip"), ["127.0.0.1"], "{speaks:?}");
        assert_eq!(values(&seen, "cf-ray"), [answer.header("cf-ray")], "{speaks:?}");
        assert!(!answer.text().contains("6666") && !answer.text().contains("6.6.6.6"), "{}", answer.text());
        assert!(!answer.text().contains("gopher") && !answer.text().contains("evil"), "{}", answer.text());
    }
}

#[tokio::test]
async fn head_has_the_length_of_get_and_no_body() {
    let stage = stage().await;
    for speaks in Speaks::ALL {
        let connection = stage.product.visitor(speaks).connect().await;
        let asked = connection.ask(get("/bytes/4711")).await;
        assert_eq!(asked.body.len(), 4711, "{speaks:?}");
        for path in ["/bytes/4711", "/bytes/4711"] {
            let head = connection.ask(bare(to("HEAD", path))).await;
            assert_eq!((head.status, head.body.len()), (200, 0), "{speaks:?}");
            assert_eq!(head.header("content-length"), "4711", "{speaks:?}");
        }
        // The connection is still in step.
        assert_eq!(connection.ask(get("/bytes/3")).await.body.len(), 3, "{speaks:?}");
    }
}

#[tokio::test]
async fn statuses_cross_unchanged_and_without_inventions() {
    let stage = stage().await;
    for status in [200, 204, 206, 301, 304, 400, 404, 418, 429, 500, 503, 599] {
        let answer = stage.product.get(&format!("/status/{status}")).await;
        assert_eq!((answer.status, answer.body.len()), (status, 0));
    }
}

#[tokio::test]
async fn the_built_in_page_shows_what_arrived() {
    let stage = stage().await;
    let visitor = stage.product.visitor(Speaks::Http1);
    let ask =
        |accept: &str| bare(Request::get("http://hello.app.localhost/some/path?q").header("accept", accept));
    let page = visitor.send(ask("application/json")).await;
    assert!(page.json()["path"].as_str().unwrap().ends_with("/some/path?q"), "{}", page.text());
    assert_eq!(values(&page.json(), "x-mark"), ["request"]);
    let page = visitor.send(ask("text/html")).await;
    assert!(page.text().contains("/some/path?q"), "{}", page.text());
}

#[tokio::test]
async fn a_unix_socket_and_a_tls_service_are_origins_too() {
    let stage = stage().await;
    for host in ["unix.app.localhost", "secure.app.localhost", "unix-secure.app.localhost"] {
        let request = with_text(Request::put(format!("http://{host}/echo/x")), "to the origin");
        let answer = stage.product.visitor(Speaks::Http1).send(request).await;
        assert_eq!(answer.status, 200, "{host}: {}", answer.text());
        assert_eq!(answer.json()["body"], "to the origin");
        assert_eq!(values(&answer.json(), "host"), [host]);
    }
}

#[tokio::test]
async fn a_tls_service_with_a_certificate_of_nobody_known_is_not_spoken_to() {
    let stage = stage().await;
    for host in ["mistrust.app.localhost", "unix-mistrust.app.localhost"] {
        let request = bare(Request::get(format!("http://{host}/echo")));
        assert_eq!(stage.product.visitor(Speaks::Http1).send(request).await.status, 502, "{host}");
    }
}

/// All values of one header that the origin saw.
fn values<'a>(seen: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = seen["headers"].as_array().expect("a list of headers");
    headers.iter().filter(|header| header[0] == name).filter_map(|header| header[1].as_str()).collect()
}
