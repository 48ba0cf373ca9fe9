//! The names of the plugins that come inside of the program, as `component = "shelf:NAME"` names them. This list
//! is the only one: what builds and embeds the plugins reads this file too.

use std::path::Path;

/// Each is a crate below `plugins/`.
pub const NAMES: [&str; 17] = [
    "basic-auth",
    "block-list",
    "body-replace",
    "canary-split",
    "compress",
    "cors",
    "forward-auth",
    "geo-block",
    "headers",
    "ip-allow",
    "jwt",
    "maintenance",
    "oidc",
    "rate-limit",
    "request-id",
    "rewrite-redirect",
    "webhook-verify",
];

/// Which of them a component is, if it is meant as one.
pub fn name(component: &Path) -> Option<&str> {
    component.to_str()?.strip_prefix(SCHEME)
}

const SCHEME: &str = "shelf:";
