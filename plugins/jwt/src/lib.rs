//! Lets a request pass when it carries a JSON Web Token (RFC 7519) that a known key has signed.
//!
//! ```json
//! {"issuer": "https://id.example.com", "jwks": "https://id.example.com/keys", "audience": ["app"],
//!  "from": ["bearer", {"header": "x-token"}, {"cookie": "session"}], "headers": {"x-user": "sub"}}
//! ```
//!
//! `{"team": "acme", "audience": ["…"]}` stands for the tokens of Cloudflare Access.
//!
//! Everything that is not understood is refused, and so is every request while no keys are known. The
//! kind of a key says which algorithm it is for; what a token claims of itself is only compared with that.
//!
//! [`plan`] reads the configuration, [`token`] finds and takes apart what a visitor sent, [`key`] and
//! [`rsa`] know keys, [`claims`] says whom a token is for and how long, [`guard`] decides, [`keeper`] gets
//! the keys, [`filter`] speaks WIT.

pub mod claims;
pub mod filter;
pub mod guard;
pub mod keeper;
pub mod key;
pub mod plan;
pub mod rsa;
pub mod token;
