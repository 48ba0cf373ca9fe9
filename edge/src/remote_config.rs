//! The configurations that this edge gives to the replicas of its tunnels, and what each replica made of
//! them. Knows versions and verdicts; does not know how a replica is spoken to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use adit_protocol::rpc::MAX_CONFIGURATION;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;
use uuid::Uuid;

/// A configuration for every replica of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DesiredConfig {
    /// Only goes up.
    pub(crate) version: i32,
    /// JSON in the reference's form (wire.md, 9.2).
    pub(crate) config: Bytes,
}

/// What one replica made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Replica {
    pub(crate) connector: Uuid,
    /// The version that it was given last.
    pub(crate) pushed: i32,
    /// The version that it serves; absent if it did not say.
    pub(crate) applied: Option<i32>,
    /// Why it serves another.
    pub(crate) error: Option<String>,
    /// What of this version it serves otherwise than it was meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) warning: Option<String>,
    /// From the push to the verdict.
    pub(crate) milliseconds: u64,
}

/// All tunnels that have a configuration of this edge.
#[derive(Default)]
pub(crate) struct RemoteConfigs {
    tunnels: Mutex<HashMap<Uuid, Managed>>,
    folder: OnceLock<PathBuf>,
}

struct Managed {
    wanted: DesiredConfig,
    /// It comes from the control API, which keeps it.
    is_followed: bool,
    replicas: BTreeMap<Uuid, Replica>,
}

/// As it lies in the folder.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: i32,
    config: Value,
}

impl Managed {
    fn new(wanted: DesiredConfig, is_followed: bool) -> Self {
        Self { wanted, is_followed, replicas: BTreeMap::new() }
    }
}

