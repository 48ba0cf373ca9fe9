//! TLS between nodes: 1.3 both ways, with a certificate of the fleet's authority on each side. Which node it is that
//! shows one is judged by the records of the fleet ([`OwnNode::judge`]); without both nobody is spoken to. Knows
//! certificates; does not know what is said.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, RootCertStore, ServerConfig,
    SignatureScheme, version,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::nodes::{NodeLeaf, OwnNode};
use crate::store::records::nodes::NodeRecord;

/// What this node shows and believes, made anew whenever either changes.
pub(super) struct Trust {
    node: Arc<OwnNode>,
    made: Mutex<Option<Made>>,
}

#[derive(Clone)]
struct Made {
    leaf: Arc<NodeLeaf>,
    authorities: Vec<CertificateDer<'static>>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Trust {
    pub(super) fn new(node: Arc<OwnNode>) -> Self {
        Self { node, made: Mutex::new(None) }
    }

    /// For those who dial this node.
    pub(super) fn server(&self) -> anyhow::Result<Arc<ServerConfig>> {
        Ok(self.made()?.server)
    }

    /// For dialling others.
    pub(super) fn client(&self) -> anyhow::Result<Arc<ClientConfig>> {
        Ok(self.made()?.client)
    }

    fn made(&self) -> anyhow::Result<Made> {
        let (leaf, authorities) = (self.node.leaf(), self.node.authorities());
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let is_right = |made: &&Made| Arc::ptr_eq(&made.leaf, &leaf) && made.authorities == authorities;
        if let Some(made) = made.as_ref().filter(is_right) {
            return Ok(made.clone());
        }
        Ok(made.insert(make(leaf, authorities).context("TLS between nodes")?).clone())
    }

    /// The node at the other end, by the chain that it has shown.
    pub(super) fn judge(&self, chain: Option<&[CertificateDer<'_>]>) -> anyhow::Result<(String, NodeRecord)> {
        let leaf = chain.and_then(<[_]>::first).context("it shows no certificate")?;
        Ok(self.node.judge(leaf)?)
    }
}

fn make(leaf: Arc<NodeLeaf>, authorities: Vec<CertificateDer<'static>>) -> anyhow::Result<Made> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots.add(authority.clone())?;
    }
    let roots = Arc::new(roots);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(leaf.chain.clone(), leaf.key.clone_key())?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    // Each connection shows its certificate anew.
    server.send_tls13_tickets = 0;
    let verifier = Arc::new(OfAuthority { roots, provider: provider.clone() });
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(leaf.chain.clone(), leaf.key.clone_key())?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.enable_sni = false;
    client.resumption = Resumption::disabled();
    Ok(Made { leaf, authorities, server: Arc::new(server), client: Arc::new(client) })
}

/// Believes what the fleet's authority has signed: a node has no host name to be compared with.
#[derive(Debug)]
struct OfAuthority {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OfAuthority {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let leaf = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&leaf, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What nodes speak, and nobody else.
pub(super) const ALPN: &[u8] = b"adit-edge/1";

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
    use rustls::CertificateError;
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio_rustls::{TlsAcceptor, TlsConnector};
    use uuid::Uuid;

    use super::*;
    use crate::nodes::authority::Authority;
    use crate::nodes::said::PublicKey;
    use crate::tls::since_epoch;

    /// A node that was certified so many days ago, by one authority, and believes another.
    fn node(days: u64, by: &Authority, believes: &Authority) -> Made {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let public = PublicKey::of(&key.subject_public_key_info()).unwrap();
        let then = since_epoch() - std::time::Duration::from_secs(days * 24 * 60 * 60);
        let chain = by.issue_at("west-1", &public, then).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let leaf = Arc::new(NodeLeaf { chain, key, not_after: 0 });
        make(leaf, vec![believes.certificate().clone()]).unwrap()
    }

    /// What the dialled one and the one that dials make of each other.
    async fn meet(server: &Made, client: &Made) -> [Option<Error>; 2] {
        let (here, there) = tokio::io::duplex(64 << 10);
        let refusal = |error: std::io::Error| error.get_ref()?.downcast_ref::<Error>().cloned();
        let accept = async {
            let accepted = TlsAcceptor::from(server.server.clone()).accept(here).await;
            accepted.err().and_then(refusal)
        };
        let dial = async {
            let name = ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into());
            TlsConnector::from(client.client.clone()).connect(name, there).await.err().and_then(refusal)
        };
        tokio::join!(accept, dial).into()
    }

    #[tokio::test]
    async fn a_certificate_that_has_run_out_or_is_of_another_authority_opens_nothing_on_either_side() {
        let [own, other] = [(); 2].map(|()| Authority::make(Uuid::new_v4()).unwrap().0);
        let [one, two] = [(); 2].map(|()| node(1, &own, &own));
        assert_eq!(meet(&one, &two).await, [None, None]);
        let is_expired = |error: &Option<Error>| {
            use CertificateError::{Expired, ExpiredContext};
            matches!(error, Some(Error::InvalidCertificate(Expired | ExpiredContext { .. })))
        };
        let expired = node(31, &own, &own);
        let [dialled, _] = meet(&one, &expired).await;
        assert!(is_expired(&dialled), "{dialled:?}");
        let [_, dialling] = meet(&expired, &one).await;
        assert!(is_expired(&dialling), "{dialling:?}");
        let stranger = node(1, &other, &own);
        let [dialled, _] = meet(&one, &stranger).await;
        assert!(matches!(dialled, Some(Error::InvalidCertificate(_))), "{dialled:?}");
        let [_, dialling] = meet(&stranger, &one).await;
        assert!(matches!(dialling, Some(Error::InvalidCertificate(_))), "{dialling:?}");
    }
}
