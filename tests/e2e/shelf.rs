//! The plugins that come with Adit do through the host what their pages say.

use std::path::Path;

use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::{Origin, RawOrigin};
use e2e::process::{Process, adit, component};
use e2e::product::{Lent, Product, Site, Stage};
use e2e::visitor::{Answer, Speaks, bare, to};
use serde_json::Value;
use tokio::sync::OnceCell;

static STAGE: OnceCell<Stage> = OnceCell::const_new();

/// The whole shelf but for `jwt` in one product: each on a path of its own.
async fn stage() -> Lent {
    let build = async || {
        let origin = Origin::start();
        let service = origin.service();
        let rule = |path: &str, plugins: &str| {
            format!("path = \"{path}\"\nservice = \"{service}\"\nplugins = [\"{plugins}\"]")
        };
        let host = HostDocument::new()
            .plugin("local", &component("ip_allow"), "[plugin.config]\nallow = [\"127.0.0.0/8\", \"::1\"]")
            .plugin(
                "foreign",
                &component("ip_allow"),
                "[plugin.config]\nallow = [\"192.0.2.0/24\"]\nstatus = 404",
            )
            .plugin("id", &component("request_id"), "[plugin.config]\naccept = true\nform = \"uuid\"")
            .plugin("ray", &component("request_id"), "")
            .plugin(
                "closed",
                &component("maintenance"),
                "[plugin.config]\npage = \"later\"\nretry-after = \"2m\"\npaths = [\"/echo/closed/health\"]",
            )
            .plugin(
                "moved",
                &component("rewrite_redirect"),
                "[plugin.config]\nrules = [{ prefix = \"/echo/moved/away\", to-path = \"/echo/new\", status = 308 }, { regex = \"^/echo/moved/([a-z]+)$\", to-path = \"/echo/to/$1\" }]",
            )
            .plugin(
                "limit",
                &component("rate_limit"),
                "[plugin.config]\nlimit = 3\nwindow = \"24h\"\nkind = \"fixed\"\nby = [\"address\", { header = \"x-key\" }]\n[plugin.grants]\nbuckets = { limits = \"1MiB\" }",
            )
            .plugin(
                "tight",
                &component("rate_limit"),
                "[plugin.config]\nlimit = 2\nwindow = \"24h\"\nby = [{ header = \"x-key\" }]\n[plugin.grants]\nbuckets = { limits = \"1KiB\" }",
            )
            .plugin(
                "canary",
                &component("canary_split"),
                "[plugin.config]\nby = { cookie = \"split\" }\necho = true\nvariants = [{ name = \"v2\", weight = 50, path-prefix = \"/echo/v2\" }]",
            )
            .plugin(
                "sliding",
                &component("rate_limit"),
                "[plugin.config]\nlimit = 1\nwindow = \"1h\"\nby = [{ header = \"x-key\" }]\n[plugin.grants]\nbuckets = { limits = \"1MiB\" }",
            )
            .plugin(
                "forced",
                &component("canary_split"),
                "[plugin.config]\nby = { cookie = \"split\" }\nforce = \"x-canary\"\necho = true\nvariants = [{ name = \"v2\", weight = 100, path-prefix = \"/echo/v2\" }, { name = \"v3\", weight = 0, path-prefix = \"/echo/v3\" }]",
            )
            .rule(&rule("^/echo/local", "local"))
            .rule(&rule("^/echo/foreign", "foreign"))
            .rule(&rule("^/echo/id", "id"))
            .rule(&rule("^/echo/ray", "ray"))
            .rule(&rule("^/echo/closed", "closed"))
            .rule(&rule("^/echo/moved", "moved"))
            .rule(&rule("^/echo/limit", "limit"))
            .rule(&rule("^/echo/tight", "tight"))
            .rule(&rule("^/echo/canary", "canary"))
            .rule(&rule("^/echo/sliding", "sliding"))
            .rule(&rule("^/echo/forced", "forced"))
            .otherwise(&service);
        Stage::new(Product::start(EdgeDocument::new(&["west"], 1), host).await, origin)
    };
    STAGE.get_or_init(build).await.lend()
}

