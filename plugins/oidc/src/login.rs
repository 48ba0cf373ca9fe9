//! The way from a visitor without a name to one with a session: to the provider, back with a code, and out again.

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use jose::Token;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::cookie::{Jar, LOGIN};
use crate::identity;
use crate::plan::Plan;
use crate::provider::Provider;
use crate::seal;
use crate::session::Session;
use crate::surroundings::{Question, Surroundings};
use crate::url;

/// A request, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    pub method: &'a str,
    pub scheme: &'a str,
    pub authority: &'a str,
    pub path_with_query: &'a str,
    pub headers: &'a [(String, String)],
}

/// An answer of this plugin's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: &'static str,
    /// The counter that it counts for.
    pub counts: &'static str,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes on; the service is told of the session, if there is one.
    GoesOn(Option<Session>),
    Answered(Page),
}

/// Where a visitor is and what its browser keeps for here.
struct Place<'a> {
    /// Such as "https://app.example.com".
    base: String,
    jar: Jar<'a>,
}

pub fn decide(host: &impl Surroundings, plan: &Plan, visit: &Visit<'_>) -> Decision {
    let Some(place) = Place::of(plan, visit) else {
        if plan.is_open(visit.path_with_query) {
            return Decision::GoesOn(None);
        }
        host.warn(IN_THE_CLEAR);
        return Decision::Answered(page(403, "refused", "signing in needs HTTPS\n"));
    };
    let path = visit.path_with_query.split('?').next().unwrap_or_default();
    if path == plan.callback {
        return Decision::Answered(callback(host, plan, visit, &place));
    }
    let session = Session::find(host, plan, place.jar, visit.headers);
    if path == plan.logout {
        return Decision::Answered(logout(host, plan, visit, &place, session.as_ref()));
    }
    if session.is_some() || plan.is_open(visit.path_with_query) {
        return Decision::GoesOn(session);
    }
    // A picture or a script that is sent to a page for signing in helps nobody.
    if !is_navigation(visit) {
        return Decision::Answered(page(401, "refused", "sign in first\n"));
    }
    Decision::Answered(begin(host, plan, visit, &place))
}

