//! Pages in a real browser, a host's here and an edge's in `edge`: that they work, with scripts and without, by keyboard, on a small screen and in
//! the dark, that what visitors send stays text, and that a session reaches nobody else on the machine.

mod edge;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::chromium::Chromium;
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::{Process, component, target};
use e2e::product::{Product, Site};
use e2e::visitor::{Speaks, with_text};
use sha2::{Digest, Sha256};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// What would be markup, a script or another direction if it were not text.
const HOSTILE: &str = "<script>window.taken=1</script><img src=x onerror=window.taken=2>\"'\u{202e}";

async fn product(origin: &Origin) -> Product {
    let site = Site::new();
    site.write("admin-token", format!("{TOKEN}\n"));
    let mut host = HostDocument::new()
        .over(super::PROTOCOL)
        .plugin("headers", &component("headers"), "[plugin.config.response.set]\nx-seen = \"yes\"")
        .rule("path = \"^/teapot\"\nservice = \"http_status:418\"")
        .rule(&format!("service = \"{}\"\nplugins = [\"headers\"]", origin.service()));
    host.admin_keys = "token-file = \"admin-token\"".to_owned();
    Product::start_at(site, EdgeDocument::new(&["west"], 1), host).await
}

/// As somebody at a terminal asks for it.
async fn address(product: &Product) -> String {
    let admin = product.host.admin.to_string();
    let arguments =
        ["dashboard", "--watch", "1h", "--bodies", "--admin", &admin, "--admin-token-file", "admin-token"];
    let told = Process::run(&arguments, product.site.folder(), "").await;
    assert_eq!(told.code, Some(0), "{told:?}");
    told.output.lines().next().unwrap().to_owned()
}

async fn visit(product: &Product, path: &str, body: &str) {
    let request =
        e2e::visitor::to("POST", path).header("content-type", "text/plain").header("x-api-key", "hunter2");
    product.visitor(Speaks::Http1).send(with_text(request, body)).await;
}

