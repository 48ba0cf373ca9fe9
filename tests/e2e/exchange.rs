//! Plugins learn what is known of the exchange that they are called for, and leave things for each other.

use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::component;
use e2e::product::Product;
use e2e::visitor::{Speaks, bare, to};

const GRANTS: &str = "[plugin.grants]\nhttp = [\"http://127.0.0.1:9\"]\nsecrets = { key = { file = \"key.txt\" } }\n\
                      buckets = { b = \"64KiB\", seen = \"64KiB\" }";

#[tokio::test]
async fn plugins_know_the_exchange_and_find_what_those_before_them_have_left() {
    let (origin, site) = (Origin::start(), e2e::product::Site::new());
    site.write("key.txt", "s3cret");
    let toolbox = component("test/toolbox");
    let host = HostDocument::new()
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
    let known = format!("shop; {}; none; none; none; none; none", origin.service());
    assert_eq!(seen(&passed), vec![format!("{known}; {request}; none; word"); 2], "{passed:?}");

    let replied = visitor.send(asked("reply")).await;
    assert_eq!(replied.text(), format!("{known}; none; ; none; reply"), "there is no answer yet");
    let request = format!("PUT http://{host}/echo/a?b=c; leave reply");
    assert_eq!(seen(&replied), [format!("{known}; {request}; two; reply")], "{replied:?}");

    let untold = visitor.send(bare(to("GET", "/echo"))).await;
    assert_eq!(seen(&untold), Vec::<String>::new(), "nothing is left of another exchange");
}
