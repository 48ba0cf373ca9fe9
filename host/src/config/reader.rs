//! Reads the document whenever it is wanted: as it lies there, or as a translation of what people have in its
//! place. Does not know what any of it means.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::source::{self, Source};

/// Makes a document of something else, or says everything that is wrong with that.
type Translate = dyn Fn() -> Result<Translated, String> + Send + Sync;

/// How a host comes to its document.
#[derive(Clone)]
pub struct Reader {
    path: PathBuf,
    translate: Option<Arc<Translate>>,
}

/// A document of ours that stands for something else.
pub struct Translated {
    pub text: String,
    /// What could not be meant by a document of ours, one sentence each.
    pub warnings: Vec<String>,
}

impl Reader {
    /// The document lies at `path`.
    pub fn of_file(path: PathBuf) -> Self {
        Self { path, translate: None }
    }

    /// What lies at `path` is not a document: `translate` makes one of it, each time anew.
    pub fn translating(
        path: PathBuf,
        translate: impl Fn() -> Result<Translated, String> + Send + Sync + 'static,
    ) -> Self {
        Self { path, translate: Some(Arc::new(translate)) }
    }

    /// The file that people change.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a document may be written in the place of what is read.
    pub fn is_document(&self) -> bool {
        self.translate.is_none()
    }

    /// The document as it is now, and what is to be said about it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn read(&self) -> Result<(Source, Vec<String>), String> {
        let Some(translate) = &self.translate else {
            let read = source::read(&self.path).map_err(|error| error.to_string())?;
            return Ok((read, Vec::new()));
        };
        let Translated { text, warnings } = translate()?;
        let folder = self.path.parent().unwrap_or(Path::new("")).to_owned();
        Ok((Source { file: self.path.display().to_string(), folder, text }, warnings))
    }
}
