//! The plugin `oidc` and a provider that is not ours, `oidc-provider` of npm: who signs in there comes in here, and
//! nobody else does. `ADIT_OIDC_PROVIDER` is a folder whose `node_modules` has it; `cargo xtask test` brings it. Without
//! it these tests are skipped, unless `ADIT_SKIP_NOTHING=1`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::origin::{Origin, nobody};
use e2e::process::{Process, component};
use e2e::product::{Product, Site};
use e2e::visitor::{Answer, Speaks, Visitor, bare, with_text};
use http::{Request, Uri};

use crate::languages::example_in;
use crate::shelf::received;

/// A running provider.
struct Provider {
    process: Process,
    address: SocketAddr,
}

impl Provider {
    async fn start(folder: &OsString, port: u16, key: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/sign_in/provider.mjs");
        let mut node = Command::new("node");
        node.arg(script).env("PROVIDER", folder).env("PORT", port.to_string());
        node.env("HERE", format!("http://{HOST}")).env("KEY", key);
        let process = Process::start("provider", node);
        let line = process.printed("provider at http://").await;
        let address = line.rsplit("//").next().unwrap().parse().unwrap();
        Self { process, address }
    }
}

/// A provider, a host with a plugin for each of its clients, and a service behind them.
struct Scene {
    provider: Provider,
    product: Product,
    _origin: Origin,
}

impl Scene {
    async fn set(folder: &OsString) -> Self {
        Self::set_with(folder, |host, _, _| host).await
    }

    /// With more in the host's document, told the provider's address and the service.
    async fn set_with(
        folder: &OsString,
        more: impl FnOnce(HostDocument, &str, &str) -> HostDocument,
    ) -> Self {
        let provider = Provider::start(folder, 0, "first").await;
        let origin = Origin::start();
        let issuer = format!("http://{}", provider.address);
        let absent = format!("http://{}", nobody());
        let mut host = HostDocument::new();
        for (client, issuer, more) in [
            ("one", &issuer, "client-secret = \"client\"\nrequire = { groups = [\"staff\"] }"),
            ("two", &issuer, "client-secret = \"client\"\nscopes = [\"profile\"]\nuserinfo = true"),
            ("public", &issuer, "open = [\"/echo/public/open\"]"),
            ("absent", &absent, ""),
        ] {
            let settings = format!(
                "timeout = \"10s\"\n[plugin.config]\nissuer = \"{issuer}\"\nclient-id = \"{client}\"\n{more}\n\
                 cookie = \"{client}\"\ncallback = \"/{client}/callback\"\nlogout = \"/{client}/logout\"\n\
                 after-logout = \"http://{HOST}/bye\"\n\
                 headers = {{ x-user = \"sub\", x-name = \"name\", x-groups = \"groups\" }}\n\
                 [plugin.grants]\nhttp = [\"{issuer}\"]\nbuckets = {{ oidc = \"1MiB\" }}\n\
                 secrets = {{ client = {{ file = \"client.key\" }}, cookie = {{ file = \"cookie.key\" }} }}"
            );
            host = host.plugin(client, &component("oidc"), &settings).rule(&format!(
                "path = \"^/+(echo/)?{client}(/|$)\"\nservice = \"{}\"\nplugins = [\"{client}\"]",
                origin.service()
            ));
        }
        let site = Site::new();
        site.write("client.key", SECRET);
        site.write("cookie.key", "what cookies are sealed with");
        let host = more(host, &issuer, &origin.service()).otherwise(&origin.service());
        let product = Product::start_at(site, EdgeDocument::new(&["west"], 1), host).await;
        Self { provider, product, _origin: origin }
    }

    fn browser(&self) -> Browser<'_> {
        Browser { scene: self, cookies: Vec::new() }
    }
}

#[derive(Debug)]
struct Cookie {
    authority: String,
    path: String,
    name: String,
    value: String,
}

/// What a browser does: it keeps cookies, and goes where it is sent.
struct Browser<'a> {
    scene: &'a Scene,
    cookies: Vec<Cookie>,
}

