//! cert.pem: the right to create tunnels in an account, as one PEM block of JSON.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::{JsonMistake, MAX_CREDENTIALS, filled};

const TOKEN_BLOCK: &str = "ARGO TUNNEL TOKEN";
/// Blocks that older files hold beside the token.
const SKIPPED_BLOCKS: [&str; 2] = ["PRIVATE KEY", "CERTIFICATE"];
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
const LINE: usize = 64;

/// What cert.pem says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginCert {
    pub zone_id: String,
    pub account_id: String,
    pub api_token: ApiToken,
    /// In lower case; an empty one counts as none.
    pub endpoint: Option<String>,
}

/// Bearer token of the REST API. Does not print; compares in constant time.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ApiToken(String);

/// Why a file is not a cert.pem. Never quotes what it was given.
#[derive(Debug, thiserror::Error)]
pub enum OriginCertError {
    #[error("longer than {MAX_CREDENTIALS} bytes")]
    TooLong,
    #[error("PEM block {name:?} does not belong here")]
    UnknownBlock { name: String },
    #[error("PEM block {name:?} has no end")]
    Unfinished { name: String },
    #[error("more than one {TOKEN_BLOCK:?} block")]
    SecondToken,
    #[error("no {TOKEN_BLOCK:?} block")]
    NoToken,
    #[error("{TOKEN_BLOCK:?} block is not base64")]
    Base64,
    #[error("{TOKEN_BLOCK:?} block is not the JSON it should be: {0}")]
    Json(JsonMistake),
    #[error("API token is empty")]
    NoApiToken,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(rename = "zoneID")]
    zone_id: String,
    #[serde(rename = "accountID")]
    account_id: String,
    api_token: ApiToken,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
}

impl OriginCert {
    /// Text outside of blocks does not count, as in any PEM file.
    pub fn from_pem(pem: &str) -> Result<Self, OriginCertError> {
        if pem.len() > MAX_CREDENTIALS {
            return Err(OriginCertError::TooLong);
        }
        let mut token = None;
        let mut lines = pem.lines().map(str::trim);
        while let Some(line) = lines.next() {
            let Some(name) = marker(line, BEGIN) else { continue };
            let base64 = block(name, &mut lines)?;
            if name == TOKEN_BLOCK {
                if token.replace(base64).is_some() {
                    return Err(OriginCertError::SecondToken);
                }
            } else if !SKIPPED_BLOCKS.contains(&name) {
                return Err(OriginCertError::UnknownBlock { name: name.to_owned() });
            }
        }
        let json = STANDARD.decode(token.ok_or(OriginCertError::NoToken)?);
        let json = json.map_err(|_| OriginCertError::Base64)?;
        let body: Body =
            serde_json::from_slice(&json).map_err(|error| OriginCertError::Json(error.into()))?;
        if body.api_token.0.is_empty() {
            return Err(OriginCertError::NoApiToken);
        }
        Ok(Self {
            zone_id: body.zone_id,
            account_id: body.account_id,
            api_token: body.api_token,
            endpoint: filled(body.endpoint).map(|endpoint| endpoint.to_lowercase()),
        })
    }

    pub fn to_pem(&self) -> String {
        let json = super::to_json(&Body {
            zone_id: self.zone_id.clone(),
            account_id: self.account_id.clone(),
            api_token: self.api_token.clone(),
            endpoint: self.endpoint.clone(),
        });
        let mut pem = format!("{BEGIN}{TOKEN_BLOCK}{DASHES}\n");
        let mut rest = &*STANDARD.encode(json);
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(LINE));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem + END + TOKEN_BLOCK + DASHES + "\n"
    }
}

/// Base64 of a block, up to and with its end line.
fn block<'p>(name: &str, lines: &mut impl Iterator<Item = &'p str>) -> Result<String, OriginCertError> {
    let mut base64 = String::new();
    for line in lines {
        if marker(line, END) == Some(name) {
            return Ok(base64);
        }
        base64.push_str(line);
    }
    Err(OriginCertError::Unfinished { name: name.to_owned() })
}

/// Name of the block that a line begins or ends.
fn marker<'p>(line: &'p str, kind: &str) -> Option<&'p str> {
    line.strip_prefix(kind)?.strip_suffix(DASHES)
}

impl ApiToken {
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for ApiToken {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for ApiToken {}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken(..)")
    }
}
