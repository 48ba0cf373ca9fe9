//! Which answers are compressed, and what that does to their heads. RFC 9110 and 9111.

use crate::accept::{Accepted, Coding};
use crate::plan::Plan;

/// Lower-case names and values.
pub type Headers = Vec<(String, Vec<u8>)>;

/// What counts of a request.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    accepted: Accepted,
    /// Whether the visitor wants nobody on the way to change the answer.
    no_transform: bool,
    /// All values of If-None-Match.
    known: Vec<Vec<u8>>,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    AsItIs,
    /// Its head is another, its body the same.
    Marked,
    /// Its body is to be what its head says now.
    Compressed(Coding),
}

impl Asked {
    pub fn read(headers: &Headers) -> Self {
        Self {
            accepted: Accepted::read(texts(headers, "accept-encoding")),
            no_transform: forbids_change(headers),
            known: values(headers, "if-none-match").map(<[u8]>::to_vec).collect(),
        }
    }
}

/// Decides, and edits the head of the answer.
pub fn judge(plan: &Plan, asked: &Asked, status: u16, headers: &mut Headers) -> Outcome {
    if has(headers, "content-encoding") || has(headers, "content-range") || forbids_change(headers) {
        return Outcome::AsItIs;
    }
    let is_covered = texts(headers, "content-type").next().map(|kind| plan.covers(kind));
    match (status, is_covered) {
        // It stands for an answer that may have been compressed, and need not say of which type that was.
        (304, None | Some(true)) => {
            let varies = vary(headers);
            if weaken_known(asked, headers) || varies { Outcome::Marked } else { Outcome::AsItIs }
        }
        (204..=206 | 304, _) | (_, None | Some(false)) => Outcome::AsItIs,
        (_, Some(true)) => {
            let varies = vary(headers);
            match wanted(plan, asked, headers) {
                Some(coding) => {
                    encode(coding, headers);
                    Outcome::Compressed(coding)
                }
                None if varies => Outcome::Marked,
                None => Outcome::AsItIs,
            }
        }
    }
}

fn wanted(plan: &Plan, asked: &Asked, headers: &Headers) -> Option<Coding> {
    let length = texts(headers, "content-length").next().and_then(|length| length.trim().parse::<u64>().ok());
    let is_worth_it = match length {
        Some(0) => false,
        Some(length) => length >= plan.min_size || asked.accepted.not_identity(),
        None => true,
    };
    asked.accepted.best(&plan.codings).filter(|_| is_worth_it && !asked.no_transform)
}

/// The head of the same answer, encoded.
fn encode(coding: Coding, headers: &mut Headers) {
    headers.retain(|(name, _)| !OF_THE_PLAIN_BODY.contains(&name.as_str()));
    for (_, tag) in headers.iter_mut().filter(|(name, _)| name == "etag") {
        weaken(tag);
    }
    headers.push(("content-encoding".to_owned(), coding.name().into()));
}

/// The same content in another coding has another strong validator, RFC 9110 section 8.8.3.3; a weak one
/// says that the two mean the same.
fn weaken(tag: &mut Vec<u8>) {
    if tag.starts_with(b"\"") {
        tag.splice(..0, *b"W/");
    }
}

/// Says in a 304 the validator that the visitor has from here: a strong one would name another answer,
/// RFC 9111 section 4.3.4.
fn weaken_known(asked: &Asked, headers: &mut Headers) -> bool {
    let mut is_changed = false;
    for (_, tag) in headers.iter_mut().filter(|(name, tag)| name == "etag" && tag.starts_with(b"\"")) {
        let weak = [b"W/", &tag[..]].concat();
        // A tag has no quotation marks within, so this is never a part of another.
        if asked.known.iter().any(|line| line.windows(weak.len()).any(|part| part == weak)) {
            *tag = weak;
            is_changed = true;
        }
    }
    is_changed
}

/// Adds to Vary what this depends on; whether it was not there.
fn vary(headers: &mut Headers) -> bool {
    let is_there = texts(headers, "vary")
        .flat_map(|line| line.split(','))
        .any(|name| name.trim() == "*" || name.trim().eq_ignore_ascii_case("accept-encoding"));
    if !is_there {
        headers.push(("vary".to_owned(), b"Accept-Encoding".to_vec()));
    }
    !is_there
}

/// RFC 9111 sections 5.2.1.6 and 5.2.2.6.
fn forbids_change(headers: &Headers) -> bool {
    texts(headers, "cache-control")
        .flat_map(|line| line.split(','))
        .any(|directive| directive.trim().eq_ignore_ascii_case("no-transform"))
}

fn has(headers: &Headers, name: &str) -> bool {
    values(headers, name).next().is_some()
}

/// Those that are text; no field that matters here is anything else.
fn texts<'a>(headers: &'a Headers, name: &'a str) -> impl Iterator<Item = &'a str> {
    values(headers, name).filter_map(|value| std::str::from_utf8(value).ok())
}

fn values<'a>(headers: &'a Headers, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_slice())
}

