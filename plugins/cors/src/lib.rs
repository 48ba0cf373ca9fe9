//! Answers for a service which origins may ask it from a browser.
//!
//! ```json
//! {"origins": ["https://app.example.com", "https://*.example.net"], "methods": ["GET", "POST"], "headers": ["content-type"], "credentials": true}
//! ```
//!
//! [`plan`] reads and decides, [`filter`] speaks WIT. By the Fetch standard, section 3.2 (CORS protocol).

pub mod filter;
pub mod plan;
