//! What a record says, as it is sent and as it is shown. Knows fields and names; does not know which records there
//! are.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::api::envelope::Problem;
use crate::store::records::objects::{REFERENCE, tunnel_of};
use crate::store::records::{Remarks, Route};
use crate::store::timestamp::Timestamp;

/// A record as a caller sends it: a whole one, or what is to be changed in one.
#[derive(Deserialize)]
pub(super) struct Wish {
    /// In a batch.
    id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    pub(super) name: Option<String>,
    content: Option<String>,
    ttl: Option<f64>,
    proxied: Option<bool>,
    /// `null` takes it away, which is not the same as leaving it out.
    #[serde(default, deserialize_with = "said")]
    comment: Option<Option<String>>,
    tags: Option<Vec<String>>,
    settings: Option<BTreeMap<String, Option<bool>>>,
}

/// A record as every answer shows it.
#[derive(Debug, Serialize)]
pub(super) struct View {
    pub(super) id: String,
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) content: String,
    pub(super) proxiable: bool,
    pub(super) proxied: bool,
    pub(super) ttl: u32,
    settings: BTreeMap<String, bool>,
    meta: BTreeMap<String, bool>,
    pub(super) comment: Option<String>,
    pub(super) tags: Vec<String>,
    created_on: Timestamp,
    modified_on: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment_modified_on: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags_modified_on: Option<Timestamp>,
    #[serde(skip)]
    pub(super) tunnel: Uuid,
}

/// The tunnel that a content names, and by which of its two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) tunnel: Uuid,
    pub(super) by_reference: bool,
}

impl Target {
    /// `TUNNEL.DOMAIN` with the edge's own domain, or the one that tools of the reference write.
    pub(super) fn parse(content: &str, own_domain: Option<&str>) -> Option<Self> {
        let (tunnel, by_reference) = tunnel_of(content, own_domain)?;
        Some(Self { tunnel, by_reference })
    }
}

impl View {
    pub(super) fn of(name: &str, route: &Route, own_domain: Option<&str>) -> Self {
        let Remarks { comment, comment_at, tags, tags_at, ttl, proxied, settings, by_reference } =
            route.remarks.clone();
        let domain = own_domain.filter(|_| by_reference != Some(true)).unwrap_or(REFERENCE);
        let proxied = proxied.unwrap_or(true);
        Self {
            id: route.id(name),
            name: name.to_owned(),
            kind: KIND,
            content: format!("{}.{domain}", route.tunnel),
            proxiable: true,
            proxied,
            ttl: ttl.filter(|_| !proxied).unwrap_or(AUTOMATIC),
            settings,
            meta: BTreeMap::new(),
            comment,
            tags,
            created_on: route.created_at,
            modified_on: route.modified_at.unwrap_or(route.created_at),
            comment_modified_on: comment_at,
            tags_modified_on: tags_at,
            tunnel: route.tunnel,
        }
    }
}

impl Wish {
    pub(super) fn take_id(&mut self) -> Result<String, Problem> {
        self.id.take().ok_or_else(|| Problem::Invalid("`id` is missing".to_owned()))
    }

    /// Only what leads to a tunnel is a record here.
    pub(super) fn check_kind(&self, is_whole: bool) -> Result<(), Problem> {
        match self.kind.as_deref() {
            Some(KIND) => Ok(()),
            None if !is_whole => Ok(()),
            None => Err(Problem::Invalid("`type` is missing".to_owned())),
            Some(other) if KINDS.contains(&other) => Err(Problem::RecordType(other.to_owned())),
            Some(_) => Err(Problem::Invalid("`type` is no type of DNS record".to_owned())),
        }
    }

    pub(super) fn target(&self, own_domain: Option<&str>) -> Result<Option<Target>, Problem> {
        let Some(content) = &self.content else { return Ok(None) };
        let target = Target::parse(content, own_domain).ok_or_else(|| {
            let domain = own_domain.unwrap_or(REFERENCE);
            Problem::NoTarget(format!(
                "`content` names no tunnel: records here lead to a tunnel, as TUNNEL-ID.{domain} names it"
            ))
        })?;
        Ok(Some(target))
    }

