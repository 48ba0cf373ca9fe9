//! One attempt to bring a message to a webhook: to an address that was judged, with a signature, and without following
//! it anywhere else. Knows HTTP; what follows from an attempt is the outbox's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use adit_net::judge;
use adit_net::network::Network;
use adit_net::outbound::{Client, OutboundError, Target};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::Full;
use tokio::time::timeout;
use tracing::debug;

use super::signature;
use crate::store::records::objects::{Object, Secret};
use crate::store::timestamp::Timestamp;

/// What messages are sent with.
pub(crate) struct Sender {
    client: Client,
    networks: Vec<Network>,
    trials: Trials,
}

/// Test messages under way. They have room of their own, so that an account that tries out webhooks which say nothing
/// keeps no message from anybody.
struct Trials {
    client: Client,
    by_account: Mutex<HashMap<String, usize>>,
}

/// A test message under way.
struct Trial<'t> {
    trials: &'t Trials,
    account: &'t str,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attempt {
    Taken,
    /// The webhook says that it is gone for good.
    Gone,
    Failed {
        /// As the webhook's account may know it: no address, and nothing of what lies behind one.
        why: String,
        /// What the webhook asks for.
        pause: Option<Duration>,
    },
}

impl Sender {
    /// # Errors
    /// The TLS library knows no version of TLS.
    pub(crate) fn new(networks: Vec<Network>) -> anyhow::Result<Self> {
        let trials = Trials { client: Client::new(TRIALS_AT_ONCE)?, by_account: Mutex::default() };
        Ok(Self { client: Client::new(AT_ONCE)?, networks, trials })
    }

    /// Sends one message. May be dropped midway.
    pub(crate) async fn send(&self, url: &str, secrets: &[Secret], id: &str, body: &str) -> Attempt {
        self.send_by(&self.client, url, secrets, id, body).await
    }

    /// Sends a test message of an account; nothing if too many of these are under way. May be dropped midway.
    pub(crate) async fn try_out(
        &self,
        account: &str,
        url: &str,
        secrets: &[Secret],
        id: &str,
        body: &str,
    ) -> Option<Attempt> {
        let _trial = self.trials.begin(account)?;
        Some(self.send_by(&self.trials.client, url, secrets, id, body).await)
    }

    async fn send_by(&self, client: &Client, url: &str, secrets: &[Secret], id: &str, body: &str) -> Attempt {
        let request = match request(url, secrets, id, body) {
            Ok(request) => request,
            Err(why) => return Attempt::Failed { why: why.to_owned(), pause: None },
        };
        let target = match Target::of(request.uri()) {
            Ok(target) => target,
            Err(error) => return Attempt::Failed { why: error.to_string(), pause: None },
        };
        let may = |address: IpAddr| {
            !judge::is_private(address) || self.networks.iter().any(|network| network.contains(address))
        };
        let exchange = client.exchange(&target, request, may, LONGEST);
        let answered = timeout(LONGEST, exchange).await.unwrap_or(Err(OutboundError::Timeout));
        match answered {
            Ok(exchange) => judged(exchange.response.status(), exchange.response.headers()),
            Err(error) => {
                // For the operator alone: it could tell about networks that the account must not see.
                debug!(host = target.host, port = target.port, %error, "a webhook could not be asked");
                Attempt::Failed { why: UNREACHABLE.to_owned(), pause: None }
            }
        }
    }
}

impl Trials {
    fn begin<'t>(&'t self, account: &'t str) -> Option<Trial<'t>> {
        let mut by_account = self.by_account.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = by_account.values().sum();
        let own = by_account.get(account).copied().unwrap_or_default();
        if all >= TRIALS_AT_ONCE || own >= TRIALS_OF_ACCOUNT {
            return None;
        }
        by_account.insert(account.to_owned(), own + 1);
        Some(Trial { trials: self, account })
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let mut by_account = self.trials.by_account.lock().unwrap_or_else(PoisonError::into_inner);
        match by_account.get_mut(self.account) {
            Some(own @ 2..) => *own -= 1,
            Some(_) | None => drop(by_account.remove(self.account)),
        }
    }
}

