//! What a visitor takes: Accept-Encoding, RFC 9110 section 12.5.3.

/// How a body may be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Brotli,
    Gzip,
}

impl Coding {
    /// As heads name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// What the field says of the codings that matter here: weights, thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    brotli: u16,
    gzip: u16,
    /// Of what is not encoded, where something is said of it.
    identity: Option<u16>,
}

impl Accepted {
    /// Reads all values of the field. Without any nothing is known of what the visitor can read, and
    /// nothing is encoded; an element that cannot be read does not count.
    pub fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let (mut brotli, mut gzip, mut identity, mut others) = (None, None, None, None);
        for element in lines.flat_map(|line| line.split(',')) {
            let (coding, parameters) = element.split_once(';').unwrap_or((element, ""));
            let Some(weight) = weight(parameters) else { continue };
            let known = match coding.trim().to_ascii_lowercase().as_str() {
                "br" => &mut brotli,
                // Section 8.4.1.3: a recipient considers the second the same.
                "gzip" | "x-gzip" => &mut gzip,
                "identity" => &mut identity,
                "*" => &mut others,
                _ => continue,
            };
            *known = Some(known.map_or(weight, |before: u16| before.max(weight)));
        }
        let weight = |coding: Option<u16>| coding.or(others).unwrap_or(0);
        let refused = others.filter(|others| *others == 0);
        Self { brotli: weight(brotli), gzip: weight(gzip), identity: identity.or(refused) }
    }

    /// The one of these codings that the visitor likes best, and no less than what is not encoded; of those that it
    /// likes alike the first.
    pub fn best(&self, codings: &[Coding]) -> Option<Coding> {
        let weight = |coding: Coding| match coding {
            Coding::Brotli => self.brotli,
            Coding::Gzip => self.gzip,
        };
        let most = codings.iter().map(|coding| weight(*coding)).max().unwrap_or(0);
        let is_liked = most > 0 && self.identity.is_none_or(|identity| most >= identity);
        codings.iter().copied().find(|coding| is_liked && weight(*coding) == most)
    }

    /// Whether what is not encoded is refused.
    pub fn not_identity(&self) -> bool {
        self.identity == Some(0)
    }
}

/// The weight among the parameters of an element, thousandths; all of them where there is none.
fn weight(parameters: &str) -> Option<u16> {
    let parameters = parameters.trim();
    if parameters.is_empty() {
        return Some(WHOLE);
    }
    let (name, value) = parameters.split_once('=')?;
    if !name.eq_ignore_ascii_case("q") {
        return None;
    }
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction = format!("{fraction:0<3}").parse().ok()?;
    match (whole, fraction) {
        ("0", fraction) => Some(fraction),
        ("1", 0) => Some(WHOLE),
        _ => None,
    }
}

const WHOLE: u16 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_taken_where_it_is_named_or_meant_and_liked_no_less_than_nothing() {
        for (field, gzip) in [
            ("gzip", true),
            ("GZip", true),
            ("x-gzip", true),
            ("br, gzip;q=0.2", true),
            ("deflate , gzip ; q=1.000", true),
            ("*", true),
            ("br, *;q=0.1", true),
            ("gzip, identity", true),
            ("gzip;q=0.8, identity;q=0.8", true),
            ("gzip;q=0, x-gzip", true),
            ("", false),
            ("br, deflate", false),
            ("gzip;q=0", false),
            ("gzip;q=0.000", false),
            ("gzip;q=0, *", false),
            ("*;q=0", false),
            ("gzip;q=0.5, identity", false),
            // What cannot be read does not count.
            ("gzip;q=2", false),
            ("gzip;q=0.5555", false),
            ("gzip;q=x", false),
            ("gzip;level=9", false),
            ("gzipped", false),
            ("gz ip", false),
        ] {
            assert_eq!(has_gzip([field].into_iter()), gzip, "{field}");
        }
        assert_eq!(Accepted::read(std::iter::empty()), Accepted::default());
        assert!(has_gzip(["br", "gzip"].into_iter()));
    }

    fn has_gzip<'a>(lines: impl Iterator<Item = &'a str>) -> bool {
        Accepted::read(lines).best(&[Coding::Gzip]) == Some(Coding::Gzip)
    }

    #[test]
    fn the_coding_that_is_liked_best_is_taken_and_of_equals_the_first() {
        use Coding::{Brotli, Gzip};
        for (field, best) in [
            ("gzip, deflate, br", Some(Brotli)),
            ("gzip, br;q=0.9", Some(Gzip)),
            ("br;q=0.2, gzip;q=0.1", Some(Brotli)),
            ("*", Some(Brotli)),
            ("br;q=0, *", Some(Gzip)),
            ("br;q=0.5, identity", None),
            ("deflate, zstd", None),
            ("", None),
        ] {
            assert_eq!(Accepted::read([field].into_iter()).best(&[Brotli, Gzip]), best, "{field}");
        }
        let both = Accepted::read(["br, gzip"].into_iter());
        assert_eq!(
            (both.best(&[Gzip, Brotli]), both.best(&[Gzip]), both.best(&[])),
            (Some(Gzip), Some(Gzip), None)
        );
    }

    #[test]
    fn what_is_not_encoded_may_be_refused() {
        for (field, refused) in [
            ("gzip, identity;q=0", true),
            ("gzip, *;q=0", true),
            ("gzip, *;q=0, identity;q=0.1", false),
            ("gzip, identity", false),
            ("gzip", false),
        ] {
            let accepted = Accepted::read([field].into_iter());
            assert_eq!(accepted.best(&[Coding::Gzip]), Some(Coding::Gzip), "{field}");
            assert_eq!(accepted.not_identity(), refused, "{field}");
        }
    }
}