/// Sends a visitor to the provider.
fn begin(host: &impl Surroundings, plan: &Plan, visit: &Visit<'_>, place: &Place<'_>) -> Page {
    let back = Some(visit.path_with_query).filter(|path| path.len() <= LONGEST_PATH).unwrap_or("/");
    let here = place.base.split_once("://").map_or("", |(_, authority)| authority);
    if settings::host(here) != settings::host(visit.authority) {
        // What is kept for one name is not sent to another: begun here it could not end there.
        return redirect("redirected", format!("{}{back}", place.base), Vec::new());
    }
    let Some(provider) = Provider::find(host, plan) else { return away() };
    let word = || Base64UrlUnpadded::encode_string(&host.random());
    let (state, nonce, verifier) = (word(), word(), word());
    let until = host.now() / 1000 + FOR_SIGNING_IN;
    let kept = json!([state, nonce, verifier, back, until]).to_string();
    let Some(kept) = seal::seal(host, &plan.cookie_secrets, &purpose(plan), kept.as_bytes()) else {
        return without_secret(host);
    };
    let cookie = place.jar.keep(&suffix(&state), &kept, FOR_SIGNING_IN);
    let challenge = Base64UrlUnpadded::encode_string(&Sha256::digest(verifier.as_bytes()));
    let there = url::with_query(
        &provider.authorization,
        &[
            ("response_type", "code"),
            ("client_id", &plan.client_id),
            ("redirect_uri", &format!("{}{}", place.base, plan.callback)),
            ("scope", &plan.scope),
            ("state", &state),
            ("nonce", &nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ],
    );
    redirect("redirected", there, vec![cookie])
}

/// Takes a visitor back who comes from the provider.
fn callback(host: &impl Surroundings, plan: &Plan, visit: &Visit<'_>, place: &Place<'_>) -> Page {
    let fields = url::fields(visit.path_with_query).filter(|_| visit.method == "GET");
    let Some(fields) = fields else { return astray() };
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let begun = field("state").and_then(|state| Begun::find(host, plan, visit, place, state));
    let Some(begun) = begun else { return astray() };
    let done = place.jar.keep(&suffix(&begun.state), "", 0);
    let with = |mut page: Page| {
        page.headers.push(done.clone());
        page
    };
    if let Some(error) = field("error") {
        host.warn(&format!("the provider let nobody in: {:?}", cut(error)));
        return with(page(403, "refused", "the provider did not let you in\n"));
    }
    let Some(code) = field("code").filter(|code| !code.is_empty()) else { return with(astray()) };
    let Some(provider) = Provider::find(host, plan) else { return with(away()) };
    // RFC 9207: a code of another provider would tell it who comes in here.
    let is_ours = field("iss").map_or(!provider.says_issuer, |issuer| issuer == plan.issuer);
    if !is_ours {
        host.warn("an answer came that is of another provider");
        return with(astray());
    }
    let claims = match exchange(host, plan, &provider, place, &begun, code) {
        Ok(claims) => claims,
        Err(Failed::Away(why)) => {
            host.warn(&why);
            return with(away());
        }
        Err(Failed::Wrong(why)) => {
            host.warn(&why);
            return with(page(403, "refused", "what the provider says of you cannot be believed\n"));
        }
    };
    if !identity::may_enter(plan, &claims) {
        return with(page(403, "refused", "you have signed in, but this is not for you\n"));
    }
    let session = Session {
        id: Base64UrlUnpadded::encode_string(&host.random()[..16]),
        until: host.now() / 1000 + plan.session.as_secs(),
        values: identity::values(plan, &claims),
    };
    let Some(kept) = session.sealed(host, plan) else {
        host.warn(
            "what the service shall be told is longer than a cookie may be: name fewer claims in `headers`",
        );
        return with(page(500, "refused", "what the provider says of you is too long\n"));
    };
    let cookie = place.jar.keep("", &kept, plan.session.as_secs());
    // A path of this address in any case, even if it begins with "//".
    with(redirect("signed_in", format!("{}{}", place.base, begun.back), vec![cookie]))
}

fn logout(
    host: &impl Surroundings,
    plan: &Plan,
    visit: &Visit<'_>,
    place: &Place<'_>,
    session: Option<&Session>,
) -> Page {
    if header(visit, "sec-fetch-site") == Some("cross-site") {
        return page(403, "refused", "only a page of this service can sign you out\n");
    }
    if let Some(session) = session {
        session.end(host);
    }
    let cookie = place.jar.keep("", "", 0);
    let there = Provider::find(host, plan).and_then(|provider| provider.end_session);
    match (there, &plan.after_logout) {
        (Some(there), after) => {
            let mut fields = vec![("client_id", plan.client_id.as_str())];
            fields.extend(after.as_deref().map(|after| ("post_logout_redirect_uri", after)));
            redirect("signed_out", url::with_query(&there, &fields), vec![cookie])
        }
        (None, Some(after)) => redirect("signed_out", after.clone(), vec![cookie]),
        (None, None) => {
            let mut page = page(200, "signed_out", "you have signed out\n");
            page.headers.push(cookie);
            page
        }
    }
}

/// What was kept when a visitor was sent to the provider.
struct Begun {
    state: String,
    nonce: String,
    verifier: String,
    back: String,
}

impl Begun {
    /// Only the browser that was sent has it, so nobody is signed in as somebody else by a link.
    fn find(
        host: &impl Surroundings,
        plan: &Plan,
        visit: &Visit<'_>,
        place: &Place<'_>,
        state: &str,
    ) -> Option<Self> {
        let suffix = suffix(state);
        let mut texts = place.jar.values(&suffix, visit.headers).take(MOST_COOKIES);
        texts.find_map(|text| {
            let kept = seal::open(host, &plan.cookie_secrets, &purpose(plan), text)?;
            let kept: Value = serde_json::from_slice(&kept).ok()?;
            let text = |at: usize| kept.get(at)?.as_str().map(str::to_owned);
            let begun = Self { state: text(0)?, nonce: text(1)?, verifier: text(2)?, back: text(3)? };
            let is_good = host.equal(&begun.state, state) && host.now() / 1000 < kept.get(4)?.as_u64()?;
            is_good.then_some(begun)
        })
    }
}

enum Failed {
    /// The provider cannot say.
    Away(String),
    /// What it says is wrong.
    Wrong(String),
}

/// Who has signed in: asks for the token that the code stands for.
fn exchange(
    host: &impl Surroundings,
    plan: &Plan,
    provider: &Provider,
    place: &Place<'_>,
    begun: &Begun,
    code: &str,
) -> Result<Value, Failed> {
    let redirect_uri = format!("{}{}", place.base, plan.callback);
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", &redirect_uri),
        ("code_verifier", &begun.verifier),
    ];
    let mut authorization = None;
    let secret = match &plan.client_secret {
        None => None,
        Some(name) => Some(
            host.secret(name)
                .ok_or_else(|| Failed::Away(format!("the secret `{name}` is no text, or none")))?,
        ),
    };
    match &secret {
        Some(secret) if provider.takes_basic => {
            let pair = format!("{}:{}", url::encoded(&plan.client_id), url::encoded(secret));
            authorization = Some(format!("Basic {}", Base64::encode_string(pair.as_bytes())));
        }
        Some(secret) => form.extend([("client_id", plan.client_id.as_str()), ("client_secret", secret)]),
        None => form.push(("client_id", &plan.client_id)),
    }
    let form = Some(url::form(&form));
    let answer = ask(host, Question { url: provider.token.clone(), authorization, form })?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    let wrong = |why: &str| Failed::Wrong(format!("the token of {}: {why}", plan.issuer));
    let token = text("id_token").ok_or_else(|| wrong("there is none; is `openid` among the scopes?"))?;
    let mut claims = verified(host, plan, provider, token).map_err(wrong)?;
    let nonce = claims.get("nonce").and_then(Value::as_str).unwrap_or_default();
    if !host.equal(nonce, &begun.nonce) {
        return Err(wrong("it was made for another visit"));
    }
    identity::check(plan, &claims, host.now() / 1000).map_err(wrong)?;
    if plan.userinfo {
        let url =
            provider.userinfo.clone().ok_or_else(|| wrong("the provider has no `userinfo_endpoint`"))?;
        let access = text("access_token").ok_or_else(|| wrong("there is no access token with it"))?;
        let authorization = Some(format!("Bearer {access}"));
        let more = ask(host, Question { url, authorization, form: None })?;
        identity::add(&mut claims, &more).map_err(wrong)?;
    }
    Ok(claims)
}

