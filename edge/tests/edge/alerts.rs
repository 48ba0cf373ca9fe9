//! Alerts: what webhooks on this machine are told, what happens where they do not take it, and where none may be.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit_edge::TokenRequest;
use adit_protocol::credentials::Credentials;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

use crate::balancing::id;
use crate::connector::Connector;
use crate::harness::LocalSet;
use crate::office::{Office, Reply};

/// This machine may be told, and soon.
pub(crate) const TELLING: &str =
    "[alerts]\nprivate-networks = [\"127.0.0.0/8\"]\ndown-for = \"500ms\"\nup-for = \"500ms\"\n";

/// What a webhook was sent.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    path: String,
    headers: HeaderMap,
    text: String,
}

/// A webhook. It takes everything unless it is told what to answer.
#[derive(Clone)]
pub(crate) struct Hook {
    address: SocketAddr,
    told: Arc<watch::Sender<Vec<Told>>>,
    answers: Arc<Mutex<VecDeque<Response<Full<Bytes>>>>>,
}

impl Told {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// As the standard has it, written here anew.
    fn is_signed_with(&self, secret: &str) -> bool {
        let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let signed =
            format!("{}.{}.{}", self.header("webhook-id"), self.header("webhook-timestamp"), self.text);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes());
        let wanted = format!("v1,{}", BASE64_STANDARD.encode(tag));
        self.header("webhook-signature").split(' ').any(|signature| signature == wanted)
    }
}

impl Hook {
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hook = Self { address, told: Arc::default(), answers: Arc::default() };
        let serving = hook.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let hook = serving.clone();
                let answer = service_fn(move |request: Request<Incoming>| hook.clone().answer(request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
                );
            }
        });
        hook
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let (parts, body) = request.into_parts();
        assert_eq!(parts.method, Method::POST);
        let body = body.collect().await?.to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or_default();
        let told = Told { path: parts.uri.path().to_owned(), headers: parts.headers, text };
        self.told.send_modify(|all| all.push(told));
        Ok(answer)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/alerts", self.address)
    }

    fn will_answer(&self, status: u16, headers: &[(&'static str, &str)]) {
        let mut answer = Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        self.answers.lock().unwrap().push_back(answer.body(Full::default()).unwrap());
    }

    /// Waits for so many messages like this.
    async fn until(&self, count: usize, fits: impl Fn(&Told) -> bool) -> Vec<Told> {
        let mut changes = self.told.subscribe();
        let found = |all: &Vec<Told>| all.iter().filter(|told| fits(told)).cloned().collect::<Vec<_>>();
        let seen = timeout(PATIENCE, changes.wait_for(|all| found(all).len() >= count)).await;
        assert!(seen.is_ok(), "not {count} of {:#?}", self.told.borrow());
        found(&self.told.borrow())
    }

    /// How many messages of a type came so far.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.told.borrow().iter().filter(|told| told.json()["alert_type"] == kind).count()
    }

    pub(crate) async fn alerts(&self, count: usize, kind: &str) -> Vec<Told> {
        self.until(count, |told| told.json()["alert_type"] == kind).await
    }
}

impl Office {
    pub(crate) fn alerting(&self, rest: &str) -> String {
        format!("/accounts/{}/alerting/v3/{rest}", self.account)
    }

    pub(crate) async fn hook(&self, url: &str, secret: Option<&str>) -> Value {
        let mut body = json!({ "name": "hook", "url": url });
        if let Some(secret) = secret {
            body["secret"] = json!(secret);
        }
        self.post(&self.alerting("destinations/webhooks"), body).await.done()
    }

    pub(crate) async fn policy(&self, hook: &str, kind: &str, filters: Value) -> String {
        let body = json!({
            "name": "policy", "enabled": true, "alert_type": kind, "filters": filters,
            "mechanisms": { "webhooks": [{ "id": hook }] },
        });
        id(&self.post(&self.alerting("policies"), body).await.done())
    }

    async fn try_hook(&self, url: &str) -> Reply {
        self.post(&self.alerting("destinations/webhooks"), json!({ "name": "a", "url": url })).await
    }