pub(super) async fn ask(product: &Product, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request =
        headers.iter().fold(to("GET", path), |request, (name, value)| request.header(*name, *value));
    product.visitor(Speaks::Http1).send(bare(request)).await
}

/// What the origin got of this header.
pub(super) fn received(answer: &Answer, name: &str) -> Option<String> {
    let page = answer.json();
    let headers = page["headers"].as_array().expect("the origin echoes headers");
    let header = headers.iter().find(|header| header[0] == name)?;
    Some(header[1].as_str().expect("text").to_owned())
}

#[tokio::test]
async fn an_address_decides_and_no_header_that_a_visitor_sends() {
    let stage = stage().await;
    let forged =
        [("x-forwarded-for", "192.0.2.1"), ("cf-connecting-ip", "192.0.2.1"), ("x-real-ip", "192.0.2.1")];
    assert_eq!(ask(&stage.product, "/echo/local", &[]).await.status, 200);
    for headers in [&[][..], &forged] {
        let answer = ask(&stage.product, "/echo/foreign", headers).await;
        assert_eq!((answer.status, answer.text()), (404, "nothing is here\n"));
    }
}

#[tokio::test]
async fn visitor_and_origin_learn_the_same_id() {
    let stage = stage().await;
    let answer = ask(&stage.product, "/echo/ray", &[("x-request-id", "mine")]).await;
    assert_eq!(answer.header("x-request-id"), answer.header("cf-ray"));
    assert_eq!(received(&answer, "x-request-id").as_deref(), Some(answer.header("cf-ray")));
    let answer = ask(&stage.product, "/echo/id", &[("x-request-id", "mine")]).await;
    assert_eq!(answer.header("x-request-id"), "mine");
    let first = ask(&stage.product, "/echo/id", &[("x-request-id", "not for logs")]).await;
    let second = ask(&stage.product, "/echo/id", &[]).await;
    assert_eq!(first.header("x-request-id").len(), 36);
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
}

#[tokio::test]
async fn a_page_stands_in_for_a_service_that_is_worked_on() {
    let stage = stage().await;
    for path in ["/echo/closed", "/echo/closed/health/..%2fadmin", "/echo/closed/healthy"] {
        let answer = ask(&stage.product, path, &[]).await;
        assert_eq!((answer.status, answer.text()), (503, "later"), "{path}");
        assert_eq!(answer.header("retry-after"), "120");
    }
    assert_eq!(ask(&stage.product, "/echo/closed/health?full", &[]).await.status, 200);
}

#[tokio::test]
async fn paths_are_rewritten_and_visitors_redirected() {
    let stage = stage().await;
    let answer = ask(&stage.product, "/echo/moved/away/a?b=c", &[]).await;
    assert_eq!((answer.status, answer.header("location")), (308, "http://app.localhost/echo/new/a?b=c"));
    let answer = ask(&stage.product, "/echo/moved/here?b", &[]).await;
    assert_eq!(answer.json()["path"], "/echo/to/here?b");
}

#[tokio::test]
async fn more_than_the_limit_is_refused_for_whoever_is_over_it_only() {
    let stage = stage().await;
    let ask = async |path: &str, key: &str| ask(&stage.product, path, &[("x-key", key)]).await;
    for left in [2, 1, 0] {
        let answer = ask("/echo/limit", "a").await;
        assert_eq!(answer.status, 200);
        assert!(answer.header("ratelimit").starts_with(&format!("\"default\";r={left};t=")), "{answer:?}");
    }
    let answer = ask("/echo/limit", "a").await;
    assert_eq!((answer.status, answer.header("ratelimit-policy")), (429, "\"default\";q=3;w=86400"));
    assert!(answer.header("retry-after").parse::<u32>().unwrap() <= 86_400);
    assert_eq!(ask("/echo/limit", "b").await.status, 200);

    // Whoever fills the bucket gets no further than others, and shuts nobody out.
    let mut refused = 0;
    for number in 0..40 {
        let status = ask("/echo/tight", &number.to_string()).await.status;
        assert_eq!(status, 200, "key {number}");
    }
    for _ in 0..4 {
        refused += u32::from(ask("/echo/tight", "the last").await.status == 429);
    }
    assert_eq!(refused, 2);
}

