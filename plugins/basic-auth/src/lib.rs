//! Lets a request pass when it carries the name and password of a configured user (HTTP Basic
//! authentication, RFC 7617).
//!
//! ```json
//! {
//!   "realm": "staging",
//!   "users": [{"name": "ada", "password": "$pbkdf2-sha256$i=10000,l=32$<salt>$<hash>"}],
//!   "forward": false,
//!   "user-header": "x-user"
//! }
//! ```
//!
//! `forward` says whether the origin sees the Authorization header. `user-header` names a header
//! that tells the origin who it is; a visitor's own header of that name is always dropped.
//!
//! [`plan`] reads the configuration, [`credentials`] what a visitor sent, [`hash`] knows password
//! hashes, [`guard`] decides, [`filter`] speaks WIT.

pub mod credentials;
pub mod filter;
pub mod guard;
pub mod hash;
pub mod plan;
