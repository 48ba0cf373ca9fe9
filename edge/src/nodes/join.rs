//! How this machine becomes a node: it makes its own key, asks a node of the fleet with the token that it was handed,
//! and keeps what it is given. Knows files and messages; the caller brings them to the other node and back.

use anyhow::{Context, bail, ensure};
use rcgen::{CertificateParams, DnType};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde_json::Value;
use std::sync::Arc;

use super::Terms;
use super::folder::{self, Folder};
use super::invitation::{Asking, JoinToken, Reply};
use super::said::Said;
use crate::settings::Settings;
use crate::store::seal::Keys;
use crate::tls::since_epoch;

/// A machine that has asked.
pub struct Joining {
    asking: Asking,
    folder: Folder,
    seal: Keys,
    name: String,
    /// The control API that is to be asked.
    pub api: String,
    /// What it is asked, for `POST /nodes`.
    pub body: Value,
}

impl Joining {
    /// # Errors
    /// The settings name no node, or the text is no token.
    pub fn begin(settings: &Settings, token: &str) -> anyhow::Result<Self> {
        let token = JoinToken::read(token)?;
        let Some(Terms { name, region, listen, addresses }) = settings.node.clone() else {
            bail!("the configuration names no node: add [node] with its name, region and listen");
        };
        let folder = Folder::of(settings.data_dir());
        let pair = folder.make_key()?;
        let public = folder::public(&pair)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, format!("Adit node {name}"));
        let csr = params.serialize_request(&pair).context("asking for a certificate")?;
        let is_listened = listen.port() != 0 && !listen.ip().is_unspecified();
        let addresses = if addresses.is_empty() && is_listened { vec![listen] } else { addresses };
        let api = token.api.clone();
        let (asking, ask) = Asking::new(token, (&name, &region, &addresses), csr.der(), public)?;
        let body = serde_json::to_value(ask).context("what is asked")?;
        Ok(Self { asking, folder, seal: settings.seal.clone(), name, api, body })
    }

    /// Keeps what the fleet has answered. The name of the node that this is now.
    ///
    /// # Errors
    /// It was not the fleet of the token that answered, or this machine belongs to another one already.
    pub fn finish(self, reply: Value) -> anyhow::Result<String> {
        let reply: Reply = serde_json::from_value(reply).context("the answer cannot be read")?;
        let given = self.asking.take(&reply)?;
        let chain = folder::certificates(&given.chain)?;
        ensure!(
            is_vouched_for(&chain)
                && chain.first().and_then(Said::of).is_some_and(|own| own.name == self.name),
            "the certificate that was given is not this node's"
        );
        self.seal.adopt(&given.seal)?;
        self.folder.keep(&chain)?;
        Ok(self.name)
    }
}

/// Whether the second certificate of a chain has signed the first, and both hold now.
fn is_vouched_for(chain: &[CertificateDer<'static>]) -> bool {
    let [leaf, authority] = chain else { return false };
    let mut roots = RootCertStore::empty();
    if roots.add(authority.clone()).is_err() {
        return false;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.is_ok_and(|verifier| {
        verifier.verify_client_cert(leaf, &[], UnixTime::since_unix_epoch(since_epoch())).is_ok()
    })
}
