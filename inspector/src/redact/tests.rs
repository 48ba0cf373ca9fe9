//! Secrets of twenty kinds, planted wherever requests have room, and nothing of them left.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::*;
use crate::exchange::{Exchange, Message};
use crate::keeper::{BodyHeaders, Keeper};

/// Letters that differ for each `seed`, of an alphabet.
fn letters(seed: u64, length: usize, alphabet: &str) -> String {
    let alphabet: Vec<char> = alphabet.chars().collect();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        alphabet[usize::try_from(state >> 33).unwrap() % alphabet.len()]
    };
    (0..length).map(next).collect()
}

const ALL: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const HEX: &str = "0123456789abcdef";
const LARGE: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// A secret of one of twenty kinds, and whether it is known by its look alone.
fn secret(kind: usize, seed: u64) -> (String, bool) {
    let all = |length| letters(seed, length, ALL);
    let digits = |length| letters(seed, length, "0123456789");
    match kind {
        0 => (format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI{}.{}", all(12), all(43)), true),
        1 => (format!("ghp_{}", all(36)), true),
        2 => (format!("AKIA{}", letters(seed, 16, LARGE)), true),
        3 => (format!("sk_live_{}", all(24)), true),
        4 => (format!("xoxb-{}-{}", digits(12), all(24)), true),
        5 => (format!("AIza{}", all(35)), true),
        6 => (format!("glpat-{}", all(20)), true),
        7 => (format!("{}1a", letters(seed, 62, HEX)), true),
        8 => (format!("{}a1==", letters(seed, 40, ALL)), true),
        9 => (format!("npm_{}", all(36)), true),
        10 => (format!("SG.{}.{}", all(22), all(43)), true),
        11 => (format!("whsec_{}", all(32)), true),
        12 => (
            format!("{}1-a{}-{}", letters(seed, 7, HEX), letters(seed, 3, HEX), letters(seed, 12, HEX)),
            true,
        ),
        // A password as people choose them.
        13 => (format!("Summer-{}", all(4)), false),
        14 => (digits(6), false),
        15 => (format!("p/{}+{}", all(3), all(4)), false),
        16 => (format!("{}ß!{}", all(4), all(3)), false),
        17 => (all(9), false),
        18 => (letters(seed, 16, LARGE), false),
        _ => (format!("correct-horse-{}", letters(seed, 5, "abcdefgh")), false),
    }
}

/// What secrets are called, in many spellings.
const NAMES: [&str; 14] = [
    "password",
    "api_key",
    "apiKey",
    "X-Api-Key",
    "access_token",
    "refreshToken",
    "client-secret",
    "signature",
    "code",
    "session_id",
    "SessionID",
    "csrf",
    "passphrase",
    "auth",
];

fn kept(headers: &[(&str, String)], target: &str, bodies: &[(&str, String)]) -> Vec<Exchange> {
    let keeper = Keeper::new(1).unwrap();
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).unwrap();
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let exchange = |message: Message| Exchange {
        target: keeper.target(target).text,
        request: message.clone(),
        answer: message,
        ..crate::export::tests::exchange()
    };
    let mut all = vec![exchange(keeper.message(&map))];
    for (kind, body) in bodies {
        let mut of_body = HeaderMap::new();
        of_body.insert(http::header::CONTENT_TYPE, kind.parse().unwrap());
        let mut message = Message::default();
        // In pieces, as it comes.
        let pieces: Vec<Bytes> = body.as_bytes().chunks(7).map(Bytes::copy_from_slice).collect();
        keeper.put_body(&mut message, &BodyHeaders::of(&of_body), &pieces, body.len() as u64);
        all.push(exchange(message));
    }
    all.into_iter().for_each(|exchange| keeper.keep(0, "a", exchange));
    keeper.all().iter().map(|exchange| exchange.as_ref().clone()).collect()
}

/// Everything that anybody ever gets to see of an exchange.
fn shown(exchanges: &[Exchange]) -> String {
    let texts = exchanges.iter().map(|exchange| {
        [serde_json::to_string(exchange).unwrap(), crate::curl(exchange), crate::plugin_case(exchange)]
            .concat()
    });
    texts.collect()
}

