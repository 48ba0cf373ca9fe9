//! What a host shows of itself in a browser, to whom, and what it never shows.

mod edge;
mod secrets;
mod waterfall;
mod webhooks;
mod weight;

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::{Process, adit};
use e2e::product::{Product, Site};
use e2e::visitor::{Answer, Speaks, Visitor, bare, get, to, with_text};
use e2e::within;
use std::process::Command;
use tempfile::TempDir;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const BEARER: (&str, &str) = ("authorization", "Bearer 0123456789abcdef0123456789abcdef");
const LOCAL: (&str, &str) = ("host", "localhost");

async fn product(origin: &Origin, protocol: &'static str) -> Product {
    let site = Site::new();
    site.write("admin-token", format!("{TOKEN}\n"));
    let mut host = HostDocument::new().over(protocol).keys("access-log = true").otherwise(&origin.service());
    host.admin_keys = "token-file = \"admin-token\"".to_owned();
    Product::start_at(site, EdgeDocument::new(&["west"], 1), host).await
}

async fn ask(
    admin: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> Answer {
    let mut request = to(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = match body {
        Some(body) => with_text(request, body),
        None => bare(request),
    };
    Visitor::new(admin, Speaks::Http1, None).send(request).await
}

/// A browser that has signed in.
struct Browser {
    admin: SocketAddr,
    host: String,
    cookie: String,
    sign: String,
}

impl Browser {
    async fn sign_in(admin: SocketAddr) -> Self {
        let code = ask(admin, "POST", "/ui/code", &[LOCAL, BEARER], None).await.json();
        let url = code["url"].as_str().unwrap();
        let host = url.trim_start_matches("http://").split('/').next().unwrap().to_owned();
        Self::enter(admin, host, code["code"].as_str().unwrap()).await
    }

    async fn enter(admin: SocketAddr, host: String, code: &str) -> Self {
        let form = format!("code={code}");
        let entered = ask(admin, "POST", "/ui/enter", &[("host", &host)], Some(&form)).await;
        assert_eq!(entered.status, 303, "{}", entered.text());
        let cookie = entered.header("set-cookie");
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let mut browser = Self { admin, host, cookie, sign: String::new() };
        let page = browser.page("/ui/").await;
        let sign = page.split("name=\"sign\" value=\"").nth(1).unwrap();
        browser.sign = sign.split('"').next().unwrap().to_owned();
        browser
    }

    async fn ask(&self, method: &str, path: &str, more: &[(&str, &str)], body: Option<&str>) -> Answer {
        let mut headers = vec![("host", self.host.as_str()), ("cookie", &self.cookie)];
        headers.extend(more);
        ask(self.admin, method, path, &headers, body).await
    }

    async fn page(&self, path: &str) -> String {
        let answer = self.ask("GET", path, &[], None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.text().to_owned()
    }

    async fn send(&self, path: &str, form: &str) -> Answer {
        let form = format!("sign={}&{form}", self.sign);
        self.ask("POST", path, &[("sec-fetch-site", "same-origin")], Some(&form)).await
    }

    /// Every exchange that is kept, as its page and its exports.
    async fn all(&self, wanted: usize) -> Vec<String> {
        within("the exchanges are kept", async {
            loop {
                let live = self.ask("GET", "/ui/requests.json?since=0", &[], None).await.json();
                let numbers: Vec<u64> = live["exchanges"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|one| one["number"].as_u64().unwrap())
                    .collect();
                if numbers.len() < wanted {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                let mut texts = vec![live.to_string()];
                for number in numbers {
                    for form in ["", "/curl", "/case"] {
                        texts.push(self.page(&format!("/ui/requests/{number}{form}")).await);
                    }
                }
                return texts;
            }
        })
        .await
    }
}

/// Through both transports: what was planted is in no page, no export, no log and no number, and what is no
/// secret is there.
#[tokio::test]
async fn what_visitors_send_is_seen_without_their_secrets_and_only_while_somebody_looks() {
    for protocol in ["quic", "http2"] {
        let origin = Origin::start();
        let product = product(&origin, protocol).await;
        let browser = Browser::sign_in(product.host.admin).await;
        let visit = |path: &str| to("POST", path).header("x-note", "seen-by-all");
        product.visitor(Speaks::Http1).send(with_text(visit("/echo?a=too-early"), "too-early")).await;
        assert!(browser.page("/ui/requests").await.contains("off: 0 of 0"), "it is off by default");

        let started = browser.send("/ui/inspector", "what=start&for=10m&bodies=65536&rule=").await;
        assert_eq!(started.status, 303, "{}", started.text());
        let secrets = [
            "hunter2-in-header",
            "hunter2-in-cookie",
            "hunter2-in-query",
            "hunter2-in-json",
            "hunter2-in-basic",
            "ghp_0123456789abcdefghijABCDEFGHIJ",
        ];
        for speaks in [Speaks::Http1, Speaks::Http2] {
            let request = visit("/echo?page=2&token=hunter2-in-query&x=ghp_0123456789abcdefghijABCDEFGHIJ")
                .header("x-api-key", secrets[0])
                .header("cookie", format!("theme=dark; sid={}", secrets[1]))
                .header("authorization", format!("Bearer {}", secrets[4]))
                .header("content-type", "application/json");
            let body = "{\"name\":\"Ada Lovelace\",\"login\":{\"password\":\"hunter2-in-json\"}}";
            let answer = product.visitor(speaks).send(with_text(request, body)).await;
            assert_eq!(answer.json()["body"], body, "the service gets all of it, and the visitor");
        }
        let texts = browser.all(2).await;
        let shown = texts.concat();
        for word in ["seen-by-all", "page=2", "Ada Lovelace", "‹redacted ", "origin"] {
            assert!(shown.contains(word), "{word} is not in\n{shown}");
        }
        assert!(!shown.contains("too-early"), "what passed before is not there");
        let log = format!("{:?}", product.host.process.log());
        let numbers = ask(product.host.admin, "GET", "/metrics", &[LOCAL], None).await;
        for secret in secrets {
            for (place, text) in [("pages", shown.as_str()), ("log", &log), ("metrics", numbers.text())] {
                assert!(!text.contains(secret), "{secret} is in the {place} over {protocol}");
            }
        }

        let narrow = browser.page("/ui/requests?q=path%3A%2Fnothing").await;
        assert!(!narrow.contains("/echo"), "{narrow}");
        assert!(browser.page("/ui/requests?q=color%3Ared").await.contains("color:red: write status:404"));
        assert_eq!(browser.send("/ui/inspector", "what=stop").await.status, 303);
        product.visitor(Speaks::Http1).send(with_text(visit("/echo?a=after"), "after")).await;
        let page = browser.page("/ui/requests").await;
        assert!(page.contains("off: 0 of 2") && !page.contains("/echo"), "{page}");
    }
}

/// What webhooks have sent arrives a second time byte for byte, but for the headers that say what it is.
#[tokio::test]
async fn a_request_is_sent_again_as_it_was_and_only_because_somebody_says_so() {
    let origin = Origin::start();
    let product = product(&origin, super::PROTOCOL).await;
    let browser = Browser::sign_in(product.host.admin).await;
    assert_eq!(browser.send("/ui/inspector", "what=start&for=10m&bodies=65536").await.status, 303);
    let bodies = ["{\"order\": 7,  \"note\": \"caf\u{e9} \\u00e9\"}\r\n", "plain text,\n\twith a tab", ""];
    for (number, body) in bodies.iter().enumerate() {
        let request = to("POST", &format!("/echo?order={number}&b=%20+"))
            .header("content-type", "application/json")
            .header("x-event", "a, b")
            .header("x-api-key", "hunter2");
        let before = product.visitor(Speaks::Http1).send(with_text(request, body)).await;
        let shown = browser.all(2 * number + 1).await.concat();
        assert!(!shown.contains("hunter2"), "{shown}");
        let live = browser.ask("GET", "/ui/requests.json?since=0", &[], None).await.json();
        let one = live["exchanges"].as_array().unwrap().last().unwrap()["number"].as_u64().unwrap();
        let path = format!("/ui/requests/{one}/again");
        assert!(browser.page(&format!("/ui/requests/{one}")).await.contains("name=\"header-x-api-key\""));
        // A POST wants to be meant, and a form of our page.
        assert_eq!(browser.send(&path, "").await.status, 400);
        assert_eq!(browser.ask("POST", &path, &[], Some("sure=yes")).await.status, 403);
        let again = browser.send(&path, "sure=yes&header-x-api-key=hunter2").await;
        assert!(again.status == 200 && again.text().contains("Sent again"), "{}", again.text());
        assert_eq!(before.json()["body"], *body);
        let live = browser.ask("GET", "/ui/requests.json?since=0", &[], None).await.json();
        let two = live["exchanges"].as_array().unwrap().last().unwrap()["number"].as_u64().unwrap();
        assert_eq!(two, one + 1);
        // What the service says that it was sent.
        let mut told = Vec::new();
        for number in [one, two] {
            let page = browser.page(&format!("/ui/requests/{number}")).await;
            let answer = page.split("<h2>Answer</h2>").nth(1).unwrap().to_owned();
            assert_eq!(answer.contains("adit-replay"), number == two, "{answer}");
            let sent = answer.split("<pre>").nth(1).unwrap();
            assert!(sent.contains("&quot;path&quot;:&quot;/echo?order="), "{sent}");
            told.push(sent.split("&quot;headers&quot;").next().unwrap().to_owned());
        }
        assert!(told[0] == told[1] && told[0].contains("&quot;body&quot;:"), "{told:?}");
        product.host.process.event("a request is sent again", |event| event["method"] == "POST").await;
    }
}

#[tokio::test]
async fn nobody_but_the_bearer_of_the_token_and_no_other_page_gets_in() {
    let origin = Origin::start();
    let product = product(&origin, super::PROTOCOL).await;
    let admin = product.host.admin;
    // The token, on this machine too.
    for (method, path) in
        [("POST", "/ui/code"), ("GET", "/inspector"), ("PUT", "/inspector"), ("DELETE", "/inspector")]
    {
        assert_eq!(ask(admin, method, path, &[LOCAL], Some("{}")).await.status, 401, "{method} {path}");
    }
    let browser = Browser::sign_in(admin).await;
    let own = browser.host.as_str();
    for path in
        ["/ui/", "/ui/plugins", "/ui/revisions", "/ui/requests", "/ui/requests/1", "/ui/requests.json"]
    {
        for host in [own, "localhost", "127.0.0.1"] {
            let answer = ask(admin, "GET", path, &[("host", host)], None).await;
            assert_eq!(answer.status, 401, "{path} for {host} without a session");
        }
        // The cookie counts under its own name alone.
        let elsewhere =
            ask(admin, "GET", path, &[("host", "localhost"), ("cookie", &browser.cookie)], None).await;
        assert_eq!(elsewhere.status, 401, "{path}");
        // Names that were made to lead here.
        for host in ["evil.example", "adit.localhost", "adit-00000000000000000000.localhost"] {
            let answer = ask(admin, "GET", path, &[("host", host), ("cookie", &browser.cookie)], None).await;
            assert_eq!(answer.status, 403, "{path} for {host}");
        }
        // Pages of other sites, of other ports of this machine.
        for foreign in [("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site"), ("origin", "null")]
        {
            assert_eq!(browser.ask("GET", path, &[foreign], None).await.status, 403, "{path}: {foreign:?}");
        }
    }
    for path in ["/ui/reload", "/ui/rollback", "/ui/inspector", "/ui/leave"] {
        let form = format!("sign={}&to=1&what=start&for=1h", browser.sign);
        for foreign in
            [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site"), ("sec-fetch-site", "none")]
        {
            assert_eq!(
                browser.ask("POST", path, &[foreign], Some(&form)).await.status,
                403,
                "{path}: {foreign:?}"
            );
        }
        assert_eq!(
            browser.ask("POST", path, &[], Some("to=1&what=start&for=1h")).await.status,
            403,
            "{path}"
        );
        assert_eq!(browser.ask("POST", path, &[], Some("sign=guessed&to=1")).await.status, 403, "{path}");
        assert_eq!(ask(admin, "POST", path, &[("host", own)], Some(&form)).await.status, 401, "{path}");
    }
    // Nothing of this has changed anything.
    let standing = ask(admin, "GET", "/inspector", &[LOCAL, BEARER], None).await.json();
    assert_eq!(standing["on"], false, "{standing}");
    for header in ["content-security-policy", "x-content-type-options", "x-frame-options", "cache-control"] {
        assert!(!browser.ask("GET", "/ui/", &[], None).await.header(header).is_empty(), "{header}");
    }
    let page = browser.page("/ui/").await;
    let policy = browser.ask("GET", "/ui/", &[], None).await;
    let policy = policy.header("content-security-policy");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(!page.contains("style=") && !page.contains("<script>") && !page.contains(" onclick"), "{page}");
    let assets = page.split('"').filter(|text| text.starts_with("/ui/adit-")).collect::<Vec<_>>();
    assert_eq!(assets.len(), 2, "{page}");
    for asset in assets {
        let asset = ask(admin, "GET", asset, &[("host", own)], None).await;
        assert!(asset.status == 200 && asset.header("cache-control").contains("immutable"), "{asset:?}");
    }
    assert_eq!(browser.send("/ui/leave", "").await.status, 303);
    assert_eq!(browser.ask("GET", "/ui/requests", &[], None).await.status, 401);
}

#[tokio::test]
async fn a_host_without_a_token_shows_how_it_is_and_no_request() {
    let product =
        Product::start(EdgeDocument::new(&["west"], 1), HostDocument::new().otherwise("hello_world")).await;
    let admin = product.host.admin;
    for path in ["/ui/", "/ui/plugins", "/ui/revisions", "/ui/revisions/1"] {
        assert_eq!(ask(admin, "GET", path, &[LOCAL], None).await.status, 200, "{path}");
    }
    assert_eq!(ask(admin, "GET", "/ui/requests", &[LOCAL], None).await.status, 401);
    let refused = ask(admin, "POST", "/ui/code", &[LOCAL, BEARER], None).await;
    assert!(refused.status == 403 && refused.text().contains("token-file"), "{}", refused.text());
    let arguments = ["dashboard", "--admin", &admin.to_string()];
    let told = Process::run(&arguments, product.site.folder(), "").await;
    assert!(told.code == Some(1) && told.log.contains("token-file"), "{told:?}");
}

/// From nothing to the waterfall of the first request.
#[tokio::test]
async fn the_demo_prints_its_pages_first_and_shows_its_first_request() {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(adit());
    command.args(["demo", "--listen", "127.0.0.1:0"]).current_dir(folder.path());
    let demo = Process::start("demo", command);
    let watch = demo.printed("Watch  ").await;
    let (url, code) = watch.trim().trim_start_matches("Watch").trim().split_once('#').unwrap();
    let host = url.trim_start_matches("http://").split('/').next().unwrap();
    let port: u16 = host.rsplit(':').next().unwrap().parse().unwrap();
    let open = demo.printed("Open  http://").await;
    let visitors: u16 = open.trim().trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    let browser = Browser::enter(([127, 0, 0, 1], port).into(), host.to_owned(), code).await;

    let password = format!("Basic {}", STANDARD.encode("demo:adit"));
    let request = http::Request::get("http://demo.localhost/private").header("authorization", password);
    let answer =
        Visitor::new(([127, 0, 0, 1], visitors).into(), Speaks::Http1, None).send(bare(request)).await;
    assert_eq!(answer.status, 200);
    let shown = browser.all(1).await.concat();
    for stage in ["plugin headers", "plugin auth", "origin"] {
        assert!(shown.contains(&format!("<th scope=\"row\">{stage}</th>")), "{stage} is not in\n{shown}");
    }
    assert!(shown.contains("Basic ‹redacted 12 bytes"), "{shown}");
}
