//! The style and the script of all pages. Each has the hash of its content in its name, so that a browser may keep
//! it for ever.

use std::fmt::Write as _;
use std::sync::OnceLock;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use sha2::{Digest, Sha256};

use crate::answer::{Answer, protect};

struct Asset {
    content: &'static str,
    kind: &'static str,
    /// Before and behind the hash.
    name: [&'static str; 2],
    path: OnceLock<String>,
}

impl Asset {
    fn path(&self) -> &str {
        self.path.get_or_init(|| {
            let sum = Sha256::digest(self.content.as_bytes());
            let mut path = self.name[0].to_owned();
            for byte in &sum[..8] {
                let _ = write!(path, "{byte:02x}");
            }
            path + self.name[1]
        })
    }
}

static STYLE: Asset = Asset {
    content: include_str!("../assets/adit.css"),
    kind: "text/css; charset=utf-8",
    name: ["/ui/adit-", ".css"],
    path: OnceLock::new(),
};

static SCRIPT: Asset = Asset {
    content: include_str!("../assets/adit.js"),
    kind: "text/javascript; charset=utf-8",
    name: ["/ui/adit-", ".js"],
    path: OnceLock::new(),
};

/// Where the style is.
pub fn style() -> &'static str {
    STYLE.path()
}

/// Where the script is.
pub fn script() -> &'static str {
    SCRIPT.path()
}

/// What is at a path, if it is one of these.
pub fn find(path: &str) -> Option<Answer> {
    let asset = [&STYLE, &SCRIPT].into_iter().find(|asset| asset.path() == path)?;
    let mut answer = Response::new(Bytes::from_static(asset.content.as_bytes()).into());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    protect(&mut answer);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("max-age=31536000, immutable"));
    Some(answer)
}
