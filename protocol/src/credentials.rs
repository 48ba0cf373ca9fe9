//! Who a tunnel is: the credentials file, the token that says the same in one line, and the certificate of
//! whoever may create tunnels (wire.md section 8).
//!
//! Knows the forms; reading files and asking the environment is for others.

mod origin_cert;
mod secret;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use origin_cert::{ApiToken, OriginCert, OriginCertError};
pub use secret::{InvalidSecret, TunnelSecret};

/// Longest credentials file, token or certificate that is looked at, in bytes.
pub const MAX_CREDENTIALS: usize = 64 * 1024;

/// What a host needs to serve a tunnel, and an edge to recognise it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub account_tag: String,
    pub tunnel_secret: TunnelSecret,
    pub tunnel_id: Uuid,
    /// Region or jurisdiction that the tunnel is bound to; an empty one counts as none.
    pub endpoint: Option<String>,
}

/// Why something is not credentials. Never quotes what it was given.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("longer than {MAX_CREDENTIALS} bytes")]
    TooLong,
    #[error("token is not standard base64")]
    Base64,
    #[error("not the JSON of credentials: {0}")]
    Json(JsonMistake),
}

/// What is wrong with a JSON text, without quoting values of it: they may be secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonMistake(String);

impl fmt::Display for JsonMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<serde_json::Error> for JsonMistake {
    fn from(error: serde_json::Error) -> Self {
        let mistake = error.to_string();
        // The messages that quote what they found.
        if ["invalid type", "invalid value"].iter().any(|quoting| mistake.starts_with(quoting)) {
            return Self(format!("wrong kind of value at line {} column {}", error.line(), error.column()));
        }
        Self(mistake)
    }
}

impl Credentials {
    /// Reads a credentials file. Keys that we do not know are left alone.
    pub fn from_json(json: &[u8]) -> Result<Self, CredentialsError> {
        let file: File = parse(json)?;
        Ok(Self {
            account_tag: file.account_tag,
            tunnel_secret: file.tunnel_secret,
            tunnel_id: file.tunnel_id,
            endpoint: filled(file.endpoint),
        })
    }

    /// The credentials file, in one line.
    pub fn to_json(&self) -> String {
        to_json(&File {
            account_tag: self.account_tag.clone(),
            tunnel_secret: self.tunnel_secret.clone(),
            tunnel_id: self.tunnel_id,
            endpoint: Some(self.endpoint.clone().unwrap_or_default()),
        })
    }

    /// Reads a token; white space around it, as a file has it at its end, does not count.
    pub fn from_token(token: &str) -> Result<Self, CredentialsError> {
        let token = token.trim();
        if token.len() > MAX_CREDENTIALS {
            return Err(CredentialsError::TooLong);
        }
        let json = STANDARD.decode(token).map_err(|_| CredentialsError::Base64)?;
        let token: Token = parse(&json)?;
        Ok(Self {
            account_tag: token.account_tag,
            tunnel_secret: token.tunnel_secret,
            tunnel_id: token.tunnel_id,
            endpoint: filled(token.endpoint),
        })
    }

    pub fn to_token(&self) -> String {
        STANDARD.encode(to_json(&Token {
            account_tag: self.account_tag.clone(),
            tunnel_secret: self.tunnel_secret.clone(),
            tunnel_id: self.tunnel_id,
            endpoint: self.endpoint.clone(),
        }))
    }
}

#[derive(Serialize, Deserialize)]
struct File {
    #[serde(rename = "AccountTag")]
    account_tag: String,
    #[serde(rename = "TunnelSecret")]
    tunnel_secret: TunnelSecret,
    #[serde(rename = "TunnelID")]
    tunnel_id: Uuid,
    #[serde(rename = "Endpoint", default)]
    endpoint: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Token {
    #[serde(rename = "a")]
    account_tag: String,
    #[serde(rename = "s")]
    tunnel_secret: TunnelSecret,
    #[serde(rename = "t")]
    tunnel_id: Uuid,
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
}

fn parse<'j, T: Deserialize<'j>>(json: &'j [u8]) -> Result<T, CredentialsError> {
    if json.len() > MAX_CREDENTIALS {
        return Err(CredentialsError::TooLong);
    }
    serde_json::from_slice(json).map_err(|error| CredentialsError::Json(error.into()))
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and a uuid are JSON")
}

fn filled(endpoint: Option<String>) -> Option<String> {
    endpoint.filter(|endpoint| !endpoint.is_empty())
}