#[tokio::test]
async fn every_page_works_by_keyboard_on_a_small_screen_in_the_dark_and_keeps_text_text() {
    let Some(mut browser) = Chromium::start().await else { return };
    let origin = Origin::start();
    let product = product(&origin).await;
    browser.look(1280, false).await;
    let address = address(&product).await;
    assert_eq!(browser.open(&address).await, None);
    // The script of the page has read the code, and has taken it out of the address.
    browser.until("location.pathname === '/ui/requests' && location.hash === ''").await;
    browser.until("!!performance.getEntriesByName('first-contentful-paint')[0]").await;
    let paint = browser.value("performance.getEntriesByName('first-contentful-paint')[0].startTime").await;
    // Told, not judged: a busy machine is late.
    println!("first paint after {paint} ms");

    // A row comes by itself.
    visit(&product, "/echo?page=2", HOSTILE).await;
    visit(&product, "/teapot/%3Cscript%3E?q=%3Cb%3E", HOSTILE).await;
    browser.until("document.querySelectorAll('tbody[data-live] tr').length === 2").await;
    let list = pictures(&mut browser, "requests").await;
    browser.value("document.querySelector('tbody[data-live] tr:last-child a').click()").await;
    browser
        .until("/requests\\/[0-9]+$/.test(location.pathname) && !!document.querySelector('.waterfall')")
        .await;
    let text = browser.value("document.querySelector('main').innerText").await;
    let text = text.as_str().unwrap();
    for word in
        ["plugin headers", "origin", "<script>window.taken=1</script>", "\\u{202e}", "‹redacted 7 bytes"]
    {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
    let mut all = list;
    all.extend(pictures(&mut browser, "request").await);

    let url = |path: &str| [address.split("/ui/").next().unwrap(), path].concat();
    for (path, name) in [
        ("/ui/", "rules"),
        ("/ui/plugins", "plugins"),
        ("/ui/revisions", "revisions"),
        ("/ui/revisions/1", "revision"),
    ] {
        browser.open(&url(path)).await;
        all.extend(pictures(&mut browser, name).await);
    }
    browser.open(&url("/ui/enter")).await;
    all.extend(pictures(&mut browser, "enter").await);
    assert!(browser.value("window.taken").await.is_null());
    assert!(browser.console.is_empty(), "{:#?}", browser.console);
    keep(&all);
}

/// In light and dark; at 360 pixels nothing is beyond the edge, and whatever can be used is reached by Tab alone.
async fn pictures(browser: &mut Chromium, name: &str) -> Vec<(String, Vec<u8>)> {
    browser.look(360, false).await;
    let width = browser.value("document.documentElement.scrollWidth").await;
    assert!(width.as_u64().unwrap() <= 360, "{name} is {width} pixels wide");
    let unlabelled = "[...document.querySelectorAll('input:not([type=hidden]),select')].filter(one => !one.labels.length).length";
    assert_eq!(browser.value(unlabelled).await, 0, "{name}: fields without a name");
    let usable = "[...document.querySelectorAll('a[href],button,input:not([type=hidden]),select')].length";
    let usable = browser.value(usable).await.as_u64().unwrap();
    browser.value("window.reached = new Set(); document.addEventListener('focusin', event => window.reached.add(event.target)); document.activeElement.blur(); window.getSelection().removeAllRanges()").await;
    for _ in 0..usable + 3 {
        browser.key("Tab").await;
    }
    let reached = "[...document.querySelectorAll('a[href],button,input:not([type=hidden]),select')].filter(one => !window.reached.has(one)).map(one => one.outerHTML).join()";
    assert_eq!(browser.value(reached).await, "", "{name}: what Tab does not reach");
    browser.value("document.activeElement.blur()").await;
    let mut taken = vec![(format!("{name}-small.png"), browser.picture().await)];
    for is_dark in [false, true] {
        browser.look(1100, is_dark).await;
        let ground = browser.value("getComputedStyle(document.body).backgroundColor").await;
        assert_eq!(ground == "rgb(20, 23, 26)", is_dark, "{name}: {ground}");
        let found = barriers(browser).await;
        assert_eq!(found, "", "{name}, dark: {is_dark}");
        let scheme = if is_dark { "dark" } else { "light" };
        taken.push((format!("{name}-{scheme}.png"), browser.picture().await));
    }
    taken
}

/// What of this page keeps people out who see or move less, as axe-core has it: what it calls serious or critical.
async fn barriers(browser: &mut Chromium) -> String {
    let folder = std::env::var_os("ADIT_AXE").map_or_else(|| target().join("tools/axe-core"), PathBuf::from);
    let script = folder.join("node_modules/axe-core/axe.min.js");
    let Ok(script) = std::fs::read_to_string(&script) else {
        e2e::skip(&format!("there is no {}; `cargo xtask setup` fetches it", script.display()));
        return String::new();
    };
    browser.value(&format!("{script}; 1")).await;
    let run = "axe.run(document, { resultTypes: ['violations'] }).then(found => found.violations.filter(one => ['serious', 'critical'].includes(one.impact)).map(one => one.id + ': ' + one.nodes.map(node => node.html).join(' ')).join('; '), error => String(error))";
    let found = browser.value(run).await;
    found.as_str().unwrap_or("it was not run").to_owned()
}

/// The pictures of docs/ are of the pages as they are: what they were made of is beside them, and is compared.
fn keep(pictures: &[(String, Vec<u8>)]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let made_of = hash(&root);
    let kept = root.join("docs/images/seeing");
    let folder =
        if std::env::var_os("ADIT_WRITE").is_some() { kept.clone() } else { target().join("pictures") };
    std::fs::create_dir_all(&folder).unwrap();
    for (name, picture) in pictures {
        std::fs::write(folder.join(name), picture).unwrap();
        assert!(kept.join(name).is_file(), "docs has no {name}; ADIT_WRITE=1 makes it");
    }
    std::fs::write(folder.join("made-of"), &made_of).unwrap();
    let said = std::fs::read_to_string(kept.join("made-of")).unwrap_or_default();
    assert_eq!(
        said, made_of,
        "the pages have changed: ADIT_WRITE=1 makes the pictures of docs/images/seeing anew"
    );
}

fn hash(root: &Path) -> String {
    let mut files: Vec<PathBuf> = [
        "pages/assets/adit.css",
        "pages/assets/adit.js",
        "pages/src/answer.rs",
        "pages/src/chart.rs",
        "host/src/admin/ui.rs",
        "edge/src/admin/ui.rs",
    ]
    .map(|file| root.join(file))
    .to_vec();
    for folder in ["host/src/admin/ui", "edge/src/admin/ui"] {
        let pages = std::fs::read_dir(root.join(folder)).unwrap();
        files.extend(pages.map(|file| file.unwrap().path()));
    }
    files.sort();
    let mut sum = Sha256::new();
    files.iter().for_each(|file| sum.update(std::fs::read(file).unwrap()));
    sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n"
}

#[tokio::test]
async fn without_scripts_a_form_takes_the_code_and_pages_are_read() {
    let Some(mut browser) = Chromium::start().await else { return };
    let origin = Origin::start();
    let product = product(&origin).await;
    browser.look(800, false).await;
    let address = address(&product).await;
    visit(&product, "/echo", "text").await;
    browser.scripts(false).await;
    let (url, code) = address.split_once('#').unwrap();
    browser.open(url).await;
    // The field has the cursor.
    browser.until("document.activeElement.name === 'code'").await;
    browser.write(code).await;
    browser.key("Enter").await;
    browser.until("location.pathname === '/ui/requests'").await;
    let rows = "document.querySelectorAll('tbody[data-live] tr').length";
    assert_eq!(browser.value(rows).await, 1);
    browser.open(&[url.split("/ui/").next().unwrap(), "/ui/requests?q=status:404"].concat()).await;
    assert_eq!(browser.value(rows).await, 0, "a filter is a form");
}

/// Another service of this machine, which keeps every head that it is sent and answers with a page.
fn neighbour() -> (SocketAddr, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Arc::new(Mutex::new(String::new()));
    let hears = heard.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let hears = hears.clone();
            std::thread::spawn(move || {
                let mut head = [0; 8192];
                let length = stream.read(&mut head).unwrap_or_default();
                hears.lock().unwrap().push_str(&String::from_utf8_lossy(&head[..length]));
                let page = "<!doctype html><title>n</title>";
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
                    page.len()
                );
            });
        }
    });
    (address, heard)
}

