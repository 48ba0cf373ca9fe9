//! The rules and plugins of a running host change without a request noticing more than the change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::component;
use e2e::product::Product;
use e2e::visitor::{Answer, Speaks, Visitor, bare, get, to, with_text};

const RELOADS: usize = 20;
const VISITORS: usize = 4;

/// Both phases of the plugin and the rule's name say the same number.
fn document(origin: &Origin, number: usize) -> HostDocument {
    let config = format!(
        "[plugin.config]\nrequest.set = {{ x-mark = \"{number}\" }}\nresponse.set = {{ x-mark = \"{number}\" }}"
    );
    HostDocument::new()
        .connections(2)
        .plugin("marks", &component("headers"), &config)
        .rule(&format!("name = \"rule-{number}\"\nservice = \"{}\"\nplugins = [\"marks\"]", origin.service()))
}

async fn start(origin: &Origin) -> Product {
    Product::start(EdgeDocument::new(&["west"], 2), document(origin, 0)).await
}

async fn reload(product: &Product, document: &HostDocument) -> Answer {
    product.site.write("host.toml", document.to_toml(&product.edge.servers));
    Visitor::new(product.host.admin, Speaks::Http1, None)
        .send(bare(to("POST", "/reload").header("host", "localhost")))
        .await
}

#[tokio::test]
async fn reloads_under_load_lose_no_request_and_mix_no_generations() {
    let origin = Origin::start();
    let product = start(&origin).await;
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let visitors: Vec<_> = (0..VISITORS)
        .map(|number| {
            let visitor = product.visitor(Speaks::Http1);
            let (stop, served) = (stop.clone(), served.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let request =
                        if number % 2 == 0 { get("/echo") } else { with_text(to("POST", "/echo"), "a body") };
                    let answer = visitor.send(request).await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                    let seen = answer.json();
                    let headers = seen["headers"].as_array().unwrap();
                    let mark = headers.iter().find(|header| header[0] == "x-mark").unwrap()[1].clone();
                    assert_eq!(answer.header("x-mark"), mark, "the phases are of two generations");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for number in 1..=RELOADS {
        let before = served.load(Ordering::Relaxed);
        let verdict = reload(&product, &document(&origin, number)).await.json();
        assert_eq!(verdict["verdict"], "applied", "{verdict}");
        assert_eq!(verdict["generation"], number + 1);
        assert_eq!(product.get("/echo").await.header("x-mark"), number.to_string());
        // The load goes on between any two reloads.
        while served.load(Ordering::Relaxed) == before {
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for visitor in visitors {
        visitor.await.unwrap();
    }
    eprintln!("{} requests over {RELOADS} reloads, none failed, none mixed", served.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_bad_document_is_refused_with_its_reasons_and_what_runs_goes_on() {
    let origin = Origin::start();
    let product = start(&origin).await;
    let bad_rules = document(&origin, 1).rule("hostname = \"a.b\"\nservise = \"http_status:200\"");
    let bad_plugin = HostDocument::new()
        .connections(2)
        .plugin("marks", &component("headers"), "[plugin.config]\nrequest.set = { \"x mark\" = \"1\" }")
        .rule("service = \"hello_world\"\nplugins = [\"marks\"]");
    for (document, reason) in [(bad_rules, "servise"), (bad_plugin, "x mark")] {
        let answer = reload(&product, &document).await;
        assert_eq!(answer.status, 422);
        let verdict = answer.json();
        assert_eq!((&verdict["verdict"], &verdict["serving"]), (&"refused".into(), &1.into()), "{verdict}");
        assert!(verdict["reasons"].to_string().contains(reason), "{verdict}");
        assert_eq!(product.get("/echo").await.header("x-mark"), "0");
    }
    let verdict = reload(&product, &document(&origin, 3)).await.json();
    assert_eq!(verdict["generation"], 2, "a refused document uses up no number: {verdict}");
    assert_eq!(product.get("/echo").await.header("x-mark"), "3");
}

#[tokio::test]
async fn sighup_reloads_too_and_a_plugin_that_has_not_changed_keeps_its_instances() {
    let origin = Origin::start();
    let product = start(&origin).await;
    let instantiations = async || {
        let status = product.host.admin("/status").await.json();
        status["plugins"][0]["instantiations"].as_u64().unwrap()
    };
    let before = instantiations().await;
    let same_plugin = document(&origin, 0).rule("name = \"never reached\"\nservice = \"http_status:404\"");
    let text =
        same_plugin.to_toml(&product.edge.servers).replacen("name = \"rule-0\"", "path = \"^/echo\"", 1);
    product.site.write("host.toml", text);
    product.host.process.hang_up();
    let event = product.host.process.event("configuration applied", |_| true).await;
    assert_eq!(event["generation"], 2);
    assert_eq!(product.get("/echo").await.header("x-mark"), "0");
    assert_eq!(product.get("/elsewhere").await.status, 404);
    assert_eq!(instantiations().await, before);
}
