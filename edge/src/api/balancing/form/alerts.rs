//! Webhooks and notification policies.

use adit_net::outbound::Target;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderValue, Uri};
use serde_json::Value;

use super::{Known, LONGEST_ID, LONGEST_TEXT};
use crate::alerts::event::{AlertType, LONGEST_INTERVAL};
use crate::alerts::signature;
use crate::api::balancing::fields::Fields;
use crate::store::records::objects::Kind;

pub(super) fn webhook(fields: &mut Fields<'_>) {
    fields.wanted("name");
    if fields.text("name", LONGEST_NAME) == Some("") {
        fields.wrong("name", "is not empty");
    }
    fields.wanted("url");
    if let Some(url) = fields.text("url", LONGEST_URL) {
        let target = url.parse::<Uri>().map_err(|_| "it cannot be read".to_owned());
        let target = target.and_then(|uri| Target::of(&uri).map_err(|error| error.to_string()));
        if let Err(why) = target {
            fields.wrong(
                "url",
                &format!("is where messages are sent, such as `https://example.com/alerts`; {why}"),
            );
        }
    }
    if let Some(secret) = fields.text("secret", LONGEST_SECRET) {
        let is_key = |rest: &str| BASE64_STANDARD.decode(rest).is_ok_and(|key| KEY.contains(&key.len()));
        let fits = match secret.strip_prefix(signature::PREFIX) {
            Some(rest) => is_key(rest),
            None => !secret.is_empty() && HeaderValue::from_str(secret).is_ok(),
        };
        if !fits {
            let what =
                "is `whsec_` with 24 to 64 bytes as base64, which signs, or a text that a header can carry";
            fields.wrong("secret", what);
        }
    }
}

pub(super) fn policy(fields: &mut Fields<'_>, known: &mut dyn Known) {
    fields.wanted("name");
    if fields.text("name", LONGEST_NAME) == Some("") {
        fields.wrong("name", "is not empty");
    }
    fields.text_or("description", LONGEST_TEXT, "");
    fields.wanted("enabled");
    fields.flag("enabled");
    fields.wanted("alert_type");
    let words = AlertType::ALL.map(AlertType::word);
    let kind = fields.one_of("alert_type", &words).and_then(AlertType::of);
    fields.wanted("mechanisms");
    fields.object("mechanisms", |mechanisms| {
        let count = mechanisms.objects("webhooks", MOST_WEBHOOKS, |webhook| {
            webhook.wanted("id");
            if let Some(id) = webhook.text("id", LONGEST_ID)
                && !known.has(Kind::Webhook, id)
            {
                webhook.wrong("id", "names a webhook that is not there");
            }
        });
        if count.unwrap_or_default() == 0 {
            mechanisms.wrong("webhooks", "has at least one webhook");
        }
        for name in ["email", "pagerduty"] {
            mechanisms.objects(name, MOST_WEBHOOKS, |one| {
                one.text("id", LONGEST_TEXT);
            });
        }
    });
    if let Some(interval) = fields.text("alert_interval", LONGEST_ID)
        && !interval.is_empty()
        && !humantime::parse_duration(interval).is_ok_and(|interval| interval <= LONGEST_INTERVAL)
    {
        fields.wrong("alert_interval", "is a time such as `30m`, of a week at most");
    }
    for (name, values) in fields.map("filters", MOST_FILTERS) {
        let Some(kind) = kind else { continue };
        let Some((_, possible)) = kind.filters().iter().find(|(filter, _)| filter == name) else {
            let filters: Vec<_> = kind.filters().iter().map(|(filter, _)| format!("`{filter}`")).collect();
            fields.wrong("filters", &format!("of this type are {}", filters.join(", ")));
            continue;
        };
        let fits = |value: &Value| {
            value.as_str().is_some_and(|text| {
                text.len() <= LONGEST_TEXT && (possible.is_empty() || possible.contains(&text))
            })
        };
        if !values.as_array().is_some_and(|values| values.len() <= MOST_VALUES && values.iter().all(fits)) {
            let of = if possible.is_empty() { String::new() } else { format!(" of {}", possible.join(", ")) };
            fields.wrong("filters", &format!("has at `{name}` a list{of}, at most {MOST_VALUES}"));
        }
    }
}

const LONGEST_NAME: usize = 256;
const LONGEST_URL: usize = 2_048;
const LONGEST_SECRET: usize = 256;
/// Bytes of a key that signs.
const KEY: std::ops::RangeInclusive<usize> = 24..=64;
/// Of a policy.
const MOST_WEBHOOKS: usize = 10;
const MOST_FILTERS: usize = 10;
const MOST_VALUES: usize = 100;
