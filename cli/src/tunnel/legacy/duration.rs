//! Times as Go writes them.

use std::time::Duration;

/// A time of Go ("1m30s"), or a number of seconds.
pub(super) fn whole_time(text: &str) -> Option<Duration> {
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => go_duration(text),
    }
}

/// The same in our form.
pub(in crate::tunnel) fn duration(text: &str) -> Option<String> {
    Some(written(whole_time(text)?))
}

/// The same for how services are spoken to: at most an hour, and `nothing` for a time of zero.
pub(super) fn in_form(time: Duration, nothing: Duration) -> String {
    written(if time.is_zero() { nothing } else { time.min(HOUR) })
}

fn written(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

/// A time of Go, such as "1m30s".
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[end..];
    }
    (!text.is_empty() && total < LONGEST_TIME).then(|| Duration::from_secs_f64(total))
}

/// A hundred years, in seconds.
const LONGEST_TIME: f64 = 3.2e9;
/// The longest time that a document of ours takes for a service.
pub(super) const HOUR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go_are_read() {
        for (text, wanted) in [
            ("30s", Some(30_000)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("250ms", Some(250)),
            ("0", Some(0)),
            ("", None),
            ("5", None),
            ("-5s", None),
            ("5 s", None),
            ("9999999h", None),
        ] {
            assert_eq!(go_duration(text).map(|time| time.as_millis()), wanted, "{text}");
        }
    }
}
