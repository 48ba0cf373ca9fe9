//! Zones and the account that they belong to, as tools look them up. Knows what of them is shown; making them is
//! for `adit edge`.

use serde_json::{Value, json};

use super::Api;
use super::envelope::{self, Answer, Problem};
use super::identity::Identity;
use super::paging::{LONGEST_PAGE, Paging};
use super::query::Query;
use crate::settings::host_name::HostName;
use crate::state::snapshot::Snapshot;
use crate::store::records::Zone;

impl Api {
    pub(super) fn list_accounts(&self, who: &Identity, query: &Query) -> Result<Answer, Problem> {
        let (name, paging) = (query.text("name")?, Paging::of(query, LONGEST_PAGE)?);
        let account = self.state.read(|snapshot| account(who, snapshot));
        let fits = |account: &Value| name.is_none_or(|name| account["name"] == name);
        Ok(paging.cut(account.filter(fits).into_iter().collect()))
    }

    pub(super) fn look_at_account(&self, who: &Identity) -> Result<Answer, Problem> {
        let account = self.state.read(|snapshot| account(who, snapshot));
        account.map(envelope::success).ok_or(Problem::NotFound("account"))
    }

    pub(super) fn list_zones(&self, who: &Identity, query: &Query) -> Result<Answer, Problem> {
        let (filter, paging) = (Filter::of(query)?, Paging::of(query, LONGEST_PAGE)?);
        let mut zones: Vec<(String, Value)> = self.state.read(|snapshot| {
            let zones = snapshot.zones.iter().map(|(id, zone)| (id, &zone.record));
            zones
                .filter(|(id, zone)| zone.account == who.account() && who.has_zone(id))
                .filter(|(_, zone)| filter.fits(zone, account_name(snapshot, &zone.account)))
                .map(|(id, zone)| (zone.name.clone(), view(id, zone, snapshot)))
                .collect()
        });
        zones.sort_by(|one, other| one.0.cmp(&other.0));
        if filter.descending {
            zones.reverse();
        }
        Ok(paging.cut(zones.into_iter().map(|(_, view)| view).collect()))
    }

    pub(super) fn look_at_zone(&self, who: &Identity, id: &str) -> Result<Answer, Problem> {
        let zone =
            self.state.read(|snapshot| own_zone(who, snapshot, id).map(|zone| view(id, zone, snapshot)));
        zone.map(envelope::success)
    }

    /// What zones have at the reference alone; of a zone that is not there it says so.
    pub(super) fn later_in_zone(
        &self,
        who: &Identity,
        id: &str,
        what: &'static str,
    ) -> Result<Answer, Problem> {
        self.state.read(|snapshot| own_zone(who, snapshot, id).map(|_| ()))?;
        Err(Problem::Later(what))
    }
}

/// A zone of another account is no zone.
pub(super) fn own_zone<'s>(who: &Identity, snapshot: &'s Snapshot, id: &str) -> Result<&'s Zone, Problem> {
    let zone = snapshot.zones.get(id).map(|zone| &zone.record);
    zone.filter(|zone| zone.account == who.account()).ok_or(Problem::NotFound("zone"))
}

/// The host name that a caller asks for, and the zone that it is in: a name without a dot is one in the zone `id`, a
/// whole name finds its zone by itself, the one with the longest name, among those that the token may change.
pub(super) fn name_in_zone<'s>(
    who: &Identity,
    snapshot: &'s Snapshot,
    id: &str,
    wanted: &str,
    field: &str,
) -> Result<(HostName, &'s str), Problem> {
    let asked = own_zone(who, snapshot, id)?;
    let wanted = wanted.trim_end_matches('.');
    let name = if wanted.is_empty() || wanted.contains('.') {
        wanted.parse::<HostName>()
    } else {
        format!("{wanted}.{}", asked.name).parse()
    };
    let name = name.map_err(|error| Problem::Invalid(format!("`{field}` is no host name: {error}")))?;
    let hostname = name.to_string();
    let bare = hostname.strip_prefix("*.").unwrap_or(&hostname);
    let found =
        snapshot.zone_of(bare).filter(|(id, found)| found.account == who.account() && who.has_zone(id));
    let (zone, _) = found.ok_or_else(|| {
        let such = &asked.name;
        Problem::Invalid(format!("`{hostname}` is in no zone that this API token may change, such as {such}"))
    })?;
    Ok((name, zone))
}

