//! Which edges this host believes: TLS 1.3 with the system's roots, or with one file only.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};

/// TLS settings for dialling edge servers. With `edge_ca`, no other root is believed. `post_quantum`: only
/// what withstands quantum computers is agreed on.
pub fn client_config(edge_ca: Option<&Path>, post_quantum: bool) -> anyhow::Result<ClientConfig> {
    let roots = match edge_ca {
        Some(file) => roots_of(file)?,
        None => {
            let roots = adit_trust::of_system();
            anyhow::ensure!(
                !roots.is_empty(),
                "no root certificates on this system; name the edge's own with `edge-ca`"
            );
            roots
        }
    };
    let mut provider = aws_lc_rs::default_provider();
    // What an edge of this protocol offers, the preferred first (wire.md, finding 10).
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    if !post_quantum {
        provider.kx_groups.push(aws_lc_rs::kx_group::SECP256R1);
    }
    let provider = Arc::new(provider);
    let verifier = adit_trust::by_roots(roots, &provider);
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3")?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(config)
}

/// The certificate authorities in a file.
///
/// # Errors
/// It cannot be read, or holds none that can be believed.
pub fn roots_of(file: &Path) -> anyhow::Result<Arc<RootCertStore>> {
    adit_trust::of_file(file).context("the edge's CA certificates")
}
