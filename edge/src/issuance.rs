//! Certificates from an authority, over ACME (RFC 8555): ordered because a route for a name is there, and renewed when
//! the authority says. All edges of one state order each name once: whoever has the claim of a name orders it, and
//! what it gets is everybody's.
//!
//! Read in this order: [`wanted`] (which names, and when), [`budget`] (how many), [`keeper`] (claims, and what became of
//! them), [`order`] (one order from its beginning to the certificate), [`authority`] (HTTP towards an authority).

pub(crate) mod authority;
pub(crate) mod budget;
pub(crate) mod keeper;
mod order;
pub(crate) mod wanted;

use std::path::PathBuf;

use crate::certificates::seal::{SealError, SealKeys};
use crate::store::records::certificates::ChallengeKind;

/// What an operator says about the authority.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// Where the authority says what it can.
    pub(crate) directory: String,
    /// To whom it may write.
    pub(crate) email: Option<String>,
    /// Who is believed to be the authority; the system's roots if nobody is named.
    pub(crate) ca: Vec<rustls_pki_types::CertificateDer<'static>>,
    /// How it may look whether a name leads here, the first one that it offers.
    pub(crate) challenges: Vec<ChallengeKind>,
    /// Zones that this edge answers for itself.
    pub(crate) zones: Vec<String>,
    pub(crate) limits: budget::Limits,
    /// What is sealed in the state is sealed with these.
    pub(crate) keys: Keys,
}

impl Terms {
    /// The keys that seal; they are made if there are none yet and the operator has named no file.
    ///
    /// # Errors
    /// They cannot be made or read.
    pub(crate) fn keys(&self) -> Result<SealKeys, SealError> {
        match &self.keys {
            Keys::Given(keys) => Ok(keys.clone()),
            Keys::Made(path) => SealKeys::read_or_make(path),
        }
    }
}

/// Where the keys that seal come from.
#[derive(Debug, Clone)]
pub(crate) enum Keys {
    /// Named by the operator, and read already.
    Given(SealKeys),
    /// Made where it is not there yet.
    Made(PathBuf),
}
