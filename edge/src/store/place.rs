//! Whether an open state file is still the one at its path. What is written to a file that was removed or replaced
//! is gone with the process, although every write succeeds. Knows files; does not know what is in them.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The files that an engine has open.
pub(super) struct Place {
    path: PathBuf,
    /// What was found at the path of each, once it was there.
    files: [(PathBuf, Option<Identity>); 3],
}

/// Device and inode.
type Identity = (u64, u64);

impl Place {
    /// To be made once the file has been read and written, so that those beside it are there.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let beside = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let mut place = Self {
            path: path.to_owned(),
            files: [path.to_owned(), beside("-wal"), beside("-shm")].map(|path| (path, None)),
        };
        place.files[0].1 = Some(identity(path)?);
        place.look().map_err(io::Error::other)?;
        Ok(place)
    }

    /// # Errors
    /// What became of the files.
    pub(super) fn look(&mut self) -> Result<(), String> {
        for (path, known) in &mut self.files {
            match (identity(path), *known) {
                (Ok(found), Some(known)) if found == known => {}
                (Ok(_), Some(_)) => return Err(format!("{} was replaced by another file", path.display())),
                (Ok(found), None) => *known = Some(found),
                (Err(_), None) => {}
                (Err(error), Some(_)) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(format!("{} was removed", path.display()));
                }
                (Err(error), Some(_)) => {
                    return Err(format!("{} cannot be looked at: {error}", path.display()));
                }
            }
        }
        Ok(())
    }

    /// Puts `write` in charge of a new file, and that in the place of the one that was lost.
    ///
    /// # Errors
    /// Another file is there, or it cannot be written.
    pub(super) fn restore(&self, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        let folder =
            self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        // Opened before anything is changed, so that this does not fail behind it.
        let held = File::open(folder)?;
        let taken = || {
            let help = "move it away to have this edge's own state written, or restart the edge to serve what is there";
            io::Error::new(io::ErrorKind::AlreadyExists, format!("another file is there; {help}"))
        };
        if fs::symlink_metadata(&self.path).is_ok() && identity(&self.path).ok() != self.files[0].1 {
            return Err(taken());
        }
        let temporary = self.path.with_extension(format!("new-{}", std::process::id()));
        remove(&temporary)?;
        let placed = write(&temporary).and_then(|()| {
            // They belong to the file that was lost, and would be read as part of the new one.
            self.files.iter().skip(1).try_for_each(|(path, _)| remove(path))?;
            if identity(&self.path).ok() == self.files[0].1 && self.files[0].1.is_some() {
                fs::rename(&temporary, &self.path)
            } else {
                fs::hard_link(&temporary, &self.path).map_err(|error| {
                    if error.kind() == io::ErrorKind::AlreadyExists { taken() } else { error }
                })
            }
        });
        remove(&temporary)?;
        placed?;
        match held.sync_all() {
            // A file system that knows no such thing of a folder.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            synced => synced,
        }
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
