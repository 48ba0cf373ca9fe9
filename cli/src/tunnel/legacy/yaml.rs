//! YAML as the reference reads it: keys that stand twice are a mistake, `<<` merges, and everything has its
//! place. Knows the language; no key of any file.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use adit_config_reader::Place;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

/// A value and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
    /// Whether it has a name that others can use it by.
    pub(super) is_anchor: bool,
    /// How many levels are below it.
    depth: usize,
}

#[derive(Debug)]
pub(super) enum Value {
    /// As it is written; `is_plain`: without quotes.
    Scalar {
        text: String,
        is_plain: bool,
    },
    List(Vec<Rc<Node>>),
    Map(Map),
}

/// In the order in which they are written; no name stands twice.
#[derive(Debug, Default)]
pub(super) struct Map(pub(super) Vec<Entry>);

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Of the key.
    pub(super) place: Place,
    pub(super) value: Rc<Node>,
}

/// What is wrong, and where.
pub(super) type Mistake = (Option<Place>, String);

/// The map that a text is; `None` for a text without anything.
pub(super) fn read(text: &str) -> Result<Option<Rc<Node>>, Mistake> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut composer = Composer::default();
    let mut parser = Parser::new_from_str(text);
    let mut documents = 0;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| (Some(place(*error.marker())), error.info().to_owned()))?;
        let at = place(span.start);
        match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err((Some(at), "a second document begins here; there may be one".to_owned()));
                }
            }
            Event::Scalar(text, style, anchor, _) => {
                let is_plain = style == ScalarStyle::Plain;
                let value = Value::Scalar { text: text.into_owned(), is_plain };
                composer.add(Node { place: at, value, is_anchor: anchor > 0, depth: 0 }, anchor)?;
            }
            Event::SequenceStart(anchor, _) => composer.open(at, anchor, Open::List(Vec::new()))?,
            Event::MappingStart(anchor, _) => composer.open(at, anchor, Open::Map(Vec::new(), None))?,
            Event::SequenceEnd | Event::MappingEnd => composer.close()?,
            Event::Alias(anchor) => {
                let known = composer.anchors.get(&anchor).cloned();
                let node =
                    known.ok_or_else(|| (Some(at), "this stands for what it is part of".to_owned()))?;
                composer.put(node, at)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
    }
    Ok(composer.root)
}

#[derive(Default)]
struct Composer {
    root: Option<Rc<Node>>,
    open: Vec<(Place, usize, Open)>,
    anchors: HashMap<usize, Rc<Node>>,
    /// What was put anywhere, those that stand for others too.
    entries: usize,
}

enum Open {
    List(Vec<Rc<Node>>),
    /// With the key whose value comes next.
    Map(Vec<Entry>, Option<(String, Place)>),
}

impl Composer {
    fn open(&mut self, at: Place, anchor: usize, what: Open) -> Result<(), Mistake> {
        if self.open.len() == DEEPEST {
            return Err((Some(at), format!("more than {DEEPEST} levels")));
        }
        self.open.push((at, anchor, what));
        Ok(())
    }

    fn close(&mut self) -> Result<(), Mistake> {
        let Some((place, anchor, open)) = self.open.pop() else { return Ok(()) };
        let value = match open {
            Open::List(list) => Value::List(list),
            Open::Map(entries, _) => Value::Map(self.merged(entries)?),
        };
        let depth = match &value {
            Value::Scalar { .. } => 0,
            Value::List(list) => list.iter().map(|node| node.depth + 1).max().unwrap_or(0),
            Value::Map(Map(entries)) => entries.iter().map(|entry| entry.value.depth + 1).max().unwrap_or(0),
        };
        // Names for maps can stand in each other as deep as a file is long.
        if depth > DEEPEST {
            return Err((Some(place), format!("more than {DEEPEST} levels")));
        }
        self.add(Node { place, value, is_anchor: anchor > 0, depth }, anchor)
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Mistake> {
        let (place, node) = (node.place, Rc::new(node));
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        self.put(node, place)
    }

    /// Puts a node where the text is; `at` is the place of the word that stands for it.
    fn put(&mut self, node: Rc<Node>, at: Place) -> Result<(), Mistake> {
        self.count(1, at)?;
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some((_, _, Open::List(list))) => list.push(node),
            Some((_, _, Open::Map(entries, key))) => match key.take() {
                Some((key, place)) => entries.push(Entry { key, place, value: node }),
                None => match &node.value {
                    Value::Scalar { text, .. } => *key = Some((text.clone(), at)),
                    Value::List(_) | Value::Map(_) => {
                        return Err((Some(at), "a key must be a word".to_owned()));
                    }
                },
            },
        }
        Ok(())
    }

