//! Where a document comes from. Knows files; does not know what a document means.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A document as it was found.
#[derive(Clone)]
pub struct Source {
    /// The path as it was given, for messages.
    pub file: String,
    /// Where paths in the document begin.
    pub folder: PathBuf,
    pub text: String,
}

/// Why a document could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("reading {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("reading {}: larger than {LARGEST_DOCUMENT} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("reading {}: not UTF-8 text, first at byte {byte}", path.display())]
    NotText { path: PathBuf, byte: usize },
}

/// Reads the document at `path`.
///
/// # Errors
/// It cannot be read, is no regular file, is larger than [`LARGEST_DOCUMENT`] or is not text.
pub fn read(path: &Path) -> Result<Source, SourceError> {
    let unreadable = |error| SourceError::Unreadable { path: path.to_owned(), error };
    let file = adit_files::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(LARGEST_DOCUMENT + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST_DOCUMENT {
        return Err(SourceError::TooLarge { path: path.to_owned() });
    }
    let text = String::from_utf8(bytes).map_err(|error| SourceError::NotText {
        path: path.to_owned(),
        byte: error.utf8_error().valid_up_to(),
    })?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    Ok(Source { file: path.display().to_string(), folder, text })
}

/// As much of a document as can be read, with marks in the place of what is no text.
///
/// # Errors
/// It cannot be read.
pub fn read_lossy(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    adit_files::open(path)?.take(LARGEST_DOCUMENT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Largest document that is read, bytes.
pub const LARGEST_DOCUMENT: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_cannot_be_used_is_named_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.toml");
        let message = |path: &Path| read(path).err().map(|error| error.to_string()).unwrap();

        assert!(message(&path).starts_with(&format!("reading {}: No such file", path.display())));
        std::fs::write(&path, b"a = '\xff'").unwrap();
        assert!(message(&path).ends_with("host.toml: not UTF-8 text, first at byte 5"));
        std::fs::write(&path, vec![b'#'; 4 * 1024 * 1024 + 1]).unwrap();
        assert!(message(&path).ends_with("host.toml: larger than 4194304 bytes"));
        assert!(message(folder.path()).starts_with(&format!("reading {}: ", folder.path().display())));
        assert_eq!(message(Path::new("/dev/zero")), "reading /dev/zero: this is not a regular file");

        std::fs::write(&path, vec![b'#'; 4 * 1024 * 1024]).unwrap();
        let source = read(&path).unwrap();
        assert_eq!(source.folder, folder.path());
        assert_eq!(source.text.len(), 4 * 1024 * 1024);
    }
}