/// A token sees the account that it belongs to, and no other.
fn account(who: &Identity, snapshot: &Snapshot) -> Option<Value> {
    let account = &snapshot.accounts.get(who.account())?.record;
    Some(json!({
        "id": who.account(),
        "name": account.name,
        "type": "standard",
        "settings": {},
        "created_on": account.created_at,
    }))
}

fn account_name<'s>(snapshot: &'s Snapshot, id: &str) -> &'s str {
    snapshot.accounts.get(id).map_or("", |account| &account.record.name)
}

/// With every field that the SDKs want, as far as a zone of an edge has such a thing: name servers it has not.
fn view(id: &str, zone: &Zone, snapshot: &Snapshot) -> Value {
    let account = account_name(snapshot, &zone.account);
    json!({
        "id": id,
        "name": zone.name,
        "status": "active",
        "paused": false,
        "type": "full",
        "account": { "id": zone.account, "name": account },
        "owner": { "id": zone.account, "name": account, "type": "organization" },
        "plan": { "name": "Adit", "is_subscribed": false, "can_subscribe": false },
        "meta": {},
        "development_mode": 0,
        "name_servers": [],
        "original_name_servers": null,
        "permissions": [],
        "created_on": zone.created_at,
        "activated_on": zone.created_at,
        "modified_on": zone.created_at,
    })
}

/// Which zones a list is asked for.
struct Filter<'q> {
    name: Option<Text<'q>>,
    account: Option<&'q str>,
    account_name: Option<Text<'q>>,
    status: Option<&'q str>,
    any: bool,
    descending: bool,
}

/// A text that another one is compared with, as `starts_with:a` says how.
struct Text<'q> {
    how: &'q str,
    wanted: &'q str,
}

impl<'q> Filter<'q> {
    fn of(query: &'q Query) -> Result<Self, Problem> {
        let text = |name| Ok(query.text(name)?.map(Text::of));
        Ok(Self {
            name: text("name")?,
            account: query.text("account.id")?,
            account_name: text("account.name")?,
            status: query.text("status")?,
            any: query.one_of("match", &["all", "any"])? == Some("any"),
            descending: query.one_of("direction", &["asc", "desc"])? == Some("desc"),
        })
    }

    fn fits(&self, zone: &Zone, account_name: &str) -> bool {
        let mut said = [
            self.name.as_ref().map(|name| name.fits(&zone.name)),
            self.account.map(|account| account == zone.account),
            self.account_name.as_ref().map(|name| name.fits(account_name)),
            self.status.map(|status| status == "active"),
        ]
        .into_iter()
        .flatten()
        .peekable();
        if self.any && said.peek().is_some() { said.any(|fits| fits) } else { said.all(|fits| fits) }
    }
}

impl<'q> Text<'q> {
    fn of(text: &'q str) -> Self {
        // Neither a domain nor the name of an operator holds a colon.
        match text.split_once(':').filter(|(how, _)| HOW.contains(how)) {
            Some((how, wanted)) => Self { how, wanted },
            None => Self { how: "equal", wanted: text },
        }
    }

    fn fits(&self, text: &str) -> bool {
        let (how, text, wanted) = match self.how.strip_suffix("_case_sensitive") {
            Some(how) => (how, text.to_owned(), self.wanted.to_owned()),
            None => (self.how, text.to_lowercase(), self.wanted.to_lowercase()),
        };
        match how {
            "not_equal" => text != wanted,
            "starts_with" => text.starts_with(&wanted),
            "ends_with" => text.ends_with(&wanted),
            "contains" => text.contains(&wanted),
            _ => text == wanted,
        }
    }
}

const HOW: [&str; 8] = [
    "equal",
    "not_equal",
    "starts_with",
    "ends_with",
    "contains",
    "starts_with_case_sensitive",
    "ends_with_case_sensitive",
    "contains_case_sensitive",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_compared_as_its_operator_says() {
        for (text, name, fits) in [
            ("example.com", "example.com", true),
            ("Example.com", "example.com", true),
            ("equal:example.com", "example.com", true),
            ("example", "example.com", false),
            ("not_equal:example.com", "example.com", false),
            ("starts_with:exa", "example.com", true),
            ("ends_with:.COM", "example.com", true),
            ("ends_with_case_sensitive:.COM", "example.com", false),
            ("contains:ple", "example.com", true),
            ("other:ple", "example.com", false),
        ] {
            assert_eq!(Text::of(text).fits(name), fits, "{text} {name}");
        }
    }
}
