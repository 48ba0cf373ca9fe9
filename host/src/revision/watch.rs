//! Watches the document and every file that it names, and asks for a reload when they have changed and
//! come to rest.
//!
//! Looks at metadata instead of listening for events: that also sees files behind links, as
//! Kubernetes swaps them, on network file systems and in bind mounts, where events do not arrive.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use adit_files::{Mark, mark};
use tokio::time::sleep;

use crate::revision::Reload;
use crate::revision::history::Source;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Nothing must change for so long: whoever writes a file piece by piece is given time to finish.
const REST: Duration = Duration::from_millis(250);
/// One that is written without an end is read as it is after so many: 10 s.
const MOST_RESTS: usize = 40;

/// Absent where there is no file.
type Facts = Option<Mark>;

/// By path, so that it does not matter in which order files are named.
type Marks = BTreeMap<PathBuf, Facts>;

/// The document as this host has written it last: that is no change to read again, least of all where something
/// that is not saved serves by now.
#[derive(Default)]
pub struct OwnWriting(Mutex<Option<(PathBuf, Facts)>>);

impl OwnWriting {
    /// Remembers the document, unless somebody else has written it since. Waits for the file system.
    pub(super) fn wrote(&self, document: PathBuf, text: &[u8]) {
        let facts = mark(&document);
        let is_ours = std::fs::read(&document).is_ok_and(|read| read == text);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = is_ours.then_some((document, facts));
    }

    /// Takes the document for seen if it is as it was written.
    fn take_over(&self, seen: &mut Marks, now: &Marks) {
        let own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((document, facts)) = &*own
            && now.get(document) == Some(facts)
        {
            seen.insert(document.clone(), *facts);
        }
    }
}

/// Asks for a reload whenever something has changed, until dropped.
pub async fn watch(reload: Reload) {
    let files = reload.files();
    let first = files.borrow().clone();
    let mut seen = look(first).await;
    loop {
        sleep(LOOK_EVERY).await;
        let watched = files.borrow().clone();
        let mut now = look(watched.clone()).await;
        take_over(&mut seen, &now);
        reload.own_writing().take_over(&mut seen, &now);
        if now == seen {
            continue;
        }
        for _ in 0..MOST_RESTS {
            sleep(REST).await;
            let later = look(watched.clone()).await;
            if later == now {
                break;
            }
            now = later;
        }
        reload.own_writing().take_over(&mut seen, &now);
        if now == seen {
            continue;
        }
        seen = now;
        // The verdict is in the log, in the history and in the status.
        reload.reread(Source::File).await;
    }
}

/// Forgets files that are not named any more. One that is named from now on has been read by whoever named it.
fn take_over(seen: &mut Marks, now: &Marks) {
    seen.retain(|path, _| now.contains_key(path));
    for (path, facts) in now {
        seen.entry(path.clone()).or_insert(*facts);
    }
}

/// On a thread that may wait: a file system may be far away.
async fn look(files: Vec<PathBuf>) -> Marks {
    let looked = tokio::task::spawn_blocking(move || {
        files
            .into_iter()
            .map(|path| {
                let facts = mark(&path);
                (path, facts)
            })
            .collect()
    });
    looked.await.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_not_changed_looks_the_same_in_whatever_order_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["z", "m", "a"] {
            std::fs::write(at(name), name).unwrap();
        }
        let mut seen = look(["z", "a", "absent"].map(at).to_vec()).await;
        // The same files, then one more and one less.
        for names in [&["z", "a", "absent"][..], &["m", "z", "a"], &["a", "z", "m"]] {
            let now = look(names.iter().map(|name| at(name)).collect()).await;
            take_over(&mut seen, &now);
            assert_eq!(now, seen, "{names:?}");
        }
        std::fs::write(at("m"), "changed").unwrap();
        let now = look(["z", "m"].map(at).to_vec()).await;
        take_over(&mut seen, &now);
        assert_ne!(now, seen);
    }
}
