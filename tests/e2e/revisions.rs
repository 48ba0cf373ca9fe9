//! A hundred ways in which a configuration can be wrong, under load: each is refused with all its reasons, and
//! what served goes on as if nothing had been said.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::component;
use e2e::product::{Product, Site};
use e2e::visitor::{Answer, Speaks, Visitor, bare, get, to, with_body};
use http_body_util::Full;

const PLUGIN: &str = "[[plugin]]\nname = \"marks\"\ncomponent = \"headers.wasm\"\n";
const CONFIG: &str = "[plugin.config]\nresponse.set = { x-mark = \"good\" }\n";
const FIRST: &str = "[[ingress]]\nhostname = \"app.localhost\"\npath = \"^/\"\n";
const LAST: &str = "[[ingress]]\nservice = \"http_status:404\"\n";

/// What is replaced in a good document, by what, and what the reasons say.
const MISTAKES: &[(&str, &str, &[&str])] = &[
    // Syntax.
    (LAST, "[[ingress]\nservice = 1", &["host.toml:"]),
    (LAST, "[[ingress]]\nservice =", &["host.toml:"]),
    (LAST, "[[ingress]]\nservice = \"open", &["host.toml:"]),
    (LAST, "[[ingress]]\nservice = 'x' 'y'", &["host.toml:"]),
    (LAST, "[[ingress]]\n= 1", &["host.toml:"]),
    (LAST, "\u{0}", &["host.toml:"]),
    (LAST, "[[ingress]]\nservice = \"\\q\"", &["host.toml:"]),
    (LAST, "[[ingress]]\nservice = {", &["host.toml:"]),
    (LAST, "ingress = 1", &["host.toml:"]),
    ("connections = 1", "connections = 1\nconnections = 1", &["duplicate key"]),
    // Keys that nobody knows.
    ("[admin]", "[admim]", &["did you mean `admin`"]),
    ("connections = 1", "conections = 1", &["did you mean `connections`"]),
    ("listen =", "listens =", &["did you mean `listen`"]),
    ("component =", "komponent =", &["did you mean `component`"]),
    ("hostname =", "hostnames =", &["did you mean `hostname`"]),
    ("path =", "pathh =", &["did you mean `path`"]),
    ("[tunnel]", "acces-log = true\n[tunnel]", &["did you mean `access-log`"]),
    ("path =", "origin = { ca-fil = \"x\" }\npath =", &["did you mean `ca-file`"]),
    // Values of a wrong kind.
    ("connections = 1", "connections = \"1\"", &["connections"]),
    ("connections = 1", "connections = 1.5", &["connections"]),
    ("connections = 1", "connections = [1]", &["connections"]),
    ("component = \"headers.wasm\"", "component = 1", &["component"]),
    ("[plugin.config]", "[plugin]\nconfig = 1\n[x]", &["host.toml:"]),
    ("hostname = \"app.localhost\"", "hostname = true", &["hostname"]),
    ("plugins = [\"marks\"]", "plugins = \"marks\"", &["plugins"]),
    ("plugins = [\"marks\"]", "plugins = [1]", &["plugins"]),
    ("[tunnel]", "access-log = \"yes\"\n[tunnel]", &["access-log"]),
    ("[tunnel]", "watch = 1\n[tunnel]", &["watch"]),
    ("[tunnel]", "state-dir = []\n[tunnel]", &["state-dir"]),
    // Values that are out of range or make no sense.
    ("connections = 1", "connections = 0", &["1 to 4"]),
    ("connections = 1", "connections = 5", &["1 to 4"]),
    ("connections = 1", "connections = -1", &["1 to 4"]),
    ("connections = 1", "shards = 9", &["shards"]),
    ("[tunnel]", "retire-after = \"1\"\n[tunnel]", &["not a duration"]),
    ("[tunnel]", "retire-after = \"1ms\"\n[tunnel]", &["out of range"]),
    ("[tunnel]", "retire-after = \"99years\"\n[tunnel]", &["out of range"]),
    ("[tunnel]", "config-source = \"both\"\n[tunnel]", &["local"]),
    ("connections = 1", "grace-period = 30", &["30s"]),
    ("connections = 1", "grace-period = \"9h\"", &["3m"]),
    ("connections = 1", "protocol = \"quick\"", &["quic"]),
    ("connections = 1", "edge-ip-version = \"7\"", &["auto"]),
    ("connections = 1", "edge-bind-address = \"here\"", &["edge-bind-address"]),
    ("connections = 1", "dns-servers = [\"nowhere\"]", &["dns-servers"]),
    ("connections = 1", "edge-domain = \"example.com\"", &["two ways"]),
    ("connections = 1", "token-file = \"demo.json\"", &["twice"]),
    ("\"demo.json\"", "\"absent.json\"", &["absent.json"]),
    ("\"demo.json\"", "\"broken.json\"", &["credentials"]),
    ("listen = ", "listen = \"localhost\" #", &["127.0.0.1:20241"]),
    // Plugins.
    ("name = \"marks\"", "name = \"\"", &["name"]),
    ("name = \"marks\"", "name = \"two words\"", &["name"]),
    ("name = \"marks\"\n", "", &["`name` is missing"]),
    ("component = \"headers.wasm\"\n", "", &["`component` is missing"]),
    ("component = \"headers.wasm\"", "component = \"\"", &["path is empty"]),
    ("component = \"headers.wasm\"", "component = \"headers.wasm\"\non-error = \"ignore\"", &["deny"]),
    ("component = \"headers.wasm\"", "component = \"headers.wasm\"\nmemory = \"64\"", &["64MiB"]),
    ("component = \"headers.wasm\"", "component = \"headers.wasm\"\nmemory = \"1B\"", &["out of range"]),
    ("component = \"headers.wasm\"", "component = \"headers.wasm\"\ntimeout = \"1h\"", &["1m"]),
    ("component = \"headers.wasm\"", "component = \"headers.wasm\"\nconcurrency = 0", &["1 to 4096"]),
    (
        FIRST,
        "[[plugin]]\nname = \"marks\"\ncomponent = \"headers.wasm\"\n[[ingress]]\npath = \"^/\"\n",
        &["taken"],
    ),
    ("x-mark = \"good\"", "x-mark = nan", &["not finite"]),
    // Rules.
    ("hostname = \"app.localhost\"", "hostname = \"\"", &["empty"]),
    ("hostname = \"app.localhost\"", "hostname = \"http://app/\"", &["URL"]),
    ("hostname = \"app.localhost\"", "hostname = \"app:80\"", &["no port"]),
    ("hostname = \"app.localhost\"", "hostname = \"app/x\"", &["no path"]),
    ("hostname = \"app.localhost\"", "hostname = \"a.*.b\"", &["first label"]),
    ("hostname = \"app.localhost\"", "hostname = \"a b\"", &["cannot be in a host name"]),
    ("hostname = \"app.localhost\"", "hostname = \"a..b\"", &["empty label"]),
    ("path = \"^/\"", "path = \"(\"", &["regular expression"]),
    ("path = \"^/\"", "path = \"(a{999}){999}\"", &["too large"]),
    (FIRST, "[[ingress]]\n", &["never reached"]),
    (LAST, "", &["last rule"]),
    (LAST, "[[ingress]]\nhostname = \"b\"\nservice = \"hello_world\"\n", &["last rule"]),
    (LAST, "[[ingress]]\n", &["`service` is missing"]),
    ("\"http_status:404\"", "\"http_status:99\"", &["200 to 999"]),
    ("\"http_status:404\"", "\"htp://x\"", &["http://"]),
    ("\"http_status:404\"", "\"http://x/y\"", &["no path"]),
    ("\"http_status:404\"", "\"http://u:p@x\"", &["user name"]),
    ("\"http_status:404\"", "\"http://x:99999\"", &["port"]),
    ("\"http_status:404\"", "\"gopher://x\"", &["`gopher` needs a port"]),
    ("\"http_status:404\"", "\"localhost:80\"", &["scheme"]),
    ("\"http_status:404\"", "\"unix:\"", &["path of the socket"]),
    ("plugins = [\"marks\"]", "plugins = [\"mark\"]", &["did you mean `marks`"]),
    ("plugins = [\"marks\"]", "plugins = [\"marks\", \"marks\"]", &["twice"]),
    ("path =", "origin = { connect-timeout = \"0s\" }\npath =", &["out of range"]),
    ("path =", "origin = { keep-alive-connections = -1 }\npath =", &["out of range"]),
    ("path =", "origin = { server-name = \"a b\" }\npath =", &["server name"]),
    ("path =", "origin = { host-header = \"a@b\" }\npath =", &["Host header"]),
    ("path =", "origin = { ca-file = \"absent.pem\" }\npath =", &["ca-file", "absent.pem"]),
    // Components and what they say to their configuration.
    ("headers.wasm", "absent.wasm", &["plugin marks", "absent.wasm", "cannot be read"]),
    ("headers.wasm", "folder.wasm", &["plugin marks", "cannot be read"]),
    ("headers.wasm", "empty.wasm", &["empty file"]),
    ("headers.wasm", "text.wasm", &["as text"]),
    ("headers.wasm", "module.wasm", &["core WebAssembly module"]),
    ("headers.wasm", "elf.wasm", &["machine code"]),
    ("headers.wasm", "half.wasm", &["not a valid component"]),
    ("headers.wasm", "nothing.wasm", &["lifecycle"]),
    ("headers.wasm", "huge.wasm", &["more than the"]),
    ("{ x-mark = \"good\" }", "{ \"x mark\" = \"good\" }", &["x mark"]),
    ("{ x-mark = \"good\" }", "{ x-mark = 7 }", &["x-mark"]),
    ("response.set", "respons.set", &["respons"]),
];

