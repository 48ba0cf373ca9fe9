//! Texts of any kind: lines of logs, addresses, XML, values of headers. One pass over the words of a text; a name
//! with `=` or `:` behind it says what comes next.

use super::{Writer, is_scheme, is_secret_name};

/// What the word that comes next is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Anything,
    /// A secret, up to one of these.
    Secret(&'static [char]),
}

impl Writer<'_> {
    pub(super) fn plain(&mut self, text: &str) {
        let (mut rest, mut last, mut next) = (text, "", Next::Anything);
        // Whether this is within `<…>`, and whether a name in there is one of a secret.
        let (mut in_tag, mut is_secret_tag) = (false, false);
        while let Some(letter) = rest.chars().next() {
            if rest.starts_with(PEM) {
                let end = rest[PEM.len()..].find(PEM_END).map_or(rest.len(), |at| {
                    let end = PEM.len() + at + PEM_END.len();
                    rest[end..].find("-----").map_or(rest.len(), |more| end + more + 5)
                });
                if rest[..end].contains("PRIVATE") || end == rest.len() {
                    self.mark(&rest[..end]);
                } else {
                    self.push(&rest[..end]);
                }
                (rest, last, next) = (&rest[end..], "", Next::Anything);
                continue;
            }
            if let Next::Secret(ends) = next
                && !matches!(letter, ' ' | '\t')
            {
                let (quote, ends) = match letter {
                    '"' => ("\"", &['"'][..]),
                    '\'' => ("'", &['\''][..]),
                    '\\' if rest.starts_with("\\\"") => ("\\\"", &['\\'][..]),
                    _ => ("", ends),
                };
                self.push(quote);
                rest = &rest[quote.len()..];
                let mut end = rest.find(ends).unwrap_or(rest.len());
                if quote.is_empty()
                    && let Some((scheme, _)) = rest[..end].split_once(' ')
                    && is_scheme(scheme)
                {
                    self.push(scheme);
                    self.push(" ");
                    rest = &rest[scheme.len() + 1..];
                    end -= scheme.len() + 1;
                }
                self.mark(rest[..end].trim_end());
                (rest, last, next) = (&rest[end..], "", Next::Anything);
                continue;
            }
            let length = word(rest);
            if length == 0 {
                let width = letter.len_utf8();
                match letter {
                    '=' if is_secret_name(last) => next = Next::Secret(VALUE_ENDS),
                    ':' if rest.starts_with("://") => {
                        let begin = &rest[3..];
                        let authority = &begin
                            [..begin.find(|end: char| AUTHORITY_ENDS.contains(&end)).unwrap_or(begin.len())];
                        if let Some((user, _)) = authority.rsplit_once('@') {
                            self.push("://");
                            self.mark(user);
                            (rest, last) = (&begin[user.len()..], "");
                            continue;
                        }
                    }
                    ':' if is_secret_name(last) => next = Next::Secret(LINE_ENDS),
                    ' ' if is_scheme(last)
                        && !last.eq_ignore_ascii_case("apikey")
                        && !rest.trim_start().starts_with(['=', ':']) =>
                    {
                        next = Next::Secret(VALUE_ENDS);
                    }
                    '<' => (in_tag, is_secret_tag, last) = (!rest.starts_with("</"), false, ""),
                    '>' => {
                        if in_tag && is_secret_tag && !self.done.text.ends_with('/') {
                            next = Next::Secret(&['<']);
                        }
                        (in_tag, last) = (false, "");
                    }
                    // A name in brackets, as forms have them.
                    ' ' | '\t' | '"' | '\'' | '\\' | ']' => {}
                    _ => last = "",
                }
                self.push(&rest[..width]);
                rest = &rest[width..];
                continue;
            }
            let found = &rest[..length];
            is_secret_tag |= in_tag && is_secret_name(found);
            if has_secret_shape(found) {
                self.mark(found);
                last = "";
            } else if is_encoded(found) {
                // An address or a form within a text; what is too long to be looked into may be anything.
                if found.len() > LONGEST_ENCODED {
                    self.mark(found)
                } else {
                    self.encoded(found, false)
                }
                last = found;
            } else {
                self.push(found);
                last = found;
            }
            rest = &rest[length..];
        }
    }
}

/// Whether a word means another one in percent encoding.
fn is_encoded(word: &str) -> bool {
    let is_digit = |at: usize| word.as_bytes().get(at).is_some_and(u8::is_ascii_hexdigit);
    word.match_indices('%').any(|(at, _)| is_digit(at + 1) && is_digit(at + 2))
}

/// How long the word is that a text begins with: letters as tokens have them, and what fills up Base64.
fn word(text: &str) -> usize {
    let is_in = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-+/.~%$".contains(byte);
    let length = text.bytes().take_while(is_in).count();
    let fill = text.as_bytes()[length..].iter().take_while(|byte| **byte == b'=').count();
    let is_over =
        text.as_bytes().get(length + fill).is_none_or(|byte| !is_in(byte) && !b"\"'".contains(byte));
    if length >= SHORTEST && fill <= 2 && is_over { length + fill } else { length }
}

/// Whether nobody would write such a word by hand.
fn has_secret_shape(word: &str) -> bool {
    if word.len() >= SHORTEST_KNOWN && BEGINNINGS.iter().any(|begin| word.contains(begin)) {
        return true;
    }
    let digits = word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if digits {
        return (15..=23).contains(&word.len()) && word.bytes().filter(u8::is_ascii_digit).count() >= 15;
    }
    word.split(['/', '.', '%', '~', '$']).any(|part| {
        let has = |is: fn(&u8) -> bool| part.bytes().any(|byte| is(&byte));
        let turns = part
            .as_bytes()
            .windows(2)
            .filter(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase());
        part.len() >= SHORTEST
            && (has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic) || turns.count() >= MOST_TURNS)
    })
}

/// Where a value without quotes ends.
const VALUE_ENDS: &[char] = &[' ', '\t', '\r', '\n', '&', ';', ',', '"', '\'', '<', '>', ')', ']', '}'];
/// Behind a colon: a sentence may follow, and be one.
const LINE_ENDS: &[char] = &['\r', '\n', '<'];
const AUTHORITY_ENDS: &[char] = &['/', '?', '#', ' ', '\t', '\r', '\n', '"', '\'', '<', '>'];
const PEM: &str = "-----BEGIN ";
const PEM_END: &str = "-----END ";
/// Bytes of a word in percent encoding that is looked into.
const LONGEST_ENCODED: usize = 1024;
/// Letters of a word that no name of ours has.
const SHORTEST: usize = 20;
/// Letters of a word that begins as keys of well-known services do.
const SHORTEST_KNOWN: usize = 12;
/// From small to large letters in a word without digits.
const MOST_TURNS: usize = 4;
/// How keys begin that are known by it.
const BEGINNINGS: [&str; 28] = [
    "eyJ",
    "sk_",
    "sk-",
    "rk_",
    "pk_live_",
    "whsec_",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xapp-",
    "AKIA",
    "ASIA",
    "AIza",
    "ya29.",
    "npm_",
    "pypi-",
    "dop_v1_",
    "hf_",
    "SG.",
    "shpat_",
    "sq0",
];