#[tokio::test]
async fn a_session_reaches_no_other_service_of_the_machine_and_no_other_page_reaches_these() {
    let Some(mut browser) = Chromium::start().await else { return };
    let origin = Origin::start();
    let product = product(&origin).await;
    let address = address(&product).await;
    browser.open(&address).await;
    browser.until("location.pathname === '/ui/requests'").await;
    let (neighbour, heard) = neighbour();
    let base = address.split("/ui/").next().unwrap().to_owned();
    for name in ["localhost", "127.0.0.1", "demo.localhost", "adit.localhost"] {
        let own = format!("http://{name}:{}/", neighbour.port());
        assert_eq!(browser.open(&own).await, None);
        for path in ["/ui/requests.json?since=0", "/ui/"] {
            let ask = |method: &str| {
                format!(
                    "fetch('{base}{path}', {{ method: '{method}', credentials: 'include', body: '{method}' === 'POST' ? 'a=b' : undefined }}).then(answer => answer.text(), () => 'nothing')"
                )
            };
            assert_eq!(browser.value(&ask("GET")).await, "nothing", "{name}");
            assert_eq!(browser.value(&ask("POST")).await, "nothing", "{name}");
        }
        let frame = format!(
            "new Promise(done => {{ const frame = document.createElement('iframe'); frame.onload = () => {{ let seen; try {{ seen = frame.contentDocument && frame.contentDocument.body.innerText }} catch (gone) {{ seen = null }} done(seen || 'nothing') }}; frame.src = '{base}/ui/'; document.body.append(frame) }})"
        );
        assert_eq!(browser.value(&frame).await, "nothing", "{name}");
    }
    let heard = heard.lock().unwrap().to_ascii_lowercase();
    assert!(heard.contains("host: adit.localhost") && !heard.contains("adit="), "{heard}");
    // It is still there, for its own pages.
    browser.open(&format!("{base}/ui/requests")).await;
    assert_eq!(browser.value("location.pathname").await, "/ui/requests");
    assert_eq!(browser.value("!!document.querySelector('tbody[data-live]')").await, true);
    let before = std::time::Instant::now();
    visit(&product, "/now", "text").await;
    browser.until("!!document.querySelector('tbody[data-live] tr')").await;
    // Told, not judged: a busy machine is late.
    println!("a row came after {:?}", before.elapsed().max(Duration::from_millis(1)));
}