/// The claims of a token that one of the provider's keys has signed.
fn verified(
    host: &impl Surroundings,
    plan: &Plan,
    provider: &Provider,
    text: &str,
) -> Result<Value, &'static str> {
    let token = Token::read(text).ok_or("it is no signed token")?;
    let is_signed = |provider: &Provider| {
        let mut keys = provider.keys(token.key_id.as_deref()).take(MOST_TRIED);
        keys.any(|jwk| host.is_signed(&token.algorithm, jwk, token.signed, &token.signature))
    };
    if !is_signed(provider) {
        let has_key = token.key_id.is_some() && provider.keys(token.key_id.as_deref()).next().is_some();
        let newer = if has_key { None } else { Provider::find_anew(host, plan) };
        if !newer.is_some_and(|newer| is_signed(&newer)) {
            return Err("none of the provider's keys has signed it, or not in a way that is known here");
        }
    }
    token.claims().ok_or("its claims are no object")
}

/// A JSON answer.
fn ask(host: &impl Surroundings, question: Question) -> Result<Value, Failed> {
    let url = question.url.clone();
    let answer = host.ask(&question).map_err(|error| Failed::Away(format!("{url}: {error}")))?;
    match answer.status {
        200 => serde_json::from_slice(&answer.body).map_err(|error| Failed::Away(format!("{url}: {error}"))),
        status @ 400..=428 => {
            let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let error = said.get("error").and_then(Value::as_str).unwrap_or("nothing");
            Err(Failed::Wrong(format!("{url}: status {status}, error {:?}", cut(error))))
        }
        status => Err(Failed::Away(format!("{url}: status {status}"))),
    }
}

