use super::*;
use crate::plan::tests::{plan, plan_with};
use crate::world::World;

/// A browser: it goes to addresses of one name and keeps cookies.
struct Browser<'a> {
    world: &'a World,
    plan: Plan,
    cookies: Vec<(String, String)>,
}

impl<'a> Browser<'a> {
    fn new(world: &'a World, plan: Plan) -> Self {
        Self { world, plan, cookies: Vec::new() }
    }

    fn visit(&mut self, path: &str, headers: &[(&str, &str)]) -> Decision {
        self.visit_at("https", "app.example.com", path, headers)
    }

    fn visit_at(&mut self, scheme: &str, authority: &str, path: &str, headers: &[(&str, &str)]) -> Decision {
        let mut sent: Vec<_> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        sent.push(("cookie".to_owned(), cookies.join("; ")));
        let visit = Visit { method: "GET", scheme, authority, path_with_query: path, headers: &sent };
        let decision = decide(self.world, &self.plan, &visit);
        if let Decision::Answered(page) = &decision {
            for (_, line) in page.headers.iter().filter(|(name, _)| name == "set-cookie") {
                let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
                self.cookies.retain(|(known, _)| known != name);
                if !value.is_empty() {
                    self.cookies.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        decision
    }

    /// Goes there as a person does.
    fn open(&mut self, path: &str) -> Page {
        answered(self.visit(path, &[("accept", "text/html,*/*")]))
    }

    fn is_in(&mut self) -> bool {
        matches!(self.visit("/a", &[]), Decision::GoesOn(Some(_)))
    }
}

fn answered(decision: Decision) -> Page {
    match decision {
        Decision::Answered(page) => page,
        Decision::GoesOn(session) => panic!("it went on with {session:?}"),
    }
}

fn location(page: &Page) -> &str {
    assert_eq!(page.status, 302, "{page:?}");
    page.headers.iter().find(|(name, _)| name == "location").map(|(_, value)| value.as_str()).unwrap()
}

fn state(location: &str) -> String {
    url::fields(location).unwrap().into_iter().find(|(name, _)| name == "state").unwrap().1
}

fn back(code: &str, state: &str) -> String {
    url::with_query("/.oidc/callback", &[("code", code), ("state", state)])
}

#[test]
fn somebody_signs_in_comes_back_to_the_page_and_stays_signed_in() {
    let world = World::default();
    let mut browser = Browser::new(&world, plan());
    let there = location(&browser.open("/a?b=c")).to_owned();
    assert!(there.starts_with("https://id.example.com/auth?response_type=code&client_id=app&"), "{there}");
    assert!(there.contains("redirect_uri=https%3A%2F%2Fapp.example.com%2F.oidc%2Fcallback"), "{there}");
    assert!(!browser.is_in());
    let code = world.sign_in(&there, |_| ());
    let page = browser.open(&back(&code, &state(&there)));
    assert_eq!(location(&page), "https://app.example.com/a?b=c");
    let exchanged = world.exchanged.borrow().clone().unwrap();
    let pair = Base64::encode_string(b"app:the%20secret%20client");
    assert_eq!(exchanged.authorization, Some(format!("Basic {pair}")));
    let Decision::GoesOn(Some(session)) = browser.visit("/a", &[]) else { panic!("not signed in") };
    assert_eq!(session.values, [Some("ada@example.com".to_owned()), Some("ada".to_owned())]);
    // The provider is needed no more.
    world.away();
    assert!(browser.is_in());
    // What was kept for signing in is gone.
    assert_eq!(browser.cookies.len(), 1);
    world.pass(8 * 3_600_000);
    assert!(!browser.is_in());
}

#[test]
fn a_code_counts_once_and_for_the_browser_that_was_sent() {
    let world = World::default();
    let (mut ours, mut other) = (Browser::new(&world, plan()), Browser::new(&world, plan()));
    let there = location(&ours.open("/")).to_owned();
    let code = world.sign_in(&there, |_| ());
    let link = back(&code, &state(&there));
    // Somebody is sent a link that would sign them in as another.
    assert_eq!(other.open(&link).status, 400);
    other.open("/");
    assert_eq!(other.open(&link).status, 400);
    assert_eq!(location(&ours.open(&link)), "https://app.example.com/");
    ours.cookies.retain(|(name, _)| name.contains("login"));
    assert_eq!(ours.open(&link).status, 400);
    assert!(!other.is_in() && !ours.is_in());
}

#[test]
fn a_token_that_is_not_of_this_visit_signs_nobody_in() {
    let changes: [fn(&mut Value); 7] = [
        |claims| claims["nonce"] = "another".into(),
        |claims| drop(claims.as_object_mut().unwrap().remove("nonce")),
        |claims| claims["aud"] = "other".into(),
        |claims| claims["iss"] = "https://evil.example".into(),
        |claims| claims["exp"] = 1.into(),
        |claims| claims["groups"] = json!(["others"]),
        |claims| claims["sub"] = Value::Null,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let world = World::default();
        let mut browser = Browser::new(&world, plan());
        let there = location(&browser.open("/")).to_owned();
        let code = world.sign_in(&there, change);
        assert_eq!(browser.open(&back(&code, &state(&there))).status, 403, "{number}");
        assert!(!browser.is_in(), "{number}");
    }
}

#[test]
fn what_comes_back_wrong_signs_nobody_in() {
    let world = World::default();
    let mut browser = Browser::new(&world, plan());
    for (more, status) in [
        ("", 400),
        ("&code=", 400),
        ("&code=made-up", 403),
        ("&error=access_denied", 403),
        ("&code=a&code=b", 400),
        ("&code=a&iss=https%3A%2F%2Fevil.example", 400),
        ("&code=%ff", 400),
    ] {
        let there = location(&browser.open("/")).to_owned();
        let path = format!("/.oidc/callback?state={}{more}", state(&there));
        assert_eq!(browser.open(&path).status, status, "{more}");
        // Nor does a second attempt with what was kept for the first.
        assert!(!browser.is_in(), "{more}");
    }
    assert_eq!(browser.open("/.oidc/callback").status, 400);
    let there = location(&browser.open("/")).to_owned();
    let code = world.sign_in(&there, |_| ());
    world.pass(FOR_SIGNING_IN * 1000);
    assert_eq!(browser.open(&back(&code, &state(&there))).status, 400);
}

#[test]
fn while_the_provider_is_away_nobody_comes_in() {
    let world = World::default();
    let mut browser = Browser::new(&world, plan());
    world.away();
    assert_eq!(browser.open("/").status, 503);
    world.back();
    world.pass(5_000);
    let there = location(&browser.open("/")).to_owned();
    let code = world.sign_in(&there, |_| ());
    world.away();
    assert_eq!(browser.open(&back(&code, &state(&there))).status, 503);
    assert!(!browser.is_in());
}

#[test]
fn keys_may_change_while_somebody_signs_in() {
    let world = World::default();
    let mut browser = Browser::new(&world, plan());
    let there = location(&browser.open("/")).to_owned();
    let code = world.sign_in(&there, |_| ());
    world.rotate("new");
    location(&browser.open(&back(&code, &state(&there))));
    assert!(browser.is_in());
}

#[test]
fn nobody_is_sent_to_another_address_by_a_path() {
    for path in ["//evil.example/", "/\\evil.example", "/.oidc//callback", "/%0d%0aset-cookie:a=b"] {
        let world = World::default();
        let mut browser = Browser::new(&world, plan());
        let there = location(&browser.open(path)).to_owned();
        let code = world.sign_in(&there, |_| ());
        let page = browser.open(&back(&code, &state(&there)));
        assert_eq!(location(&page), format!("https://app.example.com{path}"));
    }
    let world = World::default();
    let mut browser = Browser::new(&world, plan());
    let there = location(&browser.open(&format!("/{}", "x".repeat(2000)))).to_owned();
    let code = world.sign_in(&there, |_| ());
    assert_eq!(location(&browser.open(&back(&code, &state(&there)))), "https://app.example.com/");
}

#[test]
fn only_a_page_is_sent_to_the_provider() {
    let world = World::default();
    let mut browser = Browser::new(&world, plan());
    for (headers, status) in [
        (&[][..], 401),
        (&[("accept", "*/*")], 401),
        (&[("accept", "text/html")], 302),
        (&[("accept", "text/html"), ("sec-fetch-mode", "cors")], 401),
        (&[("sec-fetch-mode", "navigate")], 302),
    ] {
        assert_eq!(answered(browser.visit("/", headers)).status, status, "{headers:?}");
    }
    assert_eq!(browser.visit("/health", &[]), Decision::GoesOn(None));
    assert_eq!(answered(browser.visit("/health/..%2fadmin", &[])).status, 401);
    // However many pages are opened at once.
    for _ in 0..40 {
        browser.open("/");
    }
    assert!(browser.cookies.len() <= usize::from(AT_ONCE), "{:?}", browser.cookies);
}

#[test]
fn nothing_is_kept_in_the_clear_but_on_this_machine() {
    let world = World::default();
    let mut browser = Browser::new(&world, plan());
    let html = [("accept", "text/html")];
    assert_eq!(answered(browser.visit_at("http", "app.example.com", "/", &html)).status, 403);
    assert_eq!(browser.visit_at("http", "app.example.com", "/health", &html), Decision::GoesOn(None));
    assert_eq!(answered(browser.visit_at("https", "a@evil.example", "/", &html)).status, 403);
    assert_eq!(answered(browser.visit_at("http", "app.localhost:8080", "/", &html)).status, 302);
    let mut behind = Browser::new(&world, plan_with(r#""public-url": "https://app.example.com/""#));
    let there = answered(behind.visit_at("http", "app.example.com", "/a", &html));
    assert!(location(&there).contains("redirect_uri=https%3A%2F%2Fapp.example.com%2F.oidc"), "{there:?}");
    let other = answered(behind.visit_at("http", "www.example.com", "/a", &html));
    assert_eq!(location(&other), "https://app.example.com/a");
}

#[test]
fn who_signs_out_is_out_with_every_copy_of_the_cookie() {
    let world = World::default();
    let mut browser = Browser::new(&world, plan_with(r#""after-logout": "https://www.example.com/bye""#));
    let there = location(&browser.open("/")).to_owned();
    let code = world.sign_in(&there, |_| ());
    browser.open(&back(&code, &state(&there)));
    let copy = browser.cookies.clone();
    let by_others = [("sec-fetch-site", "cross-site")];
    assert_eq!(answered(browser.visit("/.oidc/logout", &by_others)).status, 403);
    assert!(browser.is_in());
    let page = browser.open("/.oidc/logout");
    let end = "https://id.example.com/end?client_id=app&post_logout_redirect_uri=https%3A%2F%2Fwww.example.com%2Fbye";
    assert_eq!(location(&page), end);
    assert!(!browser.is_in());
    browser.cookies = copy;
    assert!(!browser.is_in());
}

#[test]
fn what_the_token_lacks_the_provider_is_asked_for() {
    let world = World::default();
    let userinfo = r#""userinfo": true"#;
    for (said, is_in) in [
        (json!({"sub": "ada", "groups": ["staff"]}), true),
        (json!({"sub": "eve", "groups": ["staff"]}), false),
        (json!({"sub": "ada"}), false),
    ] {
        let mut browser = Browser::new(&world, plan_with(userinfo));
        *world.userinfo.borrow_mut() = said.clone();
        let there = location(&browser.open("/")).to_owned();
        let code = world.sign_in(&there, |claims| drop(claims.as_object_mut().unwrap().remove("groups")));
        browser.open(&back(&code, &state(&there)));
        assert_eq!(browser.is_in(), is_in, "{said}");
    }
}
