//! How an API token is written, and what is kept of it. Pure.

use sha2::{Digest, Sha256};

/// The text of a token: whoever has it, is it.
pub(crate) fn text(id: &str, secret: &str) -> String {
    format!("{PREFIX}{id}_{secret}")
}

/// The id and the secret of a text that looks like a token.
pub(crate) fn parse(text: &str) -> Option<(&str, &str)> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    (text.len() <= LONGEST && !id.is_empty() && !secret.is_empty()).then_some((id, secret))
}

/// What is kept of the secret part.
pub(crate) fn digest(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}

const PREFIX: &str = "adit_";
const LONGEST: usize = 256;
