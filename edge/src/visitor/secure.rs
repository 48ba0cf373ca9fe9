//! What an operator wants of a name's visitors: that they come over TLS, remember to, and say who they are. Knows names
//! and headers; does not know connections.

use std::sync::Arc;

use http::HeaderValue;
use rustls::server::danger::ClientCertVerifier;

use super::identified::CertificateWish;
use crate::settings::host_name::{HostName, HostNames};

/// By host name.
#[derive(Default)]
pub(crate) struct Secure {
    names: HostNames<Wish>,
    /// Whose certificates are believed, one for each table that wants any.
    pub(crate) verifiers: Vec<Arc<dyn ClientCertVerifier>>,
}

/// For one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Whoever comes without TLS is sent to where there is TLS.
    pub(crate) redirect: bool,
    /// `Strict-Transport-Security` of answers over TLS.
    pub(crate) hsts: Option<HeaderValue>,
    /// By a certificate its visitors say who they are.
    pub(crate) certificate: Option<CertificateWish>,
}

impl Secure {
    pub(crate) fn new(
        wishes: impl IntoIterator<Item = (HostName, Wish)>,
        verifiers: Vec<Arc<dyn ClientCertVerifier>>,
    ) -> Self {
        Self { names: HostNames::new(wishes), verifiers }
    }

    pub(crate) fn find(&self, authority: &str) -> Option<&Wish> {
        self.names.find(authority)
    }
}

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secure(..)")
    }
}
