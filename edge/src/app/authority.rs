//! The authority that an edge is to itself where nobody gives it certificates.

use std::path::Path;

use anyhow::Context;

use crate::tls::{DevelopmentCa, Identity};

/// The development CA, opened only if something needs it.
pub(super) struct LazyCa<'a> {
    pub(super) data_dir: &'a Path,
    pub(super) made: Option<DevelopmentCa>,
}

impl LazyCa<'_> {
    pub(super) fn issue(&mut self, names: Vec<String>) -> anyhow::Result<Identity> {
        let ca = match self.made.take() {
            Some(ca) => ca,
            None => DevelopmentCa::open(self.data_dir).context("opening the development CA")?,
        };
        Ok(self.made.insert(ca).issue(names)?)
    }
}
