//! Which exchanges somebody wants to see: `status:5xx rule:api dur:>1s path:/login word`. All of it must hold.

use std::fmt;

use crate::exchange::Exchange;

/// What somebody looks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter(Vec<Condition>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    /// From, to.
    Status(u16, u16),
    /// Microseconds; longer, or shorter.
    Longer(u64),
    Shorter(u64),
    Rule(String),
    Method(String),
    Host(String),
    Path(String),
    /// Anywhere in the line of the list.
    Word(String),
}

/// A word that means nothing here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError(String);

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: write status:404, status:5xx, dur:>250ms, dur:<2s, rule:, method:, host:, path:, or a word",
            self.0
        )
    }
}

impl std::error::Error for FilterError {}

impl Filter {
    /// Reads what somebody wrote; nothing at all lets everything through.
    ///
    /// # Errors
    /// The first word that means nothing.
    pub fn read(text: &str) -> Result<Self, FilterError> {
        text.split_whitespace().take(MOST_WORDS).map(condition).collect::<Result<_, _>>().map(Self)
    }

    /// Whether all of it holds.
    #[must_use]
    pub fn holds(&self, exchange: &Exchange) -> bool {
        self.0.iter().all(|condition| match condition {
            Condition::Status(from, to) => (*from..=*to).contains(&exchange.status),
            Condition::Longer(than) => exchange.total > *than,
            Condition::Shorter(than) => exchange.total < *than,
            Condition::Rule(rule) => has(&exchange.rule, rule),
            Condition::Method(method) => exchange.method.eq_ignore_ascii_case(method),
            Condition::Host(host) => has(&exchange.host, host),
            Condition::Path(path) => exchange.target.starts_with(path.as_str()),
            Condition::Word(word) => {
                [&exchange.host, &exchange.target, &exchange.rule, &exchange.id, &exchange.method]
                    .into_iter()
                    .any(|text| has(text, word))
            }
        })
    }
}

fn condition(word: &str) -> Result<Condition, FilterError> {
    let wrong = || FilterError(word.to_owned());
    let Some((name, value)) = word.split_once(':') else { return Ok(Condition::Word(word.to_owned())) };
    let text = || if value.is_empty() { Err(wrong()) } else { Ok(value.to_owned()) };
    Ok(match name {
        "status" => {
            let (from, to) = match value.strip_suffix("xx") {
                Some(hundred) => {
                    let hundred: u16 =
                        hundred.parse().ok().filter(|hundred| *hundred < 10).ok_or_else(wrong)?;
                    (hundred * 100, hundred * 100 + 99)
                }
                None => {
                    let status = value.parse().map_err(|_| wrong())?;
                    (status, status)
                }
            };
            Condition::Status(from, to)
        }
        "dur" => match value.split_at_checked(1) {
            Some((">", time)) => Condition::Longer(microseconds(time).ok_or_else(wrong)?),
            Some(("<", time)) => Condition::Shorter(microseconds(time).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        },
        "rule" => Condition::Rule(text()?),
        "method" => Condition::Method(text()?),
        "host" => Condition::Host(text()?),
        "path" => Condition::Path(text()?),
        _ => return Err(wrong()),
    })
}

fn microseconds(text: &str) -> Option<u64> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn has(text: &str, part: &str) -> bool {
    text.to_ascii_lowercase().contains(&part.to_ascii_lowercase())
}

/// More would be no question.
const MOST_WORDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::tests::exchange;

    #[test]
    fn every_word_of_a_filter_must_hold() {
        let exchange = exchange();
        let holds = |text: &str| Filter::read(text).unwrap().holds(&exchange);
        for good in [
            "",
            "status:503",
            "status:5xx",
            "dur:>1ms dur:<2s",
            "rule:API method:post",
            "host:shop",
            "path:/orders",
            "orders 8D2F",
        ] {
            assert!(holds(good), "{good}");
        }
        for bad in ["status:200", "status:4xx", "dur:>2s", "rule:web", "path:orders", "orders nothing"] {
            assert!(!holds(bad), "{bad}");
        }
        for wrong in [
            "status:",
            "status:99xx",
            "status:abc",
            "dur:1s",
            "dur:>1",
            "dur:>99999999999999999999s",
            "color:red",
            "rule:",
        ] {
            assert!(Filter::read(wrong).is_err(), "{wrong}");
        }
    }
}