/// What would not hold for the encoded body: its length, offsets into it and its digests (RFC 1864, 3230
/// and 9530).
pub const OF_THE_PLAIN_BODY: [&str; 6] =
    ["content-length", "accept-ranges", "content-md5", "digest", "content-digest", "repr-digest"];

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> Headers {
        list.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
    }

    /// The outcome, and the head as lines.
    fn judged(request: &[(&str, &str)], status: u16, response: &[(&str, &str)]) -> (Outcome, Vec<String>) {
        let mut head = headers(response);
        let outcome = judge(&Plan::read("{}").unwrap(), &Asked::read(&headers(request)), status, &mut head);
        let line =
            |(name, value): (String, Vec<u8>)| format!("{name}: {}", String::from_utf8(value).unwrap());
        (outcome, head.into_iter().map(line).collect())
    }

    const GZIP: (&str, &str) = ("accept-encoding", "gzip");
    const HTML: (&str, &str) = ("content-type", "text/html");
    const VARY: &str = "vary: Accept-Encoding";

    #[test]
    fn what_held_for_the_plain_body_goes_and_its_tag_becomes_weak() {
        let (outcome, head) = judged(
            &[GZIP],
            200,
            &[
                HTML,
                ("content-length", "4096"),
                ("accept-ranges", "bytes"),
                ("content-md5", "x"),
                ("digest", "x"),
                ("content-digest", "x"),
                ("repr-digest", "x"),
                ("etag", "\"v1\""),
                ("x-other", "stays"),
            ],
        );
        assert_eq!(outcome, Outcome::Compressed(Coding::Gzip));
        let whole =
            ["content-type: text/html", "etag: W/\"v1\"", "x-other: stays", VARY, "content-encoding: gzip"];
        assert_eq!(head, whole);
        let (_, head) = judged(&[GZIP], 200, &[HTML, ("etag", "W/\"v1\"")]);
        assert!(head.contains(&"etag: W/\"v1\"".to_owned()), "{head:?}");
    }

    #[test]
    fn the_head_names_the_coding_that_the_visitor_likes_best() {
        for (field, coding, name) in
            [("gzip, br", Coding::Brotli, "br"), ("gzip, br;q=0.5", Coding::Gzip, "gzip")]
        {
            let (outcome, head) = judged(&[("accept-encoding", field)], 200, &[HTML]);
            assert_eq!(outcome, Outcome::Compressed(coding));
            assert_eq!(head[2], format!("content-encoding: {name}"));
        }
    }

    #[test]
    fn some_answers_are_never_touched() {
        for (status, more) in [
            (200, ("content-encoding", "br")),
            (200, ("content-encoding", "identity")),
            (200, ("cache-control", "public, No-Transform")),
            (206, ("content-range", "bytes 0-9/100")),
            (416, ("content-range", "bytes */100")),
            (204, ("x-a", "b")),
            (205, ("x-a", "b")),
            (206, ("content-type", "multipart/byteranges")),
        ] {
            let (outcome, head) = judged(&[GZIP], status, &[HTML, more]);
            assert_eq!((outcome, head.len()), (Outcome::AsItIs, 2), "{status} {more:?}");
        }
        for response in [&[][..], &[("content-type", "image/png")]] {
            assert_eq!(judged(&[GZIP], 200, response).0, Outcome::AsItIs, "{response:?}");
        }
    }

    #[test]
    fn what_could_have_been_compressed_says_what_it_varies_with() {
        for (request, length) in [
            (&[][..], "4096"),
            (&[("accept-encoding", "zstd")], "4096"),
            (&[("accept-encoding", "gzip;q=0.5, identity")], "4096"),
            (&[GZIP, ("cache-control", "no-transform")], "4096"),
            (&[GZIP], "1023"),
            (&[GZIP, ("accept-encoding", "identity;q=0")], "0"),
        ] {
            let (outcome, head) = judged(request, 200, &[HTML, ("content-length", length)]);
            assert_eq!(outcome, Outcome::Marked, "{request:?}");
            assert_eq!(head[1..], [format!("content-length: {length}"), VARY.to_owned()], "{request:?}");
        }
        for vary in ["Accept-Encoding", "origin, accept-encoding", "*"] {
            let (outcome, head) = judged(&[], 200, &[HTML, ("vary", vary)]);
            assert_eq!((outcome, head.len()), (Outcome::AsItIs, 2), "{vary}");
        }
        let (_, head) = judged(&[GZIP], 200, &[HTML, ("vary", "origin")]);
        assert!(head.contains(&VARY.to_owned()) && head.contains(&"vary: origin".to_owned()), "{head:?}");
    }

    #[test]
    fn a_length_that_is_not_known_and_a_visitor_who_insists_are_served() {
        for status in [200, 201, 404, 500] {
            assert_eq!(judged(&[GZIP], status, &[HTML]).0, Outcome::Compressed(Coding::Gzip), "{status}");
        }
        let insists = [("accept-encoding", "gzip, identity;q=0")];
        let (outcome, _) = judged(&insists, 200, &[HTML, ("content-length", "5")]);
        assert_eq!(outcome, Outcome::Compressed(Coding::Gzip));
    }

    #[test]
    fn a_304_names_the_tag_that_the_visitor_has() {
        let not_modified =
            |known: &str, tag: &str| judged(&[("if-none-match", known)], 304, &[("etag", tag)]);
        assert_eq!(
            not_modified("W/\"v1\"", "\"v1\""),
            (Outcome::Marked, vec!["etag: W/\"v1\"".into(), VARY.into()])
        );
        assert_eq!(not_modified("\"v0\", W/\"v1\"", "\"v1\"").1[0], "etag: W/\"v1\"");
        for known in ["\"v1\"", "W/\"v11\"", "*"] {
            assert_eq!(not_modified(known, "\"v1\"").1[0], "etag: \"v1\"", "{known}");
        }
        let image =
            judged(&[("if-none-match", "W/\"a\"")], 304, &[("etag", "\"a\""), ("content-type", "image/png")]);
        assert_eq!(image.0, Outcome::AsItIs);
    }
}