    /// Waits until the webhook's own page says this.
    async fn until_hook(&self, hook: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let path = self.alerting(&format!("destinations/webhooks/{hook}"));
        let mut turns = tokio::time::interval(Duration::from_millis(50));
        let looked = timeout(PATIENCE, async {
            loop {
                turns.tick().await;
                let seen = self.get(&path).await;
                if is_so(&seen) {
                    return seen;
                }
            }
        });
        looked.await.unwrap()
    }
}

#[tokio::test]
async fn a_webhook_is_told_in_the_form_of_the_reference_and_can_tell_whom_it_is_from() {
    let office = Office::open_with(TELLING).await;
    let hook = Hook::open().await;
    let made = office.hook(&hook.url(), None).await;
    let secret = made["secret"].as_str().unwrap().to_owned();
    let trial = hook.until(1, |_| true).await.remove(0);
    assert!(trial.path == "/alerts" && trial.json()["alert_type"] == "test" && trial.is_signed_with(&secret));
    let policy = office.policy(&id(&made), "load_balancing_pool_enablement_alert", json!({})).await;
    let (tunnel, _) = office.tunnel_named("one").await;
    let pool = office.pool("shop", &[&tunnel]).await;
    let path = office.objects(&format!("pools/{pool}"));
    office.edit(&path, json!({ "enabled": false })).await;
    office.edit(&path, json!({ "enabled": false, "description": "nothing of interest" })).await;
    let told = hook.alerts(1, "load_balancing_pool_enablement_alert").await.remove(0);
    let json = told.json();
    let mut wanted = json!({
        "name": "hook", "text": "The pool shop is disabled.", "account_id": office.account,
        "policy_id": policy, "policy_name": "policy", "alert_type": "load_balancing_pool_enablement_alert",
        "data": { "pool_id": pool, "pool_name": "shop", "enabled": "false" },
    });
    wanted["data"]["seq"] = json["data"]["seq"].clone();
    for name in ["ts", "alert_correlation_id"] {
        wanted[name] = json[name].clone();
    }
    assert_eq!(json, wanted);
    assert!(json["ts"].is_u64() && json["data"]["seq"].is_u64());
    assert_eq!(told.header("content-type"), "application/json");
    assert!(told.is_signed_with(&secret) && !told.headers.contains_key("cf-webhook-auth"), "{told:?}");

    // A secret in the reference's way travels, and the one before signs for a day more.
    let edit = json!({ "name": "hook", "url": hook.url(), "secret": "not a key" });
    let one = office.alerting(&format!("destinations/webhooks/{}", id(&made)));
    office.ask(Method::PUT, &one, Some(edit)).await.done();
    office.edit(&path, json!({ "enabled": true })).await;
    let told = hook.alerts(2, "load_balancing_pool_enablement_alert").await.remove(1);
    assert_eq!((told.header("cf-webhook-auth"), told.is_signed_with(&secret)), ("not a key", true));
    assert!(told.is_signed_with(&format!("whsec_{}", BASE64_STANDARD.encode("not a key"))));
    assert!(told.json()["data"]["seq"].as_u64() > json["data"]["seq"].as_u64());

    let seen = office.until_hook(&id(&made), |seen| seen["last_success"].is_string()).await;
    assert!(!seen.to_string().contains("not a key") && !seen.to_string().contains("whsec_"), "{seen}");
    let history = office.get(&office.alerting("history")).await;
    assert_eq!(history[0]["delivered"], true, "{history}");
    assert_eq!((&history[0]["policy_id"], &history[0]["mechanism"]), (&json!(policy), &made["id"]));
}

