//! TLS towards origins. Built once per generation.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rustls::ClientConfig;

/// Settings for one origin: the system's roots and those of a PEM file, or no check at all.
pub(crate) fn client_config(ca: Option<(&Path, &[u8])>, verify: bool) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(adit_trust::provider());
    let verifier = if verify {
        let mut roots = adit_trust::of_system();
        if let Some((file, pem)) = ca {
            adit_trust::add(Arc::make_mut(&mut roots), pem, file)?;
        }
        adit_trust::by_roots(roots, &provider)
    } else {
        adit_trust::any()
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The same settings, with protocols to choose from.
pub(super) fn speaking(config: &ClientConfig, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}
