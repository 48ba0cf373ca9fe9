//! Single values of a document: durations, sizes, counts and paths, within their bounds. Knows no key.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_config_reader::{Mistakes, Spanned};

use crate::document::Quantity;
use crate::files::Files;
use crate::flags::FlagMistakes;

/// A document being read: where it lies and what was found wrong so far.
pub struct Reader<'a> {
    /// Paths of the document are relative to it.
    pub folder: &'a Path,
    pub mistakes: Mistakes,
    pub files: Files,
    /// What is wrong with values that stand on the command line instead.
    pub flag_mistakes: FlagMistakes,
}

/// What is wrong with one value, before it is known where the value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    pub message: String,
    pub help: Option<String>,
}

impl Invalid {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    pub fn with_help(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: Some(help.into()) }
    }
}

impl<'a> Reader<'a> {
    /// One of a document in `folder`, with what is wrong with it so far.
    pub fn new(folder: &'a Path, mistakes: Mistakes) -> Self {
        Self { folder, mistakes, files: Files::default(), flag_mistakes: FlagMistakes::default() }
    }
}

impl Reader<'_> {
    /// Where to read a file that the document names.
    pub fn file(&mut self, path: &Path) -> PathBuf {
        self.files.name(self.folder.join(path))
    }

    /// The value, or `None` and a mistake at its place.
    pub fn take<T, U>(&mut self, at: &Spanned<T>, outcome: Result<U, Invalid>) -> Option<U> {
        outcome.map_err(|wrong| self.refuse(at, wrong)).ok()
    }

    pub fn refuse<T>(&mut self, at: &Spanned<T>, wrong: Invalid) {
        let Some(wrong) = self.flag_mistakes.take(at, wrong) else { return };
        match wrong.help {
            Some(help) => self.mistakes.add_with_help(at.span(), wrong.message, help),
            None => self.mistakes.add(at.span(), wrong.message),
        }
    }

    /// A duration such as "30s" within `bounds`; `default` where none is written or it is wrong.
    pub fn duration(
        &mut self,
        written: Option<&Spanned<Quantity>>,
        default: Duration,
        bounds: RangeInclusive<Duration>,
    ) -> Duration {
        let duration = written.and_then(|written| {
            let outcome =
                duration(&written.get_ref().0).and_then(|value| within(value, &bounds, show_duration));
            self.take(written, outcome)
        });
        duration.unwrap_or(default)
    }

    /// A size such as "64MiB" within `bounds`, in bytes.
    pub fn size(
        &mut self,
        written: Option<&Spanned<Quantity>>,
        default: usize,
        bounds: RangeInclusive<usize>,
    ) -> usize {
        let size = written.and_then(|written| {
            let outcome = size(&written.get_ref().0).and_then(|value| within(value, &bounds, show_size));
            self.take(written, outcome)
        });
        size.unwrap_or(default)
    }

    /// A whole number within `bounds`.
    pub fn count(
        &mut self,
        written: Option<&Spanned<i64>>,
        default: usize,
        bounds: RangeInclusive<usize>,
    ) -> usize {
        let count = written.and_then(|written| {
            let number = *written.get_ref();
            let outcome = usize::try_from(number).ok().filter(|number| bounds.contains(number));
            let (lowest, highest) = (bounds.start(), bounds.end());
            let outcome = outcome.ok_or_else(|| {
                Invalid::new(format!(
                    "{number} is out of range, expected a whole number from {lowest} to {highest}"
                ))
            });
            self.take(written, outcome)
        });
        count.unwrap_or(default)
    }

    /// A path, joined to the folder of the document.
    pub fn path(&mut self, written: Option<&Spanned<PathBuf>>) -> Option<PathBuf> {
        written.and_then(|written| {
            let path = written.get_ref();
            let is_written = !path.as_os_str().is_empty();
            let outcome =
                if is_written { Ok(self.file(path)) } else { Err(Invalid::new("this path is empty")) };
            self.take(written, outcome)
        })
    }
}

fn within<T: PartialOrd>(value: T, bounds: &RangeInclusive<T>, show: fn(&T) -> String) -> Result<T, Invalid> {
    if bounds.contains(&value) {
        return Ok(value);
    }
    let (value, lowest, highest) = (show(&value), show(bounds.start()), show(bounds.end()));
    Err(Invalid::new(format!("{value} is out of range, expected {lowest} to {highest}")))
}

fn duration(text: &str) -> Result<Duration, Invalid> {
    humantime::parse_duration(text).map_err(|_| {
        Invalid::with_help(
            "this is not a duration",
            "write a number with its unit, such as \"50ms\", \"30s\" or \"3m\"",
        )
    })
}

fn size(text: &str) -> Result<usize, Invalid> {
    adit_config_reader::size::parse(text)
        .ok_or_else(|| Invalid::with_help("this is not a size", adit_config_reader::size::HELP))
}

fn show_duration(duration: &Duration) -> String {
    humantime::format_duration(*duration).to_string()
}

fn show_size(bytes: &usize) -> String {
    adit_config_reader::size::show(*bytes)
}
