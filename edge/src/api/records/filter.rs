//! Which records a list shows, and in which order. Knows the words of queries; pure.

use super::form::{KIND, KINDS, Target, View};
use crate::api::envelope::Problem;
use crate::api::query::Query;

/// What a list is asked for. No text tells cases apart.
pub(super) struct Filter {
    conditions: Vec<Condition>,
    tags: Vec<(How, String)>,
    search: Option<String>,
    /// One condition is enough, or one tag.
    any: bool,
    any_tag: bool,
    order: &'static str,
    descending: bool,
}

enum Condition {
    Type(&'static str),
    Proxied(bool),
    Name(How, String),
    Comment(How, String),
    /// What a content names is the same under both names of a tunnel.
    Content(How, String, Option<Target>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Exact,
    Contains,
    StartsWith,
    EndsWith,
    Present,
    Absent,
}

impl Filter {
    pub(super) fn of(query: &Query, own_domain: Option<&str>) -> Result<Self, Problem> {
        let mut conditions = Vec::new();
        conditions.extend(query.one_of("type", &KINDS)?.map(Condition::Type));
        conditions.extend(query.value("proxied")?.map(Condition::Proxied));
        let name = texts(query, "name")?.into_iter();
        conditions.extend(name.map(|(how, mut text)| {
            if how == How::Exact && text.ends_with('.') {
                text.pop();
            }
            Condition::Name(how, text)
        }));
        let content = texts(query, "content")?.into_iter();
        conditions.extend(content.map(|(how, text)| {
            let target = if how == How::Exact { Target::parse(&text, own_domain) } else { None };
            Condition::Content(how, text, target)
        }));
        let comment = texts(query, "comment")?.into_iter();
        conditions.extend(comment.map(|(how, text)| Condition::Comment(how, text)));
        let any = |name| Ok(query.one_of(name, &["all", "any"])? == Some("any"));
        Ok(Self {
            conditions,
            tags: texts(query, "tag")?,
            search: query.text("search")?.map(str::to_lowercase),
            any: any("match")?,
            any_tag: any("tag_match")? || any("tag-match")?,
            order: query.one_of("order", &["type", "name", "content", "ttl", "proxied"])?.unwrap_or("name"),
            descending: query.one_of("direction", &["asc", "desc"])? == Some("desc"),
        })
    }

    pub(super) fn fits(&self, record: &View) -> bool {
        if !self.search.as_ref().is_none_or(|wanted| searched(record).any(|text| text.contains(wanted))) {
            return false;
        }
        let tags = (!self.tags.is_empty()).then(|| {
            let fits = |(how, wanted): &(How, String)| how.fits_tags(&record.tags, wanted);
            if self.any_tag { self.tags.iter().any(fits) } else { self.tags.iter().all(fits) }
        });
        let mut said = self.conditions.iter().map(|condition| condition.fits(record)).chain(tags);
        let is_said = !self.conditions.is_empty() || !self.tags.is_empty();
        if self.any && is_said { said.any(|fits| fits) } else { said.all(|fits| fits) }
    }

    /// From the order of names to the one that is asked for.
    pub(super) fn order(&self, records: &mut [View]) {
        match self.order {
            "content" => records.sort_by(|one, other| one.content.cmp(&other.content)),
            "ttl" => records.sort_by_key(|record| record.ttl),
            "proxied" => records.sort_by_key(|record| record.proxied),
            // They have one type, and come by their names.
            _ => {}
        }
        if self.descending {
            records.reverse();
        }
    }
}

impl Condition {
    fn fits(&self, record: &View) -> bool {
        match self {
            Self::Type(kind) => *kind == KIND,
            Self::Proxied(wanted) => record.proxied == *wanted,
            Self::Name(how, wanted) => how.fits(Some(&record.name), wanted),
            Self::Comment(how, wanted) => how.fits(record.comment.as_deref(), wanted),
            Self::Content(_, _, Some(target)) => record.tunnel == target.tunnel,
            Self::Content(how, wanted, None) => how.fits(Some(&record.content), wanted),
        }
    }
}

impl How {
    fn fits(self, text: Option<&str>, wanted: &str) -> bool {
        let Some(text) = text.map(str::to_lowercase) else { return self == Self::Absent };
        match self {
            Self::Exact => text == wanted,
            Self::Contains => text.contains(wanted),
            Self::StartsWith => text.starts_with(wanted),
            Self::EndsWith => text.ends_with(wanted),
            Self::Present => true,
            Self::Absent => false,
        }
    }

    /// `wanted` is the name of a tag, or `name:value` with a part of the value.
    fn fits_tags(self, tags: &[String], wanted: &str) -> bool {
        let has_name = |tag: &String| tag.to_lowercase().split(':').next() == Some(wanted);
        match self {
            Self::Present => tags.iter().any(has_name),
            Self::Absent => !tags.iter().any(has_name),
            Self::Exact => tags.iter().any(|tag| tag.to_lowercase() == wanted),
            Self::Contains | Self::StartsWith | Self::EndsWith => tags.iter().any(|tag| {
                let tag = tag.to_lowercase();
                let ((name, value), (wanted_name, wanted)) = (halves(&tag), halves(wanted));
                name == wanted_name && self.fits(Some(value), wanted)
            }),
        }
    }
}

fn halves(tag: &str) -> (&str, &str) {
    tag.split_once(':').unwrap_or((tag, ""))
}

fn searched(record: &View) -> impl Iterator<Item = String> {
    let texts = [Some(&record.name), Some(&record.content), record.comment.as_ref()].into_iter().flatten();
    texts.chain(&record.tags).map(|text| text.to_lowercase())
}

/// `name`, which is `name.exact`, and `name.contains` with its like.
fn texts(query: &Query, name: &str) -> Result<Vec<(How, String)>, Problem> {
    let mut found = Vec::new();
    for (how, after) in [
        (How::Exact, ""),
        (How::Exact, ".exact"),
        (How::Contains, ".contains"),
        (How::StartsWith, ".startswith"),
        (How::EndsWith, ".endswith"),
        (How::Present, ".present"),
        (How::Absent, ".absent"),
    ] {
        let whole = format!("{name}{after}");
        let text = query.text(&whole)?.map(str::to_lowercase);
        // For a tag these say which; a comment is there or not, and the parameter has no value then.
        let is_flag = matches!(how, How::Present | How::Absent) && name == "comment";
        found.extend(
            text.or_else(|| (is_flag && query.has(&whole)).then(String::new)).map(|text| (how, text)),
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::store::records::{Remarks, Route};

    #[test]
    fn a_list_shows_what_fits_the_query() {
        let record = |number: u128, name: &str, remarks: Remarks| {
            let mut route = Route::new("zone", Uuid::from_u128(number));
            route.remarks = remarks;
            View::of(name, &route, Some("t.test"))
        };
        let noted = Remarks {
            comment: Some("Of the Shop".to_owned()),
            tags: vec!["team:shop".to_owned(), "live".to_owned()],
            proxied: Some(false),
            ttl: Some(300),
            ..Remarks::default()
        };
        let records = [record(1, "a.example.com", noted), record(2, "b.example.com", Remarks::default())];
        let one = Uuid::from_u128(1);
        let (own, reference) = (format!("{one}.t.test"), format!("{one}.cfargotunnel.com"));
        for (text, wanted) in [
            ("", "ab"),
            ("type=CNAME", "ab"),
            ("type=TXT", ""),
            ("name=A.example.com", "a"),
            ("name=a.example.com.", "a"),
            ("name.exact=b.example.com", "b"),
            ("name.startswith=b", "b"),
            ("name.endswith=.com&name.contains=a.", "a"),
            ("proxied=true", "b"),
            (&format!("content={own}"), "a"),
            (&format!("content.exact={reference}"), "a"),
            ("content.endswith=T.TEST", "ab"),
            ("comment=of+the+shop", "a"),
            ("comment.contains=SHOP", "a"),
            ("comment.present=", "a"),
            ("comment.absent=true", "b"),
            ("tag=team:shop", "a"),
            ("tag.present=team", "a"),
            ("tag.absent=team", "b"),
            ("tag.contains=team:ho", "a"),
            ("tag.present=team&tag.absent=live", ""),
            ("tag.present=team&tag.absent=live&tag_match=any", "ab"),
            ("name=b.example.com&comment.present=", ""),
            ("name=b.example.com&comment.present=&match=any", "ab"),
            ("search=shop", "a"),
        ] {
            let filter = Filter::of(&Query::parse(text).unwrap(), Some("t.test")).unwrap();
            let found: String =
                records.iter().filter(|record| filter.fits(record)).map(|record| &record.name[..1]).collect();
            assert_eq!(found, wanted, "{text}");
        }
        for bad in ["type=cname", "proxied=yes", "match=some", "order=age", "direction=up"] {
            assert!(Filter::of(&Query::parse(bad).unwrap(), None).is_err(), "{bad}");
        }
    }
}
