//! Certificates that exist for one test.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A certificate for some names, from a CA of its own.
pub struct Certificate {
    /// The CA, as a file that somebody may trust.
    pub ca_pem: String,
    pub chain: Vec<CertificateDer<'static>>,
    chain_pem: String,
    key: KeyPair,
}

impl Certificate {
    pub fn new(names: &[&str]) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).expect("no name is a fit list of names");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("a CA");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(names).expect("names").signed_by(&key, &ca).expect("a certificate");
        Self { ca_pem: ca.pem(), chain: vec![leaf.der().clone()], chain_pem: leaf.pem(), key }
    }

    /// One that is its own authority, as `openssl req -x509` makes it.
    pub fn own(names: &[&str]) -> Self {
        let key = KeyPair::generate().expect("a key");
        Self::own_of(key, names)
    }

    /// The same with a key at hand.
    pub fn own_of(key: KeyPair, names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).expect("a certificate");
        Self { ca_pem: own.pem(), chain: vec![own.der().clone()], chain_pem: own.pem(), key }
    }

    /// The chain and the key as files.
    pub fn pem(&self) -> [String; 2] {
        [self.chain_pem.clone(), self.key.serialize_pem()]
    }

    /// TLS as a server that shows this certificate.
    pub fn server(&self, protocols: &[&[u8]]) -> rustls::ServerConfig {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has ciphers")
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), key)
            .expect("key and certificate are of one make");
        config.alpn_protocols = protocols.iter().map(|&protocol| protocol.to_vec()).collect();
        config
    }
}

pub(crate) fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    rustls::crypto::aws_lc_rs::default_provider().into()
}
