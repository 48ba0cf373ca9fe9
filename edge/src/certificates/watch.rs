//! Looks whether files of certificates have changed, and has what is good in them shown. Looks at metadata instead of
//! listening for events: that also sees files behind links, as Kubernetes swaps them, and on network file systems.

use std::sync::Arc;
use std::time::Duration;

use adit_files::{Mark, mark};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Certificates;
use super::place::{Place, moment};
use crate::tls::IdentityFiles;

type Marks = [Option<Mark>; 2];

/// How the files of one place were found.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// When they were read last.
    read: Marks,
    /// At the last look.
    last: Marks,
}

/// Looks until `stop`. Waits for the file system where it is called.
pub(crate) async fn run(certificates: Arc<Certificates>, stop: CancellationToken) {
    let watched = |place: &&Arc<Place>| place.files().is_some();
    let places: Vec<Arc<Place>> = certificates.places().iter().filter(watched).cloned().collect();
    // Whatever was written between the start and this moment is read once more.
    let mut seen = vec![Seen { read: [None; 2], last: [None; 2] }; places.len()];
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let mut has_changed = false;
        for (place, seen) in places.iter().zip(&mut seen) {
            let Some(files) = place.files() else { continue };
            let now = marks(files);
            // Whoever writes two files one after the other is given time for both.
            let has_come_to_rest = now == seen.last;
            seen.last = now;
            if has_come_to_rest && now != seen.read {
                seen.read = now;
                has_changed |= look(place, files);
            }
        }
        if has_changed {
            certificates.follow();
        }
    }
}

fn look(place: &Place, files: &IdentityFiles) -> bool {
    let (usage, path) = (place.usage().word(), files.chain.display());
    match place.read_again() {
        Ok(true) => {
            let shown = place.shown();
            let (names, until) = (shown.leaf.names.join(" "), moment(shown.not_after));
            info!(usage, certificate = %path, names, %until, "a new certificate is shown");
            true
        }
        Ok(false) => false,
        Err(error) => {
            let until = moment(place.shown().not_after);
            warn!(usage, certificate = %path, error, %until, "a new certificate is not taken: the one before is shown until it ends");
            false
        }
    }
}

fn marks(files: &IdentityFiles) -> Marks {
    [mark(&files.chain), mark(&files.key)]
}

/// How often files are looked at. They are read when two looks found the same.
const EVERY: Duration = Duration::from_millis(500);
