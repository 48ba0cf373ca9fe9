//! Has visitors sign in at an OpenID provider (OpenID Connect Core 1.0) before they reach a service, and keeps them
//! signed in by a sealed cookie.
//!
//! ```json
//! {"issuer": "https://id.example.com", "client-id": "app", "client-secret": "client",
//!  "require": {"groups": ["staff"]}, "headers": {"x-user": "sub"}}
//! ```
//!
//! The authorization code flow with PKCE (RFC 7636), `state` and `nonce`. Whatever is not understood is refused, and
//! while the provider cannot be reached nobody signs in.
//!
//! [`plan`] reads the configuration, [`seal`] makes values that a browser may keep but not read, [`cookie`] says how it
//! keeps them, [`provider`] knows the provider and its keys, [`identity`] says who a token is of, [`login`] is the way
//! from a visitor without a name to one with a session, [`session`] what is known of one, [`url`] the forms of
//! addresses, [`filter`] speaks WIT.

pub mod cookie;
pub mod filter;
pub mod identity;
pub mod login;
pub mod plan;
pub mod provider;
pub mod seal;
pub mod session;
pub mod surroundings;
pub mod url;

#[cfg(test)]
mod world;