#[tokio::test]
async fn a_tunnel_and_its_pool_that_go_down_and_come_back_are_told_once_each() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open_with(TELLING).await;
            let hook = Hook::open().await;
            let made = id(&office.hook(&hook.url(), None).await);
            let down = json!({ "new_status": ["TUNNEL_STATUS_TYPE_DOWN", "TUNNEL_STATUS_TYPE_HEALTHY"] });
            office.policy(&made, "tunnel_health_event", down).await;
            office.policy(&made, "load_balancing_health_alert", json!({ "event_source": ["pool"] })).await;
            let (tunnel, token) = office.tunnel_named("one").await;
            let (other, _) = office.tunnel_named("never there").await;
            office.edge.credentials = Credentials::from_token(&token).unwrap();
            let connect = async |office: &Office| {
                let (mut all, connector) = (Vec::new(), Uuid::new_v4());
                for index in 0..4 {
                    all.push(Connector::registered(&office.edge, 0, connector, index).await);
                }
                all
            };
            let host = connect(&office).await;
            let pool = office.pool("shop", &[&tunnel]).await;
            // One that was never there is not down.
            let mut turns = tokio::time::interval(Duration::from_millis(50));
            while !office.ledger.audit(20).await.unwrap().iter().any(|line| line.action == "tunnel.active") {
                turns.tick().await;
            }
            host.iter().for_each(|one| one.connection.close(0u32.into(), b""));
            drop(host);
            let told = hook.alerts(1, "tunnel_health_event").await.remove(0).json();
            assert_eq!(told["data"]["new_status"], "TUNNEL_STATUS_TYPE_DOWN", "{told}");
            assert_eq!((&told["data"]["tunnel_id"], &told["alert_event"]), (&json!(tunnel), &json!(START)));
            let began = hook.alerts(1, "load_balancing_health_alert").await.remove(0).json();
            assert_eq!(
                (&began["data"]["pool_id"], &began["data"]["new_health"], &began["alert_event"]),
                (&json!(pool), &json!("Unhealthy"), &json!(START)),
            );
            let _host = connect(&office).await;
            let ended = hook.alerts(2, "load_balancing_health_alert").await.remove(1).json();
            assert_eq!(
                (&ended["data"]["new_health"], &ended["alert_event"]),
                (&json!("Healthy"), &json!(END))
            );
            assert_eq!(ended["alert_correlation_id"], began["alert_correlation_id"]);
            let all = hook.alerts(2, "tunnel_health_event").await;
            assert_eq!(all[1].json()["data"]["new_status"], "TUNNEL_STATUS_TYPE_HEALTHY");
            assert!(all.iter().all(|told| !told.text.contains(&other)), "{all:?}");
        })
        .await;
}

#[tokio::test]
async fn what_a_webhook_does_not_take_is_sent_again_with_the_same_id_by_the_next_edge_too() {
    let mut office = Office::open_with(TELLING).await;
    let hook = Hook::open().await;
    let made = office.hook(&hook.url(), None).await;
    let secret = made["secret"].as_str().unwrap().to_owned();
    office.policy(&id(&made), "tunnel_update_event", json!({ "tunnel_name": ["two"] })).await;
    office.create("one").await;
    hook.will_answer(500, &[]);
    hook.will_answer(302, &[("location", &hook.url())]);
    office.create("two").await;
    let first = hook.alerts(1, "tunnel_update_event").await.remove(0);
    let seen = office.until_hook(&id(&made), |seen| seen["last_failure"].is_string()).await;
    assert_eq!(seen["failure_reason"], "it answers with the status 500");
    office.edge.stop.cancel();
    (&mut office.edge.running).await.unwrap().unwrap();
    office.reopen_with(TELLING);
    let second = hook.alerts(2, "tunnel_update_event").await.remove(1);
    assert_eq!((first.header("webhook-id"), &first.text), (second.header("webhook-id"), &second.text));
    assert!(first.is_signed_with(&secret) && second.is_signed_with(&secret));
    let why = "it answers with the status 302, and is not followed elsewhere";
    office.until_hook(&id(&made), |seen| seen["failure_reason"] == why).await;
}

