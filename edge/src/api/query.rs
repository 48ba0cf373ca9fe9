//! The query of a request, decoded. Knows `application/x-www-form-urlencoded`; does not know which names
//! mean something.

use std::str::FromStr;

use super::envelope::Problem;

pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let pairs: Vec<&str> = text.split('&').filter(|pair| !pair.is_empty()).collect();
        if pairs.len() > MOST_PAIRS {
            return Err(Problem::Invalid(format!("the query has more than {MOST_PAIRS} parts")));
        }
        let read = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        };
        let pairs: Option<Vec<_>> = pairs.into_iter().map(read).collect();
        pairs.map(Self).ok_or_else(|| Problem::Invalid("the query is not well encoded".to_owned()))
    }

    /// The value of a name; an empty one counts as none, and a second one as a mistake.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let value = values.next().filter(|value| !value.is_empty());
        if values.next().is_some() {
            return Err(Problem::Invalid(format!("the query says `{name}` twice")));
        }
        Ok(value)
    }

    /// All values of a name that may stand several times, or hold several with commas between them.
    pub(super) fn texts(&self, name: &str) -> Vec<&str> {
        let values = self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        values.flat_map(|value| value.split(',')).filter(|value| !value.is_empty()).collect()
    }

    /// Whether the name is there, with whatever value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// The one value of a name, read as something else.
    pub(super) fn value<T: FromStr>(&self, name: &str) -> Result<Option<T>, Problem> {
        self.read(name, |text| text.parse().ok())
    }

    /// The one value of a name, which is one of these.
    pub(super) fn one_of(&self, name: &str, known: &[&'static str]) -> Result<Option<&'static str>, Problem> {
        self.read(name, |text| known.iter().copied().find(|known| *known == text))
    }

    pub(super) fn read<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let wrong = || Problem::Invalid(format!("`{name}` in the query has no value that can be read"));
        read(text).map(Some).ok_or_else(wrong)
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = match first {
            b'%' => {
                let (digits, after) = after.split_at_checked(2)?;
                let digits = std::str::from_utf8(digits).ok()?;
                if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return None;
                }
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                after
            }
            b'+' => {
                bytes.push(b' ');
                after
            }
            other => {
                bytes.push(*other);
                after
            }
        };
    }
    String::from_utf8(bytes).ok()
}

const MOST_PAIRS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_once_and_ambiguity_is_a_mistake() {
        let query = Query::parse("name=a+b%2Fc&empty=&flag&n=7&x=1&x=2").unwrap();
        assert_eq!(query.text("name"), Ok(Some("a b/c")));
        assert_eq!(
            (query.text("empty"), query.text("flag"), query.text("none")),
            (Ok(None), Ok(None), Ok(None))
        );
        assert_eq!(query.value("n"), Ok(Some(7)));
        assert_eq!((query.texts("x"), query.has("empty"), query.has("none")), (vec!["1", "2"], true, false));
        assert!(query.text("x").is_err() && query.value::<u32>("name").is_err());
        for bad in ["a=%", "a=%4", "a=%+1", "a=%ff", "a=%zz"] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
    }
}
