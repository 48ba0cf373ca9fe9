//! What a node keeps of itself on its own disk: its private key, which is made here and never leaves, its certificate,
//! and the epoch of its last start. Knows files; does not know who signs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::said::PublicKey;
use crate::tls::Identity;

/// The data folder, as far as it is about the node.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn of(data_dir: &Path) -> Self {
        Self(data_dir.to_owned())
    }

    pub(crate) fn key_path(&self) -> PathBuf {
        self.0.join(KEY)
    }

    pub(crate) fn chain_path(&self) -> PathBuf {
        self.0.join(CHAIN)
    }

    /// The key and the chain that were made when this node joined; `None` if it did not.
    pub(crate) fn read(
        &self,
    ) -> anyhow::Result<Option<(PrivateKeyDer<'static>, Vec<CertificateDer<'static>>)>> {
        if !self.chain_path().try_exists().context("looking for the node's certificate")? {
            return Ok(None);
        }
        Ok(Some((Identity::read_key(&self.key_path())?, Identity::read_chain(&self.chain_path())?)))
    }

    /// The same of a node that is one.
    ///
    /// # Errors
    /// It did not join, or the files cannot be read.
    pub(crate) fn joined(&self) -> anyhow::Result<(PrivateKeyDer<'static>, Vec<CertificateDer<'static>>)> {
        self.read()?.context("this edge is not a node of the fleet yet: `adit edge join` makes it one")
    }

    /// A key for a node, made where there is none; one that is there was made before by a `join` that did not come to
    /// its end.
    pub(crate) fn make_key(&self) -> anyhow::Result<KeyPair> {
        let path = self.key_path();
        if !path.exists() {
            let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making a key")?;
            fs::create_dir_all(&self.0).with_context(|| format!("making {}", self.0.display()))?;
            write(&path, pair.serialize_pem().as_bytes(), 0o600)?;
        }
        let text =
            adit_files::read_text(&path, LARGEST).with_context(|| format!("reading {}", path.display()))?;
        KeyPair::from_pem(&text).with_context(|| format!("reading {}", path.display()))
    }

    /// Takes a chain in, its own certificate first.
    pub(crate) fn keep(&self, chain: &[CertificateDer<'static>]) -> anyhow::Result<()> {
        let text: String = chain.iter().map(|link| pem(link)).collect();
        write(&self.chain_path(), text.as_bytes(), 0o644)
    }

    /// What this node is not any more.
    pub(crate) fn forget(&self) -> anyhow::Result<()> {
        for name in [CHAIN, KEY, EPOCH] {
            let path = self.0.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("removing {}", path.display()));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// A number for this start, greater than that of each start before, here and of all earlier generations.
    pub(crate) fn next_epoch(&self, generation: u16, now_ms: u64) -> anyhow::Result<u64> {
        let path = self.0.join(EPOCH);
        let last = match adit_files::read_text(&path, LARGEST) {
            Ok(text) => text.trim().parse().unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let epoch =
            (u64::from(generation) << MILLISECONDS | now_ms & ((1 << MILLISECONDS) - 1)).max(last + 1);
        write(&path, format!("{epoch}\n").as_bytes(), 0o644)?;
        Ok(epoch)
    }
}

/// The public half, as records and requests know it.
pub(crate) fn public(pair: &KeyPair) -> anyhow::Result<PublicKey> {
    PublicKey::of(&pair.subject_public_key_info()).context("the node's key is none on P-256")
}

/// The same of a key that was read.
pub(crate) fn public_of(key: &PrivateKeyDer<'static>) -> anyhow::Result<PublicKey> {
    let pair = KeyPair::try_from(key).context("reading the node's key")?;
    public(&pair)
}

/// Certificates in one text.
pub(crate) fn certificates(text: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let chain = chain.context("reading certificates")?;
    ensure!(!chain.is_empty(), "no certificate");
    Ok(chain)
}

pub(crate) fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines = text.as_bytes().chunks(64).map(|line| format!("{}\n", String::from_utf8_lossy(line)));
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    adit_files::replace(path, bytes, mode).with_context(|| format!("writing {}", path.display()))
}

const KEY: &str = "node.key";
const CHAIN: &str = "node.pem";
const EPOCH: &str = "node.epoch";
const LARGEST: usize = 64 << 10;
/// Bits of an epoch that are a time.
const MILLISECONDS: u32 = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_greater_than_all_before_also_where_the_clock_went_back() {
        let folder = tempfile::tempdir().unwrap();
        let node = Folder::of(folder.path());
        let first = node.next_epoch(0, 1_000).unwrap();
        assert_eq!(node.next_epoch(0, 500).unwrap(), first + 1);
        let other = tempfile::tempdir().unwrap();
        let replaced = Folder::of(other.path()).next_epoch(1, 1).unwrap();
        assert!(replaced > node.next_epoch(0, 1 << 47).unwrap(), "whoever has its place is newer");
    }

    #[test]
    fn the_key_is_made_once_for_its_owner_alone_and_forgotten_with_the_node() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let node = Folder::of(&folder.path().join("edge-data"));
        let key = node.make_key().unwrap();
        assert_eq!(node.make_key().unwrap().serialize_der(), key.serialize_der());
        assert_eq!(fs::metadata(node.key_path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(node.read().unwrap().is_none(), "without a certificate it is no node");
        node.forget().unwrap();
        assert!(!node.key_path().exists());
    }
}