#[tokio::test]
async fn a_webhook_that_says_it_is_gone_is_left_alone_until_it_is_changed() {
    let office = Office::open_with(TELLING).await;
    let hook = Hook::open().await;
    let made = id(&office.hook(&hook.url(), None).await);
    office.policy(&made, "tunnel_update_event", json!({})).await;
    hook.will_answer(410, &[]);
    office.create("one").await;
    office.until_hook(&made, |seen| seen["disabled_at"].is_string()).await;
    office.create("two").await;
    let given_up = async |count: usize| {
        let mut turns = tokio::time::interval(Duration::from_millis(50));
        loop {
            turns.tick().await;
            let history = office.get(&office.alerting("history")).await;
            if history.as_array().unwrap().iter().filter(|line| line["delivered"] == false).count() == count {
                return;
            }
        }
    };
    timeout(PATIENCE, given_up(2)).await.unwrap();
    assert_eq!(hook.alerts(1, "tunnel_update_event").await.len(), 1);
    let path = office.alerting(&format!("destinations/webhooks/{made}"));
    office.ask(Method::PUT, &path, Some(json!({ "name": "again" }))).await.done();
    office.create("three").await;
    let told = hook.alerts(2, "tunnel_update_event").await.remove(1).json();
    assert_eq!((&told["name"], &told["data"]["tunnel_name"]), (&json!("again"), &json!("three")));
}