impl Browser<'_> {
    /// One request; with a form by POST.
    async fn go(&mut self, url: &str, form: Option<&str>) -> Answer {
        let uri: Uri = url.parse().unwrap();
        let authority = uri.authority().unwrap().to_string();
        let visitor = if authority == HOST {
            self.scene.product.visitor(Speaks::Http1)
        } else {
            // It goes nowhere else.
            assert_eq!(authority, self.scene.provider.address.to_string(), "{url}");
            Visitor::new(self.scene.provider.address, Speaks::Http1, None)
        };
        let fits = |cookie: &&Cookie| cookie.authority == authority && uri.path().starts_with(&cookie.path);
        let cookies =
            self.cookies.iter().filter(fits).map(|cookie| format!("{}={}", cookie.name, cookie.value));
        let request = Request::builder()
            .method(if form.is_some() { "POST" } else { "GET" })
            .uri(url)
            .header("accept", "text/html,*/*;q=0.8")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("x-user", "claimed")
            .header("cookie", cookies.chain(["theme=dark".to_owned()]).collect::<Vec<_>>().join("; "));
        let request = match form {
            Some(form) => with_text(request, form),
            None => bare(request),
        };
        let answer = visitor.send(request).await;
        self.keep(&authority, uri.path(), &answer);
        answer
    }

    async fn open(&mut self, path: &str) -> Answer {
        self.go(&format!("http://{HOST}{path}"), None).await
    }

    fn keep(&mut self, authority: &str, path: &str, answer: &Answer) {
        for line in answer.headers.get_all("set-cookie") {
            let mut parts = line.to_str().unwrap().split(';').map(str::trim);
            let (name, value) = parts.next().unwrap().split_once('=').unwrap();
            let path = parts
                .find_map(|part| part.to_lowercase().strip_prefix("path=").map(|_| part[5..].to_owned()))
                .unwrap_or_else(|| path.to_owned());
            let is_over = value.is_empty() || line.to_str().unwrap().contains("Max-Age=0;");
            let is_it =
                |cookie: &Cookie| cookie.authority == authority && cookie.path == path && cookie.name == name;
            self.cookies.retain(|cookie| !is_it(cookie));
            if !is_over {
                let (authority, name, value) = (authority.to_owned(), name.to_owned(), value.to_owned());
                self.cookies.push(Cookie { authority, path, name, value });
            }
        }
    }

    /// Opens a page, signs in where that is asked for, and stops before the provider's way back is taken.
    async fn until_back(&mut self, path: &str, who: &str) -> String {
        let mut at = format!("http://{HOST}{path}");
        let mut form = None;
        for _ in 0..STEPS {
            let answer = self.go(&at, form.take().as_deref()).await;
            match answer.status {
                302 | 303 => at = resolved(&at, answer.header("location")),
                200 if answer.text().contains("name=\"login\"") => {
                    form = Some(format!("prompt=login&login={who}&password=x"))
                }
                200 if answer.text().contains("value=\"consent\"") => {
                    form = Some("prompt=consent".to_owned())
                }
                _ => panic!("{at}: {answer:?}"),
            }
            if at.contains("/callback?") {
                return at;
            }
        }
        panic!("{STEPS} steps lead nowhere but to {at}");
    }

    /// Signs in, and says where that leads.
    async fn sign_in(&mut self, path: &str, who: &str) -> Answer {
        let back = self.until_back(path, who).await;
        self.go(&back, None).await
    }
}

/// An address as a page at another one names it.
fn resolved(at: &str, location: &str) -> String {
    if location.starts_with("http://") {
        return location.to_owned();
    }
    let uri: Uri = at.parse().unwrap();
    format!("http://{}{location}", uri.authority().unwrap())
}

fn provided() -> Option<OsString> {
    let found = std::env::var_os("ADIT_OIDC_PROVIDER");
    if found.is_none() {
        e2e::skip("ADIT_OIDC_PROVIDER does not say where a provider is");
    }
    found
}

