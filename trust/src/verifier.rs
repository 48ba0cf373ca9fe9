//! What is asked of the certificate that a server shows.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme, client,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::anchor_from_trusted_cert;

/// Believes what leads to one of `roots`, and what is one of them: most people who make a certificate
/// themselves make an authority that is its own server.
pub fn by_roots(roots: Arc<RootCertStore>, provider: &Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    // There is none for no roots.
    let chains = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build().ok();
    Arc::new(ByRoots { roots, chains, provider: provider.clone() })
}

/// Believes whoever answers, so that nothing is asked that could fail: neither what the certificate says, nor
/// whether its key is of a kind that could be checked.
pub fn any() -> Arc<dyn ServerCertVerifier> {
    Arc::new(Any)
}

#[derive(Debug)]
struct ByRoots {
    roots: Arc<RootCertStore>,
    chains: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ByRoots {
    /// Whether it has the name and the key of one of the roots. Who holds that key could have signed any
    /// certificate that is believed here.
    fn lists(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok(shown) = anchor_from_trusted_cert(certificate) else { return false };
        self.roots.roots.iter().any(|root| {
            root.subject == shown.subject && root.subject_public_key_info == shown.subject_public_key_info
        })
    }
}

impl ServerCertVerifier for ByRoots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chains) = &self.chains else { return Err(CertificateError::UnknownIssuer.into()) };
        let outcome = chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match outcome {
            Err(error) if is_about_its_place(&error) && self.lists(end_entity) => {
                named(end_entity, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            // An authority that nobody knows; its own name for it leads nowhere.
            Err(error) if is_authority(&error) => Err(CertificateError::UnknownIssuer.into()),
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether all that is wrong with a certificate is its place in a chain, or that it names nobody. Its time is
/// looked at before that, so it is not over.
fn is_about_its_place(error: &Error) -> bool {
    if is_authority(error) {
        return true;
    }
    let Error::InvalidCertificate(error) = error else { return false };
    if let CertificateError::NotValidForNameContext { presented, .. } = error {
        return presented.is_empty();
    }
    *error == CertificateError::UnknownIssuer
}

/// Whether a certificate is an authority's, where a server's is wanted.
fn is_authority(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) = error else { return false };
    cause.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
}

/// A certificate that names servers must name this one; one that names none was listed for the one that has it.
fn named(certificate: &CertificateDer<'_>, server_name: &ServerName<'_>) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    match client::verify_server_name(&parsed, server_name) {
        Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }))
            if presented.is_empty() =>
        {
            Ok(())
        }
        outcome => outcome,
    }
}

#[derive(Debug)]
struct Any;

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        EVERY_SCHEME.to_vec()
    }
}

/// The good ones first; servers choose among them.
const EVERY_SCHEME: [SignatureScheme; 13] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::ED448,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::ECDSA_SHA1_Legacy,
    SignatureScheme::RSA_PKCS1_SHA1,
];

#[cfg(test)]
mod tests;
