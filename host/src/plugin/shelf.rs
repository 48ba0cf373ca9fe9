//! Compiled components by their digest, kept for generations to come: one that comes back, as a
//! rolled back one does, is not compiled again. Knows no plugin.

use std::sync::{Arc, Mutex, PoisonError};

use super::component::Blueprint;
use super::imports::log::GuestLog;

/// Components kept.
const MOST: usize = 16;
/// The same in bytes of WebAssembly; machine code takes a few times as much.
const MOST_BYTES: usize = 32 * 1024 * 1024;

pub(super) type ComponentDigest = [u8; 32];

/// One per engine.
#[derive(Default)]
pub(super) struct Shelf {
    /// The last used is the last.
    kept: Mutex<Vec<Kept>>,
}

struct Kept {
    digest: ComponentDigest,
    bytes: usize,
    blueprint: Blueprint,
}

impl Shelf {
    /// The component with this digest, for a plugin with this log and memory.
    pub(super) fn find(
        &self,
        digest: &ComponentDigest,
        log: &Arc<GuestLog>,
        memory: usize,
    ) -> Option<Blueprint> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|kept| kept.digest == *digest)?;
        let found = kept.remove(at);
        let blueprint = found.blueprint.copy(log.clone(), memory);
        kept.push(found);
        Some(blueprint)
    }

    /// Keeps it, and lets go of those that were not used for longest.
    pub(super) fn keep(&self, digest: ComponentDigest, bytes: usize, blueprint: &Blueprint) {
        let blueprint = blueprint.copy(blueprint.log.clone(), blueprint.memory);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|kept| kept.digest != digest);
        kept.push(Kept { digest, bytes, blueprint });
        while kept.len() > MOST || kept.iter().map(|kept| kept.bytes).sum::<usize>() > MOST_BYTES {
            kept.remove(0);
        }
    }
}
