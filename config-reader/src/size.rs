//! Sizes as people write them.

/// What to write instead of what is no size.
pub const HELP: &str = "write a whole number with its unit, such as \"512KiB\" or \"64MiB\"";

/// A size such as "64MiB", in bytes.
pub fn parse(text: &str) -> Option<usize> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<usize>().ok()?.checked_mul(*factor)
}

/// The size in the largest unit that leaves no remainder.
pub fn show(bytes: usize) -> String {
    let fits = |(_, factor): &&(&str, usize)| bytes.is_multiple_of(*factor) && bytes >= *factor;
    let (unit, factor) = UNITS.iter().rev().find(fits).unwrap_or(&UNITS[0]);
    format!("{}{unit}", bytes / factor)
}

/// Smallest first.
const UNITS: [(&str, usize); 7] = [
    ("B", 1),
    ("kB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_numbers_with_a_unit() {
        for (text, bytes) in
            [("1B", 1), ("2kB", 2000), ("64MiB", 64 << 20), ("1 GiB", 1 << 30), ("3MB", 3_000_000)]
        {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "64",
            "MiB",
            "-1MiB",
            "1.5MiB",
            "64mib",
            "64Mi",
            "99999999999999999999GiB",
            "9999999999999GiB",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(show(64 << 20), "64MiB");
        assert_eq!(show(1500), "1500B");
        assert_eq!(show(0), "0B");
    }
}
