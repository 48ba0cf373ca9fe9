//! One comparison: what of a request is looked at ([`Source`]), and what it has to be ([`Check`]).

use std::borrow::Cow;
use std::net::IpAddr;

use regex::bytes::Regex;

use super::View;

#[derive(Debug, Clone)]
pub(super) struct Test {
    pub(super) source: Source,
    pub(super) is_lower: bool,
    pub(super) check: Check,
    /// What it is worth where there is nothing to look at.
    pub(super) of_nothing: bool,
}

/// What is looked at: no value, one, or many, of which one has to pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Cookie,
    Host,
    Referer,
    Method,
    Uri,
    Path,
    Query,
    Version,
    Balancer,
    Region,
    Seconds,
    Client,
    Headers(List, Pick),
    Arguments(List, Pick),
    /// What only a question to a name server has.
    Dns,
}

/// What of fields with names and values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum List {
    /// The values of one name.
    Of(String),
    Names,
    Values,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pick {
    At(usize),
    Each,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Address,
    /// Anything may be said of it.
    Nothing,
}

#[derive(Debug, Clone)]
pub(super) enum Check {
    Text(Compare, Vec<u8>),
    TextIn(Vec<Vec<u8>>),
    Begins(Vec<u8>),
    Ends(Vec<u8>),
    Matches(Regex),
    Number(Compare, u64),
    NumberIn(Vec<(u64, u64)>),
    Address(Compare, IpAddr),
    AddressIn(Vec<(IpAddr, IpAddr)>),
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Compare {
    fn holds<T: Ord + ?Sized>(self, one: &T, other: &T) -> bool {
        match self {
            Self::Eq => one == other,
            Self::Ne => one != other,
            Self::Lt => one < other,
            Self::Le => one <= other,
            Self::Gt => one > other,
            Self::Ge => one >= other,
        }
    }
}

impl Source {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Seconds => Kind::Number,
            Self::Client => Kind::Address,
            Self::Dns => Kind::Nothing,
            Self::Cookie
            | Self::Host
            | Self::Referer
            | Self::Method
            | Self::Uri
            | Self::Path
            | Self::Query
            | Self::Version
            | Self::Balancer
            | Self::Region
            | Self::Headers(..)
            | Self::Arguments(..) => Kind::Text,
        }
    }

    /// Whether it has many values.
    pub(super) fn is_many(&self) -> bool {
        matches!(self, Self::Headers(_, Pick::Each) | Self::Arguments(_, Pick::Each))
    }
}

impl Test {
    pub(super) fn holds(&self, view: &View<'_>) -> bool {
        let passes = |value: &[u8]| {
            if self.is_lower { self.check.text(&value.to_ascii_lowercase()) } else { self.check.text(value) }
        };
        let text = |value: &str| passes(value.as_bytes());
        match &self.source {
            Source::Seconds => self.check.number(view.seconds),
            Source::Client => self.check.address(view.client.to_canonical()),
            Source::Dns => false,
            Source::Host => text(view.host),
            Source::Method => text(view.method),
            Source::Path => text(view.path),
            Source::Query => text(view.query),
            Source::Version => text(view.version),
            Source::Balancer => text(view.balancer),
            Source::Region => text(view.region),
            Source::Uri if view.query.is_empty() => text(view.path),
            Source::Uri => text(&format!("{}?{}", view.path, view.query)),
            // Over HTTP/2 the pairs may come one by one (RFC 9113 8.2.3).
            Source::Cookie => passes(&joined(view, "cookie")),
            Source::Referer => passes(&joined(view, "referer")),
            Source::Headers(list, pick) => self.any(*pick, passes, |see| {
                view.headers.each(&mut |name, value| list.of(name.as_bytes(), value).is_some_and(&mut *see));
            }),
            Source::Arguments(list, pick) => self.any(*pick, passes, |see| {
                let pairs = view.query.split('&').filter(|pair| !pair.is_empty());
                let mut values = pairs.filter_map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    list.of(name.as_bytes(), value.as_bytes())
                });
                let _ = values.any(see);
            }),
        }
    }

    /// Whether the value that is picked passes, or any.
    fn any<'a>(
        &self,
        pick: Pick,
        passes: impl Fn(&[u8]) -> bool,
        show: impl FnOnce(&mut dyn FnMut(&'a [u8]) -> bool),
    ) -> bool {
        let (mut count, mut found) = (0, None);
        show(&mut |value| {
            let is_picked = pick == Pick::Each || pick == Pick::At(count);
            count += 1;
            if is_picked {
                found = Some(passes(value));
            }
            // Of many the first one that passes decides.
            is_picked && (pick != Pick::Each || found == Some(true))
        });
        found.unwrap_or(self.of_nothing)
    }
}

impl List {
    fn of<'a>(&self, name: &'a [u8], value: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Self::Of(wanted) => (name == wanted.as_bytes()).then_some(value),
            Self::Names => Some(name),
            Self::Values => Some(value),
        }
    }
}

impl Check {
    fn text(&self, value: &[u8]) -> bool {
        match self {
            Self::Text(compare, wanted) => compare.holds(value, wanted.as_slice()),
            Self::TextIn(sorted) => sorted.binary_search_by(|one| one.as_slice().cmp(value)).is_ok(),
            Self::Begins(wanted) => value.starts_with(wanted),
            Self::Ends(wanted) => value.ends_with(wanted),
            Self::Matches(pattern) => pattern.is_match(value),
            Self::Number(..) | Self::NumberIn(_) | Self::Address(..) | Self::AddressIn(_) | Self::Never => {
                false
            }
        }
    }

    fn number(&self, value: u64) -> bool {
        match self {
            Self::Number(compare, wanted) => compare.holds(&value, wanted),
            Self::NumberIn(ranges) => ranges.iter().any(|(from, to)| (*from..=*to).contains(&value)),
            Self::Text(..)
            | Self::TextIn(_)
            | Self::Begins(_)
            | Self::Ends(_)
            | Self::Matches(_)
            | Self::Address(..)
            | Self::AddressIn(_)
            | Self::Never => false,
        }
    }

    fn address(&self, value: IpAddr) -> bool {
        match self {
            Self::Address(compare, wanted) => compare.holds(&value, wanted),
            // Addresses of IPv4 come before all of IPv6, so that no range has both.
            Self::AddressIn(ranges) => ranges.iter().any(|(from, to)| (*from..=*to).contains(&value)),
            Self::Text(..)
            | Self::TextIn(_)
            | Self::Begins(_)
            | Self::Ends(_)
            | Self::Matches(_)
            | Self::Number(..)
            | Self::NumberIn(_)
            | Self::Never => false,
        }
    }
}

/// The values of a header in one.
fn joined<'a>(view: &View<'a>, wanted: &str) -> Cow<'a, [u8]> {
    let mut joined: Cow<'a, [u8]> = Cow::Borrowed(b"");
    view.headers.each(&mut |name, value| {
        if name == wanted {
            if joined.is_empty() {
                joined = Cow::Borrowed(value);
            } else {
                joined.to_mut().extend(b"; ");
                joined.to_mut().extend(value);
            }
        }
        false
    });
    joined
}
