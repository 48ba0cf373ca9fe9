//! Secrets in the state, sealed with a key that is kept elsewhere: a copy of the state alone opens none of them. Knows
//! AES-256-GCM; does not know what is sealed.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

/// The keys of a key file: the first seals, each opens.
#[derive(Clone)]
pub(crate) struct SealKeys {
    keys: Arc<[RandomizedNonceKey]>,
    /// As the file has them.
    lines: Arc<str>,
}

#[derive(Debug, Error)]
pub(crate) enum SealError {
    #[error("{verb} {}: {source}", path.display())]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("{} holds no key: it needs 1 to {MOST_KEYS} lines of 32 bytes in base64, as `openssl rand -base64 32` makes one", path.display())]
    NoKey { path: PathBuf },
    #[error(
        "{} is not there, and secrets of the state are sealed with it: bring it back from where its copy is kept, or name the place where it is with key-file in [api]",
        path.display()
    )]
    Gone { path: PathBuf },
    #[error(
        "{file} has another key than the fleet's: this edge has sealed its own secrets with it. Move it away if they are not needed any more"
    )]
    Other { file: String },
}

impl SealKeys {
    /// # Errors
    /// It cannot be read, or a line of it is no key.
    pub(crate) fn read(path: &Path) -> Result<Self, SealError> {
        let text = adit_files::read_text(path, LARGEST_FILE).map_err(|source| SealError::File {
            verb: "reading",
            path: path.to_owned(),
            source,
        })?;
        let no_key = || SealError::NoKey { path: path.to_owned() };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Vec<RandomizedNonceKey> = lines
            .map(|line| RandomizedNonceKey::new(&AES_256_GCM, &STANDARD.decode(line).ok()?).ok())
            .collect::<Option<_>>()
            .ok_or_else(no_key)?;
        if keys.is_empty() || keys.len() > MOST_KEYS {
            return Err(no_key());
        }
        Ok(Self { keys: keys.into(), lines: text.into() })
    }

    /// The same; the file is made, for its owner alone, if it is not there.
    ///
    /// # Errors
    /// As [`Self::read`], or it cannot be made.
    pub(crate) fn read_or_make(path: &Path) -> Result<Self, SealError> {
        let file = |verb, source| SealError::File { verb, path: path.to_owned(), source };
        if !path.try_exists().map_err(|source| file("looking for", source))? {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(|error| file("making a key for", io::Error::other(error)))?;
            let make = || {
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder)?;
                }
                adit_files::make(path, format!("{}\n", STANDARD.encode(key)).as_bytes(), 0o600)
            };
            match make() {
                // Another edge of the same folder was first.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.map_err(|source| file("writing", source))?,
            }
        }
        Self::read(path)
    }

    /// What a machine that is to have these keys too writes to its own file.
    pub(crate) fn lines(&self) -> &str {
        &self.lines
    }

    /// Seals a secret for the record `place`; in no other one is it opened.
    pub(crate) fn seal(&self, place: &str, secret: &[u8]) -> Option<String> {
        let mut sealed = secret.to_vec();
        let nonce = self.keys.first()?.seal_in_place_append_tag(Aad::from(place), &mut sealed).ok()?;
        let mut whole = nonce.as_ref().to_vec();
        whole.extend_from_slice(&sealed);
        Some(STANDARD.encode(whole))
    }

    /// Whether the first key opens it.
    pub(super) fn is_current(&self, place: &str, sealed: &str) -> bool {
        self.keys.first().is_some_and(|key| open(key, place, sealed).is_some())
    }

    /// `None` if no key opens it, or it was sealed for another record.
    pub(crate) fn open(&self, place: &str, sealed: &str) -> Option<Vec<u8>> {
        self.keys.iter().find_map(|key| open(key, place, sealed))
    }
}

fn open(key: &RandomizedNonceKey, place: &str, sealed: &str) -> Option<Vec<u8>> {
    let whole = STANDARD.decode(sealed).ok()?;
    let (nonce, sealed) = whole.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut opened = sealed.to_vec();
    let length = key.open_in_place(nonce, Aad::from(place), &mut opened).ok()?.len();
    opened.truncate(length);
    Some(opened)
}

/// Where the keys that seal come from.
#[derive(Debug, Clone)]
pub(crate) enum Keys {
    /// Named by the operator, and read already.
    Given(SealKeys),
    /// Made where it is not there yet.
    Made(PathBuf),
}

