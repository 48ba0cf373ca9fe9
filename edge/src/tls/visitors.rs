//! TLS towards visitors, and towards callers of the control API: which versions, and whose certificates are believed.
//! Knows rustls; does not know names.

use std::sync::Arc;

use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, version};
use rustls_pki_types::CertificateDer;

use super::provider;

/// How old a visitor's TLS may be, in Mozilla's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum TlsPolicy {
    /// TLS 1.2 with forward secrecy and authenticated encryption, and TLS 1.3.
    #[default]
    Intermediate,
    /// TLS 1.3 alone.
    Modern,
}

/// TLS towards visitors, HTTP/2 preferred.
pub(crate) fn visitor_tls(
    shown: Arc<dyn ResolvesServerCert>,
    policy: TlsPolicy,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = towards_visitors(shown, policy, WebPkiClientVerifier::no_client_auth())?;
    // The last is an authority's that looks whether a name leads here.
    config.alpn_protocols.push(b"acme-tls/1".to_vec());
    Ok(config)
}

/// The same for names whose visitors may say by a certificate who they are. Each connection says it anew: a session that
/// is taken up again would go on with a certificate that has ended since.
pub(crate) fn identifying_tls(
    shown: Arc<dyn ResolvesServerCert>,
    policy: TlsPolicy,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = towards_visitors(shown, policy, verifier)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Believes visitors whose certificates these have issued; who has none is let in unless it `is_required`.
///
/// # Errors
/// One of them is no authority's.
pub(crate) fn client_verifier(
    authorities: Vec<CertificateDer<'static>>,
    is_required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| error.to_string())?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider()));
    let builder = if is_required { builder } else { builder.allow_unauthenticated() };
    builder.build().map(|verifier| verifier as Arc<dyn ClientCertVerifier>).map_err(|error| error.to_string())
}

fn towards_visitors(
    shown: Arc<dyn ResolvesServerCert>,
    policy: TlsPolicy,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<ServerConfig, rustls::Error> {
    let versions: &[_] = match policy {
        TlsPolicy::Intermediate => &[&version::TLS13, &version::TLS12],
        TlsPolicy::Modern => &[&version::TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(shown);
    // All that is offered is good; tools that look at servers count it against one that has no opinion.
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The same for a server that speaks HTTP/1 alone.
pub(crate) fn http1_only(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}
