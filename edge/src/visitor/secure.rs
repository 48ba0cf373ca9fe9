//! What an operator wants of a name's visitors: that they come over TLS, and remember to. Knows names and headers; does
//! not know certificates.

use http::HeaderValue;

use crate::settings::host_name::{HostName, HostNames};

/// By host name.
#[derive(Default)]
pub(crate) struct Secure(HostNames<Wish>);

/// For one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Whoever comes without TLS is sent to where there is TLS.
    pub(crate) redirect: bool,
    /// `Strict-Transport-Security` of answers over TLS.
    pub(crate) hsts: Option<HeaderValue>,
}

impl Secure {
    pub(crate) fn new(wishes: impl IntoIterator<Item = (HostName, Wish)>) -> Self {
        Self(HostNames::new(wishes))
    }

    pub(crate) fn find(&self, authority: &str) -> Option<&Wish> {
        self.0.find(authority)
    }
}

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secure(..)")
    }
}
