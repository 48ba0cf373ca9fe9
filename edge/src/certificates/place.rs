//! One certificate that is shown, and what became of the files that it comes from. Knows TLS; does not know who asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::store::timestamp::Timestamp;
use crate::tls::leaf::Leaf;
use crate::tls::{CONNECTOR_NAMES, Identity, IdentityFiles};

/// What a certificate is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// To visitors who ask for no name that has one of its own.
    Visitors,
    Connectors,
    Api,
    /// To visitors who ask for one of its names.
    Name,
}

impl Use {
    /// As numbers and lists have it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Visitors => "visitors",
            Self::Connectors => "connectors",
            Self::Api => "api",
            Self::Name => "name",
        }
    }

    /// Whether whoever is shown this one can do anything with it.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn judge(self, identity: &Identity) -> Result<(), String> {
        match self {
            Self::Connectors if !identity.covers(CONNECTOR_NAMES[0]) => {
                Err(format!("no connector accepts a certificate without {}", CONNECTOR_NAMES[0]))
            }
            Self::Name if identity.leaf().is_none_or(|leaf| leaf.names.is_empty()) => {
                Err("this certificate names no host".to_owned())
            }
            Self::Visitors | Self::Connectors | Self::Api | Self::Name => Ok(()),
        }
    }
}

/// Where a certificate is shown from.
pub(crate) struct Place {
    usage: Use,
    files: Option<IdentityFiles>,
    current: ArcSwap<Shown>,
    /// Why what is in the files now is not what is shown.
    trouble: Mutex<Option<String>>,
    /// How often it was exchanged.
    exchanged: AtomicU64,
}

/// What is shown, and what it says.
pub(crate) struct Shown {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) leaf: Leaf,
    /// With all of its chain, seconds since 1970.
    pub(crate) not_after: i64,
}

impl Shown {
    pub(crate) fn of(identity: &Identity) -> Self {
        let leaf = identity.leaf().unwrap_or_default();
        Self {
            certified: identity.certified().clone(),
            not_after: identity.not_after().unwrap_or(leaf.not_after),
            leaf,
        }
    }
}

impl Place {
    pub(super) fn new(usage: Use, identity: Identity, files: Option<IdentityFiles>) -> Self {
        Self {
            usage,
            files,
            current: ArcSwap::from_pointee(Shown::of(&identity)),
            trouble: Mutex::default(),
            exchanged: AtomicU64::default(),
        }
    }

    pub(crate) fn usage(&self) -> Use {
        self.usage
    }

    pub(crate) fn files(&self) -> Option<&IdentityFiles> {
        self.files.as_ref()
    }

    pub(crate) fn shown(&self) -> Arc<Shown> {
        self.current.load_full()
    }

    pub(crate) fn exchanged(&self) -> u64 {
        self.exchanged.load(Ordering::Relaxed)
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows what the files hold now, if that is any good; else goes on with what it has. Waits for the file system.
    ///
    /// # Errors
    /// Why they are not taken.
    pub(super) fn read_again(&self) -> Result<bool, String> {
        let Some(files) = &self.files else { return Ok(false) };
        let taken = Identity::read(files).map_err(|error| error.to_string()).and_then(|new| self.take(&new));
        let trouble = taken.as_ref().err().cloned();
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        taken
    }

    fn take(&self, new: &Identity) -> Result<bool, String> {
        self.usage.judge(new)?;
        let shown = Shown::of(new);
        if shown.certified.cert == self.current.load().certified.cert {
            return Ok(false);
        }
        let end = moment(shown.not_after);
        if end < Timestamp::now() {
            return Err(format!("this certificate has ended on {end}"));
        }
        self.current.store(Arc::new(shown));
        self.exchanged.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }
}

/// A second since 1970; the first one for all before it.
pub(crate) fn moment(seconds: i64) -> Timestamp {
    (UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())).into()
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({})", self.usage.word())
    }
}

impl ResolvesServerCert for Place {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().certified.clone())
    }
}