impl<'a> Place<'a> {
    /// `None` where a visitor comes in the clear, and is not on this machine.
    fn of(plan: &'a Plan, visit: &Visit<'_>) -> Option<Self> {
        let base =
            plan.public_url.clone().unwrap_or_else(|| format!("{}://{}", visit.scheme, visit.authority));
        let is_secure = base.starts_with("https://");
        url::is_safe(&base).then_some(Self { base, jar: Jar { name: &plan.cookie, is_secure } })
    }
}

/// Whether somebody goes to a page, in contrast to a page that asks for its parts.
fn is_navigation(visit: &Visit<'_>) -> bool {
    let takes_pages = || header(visit, "accept").is_some_and(|accept| accept.contains("text/html"));
    visit.method == "GET"
        && header(visit, "sec-fetch-mode").map_or_else(takes_pages, |mode| mode == "navigate")
}

fn header<'a>(visit: &Visit<'a>, name: &str) -> Option<&'a str> {
    visit.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn purpose(plan: &Plan) -> String {
    format!("login {}", plan.terms)
}

/// Several pages may be opened at once, and each has its own: but no more than fit into a request.
fn suffix(state: &str) -> String {
    let first = state.bytes().next().unwrap_or_default();
    format!("{LOGIN}{}", first % AT_ONCE)
}

fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

fn page(status: u16, counts: &'static str, body: &'static str) -> Page {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let headers = vec![
        header("content-type", "text/plain; charset=utf-8"),
        header("cache-control", "no-store"),
        // The address of the way back has a code in it.
        header("referrer-policy", "no-referrer"),
    ];
    Page { status, headers, body, counts }
}

fn redirect(counts: &'static str, to: String, cookies: Vec<(String, String)>) -> Page {
    let mut page = page(302, counts, "");
    page.headers.push(("location".to_owned(), to));
    page.headers.extend(cookies);
    page
}

/// Nobody comes in of whom nothing is known.
fn away() -> Page {
    let mut page = page(503, "away", "nobody can sign in at the moment\n");
    page.headers.push(("retry-after".to_owned(), "5".to_owned()));
    page
}

fn astray() -> Page {
    page(
        400,
        "refused",
        "this is no way back from signing in, or it took too long: open the page once more\n",
    )
}

fn without_secret(host: &impl Surroundings) -> Page {
    host.warn("the secret that cookies are sealed with is not granted");
    away()
}

const IN_THE_CLEAR: &str =
    "a visitor came without HTTPS; where TLS ends before the edge, `public-url` says how visitors come";
/// How long signing in may take, seconds.
const FOR_SIGNING_IN: u64 = 600;
/// What is remembered of where a visitor wanted to go, bytes.
const LONGEST_PATH: usize = 1500;
/// Sign-ins of one browser that are under way.
const AT_ONCE: u8 = 4;
/// Cookies of one name that are looked at.
const MOST_COOKIES: usize = 4;
/// Keys that a token without a key's name is held against.
const MOST_TRIED: usize = 8;

#[cfg(test)]
mod tests;
