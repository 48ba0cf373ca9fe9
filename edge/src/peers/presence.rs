//! Who has which tunnels: what this node says of itself ([`Own`]), and what each other one has said ([`View`]). Each
//! speaks for itself alone, so that nobody brings back what another one has ended. Pure: told what came and what time
//! it is; knows no sockets. docs/fleet.md has the rules.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use uuid::Uuid;

use super::frames::{Entry, Frame, NodeState, PAGE};
use crate::registry::RemoteReplica;

/// What this node says.
pub(super) struct Own {
    epoch: u64,
    sequence: u64,
    digest: u64,
    entries: HashMap<Uuid, Kept>,
    /// Which tunnel changed last at which point. Each is there once, those that are gone for a while.
    changes: BTreeMap<u64, Uuid>,
    gone: usize,
    /// Who has not heard of changes before this one hears everything anew.
    horizon: u64,
}

struct Kept {
    sequence: u64,
    replicas: Vec<RemoteReplica>,
}

/// How far a listener has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) sequence: u64,
}

impl Own {
    pub(super) fn new(epoch: u64) -> Self {
        Self {
            epoch,
            sequence: 0,
            digest: 0,
            entries: HashMap::new(),
            changes: BTreeMap::new(),
            gone: 0,
            horizon: 0,
        }
    }

    /// From now on this node has these replicas of a tunnel. It is said anew even if they are the same: somebody may
    /// have asked in between.
    pub(super) fn set(&mut self, tunnel: Uuid, replicas: Vec<RemoteReplica>) {
        let before = self.entries.remove(&tunnel);
        if before.is_none() && replicas.is_empty() {
            return;
        }
        self.sequence += 1;
        if let Some(Kept { sequence, replicas }) = before {
            self.changes.remove(&sequence);
            self.gone -= usize::from(replicas.is_empty());
            self.digest ^= Entry { tunnel, replicas }.digest();
        }
        self.gone += usize::from(replicas.is_empty());
        let entry = Entry { tunnel, replicas };
        self.digest ^= entry.digest();
        self.changes.insert(self.sequence, tunnel);
        self.entries.insert(tunnel, Kept { sequence: self.sequence, replicas: entry.replicas });
        if self.gone > MOST_GONE {
            self.forget();
        }
    }

    /// Forgets the older half of those that are gone.
    fn forget(&mut self) {
        let gone = self.changes.iter().filter(|(_, tunnel)| self.entries[*tunnel].replicas.is_empty());
        let gone: Vec<(u64, Uuid)> = gone.take(MOST_GONE / 2).map(|(at, tunnel)| (*at, *tunnel)).collect();
        for (at, tunnel) in gone {
            self.changes.remove(&at);
            self.entries.remove(&tunnel);
            self.gone -= 1;
            self.horizon = at;
        }
    }

    /// Begins to tell somebody who has heard everything up to a change of an epoch.
    pub(super) fn begin(&self, heard: Option<(u64, u64)>) -> (Frame, Cursor) {
        let heard = heard.filter(|(epoch, sequence)| {
            *epoch == self.epoch && (self.horizon..=self.sequence).contains(sequence)
        });
        let after = heard.map_or(0, |(_, sequence)| sequence);
        (Frame::Hello { epoch: self.epoch, after }, Cursor { sequence: after })
    }

    /// The next page for a listener, `None` if it has heard everything.
    pub(super) fn page(&self, cursor: &mut Cursor) -> Option<Frame> {
        let from = cursor.sequence + 1;
        let (mut entries, mut length) = (Vec::new(), 0);
        for (sequence, tunnel) in self.changes.range(from..) {
            let entry = Entry { tunnel: *tunnel, replicas: self.entries[tunnel].replicas.clone() };
            length += entry.length();
            if length > PAGE && !entries.is_empty() {
                return Some(Frame::Entries { upto: cursor.sequence, entries });
            }
            cursor.sequence = *sequence;
            entries.push(entry);
        }
        cursor.sequence = self.sequence;
        (!entries.is_empty()).then_some(Frame::Entries { upto: cursor.sequence, entries })
    }

    /// For a listener that has heard everything.
    pub(super) fn heartbeat(&self, state: NodeState) -> Frame {
        Frame::Heartbeat { sequence: self.sequence, digest: self.digest, state }
    }
}

/// What another node has said.
pub(super) struct View {
    epoch: Option<u64>,
    /// Up to here everything was heard.
    sequence: u64,
    digest: u64,
    entries: HashMap<Uuid, Heard>,
    /// Turned whenever everything is said anew.
    turn: u32,
    /// Everything is being said anew: what is not said by the end of it is no more.
    is_anew: bool,
    standing: Standing,
    /// When it was heard last.
    heard: Duration,
    state: NodeState,
}

struct Heard {
    turn: u32,
    /// What the entry adds to the digest; the replicas themselves are with their tunnel.
    digest: u64,
}

/// What is made of a node's silence, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Well,
    /// What it has comes last.
    Suspect,
    /// What it had is forgotten; only its own word brings it back.
    Gone,
}

/// What a node has of a tunnel from now on.
pub(super) type Change = Entry;

/// What follows from a frame.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) changes: Vec<Change>,
    /// What was said does not fit together: everything has to be said anew, on another stream.
    pub(super) is_confused: bool,
}

