//! Finds the token that a visitor sent. Nothing of it is believed here.

use crate::plan::From;

/// What was found where a token may be.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    Nothing,
    One(&'a str),
    /// The origin might believe another one than this plugin.
    Several,
}

/// The first place that holds anything decides.
pub fn find<'a>(from: &[From], headers: &'a [(String, String)]) -> Found<'a> {
    for place in from {
        let values = |wanted: &'static str| values(headers, wanted);
        let mut found: Vec<&str> = match place {
            From::Header(name) => values_of(headers, name).collect(),
            From::Bearer => values("authorization").filter_map(bearer).collect(),
            From::Cookie(name) => values("cookie").flat_map(|line| cookies(line, name)).collect(),
        };
        match found.len() {
            0 => {}
            1 => return found.pop().map_or(Found::Nothing, Found::One),
            _ => return Found::Several,
        }
    }
    Found::Nothing
}

fn values<'a>(headers: &'a [(String, String)], wanted: &'static str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value.as_str())
}

fn values_of<'a>(headers: &'a [(String, String)], wanted: &str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value.as_str())
}

/// RFC 6750 section 2.1.
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

/// The values of this cookie in one Cookie header (RFC 6265 section 4.2).
fn cookies<'a>(line: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    line.split(';').filter_map(move |pair| {
        let (known, value) = pair.trim().split_once('=')?;
        (known == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_first_place_that_holds_a_token_is_the_one() {
        let from = [From::Header("x-token".to_owned()), From::Bearer, From::Cookie("session".to_owned())];
        for (sent, found) in [
            (&[("x-token", "a"), ("authorization", "Bearer b")][..], Found::One("a")),
            (&[("authorization", "bearer  b ")], Found::One("b")),
            (&[("authorization", "Basic b"), ("cookie", "x=1; session=c; y=2")], Found::One("c")),
            (&[("cookie", "sessions=c; xsession=d"), ("cookie", "session=e")], Found::One("e")),
            (&[("x-token", "a"), ("x-token", "a")], Found::Several),
            (&[("authorization", "Bearer a"), ("authorization", "Bearer b")], Found::Several),
            (&[("cookie", "session=a; session=b")], Found::Several),
            (&[("cookie", "session=a"), ("cookie", "session=b")], Found::Several),
            (&[("authorization", "Bearer"), ("cookie", "")], Found::Nothing),
        ] {
            assert_eq!(find(&from, &headers(sent)), found, "{sent:?}");
        }
    }
}
