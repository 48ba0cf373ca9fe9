//! Where the files of tunnels are looked for, and how secret ones are written, in folders or in memory alone. Knows
//! folders and modes; does not know what is in the files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Where cloudflared keeps its files, in its order.
pub(crate) fn folders() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let below =
        |home: PathBuf| [".cloudflared", ".cloudflare-warp", "cloudflare-warp"].map(|name| home.join(name));
    let of_home = home.into_iter().flat_map(below);
    of_home.chain(["/etc/cloudflared", "/usr/local/etc/cloudflared"].map(PathBuf::from)).collect()
}

/// The first of these names in the first folder that has one.
pub(crate) fn find(names: &[&str]) -> Option<PathBuf> {
    let candidates = folders().into_iter().flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    candidates.into_iter().find(|path| path.is_file())
}

/// Where new files go if nobody says otherwise.
pub(crate) fn default_folder() -> PathBuf {
    folders().swap_remove(0)
}

/// Makes a file that its owner alone can read. One that is there is never overwritten.
pub(crate) fn write_secret(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(text.as_bytes())
}

/// A secret as a file that lies in no folder: its memory belongs to this process and goes with it, however that
/// ends. Nothing changes it, and no program that this one starts inherits it.
pub(crate) struct InMemory(File);

impl InMemory {
    /// # Errors
    /// There is no memory for it, or no `/proc`, by which alone it has a path.
    pub(crate) fn keep(text: &str) -> io::Result<Self> {
        let mut file = File::from(memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        file.write_all(text.as_bytes())?;
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        let kept = Self(file);
        adit_files::open(&kept.path())
            .map_err(|error| io::Error::new(error.kind(), format!("{error}: is /proc mounted?")))?;
        Ok(kept)
    }

    /// What leads to it within this process, while it is kept.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// What those see of it who look at the open files of this process.
const NAME: &str = "tunnel-identity";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_in_memory_is_read_again_and_again_and_written_by_nobody() {
        let kept = InMemory::keep("the secret").unwrap();
        for _ in 0..2 {
            assert_eq!(adit_files::read(&kept.path(), 100).unwrap(), b"the secret");
        }
        assert!(std::fs::write(kept.path(), "another").is_err());
        let path = kept.path();
        drop(kept);
        assert!(std::fs::read(path).map_or(true, |read| read != b"the secret"));
    }
}
