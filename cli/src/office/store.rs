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
    /// What the fleet calls this edge, in lower-case letters, digits and `-`; by default as this machine is called
    #[arg(long, value_name = "NAME", requires = "store")]
    node: Option<String>,
    /// Where this edge is
    #[arg(long, value_name = "REGION", requires = "store", default_value = "west")]
    region: String,
    /// Where the other nodes of the fleet reach this one
    #[arg(long, value_name = "ADDRESS", requires = "store", default_value = "127.0.0.1:7850")]
    node_listen: String,
}

impl StoreFlags {
    pub(crate) fn is_given(&self) -> bool {
        self.store.is_some()
    }

    /// `[store]` and `[node]`, or nothing.
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
        let name = self.node.clone().unwrap_or_else(machine);
        let (region, listen) = (&self.region, &self.node_listen);
        text.push_str(&format!(
            "\n[node]\nname = {}\nregion = {}\nlisten = {}\n",
            json!(name),
            json!(region),
            json!(listen)
        ));
        text
    }
}

/// As this machine is called, in the letters that a node's name may have.
fn machine() -> String {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_ascii_lowercase();
    let name = name
        .split('.')
        .next()
        .unwrap_or_default()
        .replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    let name: String = name.trim_matches('-').chars().take(LONGEST).collect();
    if name.is_empty() { "node-1".to_owned() } else { name }
}

/// The document's paths are relative to its own folder.
fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

/// Letters of a node's name.
const LONGEST: usize = 63;
