//! The plugin as the host sees it: WIT on the outside, [`Plan`] and [`delivery`] inside.

use std::cell::OnceCell;
use std::time::Duration;

use bindings::adit::plugin::bodies::{Beyond, Limits};
use bindings::adit::plugin::crypto::{self, Hash};
use bindings::adit::plugin::types::{Fault, Reply, RequestEdits, RequestHead, ResponseHead};
use bindings::adit::plugin::{clock, key_value, metrics, secret};
use bindings::exports::adit::plugin::probe::Guest as Probe;
use bindings::exports::adit::plugin::request_body_filter::{
    Guest as RequestBodyFilter, RequestBodyAction, RequestBodyEdits,
};
use bindings::exports::adit::plugin::response_filter::{Guest as ResponseFilter, ResponseAction};

use crate::delivery::{self, Delivery, HEADERS};
use crate::plan::Plan;

settings::component! {
    WebhookVerify: "package adit:shelf; world it { include adit:plugin/services@0.1.0; export adit:plugin/lifecycle@0.1.0; export adit:plugin/schema@0.1.0; export adit:plugin/probe@0.1.0; export adit:plugin/request-body-filter@0.1.0; export adit:plugin/response-filter@0.1.0; }",
    headers: HEADERS,
    state: State = |config| Plan::read(config).map(|plan| State { plan, keys: OnceCell::new() }),
}

struct State {
    plan: Plan,
    /// What the secrets are, read once.
    keys: OnceCell<Vec<Vec<u8>>>,
}

impl State {
    fn keys(&self) -> Result<&[Vec<u8>], Fault> {
        if self.keys.get().is_none() {
            let keys = self.plan.secrets.iter().map(|name| {
                let found =
                    secret::read(name).ok_or_else(|| fault("secret", &format!("{name:?} is not granted")))?;
                delivery::key(self.plan.kind, &found)
                    .ok_or_else(|| fault("secret", &format!("{name:?} cannot be a secret of this service")))
            });
            let keys = keys.collect::<Result<Vec<_>, _>>()?;
            let _ = self.keys.set(keys);
        }
        Ok(self.keys.get().map_or(&[], Vec::as_slice))
    }
}

impl Probe for WebhookVerify {
    /// Whether the secrets and the bucket are there.
    fn probe() -> Result<(), Fault> {
        configured(|state| {
            state.keys()?;
            let bucket = key_value::get(&state.plan.bucket, "probe");
            bucket.map(drop).map_err(|error| fault("bucket", error.name()))
        })?
    }
}

impl RequestBodyFilter for WebhookVerify {
    fn request_body_limits() -> Limits {
        let most = configured(|state| state.plan.most).unwrap_or(0);
        Limits { most, beyond: Beyond::Refuse }
    }

    fn on_request_body(head: RequestHead, body: Vec<u8>) -> Result<RequestBodyAction, Fault> {
        configured(|state| {
            let plan = &state.plan;
            if !plan.is_about(&head.path_with_query) {
                return Ok(RequestBodyAction::Next);
            }
            let Some(found) = delivery::read(plan.kind, &head.headers, &body) else {
                metrics::add("unsigned", 1);
                return Ok(answer(401, "this is no signed delivery\n"));
            };
            if !is_signed(state.keys()?, &found) {
                metrics::add("forged", 1);
                return Ok(answer(401, "the signature does not hold\n"));
            }
            if found.time.is_some_and(|time| is_off(time, clock::now(), plan.tolerance)) {
                metrics::add("late", 1);
                return Ok(answer(401, "the time of this delivery is too far off\n"));
            }
            once(plan, &found)
        })?
    }
}

impl ResponseFilter for WebhookVerify {
    /// Remembers what the service took; what it did not take may come again.
    fn on_response(head: ResponseHead) -> Result<ResponseAction, Fault> {
        configured(|state| {
            let Plan { bucket, remember, .. } = &state.plan;
            if let Ok(name) = std::str::from_utf8(&head.carry)
                && !name.is_empty()
            {
                if (200..300).contains(&head.status) {
                    let lasts = u64::try_from(remember.as_millis()).ok();
                    if key_value::set(bucket, &format!("done {name}"), b"", lasts).is_err() {
                        metrics::add("bucket_full", 1);
                    }
                }
                let _ = key_value::delete(bucket, &format!("under way {name}"));
            }
            ResponseAction::Next
        })
    }
}

fn is_signed(keys: &[Vec<u8>], found: &Delivery) -> bool {
    keys.iter().any(|key| {
        let tag = crypto::hmac(Hash::Sha256, key, &found.content);
        found.tags.iter().any(|told| crypto::equal(&tag, told))
    })
}

/// Whether a time, seconds, is further from now, milliseconds, than that.
fn is_off(time: u64, now: u64, tolerance: Duration) -> bool {
    (now / 1000).abs_diff(time) > tolerance.as_secs()
}

/// Lets a delivery pass that did not before. Two at once are one and a bit: the second is told to come again.
fn once(plan: &Plan, found: &Delivery) -> Result<RequestBodyAction, Fault> {
    // A name of one length, whatever the service calls it.
    let of = found.id.as_ref().map_or(&found.content[..], |id| id.as_bytes());
    let name: String =
        crypto::digest(Hash::Sha256, of).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let bucket = &plan.bucket;
    let broken = |error: key_value::Error| fault("bucket", error.name());
    if key_value::get(bucket, &format!("done {name}")).map_err(broken)?.is_some() {
        metrics::add("repeated", 1);
        return Ok(answer(200, "this was delivered before\n"));
    }
    match key_value::increment(bucket, &format!("under way {name}"), 1, Some(UNDER_WAY)) {
        Ok(1) => {}
        Ok(_) => {
            metrics::add("repeated", 1);
            return Ok(answer(409, "this is being delivered\n"));
        }
        // What is not remembered could come twice: its sender tries again.
        Err(key_value::Error::Full) => {
            metrics::add("bucket_full", 1);
            return Ok(answer(503, "too many deliveries are remembered\n"));
        }
        Err(error) => return Err(broken(error)),
    }
    let head = RequestEdits {
        method: None,
        authority: None,
        path_with_query: None,
        headers: Vec::new(),
        carry: name.into_bytes(),
    };
    Ok(RequestBodyAction::Edit(RequestBodyEdits { head, body: None }))
}

fn answer(status: u16, text: &str) -> RequestBodyAction {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut headers =
        vec![header("content-type", "text/plain; charset=utf-8"), header("cache-control", "no-store")];
    if matches!(status, 409 | 503) {
        headers.push(header("retry-after", "10"));
    }
    RequestBodyAction::Respond(Reply { status, headers, body: text.into() })
}

fn fault(code: &str, message: &str) -> Fault {
    Fault { code: code.to_owned(), message: message.to_owned() }
}

/// How long one that never came back is taken to be under way, milliseconds.
const UNDER_WAY: u64 = 2 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_late_or_early_by_whole_seconds() {
        let tolerance = Duration::from_secs(300);
        for (time, off) in
            [(1000, false), (700, false), (699, true), (1300, false), (1301, true), (u64::MAX, true)]
        {
            assert_eq!(is_off(time, 1_000_999, tolerance), off, "{time}");
        }
    }
}
