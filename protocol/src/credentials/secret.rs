//! The bytes that prove the right to serve a tunnel. They do not print and compare in constant time.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use subtle::ConstantTimeEq as _;

/// Secret of a tunnel: 1 to [`TunnelSecret::MAX_LENGTH`] bytes. Standard base64 with padding in JSON.
///
/// The reference makes secrets of 32 bytes and takes any; whoever creates a tunnel should not go below 32.
#[derive(Clone)]
pub struct TunnelSecret(Box<[u8]>);

/// Bytes that are no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tunnel secret is {bytes} bytes long, it must be 1 to {}", TunnelSecret::MAX_LENGTH)]
pub struct InvalidSecret {
    pub bytes: usize,
}

impl TunnelSecret {
    /// In bytes.
    pub const MAX_LENGTH: usize = 1024;

    pub fn new(bytes: &[u8]) -> Result<Self, InvalidSecret> {
        if bytes.is_empty() || bytes.len() > Self::MAX_LENGTH {
            return Err(InvalidSecret { bytes: bytes.len() });
        }
        Ok(Self(bytes.into()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for TunnelSecret {
    /// Takes the same time wherever two secrets of one length differ.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TunnelSecret {}

impl fmt::Debug for TunnelSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TunnelSecret(..)")
    }
}

impl Serialize for TunnelSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for TunnelSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        // The cause is left out: it would quote the offending byte.
        let bytes = STANDARD
            .decode(text.as_bytes())
            .map_err(|_| de::Error::custom("tunnel secret is not standard base64"))?;
        Self::new(&bytes).map_err(de::Error::custom)
    }
}
