//! Certificates of the state, opened when a visitor asks for the first time. Knows records and keys; does not know how
//! they came about.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tracing::error;

use crate::store::StoreRevision;
use crate::store::records::certificates::{Certificate, certificate_key};
use crate::store::seal::SealKeys;

/// One revision of what is issued.
#[derive(Default)]
pub(crate) struct Issued {
    /// By host name; a wildcard by what stands behind its `*.`.
    exact: HashMap<String, Arc<One>>,
    wildcards: HashMap<String, Arc<One>>,
}

struct One {
    revision: StoreRevision,
    name: String,
    record: Certificate,
    keys: SealKeys,
    opened: OnceLock<Option<Arc<CertifiedKey>>>,
}

impl Issued {
    /// These, where what has not changed stays opened.
    pub(super) fn of<'r>(
        before: &Self,
        records: impl Iterator<Item = (&'r String, &'r Certificate, StoreRevision)>,
        keys: &SealKeys,
    ) -> Self {
        let mut issued = Self::default();
        for (name, record, revision) in records {
            let (known, into, at) = match name.strip_prefix("*.") {
                Some(rest) => (before.wildcards.get(rest), &mut issued.wildcards, rest),
                None => (before.exact.get(name), &mut issued.exact, name.as_str()),
            };
            let one = known.filter(|known| known.revision == revision).cloned().unwrap_or_else(|| {
                let (name, record, keys) = (name.clone(), record.clone(), keys.clone());
                Arc::new(One { revision, name, record, keys, opened: OnceLock::new() })
            });
            into.insert(at.to_owned(), one);
        }
        issued
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let found = self.exact.get(name).or_else(|| self.wildcards.get(name.split_once('.')?.1))?;
        found.opened.get_or_init(|| found.open()).clone()
    }
}

impl One {
    fn open(&self) -> Option<Arc<CertifiedKey>> {
        let opened = opened(&self.name, &self.record, &self.keys);
        if opened.is_none() {
            error!(name = self.name, "an issued certificate cannot be opened with the keys of the key file");
        }
        opened.map(Arc::new)
    }
}

/// A certificate with its key, as it is shown; `None` if the key is sealed otherwise, or does not fit.
pub(crate) fn opened(name: &str, record: &Certificate, keys: &SealKeys) -> Option<CertifiedKey> {
    let key = keys.open(&certificate_key(name), &record.key)?;
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(record.chain.as_bytes()).collect::<Result<_, _>>().ok()?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).ok()
}
