//! Origins whose certificates are not those of a public authority.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P521_SHA512,
};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;

#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// A server that shows this certificate, whatever it is.
async fn serve_with(certificate: CertificateDer<'static>, key: &KeyPair) -> SocketAddr {
    let (listener, address) = listen().await;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shows(Arc::new(CertifiedKey::new(vec![certificate], key)))));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::task::spawn_local(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut request).await.unwrap_or_default() == 0 {
                        return;
                    }
                }
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            });
        }
    });
    address
}

async fn asked(address: SocketAddr, keys: &str) -> Result<Response<Body>, OriginError> {
    let origin = origin(&format!("https://{address}"), keys);
    origin.send(&Pool::default(), head("GET", "/"), empty()).await
}

/// As `openssl req -x509` makes it.
fn own(key: &KeyPair, names: &[&str]) -> rcgen::Certificate {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(key).unwrap()
}

#[test]
fn a_service_is_believed_by_the_certificate_that_the_ca_file_lists() {
    on_a_shard(async {
        let key = KeyPair::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("origin.pem");
        for names in [&["127.0.0.1"][..], &[]] {
            let certificate = own(&key, names);
            std::fs::write(&file, certificate.pem()).unwrap();
            let listed = format!("ca-file = {file:?}");
            let address = serve_with(certificate.der().clone(), &key).await;
            assert_eq!(asked(address, &listed).await.unwrap().status(), 204, "{names:?}");
            let refused = asked(address, "").await.err().unwrap();
            assert!(refused.is_unsent() && refused.to_string().contains("believed"), "{refused}");
            // Another one is not.
            let other = KeyPair::generate().unwrap();
            let address = serve_with(own(&other, names).der().clone(), &other).await;
            assert!(asked(address, &listed).await.is_err(), "{names:?}");
        }
    });
}

#[test]
fn without_verification_any_certificate_is_taken() {
    on_a_shard(async {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P521_SHA512] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let certificate = own(&key, &["elsewhere.example.com"]).der().clone();
            let old = first_version(&certificate);
            for certificate in [certificate, old, CertificateDer::from(b"no certificate at all".to_vec())] {
                let address = serve_with(certificate, &key).await;
                assert_eq!(asked(address, "tls-verify = false").await.unwrap().status(), 204);
            }
        }
    });
}

/// The same certificate as X.509 version 1 had it: without a version, without extensions. Its signature is not
/// right any more.
fn first_version(certificate: &CertificateDer<'_>) -> CertificateDer<'static> {
    let (whole, _) = element(certificate);
    let (signed, rest) = element(content(whole));
    let mut fields = content(signed);
    let mut kept = Vec::new();
    while !fields.is_empty() {
        let (field, rest) = element(fields);
        // [0] is the version, [3] the extensions.
        if field[0] != 0xa0 && field[0] != 0xa3 {
            kept.extend_from_slice(field);
        }
        fields = rest;
    }
    CertificateDer::from(sequence(&[&sequence(&kept)[..], rest].concat()))
}

/// The first element with its head, and what follows.
fn element(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (head, length) = head_of(bytes);
    bytes.split_at(head + length)
}

fn content(element: &[u8]) -> &[u8] {
    &element[head_of(element).0..]
}

fn head_of(bytes: &[u8]) -> (usize, usize) {
    let more = usize::from(bytes[1] & 0x7f);
    if bytes[1] < 0x80 {
        return (2, more);
    }
    (2 + more, bytes[2..2 + more].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
}

fn sequence(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[0x30, 0x82, length[0], length[1]], content].concat()
}

#[test]
fn a_service_without_a_cipher_that_is_known_here_is_said_to_be_out_of_reach() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut hello = vec![0; 4096];
                let _ = stream.read(&mut hello).await.unwrap();
                // handshake_failure, as a server says that has only CBC.
                stream.write_all(&[21, 3, 3, 0, 2, 2, 40]).await.unwrap();
            }
        });
        let error = asked(address, "tls-verify = false").await.err().unwrap();
        assert!(error.is_unsent() && error.to_string().contains("CBC"), "{error}");
    });
}
