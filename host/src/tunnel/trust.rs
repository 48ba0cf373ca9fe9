//! Which edges this host believes: TLS 1.3 with the system's roots, or with one file only.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// TLS settings for dialling edge servers. With `edge_ca`, no other root is believed. `post_quantum`: only
/// what withstands quantum computers is agreed on.
pub fn client_config(edge_ca: Option<&Path>, post_quantum: bool) -> anyhow::Result<ClientConfig> {
    let roots = match edge_ca {
        Some(file) => roots_of(file)?,
        None => roots_of_the_system()?,
    };
    let mut provider = aws_lc_rs::default_provider();
    // What an edge of this protocol offers, the preferred first (wire.md, finding 10).
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    if !post_quantum {
        provider.kx_groups.push(aws_lc_rs::kx_group::SECP256R1);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// The certificate authorities in a file.
///
/// # Errors
/// It cannot be read, or holds none that can be believed.
pub fn roots_of(file: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let about = || format!("reading the edge's CA certificates in {}", file.display());
    let text = adit_files::read(file, LARGEST_CA_FILE).with_context(about)?;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        roots.add(certificate.with_context(about)?).with_context(about)?;
    }
    anyhow::ensure!(!roots.is_empty(), "{} holds no certificate (a PEM block CERTIFICATE)", file.display());
    Ok(roots)
}

fn roots_of_the_system() -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    anyhow::ensure!(
        !roots.is_empty(),
        "no root certificates on this system; name the edge's own with `edge-ca`"
    );
    Ok(roots)
}

/// A bundle of every public authority has a quarter of it.
const LARGEST_CA_FILE: usize = 1 << 20;
