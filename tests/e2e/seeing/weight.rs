//! How much a browser has to fetch until it shows a page.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

use super::*;

fn small(text: &str) -> usize {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap().len()
}

/// seeing.md, row 6: every page with all that it needs, as a browser would get it compressed.
#[tokio::test]
async fn every_page_with_all_that_it_needs_is_below_60_kilobytes() {
    let origin = Origin::start();
    let product = product(&origin, super::super::PROTOCOL).await;
    let watch = ask(product.host.admin, "PUT", "/inspector", &[LOCAL, BEARER], Some("{\"for\":\"10m\"}"));
    assert_eq!(watch.await.json()["on"], true);
    let browser = Browser::sign_in(product.host.admin).await;
    for number in 0..50 {
        product.visitor(Speaks::Http1).send(get(&format!("/echo?page={number}"))).await;
    }
    let texts = browser.all(50).await;
    let number = texts.iter().find_map(|text| text.split("/ui/requests/").nth(1)?.split('/').next()).unwrap();
    let mut heaviest = 0;
    for path in ["/ui/", "/ui/plugins", "/ui/revisions", "/ui/revisions/1", "/ui/requests", "/ui/enter"]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("/ui/requests/{number}")])
    {
        let page = browser.page(&path).await;
        let mut weight = small(&page);
        let mut parts = Vec::new();
        for part in page.split('"').filter(|part| part.ends_with(".css") || part.ends_with(".js")) {
            let asset = browser.page(part).await;
            parts.push(small(&asset));
            weight += small(&asset);
        }
        assert_eq!(parts.len(), 2, "{path}: a style and a script, and nothing else: {page}");
        for other in ["<img", "<iframe", "@import", "url("] {
            assert!(!page.contains(other), "{path} has {other}");
        }
        println!("{path}: {weight} bytes, of which the style and the script {parts:?}");
        heaviest = heaviest.max(weight);
    }
    assert!(heaviest < 60_000, "{heaviest}");
}