/// A secret, and whatever codings make of it.
fn is_in(secret: &str, text: &str) -> bool {
    let encoded = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
    // Most of a secret is a secret, too.
    let half = &secret[..secret.floor_char_boundary(secret.len().max(10) * 7 / 10)];
    text.contains(half) || text.contains(&encoded)
}

#[test]
fn five_hundred_secrets_of_twenty_kinds_are_nowhere() {
    let mut planted = 0;
    for kind in 0..20 {
        for number in 0..25_usize {
            let (secret, has_look) = secret(kind, 1_000 * kind as u64 + number as u64 + 1);
            let name = NAMES[(kind + number) % NAMES.len()];
            let encoded = utf8_percent_encode(&secret, NON_ALPHANUMERIC);
            let twice = utf8_percent_encode(&encoded.to_string(), NON_ALPHANUMERIC).to_string();
            let quoted = serde_json::Value::from(secret.as_str());
            let within = serde_json::Value::from(format!("{{\"{name}\":{quoted}}}"));
            let mut headers = vec![
                ("authorization", format!("Bearer {secret}")),
                ("authorization", secret.clone()),
                ("proxy-authorization", format!("Basic {secret}")),
                ("cookie", format!("theme=dark; sid={secret}; {secret}")),
                ("set-cookie", format!("sid={secret}; Path=/; HttpOnly")),
                ("cf-access-jwt-assertion", secret.clone()),
                (name, secret.clone()),
                ("x-forward", format!("Bearer {secret}")),
                ("x-line", format!("{name}: {secret}")),
                ("x-pair", format!("a=1, {name}=\"{secret}\"")),
                ("referer", format!("https://a.test/x?{name}={encoded}&b=2")),
                ("location", format!("https://user:{encoded}@a.test/")),
            ];
            let mut target = format!(
                "/x;{name}={encoded}?a=1&{name}={encoded}&next=https%3A%2F%2Fa.test%2F%3F{name}%3D{twice}"
            );
            let mut bodies = vec![
                ("application/json", format!("{{\"a\":[1,{{\"{name}\":{quoted}}}],\"b\":true}}")),
                ("application/json", format!("{{\"{name}\":{{\"deep\":[{quoted}]}}}}")),
                ("application/json", format!("{{\"within\":{within}}}")),
                ("application/json", format!("[{{\"name\":\"{name}\",\"value\":{quoted}}}]")),
                ("application/json", format!("{{\"headers\":[[\"{name}\",{quoted}]]}}")),
                // Cut off.
                (
                    "application/json",
                    format!("{{\"a\":[1,{{\"{name}\":{}", quoted.to_string().trim_end_matches('"')),
                ),
                ("application/x-www-form-urlencoded", format!("a=1&{name}={encoded}&b=2")),
                (
                    "multipart/form-data; boundary=x",
                    format!(
                        "--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{secret}\r\n--x--\r\n"
                    ),
                ),
                ("text/plain", format!("the {name} is here\n{name} = {secret}\n")),
                ("application/yaml", format!("user: me\n{name}: {secret}\n")),
                ("text/xml", format!("<a><{name}>{}</{name}></a>", secret.replace('&', ""))),
            ];
            if has_look {
                headers.extend([("x-any", secret.clone()), ("x-other", format!("see {secret}, and more"))]);
                target.push_str(&format!("&any={encoded}"));
                target = target.replacen("/x", &format!("/reset/{encoded}/x"), 1);
                bodies.extend([
                    ("application/json", format!("{{\"any\":{quoted},\"more\":[{quoted}]}}")),
                    ("application/x-www-form-urlencoded", format!("any={encoded}")),
                    ("text/plain", format!("it is {secret}.")),
                    ("text/html", format!("<p data-x=\"{secret}\">{secret}</p>")),
                ]);
            }
            let exchanges = kept(&headers, &target, &bodies);
            assert_eq!(exchanges.len(), 1 + bodies.len());
            for exchange in &exchanges {
                let text = shown(std::slice::from_ref(exchange));
                assert!(!is_in(&secret, &text), "kind {kind}, {name}: {secret} is in\n{text}");
            }
            planted += 1;
        }
    }
    assert_eq!(planted, 500);
}

