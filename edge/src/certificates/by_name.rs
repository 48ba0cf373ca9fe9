//! Which certificate a visitor is shown: the first of the document that has its name, then the first whose wildcard
//! covers it, then what an authority has issued for it, then the one for everybody. Nothing that a visitor asks for makes
//! one.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::challenges::{self, Challenges};
use super::issued::Issued;
use super::place::Place;
use crate::store::StoreRevision;
use crate::store::records::certificates::Certificate;
use crate::store::seal::SealKeys;

/// The current table. A handshake looks once.
pub(crate) struct ByName {
    own: Vec<Arc<Place>>,
    fallback: Arc<Place>,
    table: ArcSwap<Table>,
    issued: ArcSwap<Issued>,
    challenges: Arc<Challenges>,
}

#[derive(Default)]
struct Table {
    /// In lower case.
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what stands behind the `*.`, which is one label.
    wildcards: HashMap<String, Arc<CertifiedKey>>,
}

impl ByName {
    pub(super) fn new(own: Vec<Arc<Place>>, fallback: Arc<Place>, challenges: Arc<Challenges>) -> Self {
        let (table, issued) = (ArcSwap::default(), ArcSwap::default());
        let by_name = Self { own, fallback, table, issued, challenges };
        by_name.follow();
        by_name
    }

    /// Serves by what the places hold now.
    pub(super) fn follow(&self) {
        let mut table = Table::default();
        for place in &self.own {
            let shown = place.shown();
            for name in &shown.leaf.names {
                table.add(name, &shown.certified);
            }
        }
        self.table.store(Arc::new(table));
    }

    /// Shows these of the state.
    pub(super) fn show<'r>(
        &self,
        issued: impl Iterator<Item = (&'r String, &'r Certificate, StoreRevision)>,
        keys: &SealKeys,
    ) {
        let issued = Issued::of(&self.issued.load(), issued, keys);
        self.issued.store(Arc::new(issued));
    }

    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.find(&name.to_ascii_lowercase());
        }
        self.table.load().find(name).or_else(|| self.issued.load().find(name))
    }
}

impl Table {
    fn add(&mut self, name: &str, certified: &Arc<CertifiedKey>) {
        let (names, name) = match name.strip_prefix("*.") {
            Some(rest) => (&mut self.wildcards, rest),
            None => (&mut self.exact, name),
        };
        if !names.contains_key(name) {
            names.insert(name.to_owned(), certified.clone());
        }
    }

    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let found = self.exact.get(name).or_else(|| {
            let (_, rest) = name.split_once('.')?;
            self.wildcards.get(rest)
        });
        found.cloned()
    }
}

impl std::fmt::Debug for ByName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ByName")
    }
}

/// Shows what an authority has issued for one name, whatever is asked for, and until then something else.
#[derive(Debug)]
pub(crate) struct ForOne {
    pub(super) name: String,
    pub(super) by_name: Arc<ByName>,
}

impl ResolvesServerCert for ForOne {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = self.by_name.find(&self.name);
        Some(found.unwrap_or_else(|| self.by_name.fallback.shown().certified.clone()))
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if challenges::looks(&hello) {
            return self.challenges.over_tls(&challenges::looked_for(&hello)?);
        }
        let found = hello.server_name().and_then(|name| self.find(name));
        Some(found.unwrap_or_else(|| self.fallback.shown().certified.clone()))
    }
}
