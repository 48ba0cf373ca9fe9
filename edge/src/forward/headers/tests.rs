use super::*;
use crate::forward::ray::Rays;

fn parts(request: http::request::Builder) -> Parts {
    request.body(()).unwrap().into_parts().0
}

fn crossing(request: http::request::Builder, upload: Upload) -> http::Request<()> {
    let parts = parts(request);
    let authority = authority(&parts).unwrap();
    let ray = Rays::new("west").next();
    let facts = Facts {
        visitor: "::ffff:192.0.2.7".parse().unwrap(),
        chain: None,
        is_secure: true,
        certificate: &[],
        country: None,
        ray: &ray,
    };
    for_origin(parts, authority, upload, &facts).unwrap()
}

fn get() -> http::request::Builder {
    http::Request::get("/path?query").header(HOST, "app.example.com")
}

#[test]
fn a_visitor_cannot_forge_what_the_edge_says() {
    let forged = [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-anything",
        "x_forwarded_for",
        "forwarded",
        "x-real-ip",
        "x-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "cf_connecting_ip",
        "cf-connecting-ipv6",
        "cf-ray",
        "cf-visitor",
        "cf-ipcountry",
        "cf-warp-tag-id",
        "cf-cloudflared-proxy-connection-upgrade",
        "cf-int-cloudflared-tracing",
        "cf-proxy-worker",
        "cf-trace-id",
        "cf-access-authenticated-user-email",
        "proxy",
        "adit-visitor",
        "adit_visitor",
    ];
    let request =
        forged.iter().fold(get(), |request, name| request.header(*name, "forged").header(*name, "again"));
    let request = crossing(request, Upload::None);
    for (name, value) in request.headers() {
        assert!(!value.as_bytes().windows(6).any(|part| part == b"forged"), "{name}: {value:?}");
    }
    assert_eq!(request.headers()["x-forwarded-for"], "192.0.2.7");
    assert_eq!(request.headers()["cf-connecting-ip"], "192.0.2.7");
    assert_eq!(request.headers()["x-forwarded-proto"], "https");
    assert_eq!(request.headers()["cf-visitor"], r#"{"scheme":"https"}"#);
    assert_eq!(request.headers()["cf-ray"].len(), 20);
    assert_eq!(request.headers().len(), 5);
}

#[test]
fn naming_a_trusted_header_in_connection_does_not_cut_it() {
    let named = "X-Forwarded-For, CF-Connecting-IP, Cf-Ray, x-forwarded-proto, Cf-Visitor, Host, x-mine";
    let request = crossing(get().header(CONNECTION, named).header("x-mine", "1"), Upload::None);
    assert_eq!(request.headers()["x-forwarded-for"], "192.0.2.7");
    assert_eq!(request.headers()["cf-connecting-ip"], "192.0.2.7");
    assert!(request.headers().contains_key("cf-ray"));
    assert!(!request.headers().contains_key("x-mine"));
    assert_eq!(request.uri(), "https://app.example.com/path?query");
}

#[test]
fn hop_by_hop_headers_stay_on_their_hop_and_others_pass() {
    let request = get()
        .header(CONNECTION, "close")
        .header(CONNECTION, "upgrade, x-hop")
        .header(UPGRADE, "h2c")
        .header("keep-alive", "timeout=5")
        .header("te", "trailers")
        .header("x-hop", "1")
        .header("proxy-authorization", "Basic eA==")
        .header(EXPECT, "100-continue")
        .header("authorization", "Basic eA==")
        .header("cf-access-jwt-assertion", "token")
        .header("accept", "a")
        .header("accept", "b");
    let request = crossing(request, Upload::None);
    let mut passed: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
    passed.sort_unstable();
    assert_eq!(
        passed,
        [
            "accept",
            "authorization",
            "cf-access-jwt-assertion",
            "cf-connecting-ip",
            "cf-ray",
            "cf-visitor",
            "x-forwarded-for",
            "x-forwarded-proto"
        ]
    );
    assert_eq!(request.headers().get_all("accept").iter().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn the_length_of_a_body_is_said_once_or_it_is_chunked() {
    for (said, upload, length, chunked) in [
        (vec![], Upload::Chunked, None, true),
        (vec!["5"], Upload::Chunked, None, true),
        (vec!["5"], Upload::Sized(5), Some("5"), false),
        (vec!["5", "5"], Upload::Sized(5), Some("5"), false),
        (vec![], Upload::None, None, false),
        (vec!["0"], Upload::None, Some("0"), false),
    ] {
        let request = said.iter().fold(get(), |request, length| request.header(CONTENT_LENGTH, *length));
        let request = crossing(request.header(TRANSFER_ENCODING, "gzip"), upload);
        let headers = request.headers();
        assert_eq!(headers.get(TRANSFER_ENCODING).is_some(), chunked, "{said:?} {upload:?}");
        assert_eq!(headers.get_all(CONTENT_LENGTH).iter().collect::<Vec<_>>(), length.as_slice());
    }
    // Also for a visitor that would have its length cut off.
    let cut = get().header(CONTENT_LENGTH, "5").header(CONNECTION, "content-length");
    assert_eq!(crossing(cut, Upload::Sized(5)).headers()[CONTENT_LENGTH], "5");
}

#[test]
fn cookies_are_one_header() {
    let request = crossing(get().header(COOKIE, "a=1").header(COOKIE, "b=2"), Upload::None);
    assert_eq!(request.headers().get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
}

#[test]
fn one_request_names_one_host() {
    let h1 = http::Request::builder;
    let h2 = || h1().version(Version::HTTP_2);
    for (request, wanted) in [
        (h1().uri("/").header(HOST, "a.example:80"), Ok("a.example:80")),
        (h1().uri("http://a.example/").header(HOST, "A.example"), Ok("a.example")),
        (h1().uri("http://a.example/").header(HOST, "b.example"), Err(Unacceptable::HostsDiffer)),
        (h1().uri("http://a.example/"), Err(Unacceptable::NoHost)),
        (h1().uri("/"), Err(Unacceptable::NoHost)),
        (h1().uri("/").header(HOST, "a").header(HOST, "a"), Err(Unacceptable::SeveralHosts)),
        (h1().uri("/").header(HOST, ""), Err(Unacceptable::InvalidHost)),
        (h1().uri("/").header(HOST, ":80"), Err(Unacceptable::InvalidHost)),
        (h1().uri("/").header(HOST, "a/b"), Err(Unacceptable::InvalidHost)),
        (h1().uri("/").header(HOST, "user@a.example"), Err(Unacceptable::InvalidHost)),
        (h1().uri("/").header(HOST, "a.example:abc"), Err(Unacceptable::InvalidHost)),
        (h1().uri("/").header(HOST, "a.example:65536"), Err(Unacceptable::InvalidHost)),
        (h1().uri("/").header(HOST, "a.example.."), Err(Unacceptable::InvalidHost)),
        (h1().uri("/").header(HOST, "a%2eexample"), Err(Unacceptable::InvalidHost)),
        (h1().uri("http://a.example:abc/").header(HOST, "a.example:abc"), Err(Unacceptable::InvalidHost)),
        (h1().uri("/").header(HOST, "a.example, b.example"), Err(Unacceptable::InvalidHost)),
        (h2().uri("https://a.example/"), Ok("a.example")),
        (h2().uri("https://a.example/").header(HOST, "b.example"), Err(Unacceptable::HostsDiffer)),
        (h2().uri("/").header(HOST, "a.example"), Ok("a.example")),
        (h2().uri("/"), Err(Unacceptable::NoHost)),
    ] {
        let parts = parts(request);
        let found = authority(&parts);
        assert_eq!(found.as_ref().map(Authority::as_str).map_err(|error| *error), wanted, "{parts:?}");
    }
}

#[test]
fn the_target_keeps_path_and_query() {
    for (uri, wanted) in [
        ("/", "https://app.example.com/"),
        ("/a%2fb//c?d=e&f", "https://app.example.com/a%2fb//c?d=e&f"),
        ("http://app.example.com", "https://app.example.com/"),
        ("http://app.example.com?q", "https://app.example.com/?q"),
    ] {
        let request = http::Request::get(uri).header(HOST, "app.example.com");
        assert_eq!(crossing(request, Upload::None).uri(), wanted);
    }
    let asterisk = parts(http::Request::options("*").header(HOST, "a"));
    let ray = Rays::new("west").next();
    let facts = Facts {
        visitor: "::1".parse().unwrap(),
        chain: None,
        is_secure: false,
        certificate: &[],
        country: None,
        ray: &ray,
    };
    let refused = for_origin(asterisk, Authority::from_static("a"), Upload::None, &facts);
    assert_eq!(refused.unwrap_err(), Unacceptable::NoPath);
}

#[test]
fn a_websocket_is_asked_for_in_one_way_only() {
    let good = || {
        get()
            .header(CONNECTION, "keep-alive, Upgrade")
            .header(UPGRADE, "WebSocket")
            .header(SEC_WEBSOCKET_KEY, "k")
    };
    assert!(is_websocket(&parts(good())));
    assert!(!is_websocket(&parts(good().method("POST"))));
    assert!(!is_websocket(&parts(good().version(Version::HTTP_10))));
    assert!(!is_websocket(&parts(get().header(CONNECTION, "upgrade").header(UPGRADE, "websocket"))));
    assert!(!is_websocket(&parts(get().header(UPGRADE, "websocket").header(SEC_WEBSOCKET_KEY, "k"))));
}

#[test]
fn an_answer_loses_what_is_for_the_edge_only() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("cf-int-cloudflared-tracing", "spans"),
        ("cf-cloudflared-response-meta", "{}"),
        ("cf-ray", "forged"),
        ("content-length", "5"),
        ("set-cookie", "a"),
        ("set-cookie", "b"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    let ray = Rays::new("west").next();
    for_visitor(&mut headers, &ray, false);
    assert_eq!(headers.get_all(CF_RAY).iter().collect::<Vec<_>>(), [ray.as_str()]);
    assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
    assert_eq!(headers["content-length"], "5");
    assert_eq!(headers.keys_len(), 3);

    let mut chunked = HeaderMap::new();
    chunked.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    chunked.insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
    for_visitor(&mut chunked, &ray, false);
    assert_eq!(chunked.keys_len(), 1);
}

#[test]
fn the_page_names_every_header_that_is_cut_or_spared() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = std::fs::read_to_string(page).unwrap().to_ascii_lowercase();
    let table = page.split("\n### ").find(|section| section.starts_with("what becomes of headers")).unwrap();
    let hops = HOP_BY_HOP.into_iter().map(|name| name.as_str().to_owned());
    let exact = SAYS_ADDRESS.iter().chain(&SAID_BY_VISITORS).map(|name| (*name).to_owned());
    let beginnings = INTERNAL_TO_TUNNEL.iter().map(|name| format!("{name}*"));
    for name in hops.chain(exact).chain(beginnings).chain([EXPECT.to_string(), COOKIE.to_string()]) {
        assert!(table.contains(&format!("`{name}`")), "{name}");
    }
}