#[test]
fn what_is_no_secret_is_left_as_it_was() {
    let redactor = Redactor::new().unwrap();
    for text in [
        "text/html; charset=utf-8",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
        "application/x-www-form-urlencoded",
        "gzip, deflate, br, zstd",
        "Mon, 30 Nov 2026 06:12:44 GMT",
        "max-age=31536000, immutable",
        "<p>hello, <b>world</b>: it is 12:30</p>",
        "bytes=0-1023",
        "The quick brown fox jumps over the lazy dog; 1, 2 and 3.",
    ] {
        assert_eq!(redactor.text(text), Redacted { text: text.to_owned(), marks: 0 });
    }
    for target in ["/", "/a/b.html?page=2&sort=name%20asc&q=caf%C3%A9+latte", "/%E2%82%AC/x?y", "*", ""] {
        assert_eq!(redactor.target(target), Redacted { text: target.to_owned(), marks: 0 });
    }
    let json = "{\n  \"name\": \"Ada\", \"age\": 36, \"tags\": [\"a\", null, true], \"quote\": \"\\\"hi\\\" \\u00e9\"\n}\n";
    let (body, marks) = redactor.body("application/json", "", json.as_bytes(), json.len() as u64);
    assert_eq!(marks, 0);
    assert_eq!(body, Body::Text { text: json.to_owned(), bytes: json.len() as u64, is_whole: true });
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let name = HeaderName::from_static("traceparent");
    assert_eq!(redactor.header(&name, traceparent).text, traceparent);
    assert_eq!(redactor.header(&name, "ghp_0123456789abcdefghijklmnopqrstuvwxyz").marks, 1);
}

#[test]
fn the_same_secret_has_the_same_mark_and_another_process_another() {
    let (here, there) = (Redactor::new().unwrap(), Redactor::new().unwrap());
    let name = HeaderName::from_static("x-api-key");
    let mark = |redactor: &Redactor, secret: &str| redactor.header(&name, secret).text;
    assert_eq!(mark(&here, "hunter2"), mark(&here, "hunter2"));
    assert_ne!(mark(&here, "hunter2"), mark(&here, "hunter3"));
    assert_ne!(mark(&here, "hunter2"), mark(&there, "hunter2"));
    assert!(mark(&here, "hunter2").starts_with("‹redacted 7 bytes, "));
}

#[test]
fn a_secret_that_is_cut_in_two_leaves_no_half() {
    let redactor = Redactor::new().unwrap();
    let text = format!("{} ghp_0123456789abcdefghijklmnopqrstuvwxyz", "word ".repeat(20));
    let at = text.find("ghp_").unwrap();
    for cut in at + 1..text.len() {
        for kind in ["text/plain", "application/json", "application/x-www-form-urlencoded"] {
            let (body, _) = redactor.body(kind, "", &text.as_bytes()[..cut], text.len() as u64);
            let shown = format!("{body:?}");
            assert!(!shown.contains("ghp") && !shown.contains("0123"), "{kind}: {shown}");
        }
    }
}

#[test]
fn bodies_that_are_not_text_are_not_kept_and_nothing_panics() {
    let redactor = Redactor::new().unwrap();
    let body =
        |kind: &str, coding: &str, bytes: &[u8]| redactor.body(kind, coding, bytes, bytes.len() as u64).0;
    assert!(matches!(body("text/plain", "gzip", b"x"), Body::LeftOut { bytes: 1, .. }));
    assert!(matches!(body("text/plain", "", b"a\xff"), Body::LeftOut { .. }));
    assert!(matches!(body("text/plain", "identity", b"a\0"), Body::LeftOut { .. }));
    assert_eq!(body("text/plain", "", b""), Body::Empty);
    let pieces = [
        "{",
        "[",
        "\"",
        "\\",
        ":",
        ",",
        "é",
        "password",
        "=",
        "<",
        ">",
        "://",
        "@",
        "-----BEGIN ",
        "--x\n\n",
        " ",
    ];
    for seed in 0..20_000_u64 {
        let text: String = letters(seed + 1, 12, "abcdefghijklmnop")
            .bytes()
            .map(|byte| pieces[usize::from(byte - b'a')])
            .collect();
        for kind in
            ["application/json", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded"]
        {
            body(kind, "", text.as_bytes());
        }
        let _ = redactor.target(&text);
    }
    let deep = format!("{}\"password\"", "[".repeat(200_000));
    body("application/json", "", deep.as_bytes());
}