#[tokio::test]
async fn no_webhook_is_in_a_network_that_the_operator_does_not_list_and_nobody_learns_what_is_there() {
    let hook = Hook::open().await;
    let port = hook.address.port();
    let office = Office::open().await;
    let mut said = Vec::new();
    for url in [
        hook.url(),
        format!("http://localhost:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://127.1:{port}/"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://10.0.0.1:22/".to_owned(),
        "http://[fd00::1]/".to_owned(),
        "https://no-such-name.invalid/".to_owned(),
    ] {
        let refused = office.try_hook(&url).await;
        refused.refused(400, "`url` does not take a test message: it gives no answer");
        said.push(refused.json["errors"][0]["message"].as_str().unwrap().to_owned());
    }
    said.dedup();
    assert_eq!(said.len(), 1, "one answer for all: {said:?}");
    assert!(hook.told.borrow().is_empty());
    for url in ["ftp://a.test/", "http://user@a.test/", "/alerts", "http:///x"] {
        office.try_hook(url).await.refused(400, "`url`");
    }
    assert_eq!(office.get(&office.alerting("destinations/webhooks")).await, json!([]));

    // Nor does one that may be there lead there by a redirection.
    let other = Hook::open().await;
    let office = Office::open_with(&TELLING.replace("127.0.0.0/8", "127.0.0.1/32")).await;
    hook.will_answer(307, &[("location", &format!("http://127.0.0.2:{port}/"))]);
    office.try_hook(&hook.url()).await.refused(400, "is not followed");
    hook.will_answer(302, &[("location", &other.url())]);
    office.try_hook(&hook.url()).await.refused(400, "is not followed");
    assert!(other.told.borrow().is_empty());
    assert_eq!(office.try_hook(&hook.url()).await.status.as_u16(), 200);
}

#[tokio::test]
async fn policies_and_webhooks_are_kept_as_they_were_said_and_belong_to_their_account() {
    let office = Office::open_with(TELLING).await;
    let hook = Hook::open().await;
    let made = id(&office.hook(&hook.url(), Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).await);
    let said = json!({
        "name": "p", "description": "d", "enabled": true, "alert_type": "load_balancing_health_alert",
        "alert_interval": "30m", "filters": { "new_health": ["Unhealthy"], "pool_id": ["a"] },
        "mechanisms": { "webhooks": [{ "id": made }], "email": [{ "id": "a@b.test" }] },
    });
    let reply = office.post(&office.alerting("policies"), said.clone()).await;
    assert!(reply.json["messages"][0].as_str().unwrap().contains("`mechanisms.email` has no effect"));
    let policy = id(&reply.done());
    let path = office.alerting(&format!("policies/{policy}"));
    let seen = office.get(&path).await;
    for (name, value) in said.as_object().unwrap() {
        assert_eq!(&seen[name], value, "{seen}");
    }
    assert!(seen["created"].is_string() && seen["modified"].is_string());
    office.ask(Method::PUT, &path, Some(json!({ "enabled": false, "filters": null }))).await.done();
    let seen = office.get(&path).await;
    assert!(seen["enabled"] == false && seen["name"] == "p" && seen.get("filters").is_none(), "{seen}");
    for (body, places) in [
        (json!({}), vec!["name", "enabled", "alert_type", "mechanisms"]),
        (
            json!({ "name": "", "enabled": true, "alert_type": "tunnel_health_event", "alert_interval": "soon",
                "mechanisms": { "webhooks": [{ "id": "x" }] }, "filters": { "pool_id": ["x"], "new_status": ["UP"] } }),
            vec!["name", "mechanisms.webhooks[0].id", "alert_interval", "filters", "filters"],
        ),
        (
            json!({ "name": "a", "enabled": true, "alert_type": "billing_usage_alert", "mechanisms": {} }),
            vec!["alert_type", "mechanisms.webhooks"],
        ),
    ] {
        let reply = office.post(&office.alerting("policies"), body).await;
        assert_eq!(reply.faults(), places, "{reply:?}");
    }
    let short = json!({ "name": "a", "url": hook.url(), "secret": "whsec_AAAA" });
    assert_eq!(office.post(&office.alerting("destinations/webhooks"), short).await.faults(), ["secret"]);

    let one = office.alerting(&format!("destinations/webhooks/{made}"));
    let kept = office.ask(Method::DELETE, &one, None).await;
    assert_eq!((kept.status.as_u16(), &kept.json["errors"][0]["code"]), (412, &json!(1005)));
    let types = office.get(&office.alerting("available_alerts")).await;
    assert_eq!(types["Load Balancing"][0]["type"], "load_balancing_health_alert");

    let (_, founding) = adit_edge::Provisioning::found(
        &office.edge.folder.path().join("edge-data"),
        "rival",
        &["rival.test".to_owned()],
    )
    .await
    .unwrap();
    let rival = TokenRequest { account: Some("rival".to_owned()), ..TokenRequest::default() };
    let rival = office.token(rival).await;
    for path in [&path, &one] {
        let theirs = path.replace(&office.account, &founding.account);
        for path in [path, &theirs] {
            office.ask_as(&rival, Method::GET, path, None).await.refused(404, "not found");
            office.ask_as(&rival, Method::DELETE, path, None).await.refused(404, "not found");
        }
    }
    let foreign = json!({ "name": "x", "enabled": true, "alert_type": "tunnel_update_event",
        "mechanisms": { "webhooks": [{ "id": made }] } });
    let theirs = format!("/accounts/{}/alerting/v3/policies", founding.account);
    let refused = office.ask_as(&rival, Method::POST, &theirs, Some(foreign)).await;
    assert_eq!(refused.faults(), ["mechanisms.webhooks[0].id"]);
    let bound = TokenRequest {
        account: Some("main".to_owned()),
        zones: vec!["example.com".to_owned()],
        ..TokenRequest::default()
    };
    let bound = office.token(bound).await;
    office.ask_as(&bound, Method::GET, &path, None).await.refused(403, "reach");
    for path in [&path, &one] {
        office.ask(Method::DELETE, path, None).await.done();
        office.ask(Method::GET, path, None).await.refused(404, "not found");
    }
}

#[tokio::test]
async fn a_token_that_ends_is_told_before_and_then() {
    let office = Office::open_with(TELLING).await;
    let hook = Hook::open().await;
    let made = id(&office.hook(&hook.url(), None).await);
    office.policy(&made, "expiring_api_token_alert", json!({})).await;
    let wish = TokenRequest {
        name: "short".to_owned(),
        valid_for: Some(Duration::from_secs(20)),
        ..TokenRequest::default()
    };
    office.token(wish).await;
    let told = hook.alerts(2, "expiring_api_token_alert").await;
    let [before, then] = [told[0].json(), told[1].json()];
    assert_eq!((&before["alert_event"], &then["alert_event"]), (&json!(START), &json!(END)));
    assert!(
        before["text"].as_str().unwrap().contains("ends soon") && before["data"]["token_name"] == "short"
    );
    assert_eq!(before["alert_correlation_id"], then["alert_correlation_id"]);
}

pub(crate) const START: &str = "ALERT_STATE_EVENT_START";
pub(crate) const END: &str = "ALERT_STATE_EVENT_END";
const PATIENCE: Duration = Duration::from_secs(50);