impl RemoteConfigs {
    /// Reads what an earlier process has kept, and keeps what comes there too.
    pub(crate) fn open(&self, data_dir: &Path) -> io::Result<()> {
        let folder = data_dir.join("configurations");
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let id =
                path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.parse::<Uuid>().ok());
            let (Some(id), Some("json")) = (id, path.extension().and_then(|ext| ext.to_str())) else {
                continue;
            };
            let kept = adit_files::read(&path, 2 * MAX_CONFIGURATION)
                .and_then(|bytes| Ok(serde_json::from_slice::<Kept>(&bytes)?));
            match kept {
                Ok(Kept { version, config }) => {
                    let wanted = DesiredConfig { version, config: config.to_string().into() };
                    self.lock().insert(id, Managed::new(wanted, false));
                }
                Err(error) => {
                    warn!(path = %path.display(), %error, "a tunnel's configuration cannot be read")
                }
            }
        }
        let _ = self.folder.set(folder);
        Ok(())
    }

    /// What replicas of this tunnel are given.
    pub(crate) fn wanted(&self, tunnel: &Uuid) -> Option<DesiredConfig> {
        self.lock().get(tunnel).map(|managed| managed.wanted.clone())
    }

    /// The next version of a tunnel's configuration, higher than `above` too. It is kept before it counts.
    /// Writes a file.
    pub(crate) fn put(&self, tunnel: Uuid, config: &Value, above: i32) -> io::Result<DesiredConfig> {
        let mut tunnels = self.lock();
        let last = tunnels.get(&tunnel).map_or(0, |managed| managed.wanted.version);
        let version = last.max(above).checked_add(1);
        let version = version.ok_or_else(|| io::Error::other("there is no higher version"))?;
        if let Some(folder) = self.folder.get() {
            let text = serde_json::to_vec(&Kept { version, config: config.clone() })?;
            // Whoever cleaned up meanwhile took the folder too.
            fs::create_dir_all(folder)?;
            adit_files::replace(&folder.join(format!("{tunnel}.json")), &text, 0o600)?;
        }
        let wanted = DesiredConfig { version, config: config.to_string().into() };
        let managed = tunnels.entry(tunnel).or_insert_with(|| Managed::new(wanted.clone(), false));
        managed.wanted = wanted.clone();
        Ok(wanted)
    }

    /// Takes over what the control API keeps, all of it, and hands back the tunnels that want something new.
    pub(crate) fn follow<'c>(&self, all: impl Iterator<Item = (Uuid, i32, &'c Value)>) -> Vec<Uuid> {
        let (mut tunnels, mut followed, mut changed) = (self.lock(), HashSet::new(), Vec::new());
        for (id, version, config) in all {
            followed.insert(id);
            let known = tunnels.get(&id);
            if known.is_some_and(|known| known.is_followed && known.wanted.version == version) {
                continue;
            }
            let wanted = DesiredConfig { version, config: config.to_string().into() };
            let managed = tunnels.entry(id).or_insert_with(|| Managed::new(wanted.clone(), true));
            (managed.wanted, managed.is_followed) = (wanted, true);
            changed.push(id);
        }
        tunnels.retain(|id, managed| !managed.is_followed || followed.contains(id));
        changed
    }

    /// Whether the control API says what this tunnel wants.
    pub(crate) fn is_followed(&self, tunnel: &Uuid) -> bool {
        self.lock().get(tunnel).is_some_and(|managed| managed.is_followed)
    }

    /// Notes what a replica said to a version, or why it said nothing.
    pub(crate) fn note(
        &self,
        tunnel: &Uuid,
        connector: Uuid,
        pushed: i32,
        took: Duration,
        said: Result<(i32, Option<String>), String>,
    ) {
        let mut tunnels = self.lock();
        let Some(managed) = tunnels.get_mut(tunnel) else { return };
        let (applied, error, warning) = match said {
            // It has applied this version, so what it adds is no refusal.
            Ok((version, Some(warning))) if version == pushed => (Some(version), None, Some(warning)),
            // No error, and another version: it has a higher one, and versions never go back.
            Ok((version, None)) if version != pushed => {
                (Some(version), Some(format!("it serves version {version}, which does not go back")), None)
            }
            Ok((version, error)) => (Some(version), error, None),
            Err(error) => {
                (managed.replicas.get(&connector).and_then(|known| known.applied), Some(error), None)
            }
        };
        if managed.replicas.get(&connector).is_some_and(|known| known.pushed > pushed) {
            // It was given a later one meanwhile, and what it made of that counts.
            return;
        }
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let replica = Replica { connector, pushed, applied, error, warning, milliseconds };
        managed.replicas.insert(connector, replica);
    }

    /// The verdicts of the replicas that are connected; forgets the others.
    pub(crate) fn replicas(&self, tunnel: &Uuid, connected: &[Uuid]) -> Vec<Replica> {
        let mut tunnels = self.lock();
        let Some(managed) = tunnels.get_mut(tunnel) else { return Vec::new() };
        managed.replicas.retain(|connector, _| connected.contains(connector));
        managed.replicas.values().cloned().collect()
    }

    /// Whether this replica was given what its tunnel wants.
    pub(crate) fn is_told(&self, tunnel: &Uuid, connector: &Uuid, version: i32) -> bool {
        let tunnels = self.lock();
        let replica = tunnels.get(tunnel).and_then(|managed| managed.replicas.get(connector));
        replica.is_some_and(|replica| replica.pushed >= version && replica.applied.is_some())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Managed>> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_only_go_up_and_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let tunnel = Uuid::new_v4();
        let fleet = RemoteConfigs::default();
        fleet.open(folder.path()).unwrap();
        assert_eq!(fleet.wanted(&tunnel), None);
        assert_eq!(fleet.put(tunnel, &json!({"ingress": []}), -1).unwrap().version, 1);
        assert_eq!(fleet.put(tunnel, &json!({"ingress": [1]}), 41).unwrap().version, 42);

        let fleet = RemoteConfigs::default();
        fleet.open(folder.path()).unwrap();
        let wanted = fleet.wanted(&tunnel).unwrap();
        assert_eq!((wanted.version, &*wanted.config), (42, br#"{"ingress":[1]}"#.as_slice()));
        assert!(fleet.put(tunnel, &json!({}), i32::MAX).is_err());
        assert_eq!(fleet.wanted(&tunnel).unwrap().version, 42);
    }

    #[test]
    fn what_the_control_api_keeps_is_followed_until_it_is_gone() {
        let (one, two, fleet) = (Uuid::new_v4(), Uuid::new_v4(), RemoteConfigs::default());
        fleet.put(two, &json!({}), -1).unwrap();
        let config = json!({"ingress": [1]});
        assert_eq!(fleet.follow([(one, 3, &config)].into_iter()), [one]);
        assert!(fleet.follow([(one, 3, &config)].into_iter()).is_empty());
        assert_eq!(fleet.wanted(&one).unwrap().version, 3);
        assert!(fleet.is_followed(&one) && !fleet.is_followed(&two));
        assert_eq!(fleet.follow([(one, 4, &config)].into_iter()), [one]);
        assert!(fleet.follow(std::iter::empty()).is_empty());
        assert!(fleet.wanted(&one).is_none() && fleet.wanted(&two).is_some());
    }

    #[test]
    fn every_replica_has_its_own_verdict() {
        let (tunnel, fleet) = (Uuid::new_v4(), RemoteConfigs::default());
        fleet.put(tunnel, &json!({}), -1).unwrap();
        let [good, warned, bad, ahead, silent, gone] = [(); 6].map(|()| Uuid::new_v4());
        let note = |connector, said| fleet.note(&tunnel, connector, 1, Duration::from_millis(5), said);
        note(good, Ok((1, None)));
        note(warned, Ok((1, Some("one rule answers 501".into()))));
        note(bad, Ok((-1, Some("no".into()))));
        note(ahead, Ok((7, None)));
        note(silent, Err("no answer".into()));
        note(gone, Ok((1, None)));
        let replicas = fleet.replicas(&tunnel, &[good, warned, bad, ahead, silent]);
        let of = |connector| replicas.iter().find(|replica| replica.connector == connector).unwrap();
        assert_eq!(replicas.len(), 5);
        assert_eq!((of(good).applied, &of(good).error), (Some(1), &None));
        assert_eq!((of(warned).applied, &of(warned).error), (Some(1), &None));
        assert_eq!(of(warned).warning.as_deref(), Some("one rule answers 501"));
        assert_eq!((of(bad).applied, of(bad).error.as_deref()), (Some(-1), Some("no")));
        assert!(of(ahead).error.as_deref().unwrap().contains("version 7"));
        assert_eq!((of(silent).applied, of(silent).error.as_deref()), (None, Some("no answer")));
        assert!(fleet.is_told(&tunnel, &good, 1) && !fleet.is_told(&tunnel, &silent, 1));
        assert!(!fleet.is_told(&tunnel, &good, 2));

        // A verdict that comes late says nothing any more.
        fleet.note(&tunnel, good, 2, Duration::ZERO, Ok((2, None)));
        note(good, Ok((2, None)));
        let replica = &fleet.replicas(&tunnel, &[good])[0];
        assert_eq!((replica.pushed, &replica.error), (2, &None));
    }
}
