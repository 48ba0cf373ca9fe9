//! The folder of machine code. A file is named after the component that it was made from, the engine
//! that it was made for, and itself: what does not hash to its own name is never run.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tracing::{debug, warn};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Bytes and files that are kept; those that were longest of no use go first.
const MOST_BYTES: u64 = 2 << 30;
const MOST_FILES: usize = 512;
/// A half-written file so old has nobody who would finish it.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// Anybody but the owner.
const OTHERS: u32 = 0o077;
/// To hash a file it is read in pieces of so many bytes.
const PIECE: usize = 64 * 1024;

const ENDING: &str = ".code";
const HALF: &str = ".half-";

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Numbers half-written files.
    counter: AtomicU64,
}

impl Folder {
    /// Makes the folder if it is not there. It must belong to this user and to nobody else.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        // Not what a link leads to, which may be changed.
        check(&fs::symlink_metadata(path)?, Metadata::is_dir)?;
        Ok(Self { path: path.to_owned(), counter: AtomicU64::new(0) })
    }

    /// The code of the component with this digest, if it is there and whole.
    pub(super) fn load(&self, engine: &Engine, digest: &[u8; 32]) -> Option<Component> {
        let stem = stem(engine, digest);
        for file in fs::read_dir(&self.path).ok()?.filter_map(Result::ok) {
            let name = file.file_name();
            let Some(sum) = name.to_str().and_then(|name| name.strip_prefix(&stem)?.strip_suffix(ENDING))
            else {
                continue;
            };
            match map(engine, &file.path(), sum) {
                Ok(component) => return Some(component),
                Err(error) => {
                    let path = file.path();
                    warn!(path = %path.display(), %error, "this machine code is not used: compiling again");
                    let _ = fs::remove_file(path);
                }
            }
        }
        None
    }

    /// Keeps code, and lets go of what is too much.
    pub(super) fn keep(&self, engine: &Engine, digest: &[u8; 32], code: &[u8]) -> io::Result<()> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let half = self.path.join(format!("{HALF}{}-{number}", std::process::id()));
        let name = format!("{}{}{ENDING}", stem(engine, digest), hex(&Sha256::digest(code)));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half)?;
            file.write_all(code)?;
            fs::rename(&half, self.path.join(name))
        })();
        if written.is_err() {
            let _ = fs::remove_file(&half);
        }
        self.tidy();
        written
    }

    /// Removes what was longest of no use, until the rest is within bounds. A file that is mapped
    /// lives on until it is let go.
    fn tidy(&self) {
        let Ok(files) = fs::read_dir(&self.path) else { return };
        let (mut kept, now) = (Vec::new(), SystemTime::now());
        for file in files.filter_map(Result::ok) {
            let Ok(metadata) = file.metadata() else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let age = now.duration_since(used).unwrap_or_default();
            let name = file.file_name();
            match name.to_str() {
                Some(name) if name.ends_with(ENDING) => kept.push((used, metadata.len(), file.path())),
                Some(name) if name.starts_with(HALF) && age > FORGOTTEN => {
                    let _ = fs::remove_file(file.path());
                }
                // Nothing of ours.
                _ => {}
            }
        }
        kept.sort_unstable_by_key(|(used, ..)| std::cmp::Reverse(*used));
        let mut bytes = 0;
        for (number, (_, length, path)) in kept.into_iter().enumerate() {
            bytes += length;
            if number >= MOST_FILES || bytes > MOST_BYTES {
                debug!(path = %path.display(), "machine code that was long of no use goes");
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Maps a file of code that hashes to `sum`.
#[allow(unsafe_code)]
fn map(engine: &Engine, path: &Path, sum: &str) -> io::Result<Component> {
    let mut file = File::open(path)?;
    check(&fs::symlink_metadata(path)?, Metadata::is_file)?;
    if hex(&digest(&mut file)?) != sum {
        return Err(io::Error::other("it is not what was kept"));
    }
    // For `tidy`: it was of use now.
    let _ = file.set_modified(SystemTime::now());
    // SAFETY: the file was made by `keep` from what `Engine::precompile_component` made: it hashes to
    // the name that it got then, and neither it nor its folder can be written to by anybody but this
    // user, as which this process runs. Its owner never writes to a file again that is there under its
    // own name, so that what is mapped does not change. wasmtime itself refuses another version or
    // other settings of the compiler.
    let component = unsafe { Component::deserialize_file(engine, path) };
    component.map_err(|error| io::Error::other(error.root_cause().to_string()))
}

/// Code that was just made, where nothing can be kept.
#[allow(unsafe_code)]
pub(super) fn load(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: these bytes come from a child that runs this program's own compiler, through a pipe that
    // nobody else has.
    unsafe { Component::deserialize(engine, code) }
}

/// Nobody but this user may have a hand in it.
fn check(metadata: &Metadata, is_right: impl Fn(&Metadata) -> bool) -> io::Result<()> {
    let wrong = if !is_right(metadata) {
        "it is something else"
    } else if metadata.uid() != rustix::process::geteuid().as_raw() {
        "it belongs to another user"
    } else if metadata.mode() & OTHERS != 0 {
        "others have access to it; `chmod 700` the folder"
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, wrong))
}

/// The beginning of a file's name.
fn stem(engine: &Engine, digest: &[u8; 32]) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{}-{:016x}-", hex(digest), hasher.finish())
}

fn digest(file: &mut File) -> io::Result<[u8; 32]> {
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; PIECE]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finalize().into()),
            length => hasher.update(&piece[..length]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const DIGEST: [u8; 32] = [7; 32];

    fn code(engine: &Engine) -> Vec<u8> {
        engine.precompile_component(&wat::parse_str("(component)").unwrap()).unwrap()
    }

    fn kept() -> (tempfile::TempDir, Folder, Engine) {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place.path().join("a/b")).unwrap();
        let engine = Engine::default();
        folder.keep(&engine, &DIGEST, &code(&engine)).unwrap();
        (place, folder, engine)
    }

    fn files(folder: &Folder) -> Vec<PathBuf> {
        fs::read_dir(&folder.path).unwrap().map(|file| file.unwrap().path()).collect()
    }

    #[test]
    fn what_is_kept_is_found_by_component_and_engine() {
        let (_place, folder, engine) = kept();
        assert!(folder.load(&engine, &DIGEST).is_some());
        assert!(folder.load(&engine, &[8; 32]).is_none());
        let other = Engine::new(wasmtime::Config::new().epoch_interruption(true)).unwrap();
        assert!(folder.load(&other, &DIGEST).is_none());
        assert_eq!(files(&folder).len(), 1);
    }

    #[test]
    fn a_file_that_was_changed_is_removed_and_not_run() {
        let (_place, folder, engine) = kept();
        let file = files(&folder).remove(0);
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert!(folder.load(&engine, &DIGEST).is_none());
        assert!(files(&folder).is_empty());
    }

    #[test]
    fn code_for_another_engine_under_a_good_name_is_not_run() {
        let (_place, folder, engine) = kept();
        fs::remove_file(files(&folder).remove(0)).unwrap();
        let other = Engine::new(wasmtime::Config::new().epoch_interruption(true)).unwrap();
        folder.keep(&engine, &DIGEST, &code(&other)).unwrap();
        assert!(folder.load(&engine, &DIGEST).is_none());
        folder.keep(&engine, &DIGEST, b"no machine code at all").unwrap();
        assert!(folder.load(&engine, &DIGEST).is_none());
    }

    #[test]
    fn what_others_can_reach_is_not_used() {
        let (place, folder, engine) = kept();
        let file = files(&folder).remove(0);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(folder.load(&engine, &DIGEST).is_none());
        let open = place.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(Folder::open(&open).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&folder.path, &link).unwrap();
        assert!(Folder::open(&link).is_err());
    }

    #[test]
    fn what_was_longest_of_no_use_goes_first() {
        let (_place, folder, engine) = kept();
        for number in 0..MOST_FILES {
            let path = folder.path.join(format!("{number}{ENDING}"));
            File::create(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
        folder.keep(&engine, &[9; 32], &code(&engine)).unwrap();
        assert_eq!(files(&folder).len(), MOST_FILES);
        assert!(folder.load(&engine, &DIGEST).is_some() && folder.load(&engine, &[9; 32]).is_some());
    }
}
