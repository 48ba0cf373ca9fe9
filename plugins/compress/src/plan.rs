//! What is compressed, and how hard.

use settings::{Fault, Faults, Place};

use crate::accept::Coding;
use crate::media::Media;

#[derive(Clone, Debug)]
pub struct Plan {
    types: Vec<Media>,
    /// A body that is known to be shorter goes as it is, bytes.
    pub min_size: u64,
    /// Those that are made, the one that is liked best first.
    pub codings: Vec<Coding>,
    /// Of gzip: 1, the fastest, to 9.
    pub level: u32,
    /// Of brotli: 0, the fastest, to 9.
    pub brotli_level: u32,
}

impl Plan {
    /// Reads the configuration, a JSON object, and reports everything that is wrong with it.
    pub fn read(config: &str) -> Result<Self, Vec<Fault>> {
        settings::read(config, |place, faults| {
            let object = place.object(&["types", "min-size", "codings", "level", "brotli-level"], faults)?;
            let types = match object.optional("types") {
                None => Some(TYPES.iter().filter_map(|text| Media::parse(text)).collect()),
                Some(place) => types(&place, faults),
            };
            let codings = match object.optional("codings") {
                None => Some(CODINGS.map(|(_, coding)| coding).to_vec()),
                Some(place) => codings(&place, faults),
            };
            let mut number = |key, range, default| match object.optional(key) {
                None => Some(default),
                Some(place) => place.number(range, faults),
            };
            let min_size = number("min-size", 0..=LARGEST, MIN_SIZE);
            let level = number("level", 1..=9, LEVEL);
            let brotli_level = number("brotli-level", 0..=9, BROTLI_LEVEL);
            Some(Self {
                types: types?,
                min_size: min_size?,
                codings: codings?,
                level: u32::try_from(level?).ok()?,
                brotli_level: u32::try_from(brotli_level?).ok()?,
            })
        })
    }

    /// Whether content of this type is worth it.
    pub fn covers(&self, content_type: &str) -> bool {
        self.types.iter().any(|media| media.fits(content_type))
    }
}

fn types(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<Media>> {
    let (mut types, list) = (Vec::new(), place.list(faults)?);
    if list.is_empty() {
        place.fault(faults, "this list is empty: nothing would be compressed");
    }
    for place in list {
        let Some(text) = place.text(faults) else { continue };
        match Media::parse(text) {
            Some(media) => types.push(media),
            None => place.fault(faults, "expected a type such as text/html, text/* or *+json"),
        }
    }
    Some(types)
}

fn codings(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<Coding>> {
    let list = place.list(faults)?;
    if list.is_empty() {
        place.fault(faults, "this list is empty: nothing would be compressed");
    }
    list.iter().map(|place| place.word(&CODINGS, faults)).collect()
}

/// Brotli first: of visitors that take both it makes less.
const CODINGS: [(&str, Coding); 2] = [("br", Coding::Brotli), ("gzip", Coding::Gzip)];
/// Text, and what is text in all but name.
const TYPES: [&str; 12] = [
    "text/*",
    "*+json",
    "*+xml",
    "*+text",
    "application/javascript",
    "application/json",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/xml",
    "font/otf",
    "font/ttf",
];
/// Of less the head and the tail of the coding take too much.
const MIN_SIZE: u64 = 1024;
const LARGEST: u64 = 1 << 30;
const LEVEL: u64 = 6;
/// As much work as gzip at its level, and a smaller body.
const BROTLI_LEVEL: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_by_any_name_is_covered_and_what_is_compressed_already_is_not() {
        let plan = Plan::read("{}").unwrap();
        for kind in [
            "text/html",
            "text/event-stream",
            "application/json",
            "application/problem+json",
            "application/javascript",
            "application/wasm",
            "application/atom+xml",
        ] {
            assert!(plan.covers(kind), "{kind}");
        }
        for kind in ["image/png", "video/mp4", "application/zip", "font/woff2", "application/octet-stream"] {
            assert!(!plan.covers(kind), "{kind}");
        }
        let plan = Plan::read(r#"{"types": ["application/octet-stream"], "level": 1}"#).unwrap();
        assert!(plan.covers("application/octet-stream") && !plan.covers("text/html"));
        assert_eq!((plan.level, plan.min_size), (1, 1024));
    }

    #[test]
    fn every_default_can_be_read() {
        assert!(TYPES.iter().all(|text| Media::parse(text).is_some()));
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let faults =
            Plan::read(r#"{"types": ["html", 1], "min-size": -1, "codings": ["br", "zstd"], "level": 10, "brotli-level": 11, "brotli": true}"#).unwrap_err();
        let found: Vec<_> = faults.into_iter().map(|fault| fault.pointer).collect();
        assert_eq!(
            found,
            ["/brotli", "/types/0", "/types/1", "/codings/1", "/min-size", "/level", "/brotli-level"]
        );
        assert_eq!(Plan::read(r#"{"types": []}"#).unwrap_err()[0].pointer, "/types");
    }
}