impl Keys {
    /// The keys; they are made if there are none yet, the operator has named no file, and nothing `is_sealed` that they
    /// would have to open.
    ///
    /// # Errors
    /// They cannot be made or read.
    pub(crate) fn take(&self, is_sealed: bool) -> Result<SealKeys, SealError> {
        match self {
            Self::Given(keys) => Ok(keys.clone()),
            Self::Made(path) if is_sealed && !path.exists() => Err(SealError::Gone { path: path.clone() }),
            Self::Made(path) => SealKeys::read_or_make(path),
        }
    }

    /// Has the keys of another edge be these from now on.
    ///
    /// # Errors
    /// Others are here already, or they cannot be written.
    pub(crate) fn adopt(&self, lines: &str) -> Result<(), SealError> {
        let is_same = |known: &SealKeys| known.lines().trim() == lines.trim();
        let path = match self {
            Self::Given(known) if is_same(known) => return Ok(()),
            Self::Given(_) => {
                return Err(SealError::Other { file: "the file that key-file names".to_owned() });
            }
            Self::Made(path) => path,
        };
        if path.exists() {
            let is_known = is_same(&SealKeys::read(path)?);
            let other = || SealError::Other { file: path.display().to_string() };
            return if is_known { Ok(()) } else { Err(other()) };
        }
        let file = |source| SealError::File { verb: "writing", path: path.clone(), source };
        adit_files::replace(path, lines.as_bytes(), 0o600).map_err(file)?;
        SealKeys::read(path).map(drop)
    }

    /// What to do where they are the wrong ones.
    pub(crate) fn help(&self) -> String {
        let file = match self {
            Self::Given(_) => "the file that key-file names".to_owned(),
            Self::Made(path) => path.display().to_string(),
        };
        format!(
            "{file} does not have the key that secrets of the state are sealed with: bring the file of before back, or add its lines below those that are there"
        )
    }
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKeys(..)")
    }
}

const LARGEST_FILE: usize = 4096;
/// The one that seals, and those of before.
const MOST_KEYS: usize = 8;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_key_in_its_place_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| folder.path().join("deep").join(name));
        let keys = SealKeys::read_or_make(&one).unwrap();
        let sealed = keys.seal("certificate/a", b"secret").unwrap();
        assert_ne!(keys.seal("certificate/a", b"secret").unwrap(), sealed, "each time another");
        assert_eq!(SealKeys::read_or_make(&one).unwrap().open("certificate/a", &sealed).unwrap(), b"secret");
        assert_eq!(keys.open("certificate/b", &sealed), None);
        assert_eq!(SealKeys::read_or_make(&other).unwrap().open("certificate/a", &sealed), None);
        for at in 0..sealed.len() {
            let mut spoilt = sealed.clone().into_bytes();
            spoilt[at] = if spoilt[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(keys.open("certificate/a", std::str::from_utf8(&spoilt).unwrap()), None, "{at}");
        }
        assert_eq!(fs::metadata(&one).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(format!("{keys:?}"), "SealKeys(..)");
    }

    #[test]
    fn the_keys_of_a_fleet_are_adopted_where_there_are_none_and_never_in_the_place_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
        let keys = SealKeys::read_or_make(&one).unwrap();
        let made = Keys::Made(other.clone());
        made.adopt(keys.lines()).unwrap();
        made.adopt(keys.lines()).unwrap();
        assert_eq!(fs::metadata(&other).unwrap().permissions().mode() & 0o777, 0o600);
        let sealed = keys.seal("a", b"secret").unwrap();
        assert_eq!(made.take(true).unwrap().open("a", &sealed).unwrap(), b"secret");
        let third = SealKeys::read_or_make(&folder.path().join("third")).unwrap();
        assert!(matches!(made.adopt(third.lines()), Err(SealError::Other { .. })));
        assert!(matches!(Keys::Given(keys).adopt(third.lines()), Err(SealError::Other { .. })));
    }

    #[test]
    fn after_a_change_of_keys_the_old_one_still_opens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let sealed = SealKeys::read_or_make(&path).unwrap().seal("a", b"old").unwrap();
        let old = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{}\n{old}", STANDARD.encode([7; 32]))).unwrap();
        let both = SealKeys::read(&path).unwrap();
        assert_eq!(both.open("a", &sealed).unwrap(), b"old");
        let new = both.seal("a", b"new").unwrap();
        fs::write(&path, STANDARD.encode([7; 32])).unwrap();
        let alone = SealKeys::read(&path).unwrap();
        assert_eq!((alone.open("a", &new).unwrap(), alone.open("a", &sealed)), (b"new".to_vec(), None));
        for wrong in ["", "\n", "c2hvcnQ=", "no base64"] {
            fs::write(&path, wrong).unwrap();
            assert!(SealKeys::read(&path).unwrap_err().to_string().contains("openssl rand"), "{wrong:?}");
        }
    }
}
