//! The plugin as the host sees it: WIT on the outside, [`login`](crate::login) inside.

use bindings::adit::plugin::types::{Fault, HeaderOp, Reply, RequestEdits, RequestHead};
use bindings::adit::plugin::{clock, crypto, http_client, key_value, keyed, log, metrics, secret};
use bindings::exports::adit::plugin::probe::Guest as Probe;
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};
use bindings::exports::adit::plugin::ticker::Guest as Ticker;

use crate::cookie::without;
use crate::login::{Decision, Page, Visit, decide};
use crate::plan::Plan;
use crate::provider::Provider;
use crate::session::Session;
use crate::surroundings::{Answer, Question, Surroundings};

settings::component! {
    Oidc: "package adit:shelf; world it { include adit:plugin/request-only@0.1.0; export adit:plugin/schema@0.1.0; export adit:plugin/probe@0.1.0; export adit:plugin/ticker@0.1.0; }",
    // Before the configuration is there, and it may name any header.
    headers: ["*"],
    state: Plan = Plan::read,
}

impl Probe for Oidc {
    /// A provider that is away is no reason not to serve: nobody signs in then, and the ticker goes on asking. Secrets
    /// that are not there are one.
    fn probe() -> Result<(), Fault> {
        configured(|plan| {
            let cookie = plan.cookie_secrets.iter().map(|name| ("/cookie-secret", name));
            let client = plan.client_secret.iter().map(|name| ("/client-secret", name));
            for (pointer, name) in cookie.chain(client) {
                if keyed::is_secret(name, b"").unwrap_or(true) {
                    return Err(ungranted(pointer, name));
                }
            }
            Provider::refresh(&Host(&plan.bucket), plan);
            Ok(())
        })?
    }
}

impl Ticker for Oidc {
    fn on_tick() {
        // It is configured before it ticks.
        let _ = configured(|plan| Provider::refresh(&Host(&plan.bucket), plan));
    }
}

impl RequestFilter for Oidc {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        configured(|plan| {
            let RequestHead { method, scheme, authority, path_with_query, headers, .. } = &head;
            let visit = Visit { method, scheme, authority, path_with_query, headers };
            match decide(&Host(&plan.bucket), plan, &visit) {
                Decision::GoesOn(session) => go_on(plan, headers, session),
                Decision::Answered(Page { status, headers, body, counts }) => {
                    metrics::add(counts, 1);
                    RequestAction::Respond(Reply { status, headers, body: body.into() })
                }
            }
        })
    }
}

/// The service is told who it is, and never what the visitor says of that; and it gets no cookie of ours.
fn go_on(plan: &Plan, sent: &[(String, String)], session: Option<Session>) -> RequestAction {
    let mut values = session.map(|session| session.values).unwrap_or_default().into_iter();
    let told = plan.headers.iter().map(|(name, _)| match values.next().flatten() {
        Some(value) => HeaderOp::Set((name.clone(), value)),
        None => HeaderOp::Remove(name.clone()),
    });
    let mut headers: Vec<_> = told.collect();
    headers.extend(without(&plan.cookie, sent).map(|left| match left.is_empty() {
        true => HeaderOp::Remove("cookie".to_owned()),
        false => HeaderOp::Set(("cookie".to_owned(), left)),
    }));
    if headers.is_empty() {
        return RequestAction::Next;
    }
    RequestAction::Edit(RequestEdits {
        method: None,
        authority: None,
        path_with_query: None,
        headers,
        carry: Vec::new(),
    })
}

/// The host, with the name of the granted bucket.
struct Host<'a>(&'a str);

impl Surroundings for Host<'_> {
    fn now(&self) -> u64 {
        clock::now()
    }

    fn read(&self, key: &str) -> Option<Vec<u8>> {
        key_value::get(self.0, key).unwrap_or_else(|error| {
            self.complain(error);
            None
        })
    }

    fn write(&self, key: &str, value: &[u8], for_ms: u64) -> bool {
        key_value::set(self.0, key, value, Some(for_ms)).map_err(|error| self.complain(error)).is_ok()
    }

    fn is_first(&self, key: &str, within_ms: u64) -> bool {
        match key_value::increment(self.0, key, 1, Some(within_ms)) {
            Ok(count) => count == 1,
            Err(error) => {
                self.complain(error);
                false
            }
        }
    }

    fn ask(&self, question: &Question) -> Result<Answer, String> {
        let Question { url, authorization, form } = question;
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut headers = vec![header("accept", "application/json")];
        headers.extend(authorization.iter().map(|value| header("authorization", value)));
        headers.extend(form.iter().map(|_| header("content-type", "application/x-www-form-urlencoded")));
        let request = http_client::Request {
            method: if form.is_some() { "POST" } else { "GET" }.to_owned(),
            url: url.clone(),
            headers,
            body: form.clone().unwrap_or_default().into_bytes(),
            timeout_ms: Some(WAIT_MS),
            redirects: 0,
        };
        let answer = http_client::send(&request).map_err(|error| format!("{error:?}"))?;
        Ok(Answer { status: answer.status, body: answer.body })
    }

    fn is_signed(&self, algorithm: &str, jwk: &str, data: &[u8], signature: &[u8]) -> bool {
        let key = crypto::PublicKey::Jwk(jwk.to_owned());
        algorithm_of(algorithm)
            .is_some_and(|algorithm| crypto::verify(algorithm, &key, data, signature).unwrap_or(false))
    }

    fn derive(&self, secret: &str, data: &[u8]) -> Option<[u8; 32]> {
        keyed::hmac(crypto::Hash::Sha256, secret, data).ok()?.try_into().ok()
    }

    fn secret(&self, name: &str) -> Option<String> {
        String::from_utf8(secret::read(name)?).ok()
    }

    fn equal(&self, one: &str, other: &str) -> bool {
        crypto::equal(one.as_bytes(), other.as_bytes())
    }

    fn random(&self) -> [u8; 32] {
        let bytes = crypto::random_bytes(32).ok().and_then(|bytes| bytes.try_into().ok());
        // It refuses only what is far longer.
        bytes.expect("the host has random bytes")
    }

    fn warn(&self, message: &str) {
        log::write(log::Level::Warn, message);
    }
}

impl Host<'_> {
    fn complain(&self, error: key_value::Error) {
        self.warn(&format!("the bucket `{}`: {}", self.0, error.name()));
    }
}

/// Those with a public key: whoever verifies by one that both know could sign too.
fn algorithm_of(name: &str) -> Option<crypto::Algorithm> {
    use crypto::Algorithm;
    Some(match name {
        "RS256" => Algorithm::Rs256,
        "RS384" => Algorithm::Rs384,
        "RS512" => Algorithm::Rs512,
        "PS256" => Algorithm::Ps256,
        "PS384" => Algorithm::Ps384,
        "PS512" => Algorithm::Ps512,
        "ES256" => Algorithm::Es256,
        "ES384" => Algorithm::Es384,
        "EdDSA" | "Ed25519" => Algorithm::Ed25519,
        _ => return None,
    })
}

fn ungranted(pointer: &str, name: &str) -> Fault {
    Fault {
        code: pointer.to_owned(),
        message: format!("the secret `{name}` is empty, or not in `grants.secrets`"),
    }
}

/// A visitor waits for it.
const WAIT_MS: u32 = 5_000;
