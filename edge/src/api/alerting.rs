//! Alerts by the control API: webhooks that are told, and policies that say of what, in the form of the reference.
//! Knows the calls; their objects are changed as those of load balancing are, and what a message says is in
//! [`crate::alerts`].

use aws_lc_rs::rand;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::balancing::draft::Draft;
use super::balancing::{created, deleted, edited};
use super::envelope::{self, Answer, Problem};
use super::identity::Identity;
use super::paging::{LONGEST_PAGE, Paging};
use super::query::Query;
use super::{Api, parse, too_many};
use crate::alerts::event::{self, AlertType};
use crate::alerts::sender::Attempt;
use crate::alerts::signature;
use crate::state::snapshot::Snapshot;
use crate::store::records::objects::{Kind, Object, Secret};
use crate::store::timestamp::Timestamp;

/// What is asked about the alerts of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// Which alerts there are.
    Types,
    /// By what means they can be told.
    Mechanisms,
    History,
    List(Kind),
    Create(Kind),
    Look(Kind, String),
    Edit(Kind, String),
    Delete(Kind, String),
    Later(&'static str),
}

impl Ask {
    pub(super) fn is_read(&self) -> bool {
        matches!(self, Self::Types | Self::Mechanisms | Self::History | Self::List(_) | Self::Look(..))
    }
}

impl Api {
    pub(super) async fn alerting(
        &self,
        who: &Identity,
        ask: Ask,
        query: &Query,
        body: &[u8],
    ) -> Result<Answer, Problem> {
        match ask {
            Ask::Types => Ok(envelope::success(types())),
            Ask::Mechanisms => {
                let line = |kind: &str, is: bool| json!({ "type": kind, "eligible": is, "ready": is });
                let (email, pagerduty) = (line("email", false), line("pagerduty", false));
                let webhooks = line("webhooks", true);
                Ok(envelope::success(json!({ "email": email, "pagerduty": pagerduty, "webhooks": webhooks })))
            }
            Ask::History => self.history(who, query),
            Ask::List(kind) => {
                let paging = Paging::of(query, LONGEST_PAGE)?;
                let all = self.state.read(|snapshot| {
                    let all = snapshot.objects.list(who.account(), kind).into_iter();
                    all.map(|(id, kept)| show(snapshot, kind, id, &kept.record)).collect::<Vec<_>>()
                });
                Ok(paging.cut(all))
            }
            Ask::Look(kind, id) => self.state.read(|snapshot| {
                let draft = self.drafted(who, snapshot);
                Ok(envelope::success(show(snapshot, kind, &id, draft.find(kind, None, &id)?)))
            }),
            Ask::Create(kind) => self.create(who, kind, parse(body)?).await,
            Ask::Edit(kind, id) => self.edit(who, kind, id, parse(body)?).await,
            Ask::Delete(kind, id) => {
                let delete = |draft: &mut Draft<'_>| draft.delete(kind, None, &id);
                self.perform_draft(who, deleted(kind), delete).await?;
                Ok(envelope::success(json!({ "id": id })))
            }
            Ask::Later(what) => Err(Problem::Later(what)),
        }
    }

    async fn create(
        &self,
        who: &Identity,
        kind: Kind,
        mut body: Map<String, Value>,
    ) -> Result<Answer, Problem> {
        let mut made = None;
        if kind == Kind::Webhook {
            if body.get("secret").is_none_or(|secret| secret.is_null() || secret == "") {
                let secret = secret()?;
                body.insert("secret".to_owned(), json!(secret));
                made = Some(secret);
            }
            let webhook = self.state.read(|snapshot| {
                let mut draft = self.drafted(who, snapshot);
                let id = draft.create(kind, None, &body)?;
                draft.find(kind, None, &id).cloned()
            })?;
            self.try_out(who, &webhook).await?;
        }
        let create = |draft: &mut Draft<'_>| draft.create(kind, None, &body);
        let id = self.perform_draft(who, created(kind), create).await?;
        let mut result = json!({ "id": id });
        // The only time that it is shown.
        if let Some(secret) = made {
            result["secret"] = json!(secret);
        }
        Ok(envelope::success_with(result, &self.remarks(who, kind, &id)))
    }

    async fn edit(
        &self,
        who: &Identity,
        kind: Kind,
        id: String,
        body: Map<String, Value>,
    ) -> Result<Answer, Problem> {
        if kind == Kind::Webhook {
            let (before, after) = self.state.read(|snapshot| {
                let mut draft = self.drafted(who, snapshot);
                let before = draft.find(kind, None, &id)?.clone();
                draft.edit(kind, None, &id, &body)?;
                Ok::<_, Problem>((before, draft.find(kind, None, &id)?.clone()))
            })?;
            if before.text("url") != after.text("url") || before.secrets != after.secrets {
                self.try_out(who, &after).await?;
            }
        }
        let edit = |draft: &mut Draft<'_>| draft.edit(kind, None, &id, &body);
        self.perform_draft(who, edited(kind), edit).await?;
        let remarks = self.remarks(who, kind, &id);
        Ok(envelope::success_with(json!({ "id": id }), &remarks))
    }

