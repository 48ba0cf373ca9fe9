//! What is wrong with a document, in the order in which it stands there. Knows places and how a
//! report looks; does not know what is a mistake.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::outline::{Outline, Step};
use crate::refusal::{Complaint, Refusal};
use crate::remark::at_its_origin;
use crate::wording::printable;

/// Every mistake found in one document.
///
/// As an error it prints one block per mistake:
///
/// ```text
/// host.toml:12:1: ingress[1].hostnam: unknown key `hostnam`
///   help: did you mean `hostname`?
/// ```
///
/// No line of the document is shown, since documents hold secrets and reports end up in logs.
#[derive(Clone)]
pub struct Mistakes {
    document: Arc<Document>,
    /// Sorted by place.
    found: Vec<Mistake>,
    /// Mistakes past [`LIMIT`], counted and not kept.
    more: usize,
    /// Keys about which something was said, by the table that holds them.
    spoken_for: HashSet<(usize, String)>,
}

/// What the mistakes are in.
struct Document {
    file: String,
    text: String,
    outline: Outline,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where it begins; absent if it is about the document as a whole.
    pub place: Option<Place>,
    /// Dotted path of the key or element, such as `ingress[2].hostname`, if the place has one.
    pub path: Option<String>,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// A place in a text. Both numbers begin at 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

impl Mistakes {
    pub(crate) fn new(file: &str, text: &str, outline: Outline) -> Self {
        let document = Arc::new(Document { file: file.to_owned(), text: text.to_owned(), outline });
        Self { document, found: Vec::new(), more: 0, spoken_for: HashSet::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// How many there are, with those that were too many to keep.
    pub fn len(&self) -> usize {
        self.found.len() + self.more
    }

    /// The mistakes kept, in the order of their places; those about the whole document first.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.found.iter()
    }

    /// Adds a mistake at `span` (bytes of the text, as [`Spanned::span`](crate::Spanned::span) gives
    /// them). The span `0..0` means the document as a whole.
    pub fn add(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.insert(self.document.outline.find(&span), &span, message.into(), None);
    }

    /// Like [`add`](Self::add), with a line that says what to do about it.
    pub fn add_with_help(&mut self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.insert(self.document.outline.find(&span), &span, message.into(), Some(help.into()));
    }

    /// Adds that `key` is missing in the table at `table` (`0..0` for the document itself), unless a
    /// mistake already tells why it is not there: see [`speaks_for`](Self::speaks_for).
    pub fn add_missing(&mut self, table: Range<usize>, key: &str, help: impl Into<String>) {
        if !self.speaks_for(&table, key) {
            self.add_with_help(table, format!("`{key}` is missing"), help);
        }
    }

    /// Whether reading the document already reported `key` of the table at `table`: its value was
    /// refused, or a key was unknown and looked like it. Then its absence means nothing.
    pub fn speaks_for(&self, table: &Range<usize>, key: &str) -> bool {
        self.spoken_for.contains(&(self.document.outline.find(table), key.to_owned()))
    }

    /// The value, or these mistakes if there are any.
    ///
    /// # Errors
    /// The mistakes themselves.
    pub fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }

    pub(crate) fn line_at(&self, byte: usize) -> usize {
        place(&self.document.text, byte).line
    }

    pub(crate) fn add_syntax(&mut self, byte: usize, message: &str) {
        let place = place(&self.document.text, byte);
        self.keep(Mistake { place: Some(place), path: None, message: message.to_owned(), help: None });
    }

    /// Records that serde would not take what is at `node`.
    pub(crate) fn refuse(&mut self, node: usize, refusal: &Refusal) {
        let document = Arc::clone(&self.document);
        let refused = document.outline.node(node);
        let mut span = &refused.span;
        if let Step::Key { name, span: key } = &refused.step {
            self.spoken_for.insert((refused.parent, name.to_string()));
            if matches!(refusal.complaint, Complaint::UnknownKey { .. }) {
                span = key;
            }
        }
        if let Some(suggestion) = refusal.suggestion() {
            self.spoken_for.insert((refused.parent, suggestion.to_owned()));
        }
        self.insert(node, span, refusal.message(refused.kind), refusal.help());
    }

    fn insert(&mut self, node: usize, span: &Range<usize>, message: String, help: Option<String>) {
        let place = (*span != (0..0)).then(|| place(&self.document.text, span.start));
        let path = self.document.outline.path(node);
        self.keep(Mistake { place, path, message, help });
    }

    fn keep(&mut self, mistake: Mistake) {
        let mistake = at_its_origin(&self.document.text, mistake);
        if self.found.len() == LIMIT {
            self.more += 1;
            return;
        }
        let at = self.found.partition_point(|known| known.place <= mistake.place);
        self.found.insert(at, mistake);
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.found.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.document.file)?;
            if let Some(Place { line, column }) = mistake.place {
                write!(f, "{line}:{column}:")?;
            }
            if let Some(path) = &mistake.path {
                write!(f, " {path}:")?;
            }
            write!(f, " {}", printable(&mistake.message))?;
            if let Some(help) = &mistake.help {
                write!(f, "\n  help: {}", printable(help))?;
            }
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

/// The report, not the text: that may hold secrets.
impl fmt::Debug for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mistakes({self})")
    }
}

impl std::error::Error for Mistakes {}

fn place(text: &str, at: usize) -> Place {
    let before = &text[..text.floor_char_boundary(at)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place {
        line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

/// Mistakes kept of one document; more than that is not a slip but a wrong file.
pub(crate) const LIMIT: usize = 100;
