//! Certificates from an authority, over ACME (RFC 8555): ordered because a route for a name is there, and renewed when
//! the authority says. All edges of one state order each name once: whoever has the claim of a name orders it, and
//! what it gets is everybody's.
//!
//! Read in this order: [`wanted`] (which names, and when), [`budget`] (how many), [`keeper`] (claims, and what became of
//! them), [`ahead`] (whether an order can come to anything), [`order`] (one from its beginning to the certificate), [`authority`] (HTTP towards an authority).

mod ahead;
pub(crate) mod authority;
pub(crate) mod budget;
pub(crate) mod keeper;
mod order;
pub(crate) mod wanted;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::store::records::certificates::ChallengeKind;

/// An account that an authority's customer has beside those of ACME (RFC 8555 7.3.4).
#[derive(Clone)]
pub(crate) struct ExternalAccount {
    pub(crate) id: String,
    /// With which it is proved.
    pub(crate) key: Vec<u8>,
}

impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExternalAccount({:?}, ..)", self.id)
    }
}

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
    /// By which it knows us already, if it takes nobody else.
    pub(crate) external: Option<ExternalAccount>,
    /// Zones that this edge answers for itself.
    pub(crate) zones: Vec<String>,
    /// Where the internet reaches this edge; nothing is looked at where that is not known.
    pub(crate) addresses: Vec<IpAddr>,
    /// Which name server is asked about names; the system's if none is named.
    pub(crate) resolver: Option<SocketAddr>,
    pub(crate) limits: budget::Limits,
}