impl View {
    pub(super) fn new() -> Self {
        Self {
            epoch: None,
            sequence: 0,
            digest: 0,
            entries: HashMap::new(),
            turn: 0,
            is_anew: false,
            standing: Standing::Gone,
            heard: Duration::ZERO,
            state: NodeState::default(),
        }
    }

    /// From where on the node is to go on: its epoch and a change.
    pub(super) fn heard_upto(&self) -> Option<(u64, u64)> {
        self.epoch.filter(|_| !self.is_anew).map(|epoch| (epoch, self.sequence))
    }

    /// Has everything said anew.
    pub(super) fn mistrust(&mut self) {
        self.sequence = 0;
        self.is_anew = true;
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// How it was when it last said so.
    pub(super) fn state(&self) -> NodeState {
        self.state
    }

    pub(super) fn heard(&self) -> Duration {
        self.heard
    }

    pub(super) fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The tunnels that it has.
    pub(super) fn tunnels(&self) -> impl ExactSizeIterator<Item = &Uuid> {
        self.entries.keys()
    }

    /// Whether it has any of this one.
    pub(super) fn has(&self, tunnel: &Uuid) -> bool {
        self.entries.contains_key(tunnel)
    }

    /// Takes what the node says on its newest stream.
    pub(super) fn hear(&mut self, frame: Frame, now: Duration) -> News {
        self.heard = now;
        self.standing = Standing::Well;
        let news = |changes| News { changes, is_confused: false };
        match frame {
            Frame::Hello { epoch, after } => self.greet(epoch, after),
            Frame::Entries { upto, entries } => {
                if self.epoch.is_none() || upto < self.sequence {
                    return self.confused(Vec::new());
                }
                self.sequence = upto;
                for entry in &entries {
                    self.set(entry);
                }
                news(entries)
            }
            Frame::Heartbeat { sequence, digest, state } => {
                self.state = state;
                let changes = self.settle();
                // A change without an entry is one of a tunnel that was gone again before it was said.
                let is_right = self.epoch.is_some() && sequence >= self.sequence && digest == self.digest;
                if !is_right {
                    return self.confused(changes);
                }
                self.sequence = sequence;
                news(changes)
            }
            // Of these nothing is kept.
            Frame::Connections(_) | Frame::Verdicts(_) => News::default(),
            Frame::Goodbye => {
                self.standing = Standing::Gone;
                news(self.forget())
            }
        }
    }

    fn confused(&mut self, changes: Vec<Change>) -> News {
        self.mistrust();
        News { changes, is_confused: true }
    }

    fn greet(&mut self, epoch: u64, after: u64) -> News {
        if self.heard_upto() == Some((epoch, after)) && after > 0 {
            return News::default();
        }
        if after > 0 {
            return self.confused(Vec::new());
        }
        // A process that is no more has nothing.
        self.state.is_leaving &= self.epoch == Some(epoch);
        let changes = if self.epoch == Some(epoch) { Vec::new() } else { self.forget() };
        self.epoch = Some(epoch);
        self.sequence = after;
        self.turn = self.turn.wrapping_add(1);
        self.is_anew = true;
        News { changes, is_confused: false }
    }

    fn set(&mut self, entry: &Entry) {
        let Entry { tunnel, replicas } = entry;
        if let Some(Heard { digest, .. }) = self.entries.remove(tunnel) {
            self.digest ^= digest;
        }
        if !replicas.is_empty() {
            let digest = entry.digest();
            self.digest ^= digest;
            self.entries.insert(*tunnel, Heard { turn: self.turn, digest });
        }
    }

    /// Everything was said: what was not is no more.
    fn settle(&mut self) -> Vec<Change> {
        if !std::mem::take(&mut self.is_anew) {
            return Vec::new();
        }
        let turn = self.turn;
        let old = self.entries.iter().filter(|(_, heard)| heard.turn != turn);
        let old: Vec<Uuid> = old.map(|(tunnel, _)| *tunnel).collect();
        self.drop_all(old)
    }

    fn forget(&mut self) -> Vec<Change> {
        let all = self.entries.keys().copied().collect();
        self.epoch = None;
        self.sequence = 0;
        self.drop_all(all)
    }

    fn drop_all(&mut self, tunnels: Vec<Uuid>) -> Vec<Change> {
        let gone = tunnels.into_iter().map(|tunnel| Entry { tunnel, replicas: Vec::new() });
        let gone: Vec<Entry> = gone.collect();
        gone.iter().for_each(|entry| self.set(entry));
        gone
    }

    /// What follows from the time that has passed.
    pub(super) fn tick(&mut self, now: Duration) -> Vec<Change> {
        let silence = now.saturating_sub(self.heard);
        if self.standing == Standing::Gone {
            return Vec::new();
        }
        if silence >= GONE {
            self.standing = Standing::Gone;
            return self.forget();
        }
        self.standing = if silence >= SUSPECT { Standing::Suspect } else { Standing::Well };
        Vec::new()
    }
}

/// Between two heartbeats where nothing else is said.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);
/// After so long a silence a node is suspect.
pub(super) const SUSPECT: Duration = Duration::from_secs(3);
/// After so long a silence what it had is forgotten.
pub(super) const GONE: Duration = Duration::from_secs(10);
/// Tunnels that are gone and still told of; who has missed older ones hears everything anew.
const MOST_GONE: usize = 4096;

#[cfg(test)]
mod tests;
