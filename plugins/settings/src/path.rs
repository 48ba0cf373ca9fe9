//! Paths as rules compare them.

use crate::{Faults, Place};

/// The path that a server may take this for: without its query, each escape resolved once, `\` as `/`,
/// empty segments dropped and `.` and `..` gone. Only for comparing: what goes on stays as it was.
///
/// Comparing the path as it was written would let `/admin/..%2fpublic`, `//admin` or `/%61dmin` past a
/// rule that the server behind it does not know.
pub fn plain(path_with_query: &str) -> String {
    let path = path_with_query.split(['?', '#']).next().unwrap_or_default();
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes().iter();
    while let Some(&byte) = rest.next() {
        let escaped = (byte == b'%').then(|| escape(rest.as_slice())).flatten();
        if escaped.is_some() {
            rest.nth(1);
        }
        bytes.push(match escaped.unwrap_or(byte) {
            b'\\' => b'/',
            other => other,
        });
    }
    let text = String::from_utf8_lossy(&bytes);
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let ends = text.ends_with('/') || text.ends_with("/.") || text.ends_with("/..");
    let slash = if ends && !segments.is_empty() { "/" } else { "" };
    format!("/{}{slash}", segments.join("/"))
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
        place.fault(faults, "expected a path such as \"/api\", without query, escapes, `//` and dots");
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

fn escape(rest: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let value = digit(*rest.first()?)? << 4 | digit(*rest.get(1)?)?;
    u8::try_from(value).ok()
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
            ("/%2561", "/%61"),
            ("/%ff", "/\u{fffd}"),
            ("/%c3%bc", "/ü"),
        ] {
            assert_eq!(plain(written), meant, "{written}");
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
