//! When an edge that was started is ready for visitors: as soon as the hosts are back that its predecessor
//! had, or after a time. Keeps how many each tunnel had in a file; does not know who asks whether it is ready.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};
use uuid::Uuid;

use crate::registry::{Registry, Tunnel};
use crate::shutdown::Phase;

/// How many hosts each tunnel has. Not who they are: one that was restarted meanwhile comes as another.
type Hosts = BTreeMap<Uuid, usize>;

/// An edge that has just started, and what it waits for.
pub(crate) struct WarmUp {
    registry: Arc<Registry>,
    file: PathBuf,
    /// Before this edge was started.
    known: Hosts,
    until: Instant,
    is_over: AtomicBool,
}

impl WarmUp {
    /// Reads what an earlier process has kept in the data folder, and waits for it no longer than `patience`.
    pub(crate) fn new(registry: Arc<Registry>, data_dir: &Path, patience: Duration) -> Self {
        let file = data_dir.join(FILE);
        let known = read(&file).unwrap_or_else(|error| {
            warn!(path = %file.display(), %error, "which hosts were connected cannot be read; waiting for none");
            Hosts::new()
        });
        let warm_up =
            Self { registry, file, known, until: Instant::now() + patience, is_over: AtomicBool::new(false) };
        let hosts = warm_up.missing();
        if hosts > 0 && !patience.is_zero() {
            info!(hosts, ?patience, "not ready before the hosts are back that were connected");
        }
        warm_up
    }

    /// How many hosts are still waited for; none once the edge was ready.
    pub(crate) fn waits_for(&self) -> usize {
        if self.is_over.load(Ordering::Relaxed) {
            return 0;
        }
        let missing = if Instant::now() < self.until { self.missing() } else { 0 };
        if missing == 0 {
            self.is_over.store(true, Ordering::Relaxed);
        }
        missing
    }

    /// Keeps how many hosts each tunnel has, for the next process, until the edge begins to stop: what leaves
    /// then leaves because of that.
    pub(crate) async fn keep(&self, draining: &Phase) {
        let mut kept = self.known.clone();
        let mut has_failed = false;
        loop {
            tokio::select! {
                () = draining.wait() => return,
                () = sleep(EVERY) => {}
            }
            // An edge that does not get that far leaves its successor what it has found itself.
            if self.waits_for() > 0 {
                continue;
            }
            let hosts = self.hosts();
            if hosts == kept {
                continue;
            }
            let (file, text) = (self.file.clone(), serde_json::to_vec(&hosts));
            let written = spawn_blocking(move || write(&file, &text?)).await;
            match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(()) => (kept, has_failed) = (hosts, false),
                Err(error) if !has_failed => {
                    has_failed = true;
                    warn!(path = %self.file.display(), %error, "which hosts are connected cannot be kept");
                }
                Err(_) => {}
            }
        }
    }

    fn missing(&self) -> usize {
        let tunnels = self.registry.tunnels();
        let missing = |(id, count): (&Uuid, &usize)| {
            // Nothing comes back to a tunnel that is gone.
            tunnels.get(id).map_or(0, |tunnel| count.saturating_sub(hosts(tunnel)))
        };
        self.known.iter().map(missing).sum()
    }

    fn hosts(&self) -> Hosts {
        let tunnels = self.registry.tunnels();
        let counted = tunnels.iter().map(|(id, tunnel)| (*id, hosts(tunnel)));
        counted.filter(|(_, count)| *count > 0).collect()
    }
}

/// How many hosts serve the tunnel now.
fn hosts(tunnel: &Tunnel) -> usize {
    let connections = tunnel.connections();
    let serving = connections.iter().filter(|live| live.is_serving());
    serving.map(|live| live.connector).collect::<HashSet<_>>().len()
}

fn read(file: &Path) -> io::Result<Hosts> {
    match adit_files::read(file, LONGEST) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Hosts::new()),
        Err(error) => Err(error),
    }
}

/// Whole or not at all for who reads it. A failing power may cost it, which costs a wait.
fn write(file: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = file.with_extension("new");
    fs::write(&temporary, text)?;
    fs::rename(&temporary, file)
}

/// In the data folder.
const FILE: &str = "hosts.json";
/// Bytes: more than a hundred thousand tunnels.
const LONGEST: usize = 8 << 20;
/// What comes and goes within this time need not be kept.
const EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn warm_up(text: Option<&str>) -> WarmUp {
        let folder = tempfile::tempdir().unwrap();
        if let Some(text) = text {
            fs::write(folder.path().join(FILE), text).unwrap();
        }
        WarmUp::new(Arc::new(Registry::new([])), folder.path(), Duration::from_secs(60))
    }

    #[test]
    fn an_edge_that_knows_of_no_hosts_is_ready_at_once() {
        let deleted = format!("{{\"{}\": 3}}", Uuid::from_u128(1));
        for text in [None, Some("{}"), Some(""), Some("[1]"), Some("{\"x\": 1}"), Some(deleted.as_str())] {
            assert_eq!(warm_up(text).waits_for(), 0, "{text:?}");
        }
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        let hosts = Hosts::from([(Uuid::from_u128(1), 2), (Uuid::from_u128(2), 1)]);
        write(&file, &serde_json::to_vec(&hosts).unwrap()).unwrap();
        assert_eq!(read(&file).unwrap(), hosts);
        assert!(read(folder.path()).is_err());
    }
}
