//! Five hundred secrets of twenty kinds, sent through the product in headers, cookies, queries, JSON and forms, and
//! what is left of them wherever anybody looks: the inspector's pages and exports, logs, numbers, traces.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::collector::Collector;
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::product::{Product, Site};
use e2e::visitor::{Speaks, to, with_text};

use super::{BEARER, Browser, LOCAL, TOKEN, ask};

/// Letters that differ for each `seed`, of an alphabet.
fn letters(seed: u64, length: usize, alphabet: &[u8]) -> String {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(alphabet[(state >> 33) as usize % alphabet.len()])
    };
    (0..length).map(next).collect()
}

const ALL: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const HEX: &[u8] = b"0123456789abcdef";
const LARGE: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const DIGITS: &[u8] = b"0123456789";

/// A secret of one of twenty kinds, what it is called where it stands, and what there is around it.
fn secret(kind: usize, seed: u64) -> (String, &'static str, [&'static str; 2]) {
    let all = |length| letters(seed, length, ALL);
    let plain = ["", ""];
    match kind {
        0 => (format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI{}.{}", all(12), all(43)), "note", plain),
        1 => (format!("ghp_{}", all(36)), "note", plain),
        2 => (format!("AKIA{}", letters(seed, 16, LARGE)), "note", plain),
        3 => (format!("sk_live_{}", all(24)), "note", plain),
        4 => (format!("xoxb-{}-{}", letters(seed, 12, DIGITS), all(24)), "note", plain),
        5 => (format!("AIza{}", all(35)), "note", plain),
        6 => (format!("glpat-{}", all(20)), "note", plain),
        7 => (format!("{}1a", letters(seed, 62, HEX)), "note", plain),
        8 => (format!("npm_{}", all(36)), "note", plain),
        9 => (format!("SG.{}.{}", all(22), all(43)), "note", plain),
        10 => (format!("whsec_{}", all(32)), "note", plain),
        11 => (STANDARD.encode(format!("user:{}", all(20))), "note", ["Basic ", ""]),
        12 => (all(12), "note", ["Bearer ", ""]),
        13 => (all(14), "note", ["https://user:", "@db.example/"]),
        14 => (format!("Summer{}", all(6)), "password", plain),
        15 => (letters(seed, 12, DIGITS), "otp", plain),
        16 => (all(10), "apiKey", plain),
        17 => (format!("correct-horse-{}", letters(seed, 8, b"abcdefgh")), "passphrase", plain),
        18 => (all(9), "session_id", plain),
        _ => (letters(seed, 12, LARGE), "client-secret", plain),
    }
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}

#[tokio::test]
async fn five_hundred_secrets_of_twenty_kinds_are_in_no_page_export_log_number_or_trace() {
    let (origin, collector) = (Origin::start(), Collector::start());
    let site = Site::new();
    site.write("admin-token", format!("{TOKEN}\n"));
    let mut edge = EdgeDocument::new(&["west"], 1);
    edge.more = collector.section("context = \"accept\"");
    let mut host =
        HostDocument::new().over(crate::PROTOCOL).keys("access-log = true").otherwise(&origin.service());
    host.admin_keys = "token-file = \"admin-token\"".to_owned();
    host.rules.push_str(&collector.section(""));
    let product = Product::start_at(site, edge, host).await;
    let browser = Browser::sign_in(product.host.admin).await;
    assert_eq!(browser.send("/ui/inspector", "what=start&for=10m&bodies=65536&rule=").await.status, 303);

    let mut planted = Vec::new();
    for kind in 0..20 {
        for round in 0..5_u64 {
            let seed = 1_000 * kind as u64 + 10 * round;
            // One for each place.
            let of = |place: u64| secret(kind, seed + place);
            let written = |place: u64| {
                let (secret, name, [before, behind]) = of(place);
                (name, [before, &secret, behind].concat())
            };
            planted.extend((0..5).map(|place| of(place).0));
            let (name, query) = written(0);
            let path = format!("/echo/planted?page=2&{name}={}", encoded(&query));
            let (name, header) = written(1);
            let request = to("POST", &path)
                .header(format!("x-{}", name.to_lowercase().replace('_', "-")), header)
                .header("cookie", format!("theme=dark; sid={}", encoded(&written(2).1)))
                .header("tracestate", "vendor=1");
            let (request, body) = if round % 2 == 0 {
                let ((name, json), (other, also)) = (written(3), written(4));
                let body =
                    serde_json::json!({ "by": "Ada Lovelace", name: json, "inner": [{ other: also }] });
                (request.header("content-type", "application/json"), body.to_string())
            } else {
                let ((name, form), (other, also)) = (written(3), written(4));
                let body = format!("by=Ada+Lovelace&{name}={}&a[{other}]={}", encoded(&form), encoded(&also));
                (request.header("content-type", "application/x-www-form-urlencoded"), body)
            };
            let answer = product.visitor(Speaks::Http1).send(with_text(request, &body)).await;
            assert_eq!(answer.json()["body"], body, "the service gets all of it");
        }
    }
    assert_eq!(planted.len(), 500);
    let shown = browser.all(100).await.concat();
    for word in ["Ada Lovelace", "page=2", "‹redacted ", "/echo/planted"] {
        assert!(shown.contains(word), "{word} is nowhere");
    }
    let spans = collector
        .until("all of it is told", |spans| spans.iter().filter(|span| span.kind == 2).count() == 200)
        .await;
    assert!(
        spans.iter().any(|span| span.attributes.get("url.path").is_some_and(|path| path == "/echo/planted"))
    );
    let traces = String::from_utf8_lossy(&collector.bytes()).into_owned();
    let log = format!("{:?}{:?}", product.edge.process.log(), product.host.process.log());
    assert!(log.contains("/echo/planted"), "the access log is on");
    let numbers = ask(product.host.admin, "GET", "/metrics", &[LOCAL], None).await;
    let history = ask(product.host.admin, "GET", "/status", &[LOCAL, BEARER], None).await;
    let mut found = Vec::new();
    for secret in &planted {
        // Most of a secret is a secret, too; a few digits stand in ids and times by chance.
        let is_number = secret.bytes().all(|byte| byte.is_ascii_digit());
        let most = if is_number { secret.as_str() } else { &secret[..secret.len() * 7 / 10] };
        for (place, text) in [
            ("pages", shown.as_str()),
            ("log", &log),
            ("metrics", numbers.text()),
            ("status", history.text()),
            ("traces", &traces),
        ] {
            if text.contains(most) || text.contains(&encoded(secret)) {
                found.push(format!("{secret} is in the {place}"));
            }
        }
    }
    assert!(found.is_empty(), "{} of 500: {found:#?}", found.len());
}
