//! Paths as rules compare them. What a server may take a path for is the crate `adit_address`'s.

use adit_address::Readings;

use crate::{Faults, Place};

/// The plain form of a path: without its query, escapes undone, `\` as `/`, parameters of segments cut off,
/// empty segments dropped and `.` and `..` gone. Only for comparing: what goes on stays as it was.
pub fn plain(path_with_query: &str) -> String {
    let plain = adit_address::plain(without_query(path_with_query));
    if plain.starts_with('/') { plain.into_owned() } else { format!("/{plain}") }
}

/// Whether a path lies at or below one of `prefixes` however the servers behind read it. For what opens.
pub fn is_surely_below(path_with_query: &str, prefixes: &[String]) -> bool {
    Readings::of(without_query(path_with_query)).all(|path| is_below_any(path, prefixes))
}

/// Whether some server may read a path as one at or below one of `prefixes`. For what closes.
pub fn may_be_below(path_with_query: &str, prefixes: &[String]) -> bool {
    Readings::of(without_query(path_with_query)).any(|path| is_below_any(path, prefixes))
}

fn is_below_any(path: &str, prefixes: &[String]) -> bool {
    prefixes.iter().any(|prefix| is_below(path, prefix))
}

fn without_query(path_with_query: &str) -> &str {
    path_with_query.split(['?', '#']).next().unwrap_or_default()
}

/// Whether a plain path lies at or below `prefix`: "/a" holds "/a" and "/a/b" and not "/ab".
pub fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

/// A path that rules compare with: in its plain form, so that no request can miss it.
pub fn prefix<'a>(place: &Place<'a>, faults: &mut Faults) -> Option<&'a str> {
    let text = place.text(faults)?;
    if !text.starts_with('/') || plain(text) != text {
        place.fault(faults, "expected a path such as \"/api\", without query, escapes, `//`, `;` and dots");
        return None;
    }
    Some(text)
}

/// A list of them.
pub fn prefixes(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    let mut prefixes = Vec::new();
    for place in place.list(faults)? {
        prefixes.extend(prefix(&place, faults).map(str::to_owned));
    }
    Some(prefixes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_disguise_is_the_path() {
        for (written, meant) in [
            ("/", "/"),
            ("", "/"),
            ("*", "/*"),
            ("/a/b?c=/d", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a///b", "/a/b"),
            ("/%61dmin", "/admin"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/..%2fb", "/b"),
            ("/a\\b", "/a/b"),
            ("/a%5cb", "/a/b"),
            ("/a/./b/..", "/a/"),
            ("/../../a", "/a"),
            ("/a/..", "/"),
            ("/%", "/%"),
            ("/%2", "/%2"),
            ("/%zz", "/%zz"),
            ("/%2561", "/a"),
            ("/a;v=1/b", "/a/b"),
            ("/%ff", "/\u{fffd}"),
            ("/%c3%bc", "/ü"),
        ] {
            assert_eq!(plain(written), meant, "{written}");
        }
    }

    #[test]
    fn what_opens_wants_all_readings_and_what_closes_one() {
        let prefixes = ["/health".to_owned()];
        for (path, surely, maybe) in [
            ("/health?full", true, true),
            ("/health/%64b", true, true),
            ("/other", false, false),
            ("//health", false, true),
            ("/health/..%2fadmin", false, true),
            ("/health/%252e%252e/admin", false, true),
            ("/health/..;/admin", false, true),
            ("/x/..\\health", false, true),
            ("/health;v=1", false, true),
        ] {
            assert_eq!(is_surely_below(path, &prefixes), surely, "{path}");
            assert_eq!(may_be_below(path, &prefixes), maybe, "{path}");
        }
    }

    #[test]
    fn a_prefix_holds_whole_segments() {
        for (path, prefix, is) in [
            ("/a", "/a", true),
            ("/a/b", "/a", true),
            ("/ab", "/a", false),
            ("/a/b", "/a/", true),
            ("/a", "/a/", false),
            ("/x", "/", true),
        ] {
            assert_eq!(is_below(path, prefix), is, "{path} {prefix}");
        }
    }
}
