//! What tokens for asking hosts about themselves are signed with, by every edge of the same state. Made by the edge
//! that signs the first one. Knows JSON; signs nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::store::timestamp::Timestamp;

pub(crate) const MANAGEMENT: &str = "management/";
/// There is one for all tunnels.
pub(crate) const ISSUER: &str = "management/issuer";

/// The key that signs.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct IssuerKey {
    /// In PKCS #8 and base64; whoever reads the state without its keys has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    pub(crate) made_at: Timestamp,
}

impl fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IssuerKey(..)")
    }
}