/// What the plugin that misbehaves does when it is configured.
const ACTS: &[(&str, &[&str])] = &[
    ("trap", &["configure", "trap"]),
    ("panic", &["configure", "trap"]),
    ("recurse", &["configure", "trap"]),
    ("eat-memory", &["configure"]),
    ("loop", &["configure", "time limit"]),
    ("fault", &["/on", "/do"]),
    ("nonsense", &["must be one of"]),
];

fn good(product: &Product, origin: &Origin) -> String {
    let rule = format!("{FIRST}service = \"{}\"\nplugins = [\"marks\"]\n", origin.service());
    format!("{}{PLUGIN}{CONFIG}{rule}{LAST}", HostDocument::new().to_toml(&product.edge.servers))
}

async fn put(product: &Product, tag: &str, text: impl Into<Bytes>) -> Answer {
    let request = to("PUT", "/config").header("host", "localhost").header("if-match", tag);
    let request = with_body(request, Full::new(text.into()));
    Visitor::new(product.host.admin, Speaks::Http1, None).send(request).await
}

#[tokio::test]
async fn every_bad_revision_is_refused_with_its_reasons_while_the_old_generation_serves() {
    let origin = Origin::start();
    let site = Site::new();
    std::fs::copy(component("headers"), site.path("headers.wasm")).unwrap();
    std::fs::copy(component("test/misbehave"), site.path("misbehave.wasm")).unwrap();
    let wasm = std::fs::read(component("headers")).unwrap();
    site.write("half.wasm", &wasm[..wasm.len() / 2]);
    site.write("empty.wasm", "");
    site.write("text.wasm", "(component)");
    site.write("module.wasm", b"\0asm\x01\0\0\0");
    site.write("nothing.wasm", b"\0asm\x0d\0\x01\0");
    site.write("elf.wasm", b"\x7fELF\x02\x01\x01");
    std::fs::create_dir(site.path("folder.wasm")).unwrap();
    let huge = File::create(site.path("huge.wasm")).unwrap();
    huge.set_len(64 * 1024 * 1024 + 1).unwrap();
    site.write("broken.json", "{\"AccountTag\": \"a\", \"TunnelID\": 7}");
    let document = HostDocument::new().otherwise("hello_world");
    let product = Product::start_at(site, EdgeDocument::new(&["west"], 1), document).await;
    let good = good(&product, &origin);
    let answer = put(&product, "*", good.clone()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let tag = answer.header("etag").to_owned();
    let number = answer.json()["generation"].clone();

    let stop = Arc::new(AtomicBool::new(false));
    let (visitor, stopped) = (product.visitor(Speaks::Http1), stop.clone());
    let load = tokio::spawn(async move {
        let mut served = 0;
        while !stopped.load(Ordering::Relaxed) {
            let answer = visitor.send(get("/echo")).await;
            assert_eq!((answer.status, answer.header("x-mark")), (200, "good"), "{answer:?}");
            served += 1;
        }
        served
    });
    let acts = ACTS.iter().map(|(act, wanted)| {
        let config = format!("[plugin.config]\non = \"configure\"\ndo = \"{act}\"\n");
        (good.replace("headers.wasm", "misbehave.wasm").replace(CONFIG, &config), *wanted)
    });
    let mistakes = MISTAKES.iter().map(|(right, wrong, wanted)| {
        assert!(good.contains(right), "{right}");
        (good.replacen(right, wrong, 1), *wanted)
    });
    let (mut kinds, mut wrong) = (0, Vec::new());
    for (text, wanted) in mistakes.chain(acts) {
        // Whatever it was made from: it is refused for what it says.
        let answer = put(&product, "*", text.clone()).await;
        if answer.status != 422 {
            wrong.push(format!("{wanted:?}: {answer:?}\n{text}"));
            continue;
        }
        let verdict = answer.json();
        let reasons = verdict["reasons"].to_string().replace("\\\"", "\"");
        let is_said = wanted.iter().all(|part| reasons.contains(part));
        if !is_said || verdict["verdict"] != "refused" || verdict["serving"] != number {
            wrong.push(format!("{wanted:?} is not in {verdict}"));
        }
        kinds += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Everything that is wrong is said at once.
    let text = good
        .replace("headers.wasm", "absent.wasm")
        .replace("path =", "origin = { ca-file = \"absent.pem\" }\npath =");
    let reasons = put(&product, "*", text.replace("http://", "https://")).await.json()["reasons"].clone();
    assert_eq!(reasons.as_array().unwrap().len(), 2, "{reasons}");
    // And those for which nothing is read.
    let big = vec![b'#'; 4 * 1024 * 1024 + 1];
    for (tag, body, status) in [
        ("\"1-0\"", Bytes::from(good.clone()), 412),
        ("W/\"1\", \"x\"", Bytes::from(good.clone()), 412),
        ("*", Bytes::from(big), 413),
        ("*", Bytes::from_static(b"\xff\xfe"), 422),
    ] {
        assert_eq!(put(&product, tag, body).await.status, status);
        kinds += 1;
    }
    let serving = to("GET", "/config/document").header("host", "localhost");
    let serving = Visitor::new(product.host.admin, Speaks::Http1, None).send(bare(serving)).await;
    assert_eq!((serving.header("etag"), serving.text()), (tag.as_str(), good.as_str()));
    stop.store(true, Ordering::Relaxed);
    let served = load.await.unwrap();
    assert!(served > kinds, "{served} requests during {kinds} refusals");
    eprintln!("{kinds} kinds of bad revisions refused, {served} requests served meanwhile, none otherwise");
}
