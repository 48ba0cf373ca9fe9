//! Files that a configuration names, read as bounded regular files, and files that are replaced whole.
//!
//! Knows files; does not know what is in them. Both ends, the commands and the registry client read through it,
//! so that no device, pipe or endless file can hold up a start, a check or a reload.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, test_kill_process};

/// Opens a regular file; a link counts as what it leads to. Never waits for another process.
///
/// # Errors
/// There is none, it may not be read, or it is a folder, a device, a pipe or a socket.
pub fn open(path: &Path) -> io::Result<File> {
    // A pipe that nothing writes to would otherwise hold up whoever opens it.
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() {
        let what = if kind.is_dir() {
            "this is a directory, not a regular file"
        } else {
            "this is not a regular file"
        };
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(file)
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`open`], and if it is larger.
pub fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// The same for text.
///
/// # Errors
/// As [`read`], and if it is not UTF-8.
pub fn read_text(path: &Path, limit: usize) -> io::Result<String> {
    String::from_utf8(read(path, limit)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "this is not UTF-8 text"))
}

/// What would be different if a file had changed: device, inode, size, and the times of content and of inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark([i128; 5]);

/// How a file is now; a link counts as what it leads to. `None` where there is none. Looking at marks also sees files
/// behind links, as Kubernetes swaps them, and those on network file systems, of which no events come.
pub fn mark(path: &Path) -> Option<Mark> {
    let found = fs::metadata(path).ok()?;
    let time = |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    Some(Mark([
        found.dev().into(),
        found.ino().into(),
        found.size().into(),
        time(found.mtime(), found.mtime_nsec()),
        time(found.ctime(), found.ctime_nsec()),
    ]))
}

/// Replaces a file so that there is either the old one or the new one, whole, whenever the power fails. What a
/// process that was killed midway has left beside it is removed.
///
/// # Errors
/// It cannot be written; then the old one is as it was, unless the disk failed at the very last step.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    put(path, bytes, mode, |temporary| fs::rename(temporary, path))
}

/// Makes a file that is not there yet, whole or not at all, as [`replace`] does.
///
/// # Errors
/// It cannot be written, or it is there already: then [`io::ErrorKind::AlreadyExists`], and it is as it was.
pub fn make(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    put(path, bytes, mode, |temporary| {
        fs::hard_link(temporary, path)?;
        fs::remove_file(temporary)
    })
}

fn put(path: &Path, bytes: &[u8], mode: u32, place: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // A rename lasts once its folder is on the disk. A folder that cannot be opened for that must not show behind it.
    let held = File::open(folder)?;
    sweep(path);
    let temporary = path.with_file_name(format!("{}{}", prefix(path), std::process::id()));
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary);
    let written = open.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let placed = written.and_then(|()| place(&temporary));
    if placed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    placed?;
    match held.sync_all() {
        // A file system that knows no such thing.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

/// Removes what processes that are gone have left of a [`replace`] or a [`make`] of this file.
pub fn sweep(path: &Path) {
    let prefix = prefix(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let left = fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.parse::<i32>().ok());
        process.and_then(Pid::from_raw).is_some_and(is_gone)
    });
    for entry in left {
        let _ = fs::remove_file(entry.path());
    }
}

/// Whether no process has this id. One that belongs to another user is there.
fn is_gone(process: Pid) -> bool {
    test_kill_process(process) == Err(rustix::io::Errno::SRCH)
}

/// What the name of a temporary file begins with; the id of the process that writes it follows.
fn prefix(path: &Path) -> String {
    format!(".{}.", path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default())
}

/// Whether a state folder can be one: it is a folder, or there is nothing and one can be made in its place.
///
/// # Errors
/// Why not.
pub fn check_folder(path: &Path) -> io::Result<()> {
    let nearest: Option<PathBuf> = path.ancestors().find(|folder| folder.exists()).map(Path::to_owned);
    match nearest {
        Some(folder) if folder.as_os_str().is_empty() || folder.is_dir() => {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
            rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
                .map_err(io::Error::from)
        }
        Some(file) => {
            Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is not a folder", file.display())))
        }
        // A relative path whose first part is not there: it begins here.
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_within_the_limit_are_read_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "1234").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        assert_eq!(read(&at("link"), 4).unwrap(), b"1234");
        assert!(read(&at("file"), 3).unwrap_err().to_string().contains("longer than 3 bytes"));
        for other in [at("pipe"), folder.path().to_owned(), "/dev/zero".into(), "/dev/null".into()] {
            let error = read(&other, 10).unwrap_err().to_string();
            assert!(error.contains("not a regular file"), "{}: {error}", other.display());
        }
        assert_eq!(read(&at("absent"), 3).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(at("latin"), b"\xff").unwrap();
        assert!(read_text(&at("latin"), 3).unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn a_replaced_file_is_whole_and_what_a_killed_process_left_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.toml");
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        fs::write(folder.path().join(format!(".host.toml.{}", gone.id())), "half").unwrap();
        // Of a process that lives, and of nobody.
        fs::write(folder.path().join(".host.toml.1"), "half").unwrap();
        fs::write(folder.path().join(".host.toml.swp"), "an editor's").unwrap();
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".host.toml.1", ".host.toml.swp", "host.toml"]);
    }

    #[test]
    fn a_file_is_made_once_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        make(&path, b"one", 0o600).unwrap();
        assert_eq!(make(&path, b"two", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_state_folder_is_a_folder_or_can_become_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(check_folder(folder.path()).is_ok() && check_folder(&folder.path().join("a/b")).is_ok());
        for path in ["file", "file/state"] {
            let error = check_folder(&folder.path().join(path)).unwrap_err().to_string();
            assert!(error.contains("not a folder"), "{path}: {error}");
        }
    }
}
