//! A log file, and those before it where it may not grow for ever. Knows names and sizes; no log line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;

/// Where a log is appended to.
pub(super) struct Rolling {
    path: PathBuf,
    file: File,
    /// Bytes in it, where it may not be longer than [`LONGEST`].
    length: Option<u64>,
}

impl Rolling {
    /// Ever the same file.
    pub(super) fn one(path: PathBuf) -> anyhow::Result<Self> {
        let file = open(&path).with_context(|| format!("opening the log file {}", path.display()))?;
        Ok(Self { path, file, length: None })
    }

    /// `cloudflared.log` in this folder; a full one is put aside, and few of these are kept.
    pub(super) fn below(folder: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("making the log folder {}", folder.display()))?;
        let mut rolling = Self::one(folder.join(NAME))?;
        rolling.length = Some(rolling.file.metadata().map_or(0, |metadata| metadata.len()));
        Ok(rolling)
    }

    fn roll(&mut self) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("")).to_owned();
        let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string().replace(':', "-");
        std::fs::rename(&self.path, folder.join(format!("cloudflared-{}.log", now.trim_end_matches('Z'))))?;
        self.file = open(&self.path)?;
        self.length = Some(0);
        let mut aside: Vec<PathBuf> = std::fs::read_dir(&folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| is_aside(path))
            .collect();
        // Their names are times.
        aside.sort();
        for old in aside.iter().rev().skip(MOST_ASIDE) {
            let _ = std::fs::remove_file(old);
        }
        Ok(())
    }
}

impl Write for Rolling {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        // Whole lines only, so that a file ends with one.
        let mut taken = lines;
        if let Some(length) = self.length {
            if length >= LONGEST {
                self.roll()?;
            }
            let room =
                usize::try_from(LONGEST.saturating_sub(self.length.unwrap_or(0))).unwrap_or(usize::MAX);
            if lines.len() > room {
                let end = lines[room..]
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .map_or(lines.len(), |at| room + at + 1);
                taken = &lines[..end];
            }
        }
        self.file.write_all(taken)?;
        self.length = self.length.map(|length| length + taken.len() as u64);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn is_aside(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("cloudflared-") && name.ends_with(".log")
}

const NAME: &str = "cloudflared.log";
/// Bytes of one file: 1 MB, as the reference says of its own.
const LONGEST: u64 = 1_000_000;
const MOST_ASIDE: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_put_aside_and_few_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..8 {
            std::fs::write(folder.path().join(format!("cloudflared-200{number}.log")), "old\n").unwrap();
        }
        let mut log = Rolling::below(folder.path().to_owned()).unwrap();
        let lines = "a line of the log\n".repeat(70_000);
        log.write_all(lines.as_bytes()).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 1 + MOST_ASIDE, "{names:?}");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let (newest, before) = (read(NAME), read(&names[MOST_ASIDE - 1]));
        assert!(before.len() as u64 >= LONGEST && before.ends_with("log\n") && newest.starts_with("a line"));
        assert_eq!(before.len() + newest.len(), lines.len());
        // What is there is gone on with.
        let mut log = Rolling::below(folder.path().to_owned()).unwrap();
        log.write_all(b"more\n").unwrap();
        assert_eq!(read(NAME).len(), newest.len() + 5);
    }
}
