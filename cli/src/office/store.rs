//! Where `adit edge init` puts the state, as flags and as the section of the document that they become.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

#[derive(Args)]
pub(crate) struct StoreFlags {
    /// Keep the state in etcd, for a fleet of edges: etcd://HOST:PORT,HOST:PORT/FLEET. Without it the state is a file
    /// in the data folder, which is right for one edge
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// The authority that etcd's certificates are from (PEM); not needed for etcd on this machine
    #[arg(long, value_name = "FILE", requires = "store")]
    store_ca: Option<PathBuf>,
    /// The certificate that this edge shows to etcd (PEM)
    #[arg(long, value_name = "FILE", requires = "store")]
    store_certificate: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "store")]
    store_private_key: Option<PathBuf>,
    /// Take versions of etcd before 3.5.18 too, which are known to lose changes
    #[arg(long, requires = "store")]
    store_allow_old: bool,
}

impl StoreFlags {
    pub(crate) fn is_given(&self) -> bool {
        self.store.is_some()
    }

    /// `[store]`, or nothing.
    pub(crate) fn section(&self) -> String {
        let Some(url) = &self.store else { return String::new() };
        // A JSON string is a TOML string.
        let mut text = format!("\n[store]\nurl = {}\n", json!(url));
        let files = [
            ("ca", &self.store_ca),
            ("certificate", &self.store_certificate),
            ("private-key", &self.store_private_key),
        ];
        for (key, file) in files {
            if let Some(file) = file {
                text.push_str(&format!("{key} = {}\n", json!(absolute(file))));
            }
        }
        if self.store_allow_old {
            text.push_str("allow-old = true\n");
        }
        text
    }
}

/// The document's paths are relative to its own folder.
fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}