#[tokio::test]
async fn a_visitor_keeps_the_variant_that_it_has_drawn() {
    let stage = stage().await;
    let (mut marked, mut plain) = (false, false);
    // One in two: that either is missing after so many is as likely as nothing.
    for _ in 0..40 {
        let first = ask(&stage.product, "/echo/canary", &[("x-variant", "claimed")]).await;
        let cookie = first.header("set-cookie").split(';').next().unwrap().to_owned();
        let again = ask(&stage.product, "/echo/canary", &[("cookie", &cookie)]).await;
        assert_eq!(again.header("set-cookie"), "");
        assert_eq!(first.header("x-variant"), again.header("x-variant"));
        let variant = received(&first, "x-variant");
        let path = first.json()["path"].as_str().unwrap().to_owned();
        match variant.as_deref() {
            Some("v2") => marked |= path == "/echo/v2/echo/canary" && first.header("x-variant") == "v2",
            None => plain |= path == "/echo/canary",
            Some(other) => panic!("the origin was told {other}"),
        }
        if marked && plain {
            return;
        }
    }
    panic!("marked: {marked}, plain: {plain}");
}

#[tokio::test]
async fn who_uses_a_sliding_window_up_at_once_is_told_to_wait_for_more_than_one_and_at_most_two() {
    let stage = stage().await;
    let ask = async || ask(&stage.product, "/echo/sliding", &[("x-key", "a")]).await;
    assert_eq!(ask().await.status, 200);
    let answer = ask().await;
    let wait: u32 = answer.header("retry-after").parse().unwrap();
    assert_eq!(answer.status, 429);
    // The window may have begun anew between the two.
    assert!(wait > 3600 - 60 && wait <= 7200, "{wait}");
    let reset = answer.header("ratelimit").split("t=").nth(1).unwrap();
    assert_eq!(reset, wait.to_string(), "{answer:?}");
}

#[tokio::test]
async fn who_may_choose_a_variant_gets_it_and_goes_on_undrawn_by_any_other_word() {
    let stage = stage().await;
    for (word, path, variant, has_cookie) in [
        (None, "/echo/v2/echo/forced", "v2", true),
        (Some("v3"), "/echo/v3/echo/forced", "v3", false),
        (Some("v2"), "/echo/v2/echo/forced", "v2", false),
        (Some("no"), "/echo/forced", "", false),
        (Some(""), "/echo/forced", "", false),
    ] {
        let headers: Vec<_> = word.map(|word| ("x-canary", word)).into_iter().collect();
        let answer = ask(&stage.product, "/echo/forced", &headers).await;
        assert_eq!((answer.status, answer.json()["path"].as_str()), (200, Some(path)), "{word:?}");
        assert_eq!(answer.header("x-variant"), variant, "{word:?}");
        assert_eq!(received(&answer, "x-variant").unwrap_or_default(), variant, "{word:?}");
        assert_eq!(!answer.header("set-cookie").is_empty(), has_cookie, "{word:?}: {answer:?}");
    }
}