#[tokio::test]
async fn who_signs_in_at_a_provider_comes_in_and_the_service_is_told_who_it_is() {
    let Some(folder) = provided() else { return };
    let scene = Scene::set(&folder).await;
    // RS256 with the secret in a header, ES256 with it in the form, Ed25519 without a secret.
    for (client, name, groups) in [
        ("one", Some("ada the first"), Some("staff,friends")),
        ("two", Some("ada the first"), Some("staff,friends")),
        ("public", Some("ada the first"), Some("staff,friends")),
    ] {
        let mut browser = scene.browser();
        let page = format!("/echo/{client}/page?a=b");
        let answer = browser.sign_in(&page, "ada").await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (302, format!("http://{HOST}{page}").as_str())
        );
        let answer = browser.open(&page).await;
        assert_eq!((answer.status, answer.json()["path"].as_str()), (200, Some(page.as_str())), "{client}");
        let told = ["x-user", "x-name", "x-groups", "cookie"].map(|name| received(&answer, name));
        assert_eq!(told, [Some("ada"), name, groups, Some("theme=dark")].map(|text| text.map(str::to_owned)));
        // What one client let in the others do not.
        for other in ["one", "two", "public"].into_iter().filter(|other| *other != client) {
            assert_eq!(browser.open(&format!("/echo/{other}")).await.status, 302, "{client} {other}");
        }
    }
    let mut stranger = scene.browser();
    assert_eq!(stranger.open("/echo/absent").await.status, 503);
    let open = stranger.open("/echo/public/open").await;
    assert_eq!((open.status, received(&open, "x-user")), (200, None));
    assert_eq!(stranger.open("/echo/public/open/..%2fpage").await.status, 302);
    let asked = scene.product.get("/echo/one").await;
    assert_eq!((asked.status, asked.text()), (401, "sign in first\n"));
}

#[tokio::test]
async fn who_is_not_meant_and_who_forges_or_borrows_stays_outside() {
    let Some(folder) = provided() else { return };
    let scene = Scene::set(&folder).await;
    let mut eve = scene.browser();
    let answer = eve.sign_in("/echo/one", "eve").await;
    assert_eq!((answer.status, answer.text()), (403, "you have signed in, but this is not for you\n"));
    assert_eq!(eve.open("/echo/one").await.status, 302);
    // A link that would sign somebody in as another, and a code that was used.
    let mut ada = scene.browser();
    let back = ada.until_back("/echo/one", "ada").await;
    assert_eq!(scene.browser().go(&back, None).await.status, 400);
    assert_eq!(eve.go(&back, None).await.status, 400);
    assert_eq!(ada.go(&back, None).await.status, 302);
    assert_eq!(ada.open("/echo/one").await.status, 200);
    assert_eq!(scene.browser().go(&back, None).await.status, 400);
    // Made up where something was: the provider itself refuses that code.
    let mut other = scene.browser();
    let back = other.until_back("/echo/one", "ada").await;
    let made_up = back.replace("code=", "code=x");
    assert_eq!(other.go(&made_up, None).await.status, 403);
    assert_eq!(other.open("/echo/one").await.status, 302);
    // A cookie that was changed, and one of another client by the right name.
    let session = ada.cookies.iter().position(|cookie| cookie.name == "one").unwrap();
    let good = ada.cookies[session].value.clone();
    for bad in [
        format!("{good}A"),
        good.replacen(&good[40..41], if &good[40..41] == "A" { "B" } else { "A" }, 1),
        "x".to_owned(),
    ] {
        ada.cookies[session].value = bad;
        assert_eq!(ada.open("/echo/one").await.status, 302);
        ada.cookies.retain(|cookie| !cookie.name.contains("login"));
    }
    let mut two = scene.browser();
    two.sign_in("/echo/two", "eve").await;
    let borrowed = two.cookies.iter().find(|cookie| cookie.name == "two").unwrap().value.clone();
    ada.cookies[session].value = borrowed;
    assert_eq!(ada.open("/echo/one").await.status, 302);
    // A path that a browser would take for another address.
    let mut visitor = scene.browser();
    let answer = visitor.sign_in("//one/evil.example", "ada").await;
    assert_eq!(answer.header("location"), format!("http://{HOST}//one/evil.example"));
}

