//! Where the files of tunnels are looked for, and how secret ones are written. Knows folders and modes; does
//! not know what is in the files.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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
