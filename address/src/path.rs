//! The readings of a path: what servers make of one that is not plain.
//!
//! Between a visitor and a file may stand proxies, frameworks and a file system, and each of them undoes
//! escapes, drops empty segments, resolves dots, takes `\` for `/` or cuts `;parameters` off, or does not. A
//! rule that looks at one form of a path guards that form only. So all forms are worked out that servers can
//! come to which do these things in any order, and whoever compares a path can ask all of them.
//!
//! Letter case is no part of it, nor what a file system does to names.

use std::borrow::Cow;
use std::collections::HashSet;

/// What servers may take a path for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readings<'a> {
    first: Cow<'a, str>,
    others: Vec<String>,
    is_complete: bool,
}

impl<'a> Readings<'a> {
    /// Of a path without its query. One that is plain costs a look at each byte and no memory.
    pub fn of(path: &'a str) -> Self {
        if is_plain(path) {
            return Self { first: Cow::Borrowed(path), others: Vec::new(), is_complete: true };
        }
        let first = decoded(path);
        if is_plain(&first) && undone(path.as_bytes(), is_ordinary).as_deref() == Some(first.as_bytes()) {
            return Self { first, others: Vec::new(), is_complete: true };
        }
        let (all, is_complete) = closure(path.as_bytes());
        let mut others: Vec<String> =
            all.iter().map(|form| String::from_utf8_lossy(form).into_owned()).collect();
        others.retain(|other| *other != *first);
        Self { first, others, is_complete }
    }

    /// With its escapes undone once: what rules are written for.
    pub fn first(&self) -> &str {
        &self.first
    }

    /// All others, each once.
    pub fn others(&self) -> impl Iterator<Item = &str> {
        self.others.iter().map(String::as_str)
    }

    /// Whether these are all; else there are too many to ask.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Whether `holds` of every reading.
    pub fn all(&self, mut holds: impl FnMut(&str) -> bool) -> bool {
        self.is_complete && holds(&self.first) && self.others().all(holds)
    }

    /// Whether `holds` of some reading, or may do so.
    pub fn any(&self, mut holds: impl FnMut(&str) -> bool) -> bool {
        !self.is_complete || holds(&self.first) || self.others().any(holds)
    }
}

/// A path with its escapes undone once; what is not UTF-8 afterwards becomes U+FFFD.
pub fn decoded(path: &str) -> Cow<'_, str> {
    match undone(path.as_bytes(), |_, _| true) {
        Some(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        None => Cow::Borrowed(path),
    }
}

/// The plain form of a path: escapes undone twice, `\` a separator, parameters of segments cut off, empty
/// segments dropped, dots resolved.
pub fn plain(path: &str) -> Cow<'_, str> {
    if is_plain(path) {
        return Cow::Borrowed(path);
    }
    let mut form = path.as_bytes().to_vec();
    for _ in 0..MOST_DECODINGS {
        if let Some(next) = undone(&form, |_, _| true) {
            form = next;
        }
    }
    for step in [separated, without_parameters, merged, resolved] {
        if let Some(next) = step(&form) {
            form = next;
        }
    }
    Cow::Owned(String::from_utf8_lossy(&form).into_owned())
}

/// Whether every server reads the same: there is nothing to undo, to drop or to resolve.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let is_odd = |byte: &u8| matches!(byte, b'%' | b'\\' | b';' | b'?' | b'#' | ..b' ' | 0x7f);
    if bytes.iter().any(is_odd) {
        return false;
    }
    let mut pairs = bytes.windows(2).filter(|pair| pair[0] == b'/').map(|pair| pair[1]);
    !pairs.any(|next| next == b'/' || next == b'.') || (!path.contains("//") && resolved(bytes).is_none())
}