    /// Puts what is said into the remarks of a record; what is not said stays.
    pub(super) fn apply(self, remarks: &mut Remarks, now: Timestamp) -> Result<(), Problem> {
        if let Some(ttl) = self.ttl {
            let wrong = || {
                let (least, most) = (LEAST_TTL, MOST_TTL);
                Problem::Invalid(format!(
                    "`ttl` is 1, which leaves it to the edge, or {least} to {most} seconds"
                ))
            };
            if ttl.fract() != 0.0
                || !(ttl == 1.0 || (f64::from(LEAST_TTL)..=f64::from(MOST_TTL)).contains(&ttl))
            {
                return Err(wrong());
            }
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "within the bounds above"
            )]
            let ttl = ttl as u32;
            remarks.ttl = (ttl != AUTOMATIC).then_some(ttl);
        }
        if let Some(proxied) = self.proxied {
            remarks.proxied = Some(proxied);
        }
        if let Some(comment) = self.comment {
            let comment = comment.filter(|comment| !comment.is_empty());
            if comment.as_ref().is_some_and(|comment| comment.chars().count() > LONGEST_COMMENT) {
                return Err(Problem::Invalid(format!("`comment` has at most {LONGEST_COMMENT} characters")));
            }
            if comment != remarks.comment {
                remarks.comment_at = comment.is_some().then_some(now);
                remarks.comment = comment;
            }
        }
        if let Some(tags) = self.tags {
            let is_long = |tag: &String| tag.is_empty() || tag.chars().count() > LONGEST_TAG;
            if tags.len() > MOST_TAGS || tags.iter().any(is_long) {
                return Err(Problem::Invalid(format!(
                    "`tags` are at most {MOST_TAGS}, with 1 to {LONGEST_TAG} characters each"
                )));
            }
            if tags != remarks.tags {
                remarks.tags_at = (!tags.is_empty()).then_some(now);
                remarks.tags = tags;
            }
        }
        if let Some(settings) = self.settings {
            if let Some(unknown) = settings.keys().find(|name| !SETTINGS.contains(&name.as_str())) {
                let shown: String = unknown.chars().take(40).collect();
                return Err(Problem::Invalid(format!("`settings` has no `{shown}`")));
            }
            remarks.settings =
                settings.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        }
        Ok(())
    }
}

/// Makes a value that is there, `null` included, `Some`.
fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

pub(super) const KIND: &str = "CNAME";
pub(super) const KINDS: [&str; 21] = [
    "A",
    "AAAA",
    "CAA",
    "CERT",
    "CNAME",
    "DNSKEY",
    "DS",
    "HTTPS",
    "LOC",
    "MX",
    "NAPTR",
    "NS",
    "OPENPGPKEY",
    "PTR",
    "SMIMEA",
    "SRV",
    "SSHFP",
    "SVCB",
    "TLSA",
    "TXT",
    "URI",
];
const SETTINGS: [&str; 3] = ["flatten_cname", "ipv4_only", "ipv6_only"];
const AUTOMATIC: u32 = 1;
const LEAST_TTL: u32 = 30;
const MOST_TTL: u32 = 86_400;
const LONGEST_COMMENT: usize = 500;
const MOST_TAGS: usize = 20;
const LONGEST_TAG: usize = 133;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_names_a_tunnel_in_one_of_two_ways() {
        let id = "f0b1d4d0-1111-4222-8333-444455556666";
        let simple = id.replace('-', "");
        for (content, own, wanted) in [
            (format!("{id}.cfargotunnel.com"), None, Some(true)),
            (format!("{id}.cfargotunnel.com."), None, Some(true)),
            (format!("{}.CFARGOTUNNEL.COM", id.to_uppercase()), Some("t.test"), Some(true)),
            (format!("{id}.t.test"), Some("t.test"), Some(false)),
            (format!("{id}.t.test"), None, None),
            (format!("{id}.other.test"), Some("t.test"), None),
            (format!("a.{id}.t.test"), Some("t.test"), None),
            (format!("{simple}.t.test"), Some("t.test"), None),
            (format!("{{{id}}}.t.test"), Some("t.test"), None),
            (id.to_owned(), Some("t.test"), None),
            ("t.test".to_owned(), Some("t.test"), None),
            (String::new(), Some("t.test"), None),
        ] {
            let target = Target::parse(&content, own);
            assert_eq!(target.map(|target| target.by_reference), wanted, "{content} {own:?}");
        }
    }

    #[test]
    fn what_is_not_said_stays_and_null_takes_a_comment_away() {
        let now = Timestamp::now();
        let change = |remarks: &Remarks, json: &str| {
            let mut remarks = remarks.clone();
            let wish: Wish = serde_json::from_str(json).unwrap();
            wish.apply(&mut remarks, now).map(|()| remarks)
        };
        let said =
            r#"{"comment":"a","tags":["x:y"],"ttl":300,"proxied":false,"settings":{"ipv4_only":true}}"#;
        let all = change(&Remarks::default(), said).unwrap();
        assert_eq!(change(&all, "{}"), Ok(all.clone()));
        let gone =
            change(&all, r#"{"comment":null,"ttl":1,"tags":[],"settings":{"ipv4_only":null}}"#).unwrap();
        assert_eq!(gone, Remarks { proxied: Some(false), ..Remarks::default() });
        for bad in [
            r#"{"ttl":2}"#,
            r#"{"ttl":-1}"#,
            r#"{"ttl":60.5}"#,
            r#"{"ttl":1e300}"#,
            r#"{"tags":[""]}"#,
            r#"{"settings":{"other":true}}"#,
        ] {
            assert!(change(&all, bad).is_err(), "{bad}");
        }
    }
}
