//! Plugins learn what is known of the exchange that they are called for, and leave things for each other.

use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::component;
use e2e::product::{Host, Product};
use e2e::visitor::{Speaks, bare, to};

const GRANTS: &str = "[plugin.grants]\nhttp = [\"http://127.0.0.1:9\"]\nsecrets = { key = { file = \"key.txt\" } }\n\
                      buckets = { b = \"64KiB\", seen = \"64KiB\" }";

/// What is known, with a word in the place of the visitor's port, which must be one.
fn without_port(known: &str) -> String {
    let mut facts: Vec<&str> = known.split("; ").collect();
    assert!(facts[3].parse::<u16>().is_ok_and(|port| port > 1), "{known}");
    facts[3] = "PORT";
    facts.join("; ")
}

#[tokio::test]
async fn plugins_know_the_exchange_and_find_what_those_before_them_have_left() {
    let (origin, site) = (Origin::start(), e2e::product::Site::new());
    site.write("key.txt", "s3cret");
    let toolbox = component("test/toolbox");
    let host = HostDocument::new()
        .over(super::PROTOCOL)
        .plugin("one", &toolbox, GRANTS)
        .plugin("two", &toolbox, GRANTS)
        .rule(&format!("name = \"shop\"\nservice = \"{}\"\nplugins = [\"one\", \"two\"]", origin.service()));
    let product = Product::start_at(site, EdgeDocument::new(&["west"], 1), host).await;
    let visitor = product.visitor(Speaks::Http1);
    let asked = |word: &str| bare(to("PUT", "/echo/a?b=c").header("x-do", format!("leave {word}")));
    let seen = |answer: &e2e::visitor::Answer| -> Vec<String> {
        let values = answer.headers.get_all("x-exchange").iter();
        values.map(|value| value.to_str().unwrap().to_owned()).collect()
    };

    let passed = visitor.send(asked("word")).await;
    let host = e2e::document::HOST;
    let request = format!("PUT http://{host}/echo/a?b=c; leave word");
    let known = format!("shop; {}; none; PORT; 1.1; none; 1", origin.service());
    let expected = format!("{known}; {request}; none; word");
    assert_eq!(
        seen(&passed).iter().map(|it| without_port(it)).collect::<Vec<_>>(),
        [&*expected; 2],
        "{passed:?}"
    );

    let replied = visitor.send(asked("reply")).await;
    let text = without_port(replied.text());
    assert_eq!(text, format!("{known}; none; ; none; reply"), "there is no answer yet");
    let request = format!("PUT http://{host}/echo/a?b=c; leave reply");
    let [seen_once] = &seen(&replied)[..] else { panic!("{replied:?}") };
    assert_eq!(without_port(seen_once), format!("{known}; {request}; two; reply"));

    let untold = visitor.send(bare(to("GET", "/echo"))).await;
    assert_eq!(seen(&untold), Vec::<String>::new(), "nothing is left of another exchange");
}

#[tokio::test]
async fn plugins_know_how_the_visitor_came_and_neither_they_nor_the_origin_see_who_says_so() {
    let (origin, site) = (Origin::start(), e2e::product::Site::new());
    site.write("key.txt", "s3cret");
    let host = HostDocument::new()
        .over(super::PROTOCOL)
        .plugin("one", &component("test/toolbox"), GRANTS)
        .rule(&format!("name = \"shop\"\nservice = \"{}\"\nplugins = [\"one\"]", origin.service()));
    let product = Product::start_at(site, EdgeDocument::new(&["west"], 1).with_https(), host).await;
    for (speaks, came) in [
        (Speaks::Http1, "1.1; none; 1"),
        (Speaks::Http2, "2; none; 1"),
        (Speaks::Tls1, "1.1; 1.3; 1"),
        (Speaks::Tls2, "2; 1.3; 1"),
    ] {
        for forged in [None, Some("attempt=9;port=1;http=1.0;tls=1.2")] {
            let request = to("GET", "/echo").header("x-do", "leave word");
            let request = match forged {
                Some(forged) => request.header("adit-visitor", forged).header("adit_visitor", forged),
                None => request,
            };
            let answer = product.visitor(speaks).send(bare(request)).await;
            let known = without_port(answer.header("x-exchange"));
            let wanted = format!("shop; {}; none; PORT; {came}; ", origin.service());
            assert!(known.starts_with(&wanted), "{speaks:?}: {known}");
            let seen = answer.json();
            let names = seen["headers"].as_array().unwrap().iter().map(|header| header[0].as_str().unwrap());
            let internal: Vec<_> = names.filter(|name| name.starts_with("adit")).collect();
            assert!(internal.is_empty(), "{speaks:?}: {seen}");
        }
    }
}

#[tokio::test]
async fn a_later_attempt_is_known_as_one() {
    let (origin, site) = (Origin::start(), e2e::product::Site::new());
    site.write("key.txt", "s3cret");
    let edge = site.edge(&EdgeDocument::new(&["west"], 1)).await;
    let document = |service: &str| {
        HostDocument::new()
            .over(super::PROTOCOL)
            .plugin("one", &component("test/toolbox"), GRANTS)
            .rule(&format!("name = \"shop\"\nservice = \"{service}\"\nplugins = [\"one\"]"))
    };
    // Nobody listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = site.spawn_host_named("away", &edge.servers, &document(&format!("http://{closed}")));
    let _away = Host::connected(away, 1).await;
    let here = site.spawn_host_named("here", &edge.servers, &document(&origin.service()));
    let _here = Host::connected(here, 1).await;
    let visitor = edge.visitor(Speaks::Http1);
    let mut attempts = std::collections::BTreeSet::new();
    while attempts.len() < 2 {
        let answer = visitor.send(bare(to("GET", "/echo").header("x-do", "leave word"))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let attempt = answer.header("x-exchange").split("; ").nth(6).unwrap().to_owned();
        let tries = answer.headers.get("adit-tries").map_or("1", |tries| tries.to_str().unwrap());
        assert_eq!(attempt, tries, "{answer:?}");
        attempts.insert(attempt);
        assert!(attempts.iter().all(|attempt| attempt == "1" || attempt == "2"), "{attempts:?}");
    }
}