/// Every reading, and whether these are all.
///
/// A state is a text with the number of times that escapes were undone on the way to it. One where they were
/// not is no reading as it stands, because nobody means another thing by `%70` than by `p`.
fn closure(path: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let mut states = vec![(path.to_vec(), 0)];
    let mut known: HashSet<_> = states.iter().cloned().collect();
    let (mut at, mut size) = (0, 0);
    while let Some((form, decodings)) = states.get(at).cloned() {
        at += 1;
        size += form.len();
        if at > MOST_STATES || size > MOST_BYTES {
            return (Vec::new(), false);
        }
        let steps = [separated, without_parameters, merged, resolved, dotted, cut];
        let steps = steps.iter().filter_map(|step| Some((step(&form)?, decodings)));
        // Some servers leave `%2f` as it is and undo the rest.
        let undone = [undone(&form, |_, _| true), undone(&form, |byte, _| byte != b'/')];
        let undone = undone.into_iter().flatten().map(|form| (form, decodings + 1));
        for next in steps.chain(undone.filter(|(_, decodings)| *decodings <= MOST_DECODINGS)) {
            if known.insert(next.clone()) {
                states.push(next);
            }
        }
    }
    let readings = states.into_iter().map(|(form, decodings)| match decodings {
        0 => undone(&form, is_ordinary).unwrap_or(form),
        _ => form,
    });
    let mut readings: Vec<Vec<u8>> = readings.collect();
    readings.sort();
    readings.dedup();
    (readings, true)
}

