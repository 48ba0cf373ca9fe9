//! Watches the document and every file that it names, and asks for a reload when they have changed and
//! come to rest.
//!
//! Looks at metadata instead of listening for events: that also sees files behind links, as
//! Kubernetes swaps them, on network file systems and in bind mounts, where events do not arrive.

use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

use crate::history::Source;
use crate::reload::Reload;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Nothing must change for so long: whoever writes a file piece by piece is given time to finish.
const REST: Duration = Duration::from_millis(250);

/// What would be different if a file had changed. A link counts as what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    path: PathBuf,
    /// Device, inode, size, and the times of content and of inode; absent where there is no file.
    facts: Option<[i128; 5]>,
}

/// Asks for a reload whenever something has changed, until dropped.
pub async fn watch(reload: Reload) {
    let files = reload.files();
    let first = files.borrow().clone();
    let mut seen = look(first).await;
    loop {
        sleep(LOOK_EVERY).await;
        let watched = files.borrow().clone();
        // A file that is named from now on has been read by whoever named it.
        let mut now = look(watched.clone()).await;
        seen.retain(|mark| watched.contains(&mark.path));
        let known: HashSet<PathBuf> = seen.iter().map(|mark| mark.path.clone()).collect();
        let new: Vec<Mark> = now.iter().filter(|mark| !known.contains(&mark.path)).cloned().collect();
        seen.extend(new);
        seen.sort_by(|one, other| one.path.cmp(&other.path));
        if now == seen {
            continue;
        }
        loop {
            sleep(REST).await;
            let later = look(watched.clone()).await;
            if later == now {
                break;
            }
            now = later;
        }
        seen = now;
        // The verdict is in the log, in the history and in the status.
        reload.reread(Source::File).await;
    }
}

/// On a thread that may wait: a file system may be far away.
async fn look(files: Vec<PathBuf>) -> Vec<Mark> {
    let looked = tokio::task::spawn_blocking(move || files.iter().map(|path| mark(path)).collect());
    looked.await.unwrap_or_default()
}

fn mark(path: &Path) -> Mark {
    let facts = |file: Metadata| {
        let time =
            |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        [
            i128::from(file.dev()),
            i128::from(file.ino()),
            i128::from(file.size()),
            time(file.mtime(), file.mtime_nsec()),
            time(file.ctime(), file.ctime_nsec()),
        ]
    };
    Mark { path: path.to_owned(), facts: std::fs::metadata(path).ok().map(facts) }
}
