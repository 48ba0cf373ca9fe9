//! How a reference becomes a file: by the lock, from what is kept, else from the registry; compared with
//! its digest, and with the pinned keys where there are some.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::client::Client;
use crate::digest::Digest;
use crate::lock::Lock;
use crate::manifest::{self, Named};
use crate::reference::Reference;
use crate::signature::{self, Key};
use crate::store::Store;

/// Provides components to one document.
pub struct Supply {
    client: Client,
    store: Store,
    lock: Lock,
    mode: Mode,
    limit: usize,
}

/// What becomes of the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A tag that was never locked is locked to what it means now.
    Load,
    /// Nothing is written into the lock.
    Check,
    /// Every tag means what it means now.
    Update,
}

/// A component as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provided {
    /// Of its manifest: what references and the lock name.
    pub digest: Digest,
    pub path: PathBuf,
    /// Whether the registry was asked.
    pub was_pulled: bool,
}

impl Supply {
    /// For the document in `folder`; what is pulled is kept below `store`. Components have at most `limit`
    /// bytes, and registries in `insecure` are spoken to in clear.
    ///
    /// # Errors
    /// The lock cannot be read, or the store not be made.
    pub fn open(
        folder: &Path,
        store: &Path,
        insecure: &[String],
        limit: usize,
        mode: Mode,
    ) -> anyhow::Result<Self> {
        let lock = Lock::open(Lock::place(folder))?;
        Ok(Self { client: Client::new(insecure)?, store: Store::open(store)?, lock, mode, limit })
    }

    /// The component of a reference. Without `keys` no signature is asked for.
    ///
    /// # Errors
    /// It cannot be had, is not what its digest says, or no key of `keys` has signed it.
    pub async fn provide(&mut self, reference: &Reference, keys: &[PathBuf]) -> anyhow::Result<Provided> {
        let keys: Vec<Key> = keys.iter().map(|path| Key::read(path)).collect::<anyhow::Result<_>>()?;
        let locked = match (reference.digest, self.mode) {
            (Some(digest), _) => Some(digest),
            (None, Mode::Update) => None,
            (None, Mode::Load | Mode::Check) => self.lock.digest(reference),
        };
        let mut was_pulled = false;
        let kept = locked.and_then(|digest| Some((digest, self.store.read(digest, LARGEST_MANIFEST)?)));
        let (digest, manifest) = match kept {
            Some(kept) => kept,
            None => {
                was_pulled = true;
                let wanted = locked.map_or_else(|| reference.clone(), |digest| reference.at(digest));
                let found = self.client.manifest(&wanted).await?;
                let (digest, manifest) = found.context("the registry does not have it")?;
                (digest, manifest.to_vec())
            }
        };
        let component = match manifest::named(&manifest)? {
            Named::Component(component) => component,
            Named::Listed(one) => {
                let listed = match self.store.read(one.digest, LARGEST_MANIFEST) {
                    Some(listed) => listed,
                    None => {
                        was_pulled = true;
                        let found = self.client.manifest(&reference.at(one.digest)).await?;
                        found.context("the registry does not have what its index lists")?.1.to_vec()
                    }
                };
                self.store.keep(&listed)?;
                manifest::component(&listed)?
            }
        };
        self.verify(reference, digest, &keys).await?;
        let size = usize::try_from(component.size)?;
        ensure!(size <= self.limit, "it has {size} bytes, {} are allowed", self.limit);
        let path = match self.store.read(component.digest, self.limit) {
            Some(_) => self.store.path(component.digest),
            None => {
                was_pulled = true;
                let bytes = self.client.blob(reference, component, self.limit).await?;
                self.store.keep(&bytes)?
            }
        };
        self.store.keep(&manifest)?;
        self.store.touch(component.digest);
        if reference.digest.is_none() && self.mode != Mode::Check {
            self.lock.set(reference, digest);
        }
        Ok(Provided { digest, path, was_pulled })
    }

    async fn verify(&self, reference: &Reference, digest: Digest, keys: &[Key]) -> anyhow::Result<()> {
        if keys.is_empty() || signature::verify(digest, &self.store.signatures(digest), keys) {
            return Ok(());
        }
        let signed = signature::fetch(&self.client, reference, digest).await.context("its signatures")?;
        if signed.is_empty() {
            bail!("{digest} is not signed, and [plugin.verify] asks for it");
        }
        ensure!(
            signature::verify(digest, &signed, keys),
            "none of the {} signatures of {digest} is by a key of [plugin.verify]",
            signed.len()
        );
        self.store.keep_signatures(digest, &signed)
    }

    /// Writes the lock, if it has changed, and makes room.
    ///
    /// # Errors
    /// The lock cannot be written.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.store.tidy();
        self.lock.save()
    }
}

const LARGEST_MANIFEST: usize = 1 << 20;