#[tokio::test]
async fn the_example_of_every_page_is_a_good_configuration() {
    let site = Site::new();
    site.write("edge-ca.pem", e2e::certificate::Certificate::new(&["quic.cftunnel.com"]).ca_pem);
    site.write("webhook.key", "s3cret");
    site.write("client.key", "s3cret");
    site.write("cookie.key", "s3cret of thirty-two characters.");
    let networks = RawOrigin::start(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n192.0.2.0/24").service();
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(pages).unwrap() {
        let page = entry.unwrap().path().join("README.md");
        let Ok(text) = std::fs::read_to_string(&page) else { continue };
        let (_, example) = text.split_once("```toml\n").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let name = example.split("\"shelf:").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let example = example
            // What a page leaves out, and hosts that a test must not ask.
            .replace(
                "i=10000,l=32$…",
                "i=10000,l=32$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            )
            .replace("https://id.example.com", "http://127.0.0.1:9")
            .replace("https://lists.example.com", &networks);
        let head = HostDocument { edge_ca: "edge-ca.pem".into(), ..HostDocument::new() };
        let head = head.to_toml(&["127.0.0.1:1".parse().unwrap()]);
        site.write("host.toml", format!("{head}\n{example}"));
        // By the host itself, so that compiled code is kept.
        let checked = Process::run(&["config", "check", "host.toml"], site.folder(), "").await;
        assert_eq!(checked.code, Some(0), "{name}: {checked:?}");
        assert!(!checked.output.contains("warning"), "{name}: {checked:?}");
        seen.push(name.to_owned());
    }
    assert_eq!(seen.len(), 17, "{seen:?}");
}

/// As a document names what is inside of the program.
fn inside(name: &str) -> std::path::PathBuf {
    format!("shelf:{name}").into()
}

#[tokio::test]
async fn the_program_alone_holds_the_whole_shelf() {
    let folder = tempfile::TempDir::new().unwrap();
    // The copy stands alone: whatever lay beside the program is not there.
    let alone = folder.path().join("adit");
    std::fs::copy(adit(), &alone).unwrap();
    for name in [
        "basic-auth",
        "block-list",
        "body-replace",
        "canary-split",
        "compress",
        "cors",
        "forward-auth",
        "geo-block",
        "headers",
        "ip-allow",
        "jwt",
        "maintenance",
        "rate-limit",
        "request-id",
        "rewrite-redirect",
        "webhook-verify",
    ] {
        let mut command = std::process::Command::new(&alone);
        command
            .args(["plugin", "inspect", &format!("shelf:{name}"), "-o", "json"])
            .current_dir(folder.path());
        let output = command.output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{name}: {error}: {}", String::from_utf8_lossy(&output.stderr)));
        let file = component(&name.replace('-', "_"));
        assert_eq!(said["size_bytes"], std::fs::metadata(file).unwrap().len(), "{name}");
    }
    let outcome = Process::run(&["plugin", "inspect", "shelf:nothing"], folder.path(), "").await;
    assert!(outcome.code == Some(2) && outcome.log.contains("`nothing`"), "{outcome:?}");
}

#[tokio::test]
async fn a_plugin_from_inside_serves_survives_a_reload_and_is_kept_with_its_generation() {
    let host = HostDocument::new()
        .keys("state-dir = \"state\"")
        .plugin("id", &inside("request-id"), "")
        .rule("service = \"hello_world\"\nplugins = [\"id\"]");
    let product = Product::start(EdgeDocument::new(&["west"], 1), host.clone()).await;
    let answer = ask(&product, "/", &[]).await;
    assert_eq!(answer.header("x-request-id"), answer.header("cf-ray"));

    let mark = product.host.process.mark();
    let more = host.plugin("more", &inside("headers"), "[plugin.config.response.set]\nx-more = \"1\"");
    product
        .site
        .write("host.toml", more.to_toml(&product.edge.servers).replace("[\"id\"]", "[\"id\", \"more\"]"));
    product.host.process.hang_up();
    product.host.process.event_after(mark, "configuration applied", |_| true).await;
    let answer = ask(&product, "/", &[]).await;
    assert_eq!((answer.header("x-more"), answer.header("x-request-id")), ("1", answer.header("cf-ray")));

    // The generation is whole without the program that it came from: both components are parts of it.
    let digest = |name: &str| {
        let component = std::fs::read(component(name)).unwrap();
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &component)
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    for name in ["request_id", "headers"] {
        assert!(product.site.path("state/parts").join(digest(name)).is_file(), "{name} is not kept");
    }
    product.host.process.terminate();
    assert_eq!(product.host.process.exit().await.code(), Some(0));
}