    /// A webhook has to take a message before it is one.
    async fn try_out(&self, who: &Identity, webhook: &Object) -> Result<(), Problem> {
        self.trials.take(who.account().to_owned(), std::time::Instant::now()).map_err(too_many)?;
        let id = format!("msg_{}", Uuid::new_v4().simple());
        let body = event::trial(who.account(), webhook.text("name").unwrap_or_default(), Timestamp::now());
        let url = webhook.text("url").unwrap_or_default();
        let tried = self.sender.try_out(who.account(), url, &webhook.secrets, &id, &body).await;
        let why = match tried.ok_or(Problem::TooMany { seconds: TRIAL })? {
            Attempt::Taken => return Ok(()),
            Attempt::Gone => "it answers with the status 410".to_owned(),
            Attempt::Failed { why, .. } => why,
        };
        Err(Problem::Refused(vec![format!("`url` does not take a test message: {why}: validation failed")]))
    }

    /// What of it has no effect.
    fn remarks(&self, who: &Identity, kind: Kind, id: &str) -> Vec<String> {
        self.state.read(|snapshot| {
            let object = snapshot.objects.get(who.account(), kind, id);
            let said = object.and_then(|kept| kept.record.said.get("mechanisms")?.as_object());
            let others = said.into_iter().flatten().filter(|(name, list)| {
                *name != "webhooks" && list.as_array().is_some_and(|list| !list.is_empty())
            });
            others
                .map(|(name, _)| format!("`mechanisms.{name}` has no effect: this edge tells webhooks alone"))
                .collect()
        })
    }

    fn history(&self, who: &Identity, query: &Query) -> Result<Answer, Problem> {
        let paging = Paging::of(query, PAGE)?;
        let since = query.read("since", Timestamp::parse)?;
        let before = query.read("before", Timestamp::parse)?;
        let fits =
            |at: Timestamp| since.is_none_or(|since| at >= since) && before.is_none_or(|before| at < before);
        let lines = self.state.read(|snapshot| {
            let sent = snapshot.alerts.sent_of(who.account()).rev();
            let lines = sent.filter(|(_, kept)| fits(kept.record.at)).map(|(key, kept)| {
                let sent = &kept.record;
                json!({
                    "id": key.rsplit(' ').next(),
                    "name": sent.policy_name,
                    "description": description(&sent.alert_type),
                    "alert_type": sent.alert_type,
                    "alert_body": sent.body,
                    "mechanism": sent.webhook,
                    "mechanism_type": "webhook",
                    "policy_id": sent.policy,
                    "sent": sent.at,
                    "delivered": sent.is_delivered,
                })
            });
            lines.collect::<Vec<_>>()
        });
        Ok(paging.cut(lines))
    }
}

/// The types of alerts, by the groups that the reference has.
fn types() -> Value {
    let mut groups = Map::new();
    for kind in AlertType::ALL {
        let [group, name, description] = kind.described();
        let filters = kind.filters().iter().map(|(key, values)| {
            let values = values.iter().map(|value| json!({ "key": value, "value": value }));
            json!({
                "ComparisonOperator": "==", "Key": key, "Optional": true, "Range": "1-n",
                "AvailableValues": values.collect::<Value>(),
            })
        });
        let line = json!({
            "type": kind.word(), "display_name": name, "description": description,
            "filter_options": filters.collect::<Value>(),
        });
        if let Value::Array(lines) = groups.entry(group).or_insert_with(|| json!([])) {
            lines.push(line);
        }
    }
    Value::Object(groups)
}

fn description(alert_type: &str) -> &'static str {
    AlertType::of(alert_type).map_or("", |kind| kind.described()[2])
}

fn show(snapshot: &Snapshot, kind: Kind, id: &str, object: &Object) -> Value {
    let mut shown = object.said.clone();
    let mut add = |name: &str, value: Value| drop(shown.insert(name.to_owned(), value));
    add("id", id.into());
    if kind == Kind::Policy {
        add("created", json!(object.created_at));
        add("modified", json!(object.modified_at));
        return Value::Object(shown);
    }
    let fares = snapshot.alerts.fares.get(id).map(|kept| kept.record.clone()).unwrap_or_default();
    add("type", "generic".into());
    add("created_at", json!(object.created_at));
    add("last_success", json!(fares.last_success));
    add("last_failure", json!(fares.last_failure));
    if let Some(why) = fares.failure {
        add("failure_reason", json!(why));
    }
    if let Some(since) = fares.gone_at {
        add("disabled_at", json!(since));
    }
    Value::Object(shown)
}

/// One that signs and is not sent.
fn secret() -> Result<String, Problem> {
    let mut bytes = [0; SECRET];
    rand::fill(&mut bytes).map_err(|_| Problem::Unavailable)?;
    Ok(format!("{}{}", signature::PREFIX, BASE64_STANDARD.encode(bytes)))
}

/// The secrets of a webhook that is given a new one: the last one counts for a while yet.
pub(super) fn secrets(before: &[Secret], new: Option<String>, now: Timestamp) -> Vec<Secret> {
    let Some(text) = new.filter(|new| before.first().is_none_or(|known| known.text != *new)) else {
        return before.to_vec();
    };
    let until = Some(now.after(crate::store::records::PREVIOUS_SECRET));
    let last = before.first().map(|last| Secret { until, ..last.clone() });
    std::iter::once(Secret { text, until: None }).chain(last).collect()
}

/// Seconds until a webhook may be tried out again where others are.
const TRIAL: u64 = 15;
/// Lines of the history on a page where nothing is said.
const PAGE: usize = 25;
/// Bytes.
const SECRET: usize = 32;
