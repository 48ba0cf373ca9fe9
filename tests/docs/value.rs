//! A number, a time or a range of them, and how pages write it.

use std::fmt;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Number(i128),
    Float(f64),
    /// Nanoseconds.
    Time(i128),
    Range(Box<[Self; 2]>),
}

const SIZES: [(&str, i128); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const TIMES: [(&str, i128); 6] = [
    ("days", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("µs", 1_000),
];

impl Value {
    pub(crate) fn range(first: Self, last: Self) -> Self {
        Self::Range(Box::new([first, last]))
    }

    pub(crate) fn number(&self) -> Option<i128> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Float(_) | Self::Time(_) | Self::Range(_) => None,
        }
    }

    /// `64 KiB`, `1 s to 1 h`, `1,024`, `0.1`
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some((first, last)) = text.split_once(" to ") {
            return Some(Self::range(Self::parse(first)?, Self::parse(last)?));
        }
        let (number, unit) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if unit.is_empty() && number.contains('.') {
            return number.parse().ok().map(Self::Float);
        }
        let number: i128 = number.replace(',', "").parse().ok()?;
        let scale = |units: &[(&str, i128)]| units.iter().find(|(name, _)| *name == unit).map(|(_, of)| *of);
        match (scale(&SIZES), scale(&TIMES)) {
            (Some(scale), _) => Some(Self::Number(number * scale)),
            (None, Some(scale)) => Some(Self::Time(number * scale)),
            (None, None) if unit.is_empty() => Some(Self::Number(number)),
            (None, None) => None,
        }
    }

    /// Whether a page that says `self` speaks of `constant`.
    pub(crate) fn means(&self, constant: &Self) -> bool {
        match (self, constant) {
            #[allow(clippy::cast_precision_loss)]
            (Self::Number(number), Self::Float(float)) => *number as f64 == *float,
            // A time of nothing needs no unit.
            (Self::Number(0), Self::Time(0)) => true,
            (Self::Range(said), Self::Range(is)) => said[0].means(&is[0]) && said[1].means(&is[1]),
            _ => self == constant,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_units = |number: i128, units: &[(&str, i128)]| {
            let fits = units.iter().find(|(_, of)| number != 0 && number % of == 0 && number >= *of);
            fits.map(|(name, of)| (number / of, (*name).to_owned()))
        };
        match self {
            Self::Number(number) if *number >= 1024 && number % 1024 == 0 => {
                let (count, unit) = in_units(*number, &SIZES).unwrap_or((*number, String::new()));
                write!(f, "{count} {unit}")
            }
            Self::Number(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number}"),
            Self::Time(nanos) => match in_units(*nanos, &TIMES) {
                Some((count, unit)) => write!(f, "{count} {unit}"),
                None => write!(f, "{nanos} ns"),
            },
            Self::Range(ends) => write!(f, "{} to {}", ends[0], ends[1]),
        }
    }
}