    /// A map's own keys go before those that `<<` brings, and earlier ones of these before later ones.
    fn merged(&mut self, entries: Vec<Entry>) -> Result<Map, Mistake> {
        let mut known = HashSet::new();
        for entry in &entries {
            if !known.insert(entry.key.clone()) {
                return Err((Some(entry.place), format!("`{}` stands here twice", entry.key)));
            }
        }
        let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.key == MERGE);
        for merge in merges {
            let at = merge.place;
            let wrong = || (Some(at), format!("`{MERGE}` takes keys with values, or a list of such"));
            let sources: Vec<&Rc<Node>> = match &merge.value.value {
                Value::Map(_) => vec![&merge.value],
                Value::List(list) => list.iter().collect(),
                Value::Scalar { .. } => return Err(wrong()),
            };
            for source in sources {
                let Value::Map(Map(brought)) = &source.value else { return Err(wrong()) };
                self.count(brought.len(), at)?;
                own.extend(brought.iter().filter(|entry| known.insert(entry.key.clone())).cloned());
            }
        }
        Ok(Map(own))
    }

    fn count(&mut self, more: usize, at: Place) -> Result<(), Mistake> {
        self.entries += more;
        if self.entries > MOST_ENTRIES {
            return Err((Some(at), format!("more than {MOST_ENTRIES} values")));
        }
        Ok(())
    }
}

impl Map {
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.key == key)
    }
}

impl Node {
    /// As if it were written.
    pub(super) fn word(text: String, place: Place) -> Self {
        Self { place, value: Value::Scalar { text, is_plain: false }, is_anchor: false, depth: 0 }
    }

    /// Nothing, as `key:` and `key: null` say.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, is_plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What is written, whatever it looks like; `None` for nothing.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            Value::Scalar { .. } | Value::List(_) | Value::Map(_) => None,
        }
    }

    pub(super) fn flag(&self) -> Option<bool> {
        flag(self.text()?)
    }

    pub(super) fn number(&self) -> Option<u64> {
        self.text()?.parse().ok()
    }
}

/// A truth value, by any of the words for it.
pub(in crate::tunnel) fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "t" | "1" => Some(true),
        "false" | "no" | "off" | "n" | "f" | "0" => Some(false),
        _ => None,
    }
}

fn place(mark: Marker) -> Place {
    Place { line: mark.line(), column: mark.col() + 1 }
}

const MERGE: &str = "<<";
const DEEPEST: usize = 64;
const MOST_ENTRIES: usize = 200_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(node: &Node) -> String {
        match &node.value {
            Value::Scalar { text, .. } => text.clone(),
            Value::List(list) => {
                format!("[{}]", list.iter().map(|node| shown(node)).collect::<Vec<_>>().join(" "))
            }
            Value::Map(Map(entries)) => {
                let entry = |entry: &Entry| format!("{}={}", entry.key, shown(&entry.value));
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(" "))
            }
        }
    }

    #[test]
    fn merge_keys_bring_what_a_map_does_not_say_itself() {
        for (text, wanted) in [
            ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", "{a={b=1 c=2} d={c=3 b=1}}"),
            ("a: &x {b: 1}\nc: &y {b: 2, d: 3}\ne: {<<: [*x, *y]}", "{a={b=1} c={b=2 d=3} e={b=1 d=3}}"),
            ("a: &x {b: 1}\nc: &y {<<: *x}\nd:\n  <<: *y\n  e: 2", "{a={b=1} c={b=1} d={e=2 b=1}}"),
            ("\u{feff}a: {<<: {b: 1}}", "{a={b=1}}"),
            ("a: &x [1, 2]\nb: *x", "{a=[1 2] b=[1 2]}"),
        ] {
            assert_eq!(shown(&read(text).unwrap().unwrap()), wanted, "{text}");
        }
        assert!(read("").unwrap().is_none() && read("# nothing\n").unwrap().is_none());
    }

    #[test]
    fn what_means_two_things_or_nothing_is_refused_at_its_place() {
        for (text, line, wanted) in [
            ("a: 1\nb: 2\na: 3", 3, "`a` stands here twice"),
            ("a: {<<: {b: 1}, <<: {c: 1}}", 1, "`<<` stands here twice"),
            ("a:\n  b: 1\n  b: 2", 3, "`b` stands here twice"),
            ("a: {<<: 1}", 1, "`<<` takes keys"),
            ("a: {<<: [1]}", 1, "`<<` takes keys"),
            ("a: &x {b: *x}", 1, "part of"),
            ("a: 1\n---\nb: 2", 2, "second document"),
            ("{a: 1}: 2", 1, "must be a word"),
            ("a: [", 1, ""),
        ] {
            let (place, message) = read(text).unwrap_err();
            assert!(message.contains(wanted), "{text}: {message}");
            assert!(place.is_none_or(|place| place.line >= line), "{text}: {place:?}");
        }
        let deep = "[".repeat(100);
        assert!(read(&deep).unwrap_err().1.contains("levels"));
        // Each level stands for two of the one before.
        let mut bomb = "a: &a0 {k: 1}\n".to_owned();
        for level in 1..60 {
            bomb.push_str(&format!("b{level}: &a{level} [*a{0}, *a{0}]\n", level - 1));
        }
        assert!(read(&bomb).is_ok(), "it is shared, not copied");
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        let root = read("a: yes\nb: On\nc: '~'\nd: ~\ne: 010\nf:\n").unwrap().unwrap();
        let Value::Map(map) = &root.value else { panic!() };
        let node = |key: &str| map.get(key).unwrap().value.clone();
        assert_eq!(
            (node("a").flag(), node("b").flag(), node("e").text()),
            (Some(true), Some(true), Some("010"))
        );
        assert_eq!((node("c").text(), node("d").text()), (Some("~"), None));
        assert!(node("f").is_null() && map.get("b").unwrap().place == Place { line: 2, column: 1 });
    }
}
