//! An edge behind a proxy, from one end to the other: services and plugins go by the visitor that a trusted proxy
//! speaks of.

use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::origin::Origin;
use e2e::process::component;
use e2e::product::Product;
use e2e::visitor::{Answer, Speaks, bare, to};

const TRUSTED: &str = "trusted-proxies = [\"127.0.0.0/8\"]";

/// An edge with such keys about visitors.
async fn behind(keys: &str) -> (Product, Origin) {
    let origin = Origin::start();
    let service = origin.service();
    let rule = |path: &str, plugin: &str| {
        format!("path = \"{path}\"\nservice = \"{service}\"\nplugins = [\"{plugin}\"]")
    };
    let addresses = "[plugin.config]\nallow = [\"198.51.100.0/24\"]";
    let once = "[plugin.config]\nlimit = 1\nwindow = \"24h\"\nkind = \"fixed\"\nby = [\"address\"]\n\
                [plugin.grants]\nbuckets = { limits = \"1MiB\" }";
    let host = HostDocument::new()
        .over(super::PROTOCOL)
        .plugin("addresses", &component("ip_allow"), addresses)
        .plugin("once", &component("rate_limit"), once)
        .rule(&rule("^/echo/few", "addresses"))
        .rule(&rule("^/echo/once", "once"))
        .otherwise(&service);
    (Product::start(EdgeDocument::new(&["west"], 1).for_visitors(keys), host).await, origin)
}

async fn ask(product: &Product, speaks: Speaks, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request =
        headers.iter().fold(to("GET", path), |request, (name, value)| request.header(*name, *value));
    product.visitor(speaks).send(bare(request)).await
}

#[tokio::test]
async fn a_service_that_sends_visitors_to_https_sees_that_they_have_come_there() {
    let (product, _origin) = behind(TRUSTED).await;
    let (blind, _other) = behind("").await;
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let in_clear = ask(&product, speaks, "/secure", &[("x-forwarded-proto", "http")]).await;
        let there = format!("https://{HOST}/secure");
        assert_eq!((in_clear.status, in_clear.header("location")), (301, there.as_str()), "{speaks:?}");
        // The visitor goes there, and the proxy has taken TLS off.
        let followed = ask(&product, speaks, "/secure", &[("x-forwarded-proto", "https")]).await;
        assert_eq!((followed.status, followed.text()), (200, "secure"), "{speaks:?}");
        let claimed = ask(&blind, speaks, "/secure", &[("x-forwarded-proto", "https")]).await;
        assert_eq!(claimed.status, 301, "{speaks:?}: anybody says so");
    }
}

#[tokio::test]
async fn plugins_that_go_by_addresses_see_the_visitor_and_not_the_proxy() {
    let (product, _origin) = behind(TRUSTED).await;
    let (blind, _other) = behind("").await;
    for speaks in [Speaks::Http1, Speaks::Http2] {
        for (chain, status) in [
            ("198.51.100.7", 200),
            ("6.6.6.6, 198.51.100.7, 127.0.0.9", 200),
            ("198.51.100.7, 6.6.6.6", 403),
            ("6.6.6.6", 403),
            // Of the proxy itself, for all that it says.
            ("", 403),
        ] {
            let answer = ask(&product, speaks, "/echo/few", &[("x-forwarded-for", chain)]).await;
            assert_eq!(answer.status, status, "{speaks:?} {chain}");
        }
        let claimed = ask(&blind, speaks, "/echo/few", &[("x-forwarded-for", "198.51.100.7")]).await;
        assert_eq!(claimed.status, 403, "{speaks:?}: anybody says so");
    }
    // Each visitor has a limit of its own, although all come by one proxy.
    for (visitor, status) in [("192.0.2.1", 200), ("192.0.2.2", 200), ("192.0.2.1", 429)] {
        let answer = ask(&product, Speaks::Http1, "/echo/once", &[("x-forwarded-for", visitor)]).await;
        assert_eq!(answer.status, status, "{visitor}");
    }
}

#[tokio::test]
async fn a_header_of_the_proxy_protocol_says_it_for_a_whole_connection() {
    let (product, _origin) = behind(&format!("{TRUSTED}\nproxy-protocol = true")).await;
    let ask = async |address: [u8; 4], version: u8| {
        let [a, b, c, d] = address;
        let said = match version {
            1 => format!("PROXY TCP4 {a}.{b}.{c}.{d} 192.0.2.1 56324 80\r\n").into_bytes(),
            _ => [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[a, b, c, d, 192, 0, 2, 1, 0xdc, 4, 0, 80]]
                .concat(),
        };
        let request = format!(
            "GET /echo/few HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 198.51.100.9\r\nConnection: close\r\n\r\n"
        );
        let answer = product.visitor(Speaks::Http1).raw(&[&said, request.as_bytes()].concat()).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    for version in [1, 2] {
        let answer = ask([198, 51, 100, 7], version).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{version}: {answer}");
        assert!(answer.contains(r#"["x-forwarded-for","198.51.100.7"]"#), "{version}: {answer}");
        // Its own word about itself counts for nothing.
        let answer = ask([6, 6, 6, 6], version).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{version}: {answer}");
    }
}