/// Undoes the escapes that `chosen` says, which is told the byte and where it stands; `None` if there are none.
fn undone(form: &[u8], chosen: impl Fn(u8, Around<'_>) -> bool) -> Option<Vec<u8>> {
    let mut undone: Option<Vec<u8>> = None;
    let mut at = 0;
    while at < form.len() {
        let escape = match &form[at..] {
            [b'%', high, low, ..] => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        let around = Around { before: &form[..at], after: form.get(at + 3..).unwrap_or_default() };
        match escape {
            Some(byte) if chosen(byte, around) => {
                undone.get_or_insert_with(|| form[..at].to_vec()).push(byte);
                at += 3;
            }
            _ => {
                if let Some(undone) = &mut undone {
                    undone.push(form[at]);
                }
                at += 1;
            }
        }
    }
    undone
}

/// What stands beside an escape.
struct Around<'a> {
    before: &'a [u8],
    after: &'a [u8],
}

/// Whether an escape means its character to every server. A dot beside a letter or digit is in no segment
/// of dots.
fn is_ordinary(byte: u8, around: Around<'_>) -> bool {
    match byte {
        b'/' | b'\\' | b';' => false,
        b'.' => {
            [around.before.last(), around.after.first()].into_iter().flatten().any(u8::is_ascii_alphanumeric)
        }
        _ => true,
    }
}

fn separated(form: &[u8]) -> Option<Vec<u8>> {
    form.contains(&b'\\').then(|| form.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect())
}

fn without_parameters(form: &[u8]) -> Option<Vec<u8>> {
    if !form.contains(&b';') {
        return None;
    }
    let mut is_parameter = false;
    let kept = form.iter().copied().filter(|byte| {
        is_parameter = *byte != b'/' && (is_parameter || *byte == b';');
        !is_parameter
    });
    Some(kept.collect())
}

fn merged(form: &[u8]) -> Option<Vec<u8>> {
    let is_doubled = form.windows(2).any(|pair| pair == b"//");
    is_doubled.then(|| {
        let mut merged = form.to_vec();
        merged.dedup_by(|next, before| *next == b'/' && *before == b'/');
        merged
    })
}

/// RFC 3986 5.2.4, where an empty segment is one.
fn resolved(form: &[u8]) -> Option<Vec<u8>> {
    let below = form.strip_prefix(b"/")?;
    let is_dots = |segment: &[u8]| segment == b"." || segment == b"..";
    if !below.split(|byte| *byte == b'/').any(is_dots) {
        return None;
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut ends_in_dots = false;
    for segment in below.split(|byte| *byte == b'/') {
        ends_in_dots = is_dots(segment);
        match segment {
            b"." => {}
            b".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    if ends_in_dots {
        kept.push(b"");
    }
    let mut resolved = b"/".to_vec();
    resolved.extend(kept.join(&b'/'));
    Some(resolved)
}

/// Some servers take `%2e` for a dot wherever they look for dots.
fn dotted(form: &[u8]) -> Option<Vec<u8>> {
    undone(form, |byte, _| byte == b'.')
}

/// What is left where a path that was undone is read once more as an address, or as a text of C.
fn cut(form: &[u8]) -> Option<Vec<u8>> {
    let end = form.iter().position(|byte| matches!(byte, b'?' | b'#') || byte.is_ascii_control())?;
    Some(form[..end].to_vec())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// How often escapes are undone.
const MOST_DECODINGS: u32 = 2;
/// Only a path that is made for it has more.
const MOST_STATES: usize = 128;
/// Of all of them together.
const MOST_BYTES: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_path_has_one_reading_and_takes_no_memory() {
        for path in
            ["/", "", "*", "/a/b.c/d-e_f~g", "/.well-known/x", "/a/...", "/a..b/..c", "/\u{fc}", "/a/"]
        {
            let readings = Readings::of(path);
            assert!(matches!(readings.first, Cow::Borrowed(_)) && readings.others.capacity() == 0, "{path}");
            assert!(readings.is_complete() && readings.first() == path && plain(path) == path);
        }
    }

    #[test]
    fn escapes_that_every_server_undoes_make_no_second_reading() {
        for (path, first) in [
            ("/%70rivate", "/private"),
            ("/a%20b", "/a b"),
            ("/gr%C3%BCn", "/gr\u{fc}n"),
            ("/%ff", "/\u{fffd}"),
            ("/x%2ephp", "/x.php"),
        ] {
            let readings = Readings::of(path);
            assert_eq!((readings.first(), readings.others.len()), (first, 0), "{path}: {readings:?}");
        }
        // A percent sign is one, whatever it could be the beginning of.
        assert_eq!(Readings::of("/100%25").others().count(), 0);
        assert_eq!(Readings::of("/100%").first(), "/100%");
    }

    #[test]
    fn a_path_in_disguise_has_the_reading_that_it_hides() {
        for path in [
            "//private/x",
            "/./private/x",
            "/x/../private/x",
            "/%2fprivate/x",
            "/x/..%2fprivate/x",
            "/%2570rivate/x",
            "/x/%252e%252e%252fprivate/x",
            "/private;a=b/x",
            "/private%3ba/x",
            "/x/..;a/private/x",
            "\\private\\x",
            "/x%5c..%5cprivate%5cx",
            "/x/..\\private/x",
            "/x/%2e%2e/private/x",
            "/private/x%00.html",
            "/private/x%3fy",
            // Only some of the steps lead to it.
            "//private/y/../x",
            "/y%2fz/../private/x",
            "/y/../private//../x",
            "/a;b%2f..%2fprivate/x",
        ] {
            let readings = Readings::of(path);
            assert!(readings.is_complete(), "{path}");
            assert!(readings.others().any(|other| other.starts_with("/private/x")), "{path}: {readings:?}");
        }
    }

    #[test]
    fn the_plain_form_has_nothing_left_to_undo() {
        for (path, wanted) in [
            ("//a///b", "/a/b"),
            ("/a/..%2fb", "/b"),
            ("/a%5cb", "/a/b"),
            ("/a/./b/..", "/a/"),
            ("/../../a", "/a"),
            ("/a/..", "/"),
            ("/%", "/%"),
            ("/%2561", "/a"),
            ("/a;v=1/b;w", "/a/b"),
            ("/a/..;x/b", "/b"),
        ] {
            assert_eq!(plain(path), wanted, "{path}");
        }
    }

    #[test]
    fn a_path_with_too_many_readings_says_so_soon() {
        let path = "/a;%3b%252f//..%5c\\%2e%2e%255c;/%253b%2f".repeat(40);
        let readings = Readings::of(&path);
        assert!(!readings.is_complete());
        assert!(readings.any(|_| false) && !readings.all(|_| true));
        assert!(!Readings::of(&"/%2f".repeat(40_000)).is_complete());
    }
}