#[tokio::test]
async fn who_signs_out_is_out_and_the_provider_is_told() {
    let Some(folder) = provided() else { return };
    let scene = Scene::set(&folder).await;
    let mut browser = scene.browser();
    browser.sign_in("/echo/one", "ada").await;
    assert_eq!(browser.open("/echo/one").await.status, 200);
    let copy = browser.cookies.iter().find(|cookie| cookie.name == "one").unwrap().value.clone();
    let answer = browser.open("/one/logout").await;
    let there = answer.header("location").to_owned();
    assert!(
        there.starts_with(&format!("http://{}/session/end?client_id=one", scene.provider.address)),
        "{there}"
    );
    // It knows the client and where to go then, and asks.
    let asked = browser.go(&there, None).await;
    assert_eq!(asked.status, 200, "{asked:?}");
    assert_eq!(browser.open("/echo/one").await.status, 302);
    let authority = HOST.to_owned();
    browser.cookies.push(Cookie { authority, path: "/".to_owned(), name: "one".to_owned(), value: copy });
    assert_eq!(browser.open("/echo/one").await.status, 302);
}

#[tokio::test]
async fn a_provider_that_is_away_lets_nobody_in_and_new_keys_do_once_it_is_back() {
    let Some(folder) = provided() else { return };
    let mut scene = Scene::set(&folder).await;
    let mut inside = scene.browser();
    inside.sign_in("/echo/one", "ada").await;
    let mut halfway = scene.browser();
    let back = halfway.until_back("/echo/one", "ada").await;
    let (inside, mut halfway) = (inside.cookies, halfway.cookies);
    scene.provider.process.kill();
    let mut browser = Browser { scene: &scene, cookies: std::mem::take(&mut halfway) };
    assert_eq!(browser.go(&back, None).await.status, 503);
    assert_eq!(browser.open("/echo/one").await.status, 302);
    // Who is in stays so: nobody has to be asked for that.
    let mut browser = Browser { scene: &scene, cookies: inside };
    assert_eq!(browser.open("/echo/one").await.status, 200);
    let port = scene.provider.address.port();
    scene.provider = Provider::start(&folder, port, "second").await;
    let mut browser = scene.browser();
    browser.sign_in("/echo/one", "ada").await;
    assert_eq!(browser.open("/echo/one").await.status, 200);
}

#[tokio::test]
async fn the_same_is_short_in_another_language() {
    let Some(folder) = provided() else { return };
    let Some(example) = example_in("oidc", "js").await else { return };
    let scene = Scene::set_with(&folder, |host, issuer, service| {
        let settings = format!(
            "timeout = \"10s\"\n[plugin.config]\nissuer = \"{issuer}\"\nclientId = \"js\"\nhere = \"http://{HOST}\"\n\
             [plugin.grants]\nhttp = [\"{issuer}\"]\n\
             secrets = {{ client = {{ file = \"client.key\" }}, cookie = {{ file = \"cookie.key\" }} }}"
        );
        let rule = format!("path = \"^/(echo/)?js(/|$)\"\nservice = \"{service}\"\nplugins = [\"js\"]");
        host.plugin("js", &example, &settings).rule(&rule)
    })
    .await;
    let mut ada = scene.browser();
    let back = ada.until_back("/echo/js/page?a=b", "ada").await;
    assert_eq!(scene.browser().go(&back, None).await.status, 400);
    let answer = ada.go(&back, None).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (302, format!("http://{HOST}/echo/js/page?a=b").as_str())
    );
    let answer = ada.open("/echo/js/page").await;
    assert_eq!((answer.status, received(&answer, "x-user").as_deref()), (200, Some("ada")));
    let session = ada.cookies.iter_mut().find(|cookie| cookie.name == "js-session").unwrap();
    session.value.replace_range(..1, "x");
    assert_eq!(ada.open("/echo/js/page").await.status, 302);
}

/// What the provider's clients prove themselves with, of signs that are encoded on their way.
const SECRET: &str = "a/secret:of+two%";
/// From a page to the way back to it there are six, with two pages of the provider.
const STEPS: usize = 12;