/// Where the messages of a webhook go.
pub(crate) fn url_of(webhook: &Object) -> &str {
    webhook.text("url").unwrap_or_default()
}

fn request(
    url: &str,
    secrets: &[Secret],
    id: &str,
    body: &str,
) -> Result<Request<Full<Bytes>>, &'static str> {
    let uri: Uri = url.parse().map_err(|_| "its URL cannot be read")?;
    let now = Timestamp::now();
    let since = std::time::SystemTime::from(now).duration_since(UNIX_EPOCH).unwrap_or_default();
    let timestamp = since.as_secs();
    let mut request =
        Request::post(uri).body(Full::new(body.to_owned().into())).map_err(|_| "its URL cannot be read")?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("Adit/", env!("CARGO_PKG_VERSION"))));
    let signature = signature::of(secrets, id, timestamp, body, now);
    for (name, value) in
        [("webhook-id", id), ("webhook-timestamp", &timestamp.to_string()), ("webhook-signature", &signature)]
    {
        let value = HeaderValue::from_str(value).map_err(|_| "it cannot be signed")?;
        headers.insert(HeaderName::from_static(name), value);
    }
    // As the reference does it: the secret itself travels, unless it is one that signs.
    let plain =
        secrets.first().map(|secret| &secret.text).filter(|text| !text.starts_with(signature::PREFIX));
    if let Some(secret) = plain {
        let mut value = HeaderValue::from_str(secret).map_err(|_| "its secret cannot be a header")?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static("cf-webhook-auth"), value);
    }
    Ok(request)
}

fn judged(status: StatusCode, headers: &HeaderMap) -> Attempt {
    if status.is_success() {
        return Attempt::Taken;
    }
    if status.as_u16() == 410 {
        return Attempt::Gone;
    }
    let pause = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let pause = pause.map(Duration::from_secs).or(match status.as_u16() {
        429 | 502 | 504 => Some(PAUSE),
        _ => None,
    });
    let what = if status.is_redirection() { ", and is not followed elsewhere" } else { "" };
    let why = format!("it answers with the status {}{what}", status.as_u16());
    Attempt::Failed { why, pause: pause.map(|pause| pause.min(LONGEST_PAUSE)) }
}

/// All that an account is told of a webhook that gives no answer. It must not be able to tell one reason from another,
/// or it could look around in networks that are not its own.
const UNREACHABLE: &str = "it gives no answer: there is no connection to it, no certificate that this edge believes, no \
                           answer in time, or an address that this edge does not send to";
/// Messages under way.
pub(super) const AT_ONCE: usize = 64;
/// Test messages under way, and those of one account.
const TRIALS_AT_ONCE: usize = 16;
const TRIALS_OF_ACCOUNT: usize = 2;
/// From the beginning of an attempt to the head of the answer.
const LONGEST: Duration = Duration::from_secs(15);
/// For a webhook that is too busy, and does not say for how long.
const PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_tries_out_many_webhooks_leaves_room_for_the_trials_of_others() {
        let sender = Sender::new(Vec::new()).unwrap();
        let trials = &sender.trials;
        let one: Vec<_> = (0..TRIALS_OF_ACCOUNT).filter_map(|_| trials.begin("one")).collect();
        assert_eq!(one.len(), TRIALS_OF_ACCOUNT);
        assert!(trials.begin("one").is_none());
        let names: Vec<String> = (0..TRIALS_AT_ONCE).map(|at| format!("other {at}")).collect();
        let others: Vec<_> = names.iter().filter_map(|name| trials.begin(name)).collect();
        assert_eq!(others.len(), TRIALS_AT_ONCE - TRIALS_OF_ACCOUNT);
        drop(one);
        assert!(trials.begin("one").is_some());
        drop(others);
        assert!(trials.by_account.lock().unwrap().is_empty(), "nothing is kept of who has none");
    }
}
