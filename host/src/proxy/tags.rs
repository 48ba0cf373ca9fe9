//! What origins are told about this host with every request. Knows the reference's header names.

use std::sync::Arc;

use anyhow::Context;
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// One header for each, in the order in which they are written; clones are the same.
#[derive(Clone)]
pub struct Tags(Arc<[(HeaderName, HeaderValue)]>);

impl Tags {
    /// The connector's id, and what people call this host besides.
    ///
    /// # Errors
    /// A name or a value does not fit into a header.
    pub fn new(connector: Uuid, others: &[(String, String)]) -> anyhow::Result<Self> {
        let id = ("ID".to_owned(), connector.to_string());
        let tag = |(name, value): &(String, String)| {
            let header = format!("cf-warp-tag-{}", name.to_ascii_lowercase());
            let header: HeaderName = header.parse().with_context(|| format!("`{name}` cannot name a tag"))?;
            let value = HeaderValue::from_str(value).with_context(|| format!("the tag `{name}`"))?;
            Ok((header, value))
        };
        Ok(Self(others.iter().chain([&id]).map(tag).collect::<anyhow::Result<_>>()?))
    }

    pub(super) fn put_into(&self, headers: &mut HeaderMap) {
        for (name, value) in self.0.iter() {
            headers.insert(name.clone(), value.clone());
        }
    }
}
