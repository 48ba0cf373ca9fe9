//! The config.yml of cloudflared, and its flags, as a document of ours. What cannot be meant by ours is said
//! as a warning; what would be served less safely is refused. Knows both forms; serves nothing.

mod duration;
mod keys;
mod origin;
#[cfg(test)]
mod tests;
mod translation;

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde_json::{Map, Value};

pub(super) use translation::{Proof, translate};

use super::{Options, places};
use crate::Failure;

/// A config.yml that was read.
pub(super) struct Legacy {
    pub(super) path: PathBuf,
    keys: Map<String, Value>,
}

/// The config.yml that is meant, if one is: the named one, or the first where cloudflared looks for it. Its
/// top-level flags fill in what neither command line nor environment said.
pub(super) fn find(options: &mut Options) -> Result<Option<Legacy>, Failure> {
    let path = match &options.config {
        Some(path) if is_yaml(path) => path.clone(),
        Some(_) => return Ok(None),
        None => match places::find(&["config.yml", "config.yaml"]) {
            Some(path) => path,
            None => return Ok(None),
        },
    };
    let legacy = Legacy::read(path).map_err(Failure::Configuration)?;
    legacy.fill(options).map_err(Failure::Configuration)?;
    Ok(Some(legacy))
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yml", "yaml", "json"].iter().any(|known| extension == *known))
}

impl Legacy {
    pub(super) fn read(path: PathBuf) -> anyhow::Result<Self> {
        let size = std::fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?.len();
        anyhow::ensure!(size <= LONGEST_FILE, "{} is longer than {LONGEST_FILE} bytes", path.display());
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(path, &text)
    }

    pub(super) fn parse(path: PathBuf, text: &str) -> anyhow::Result<Self> {
        let value: Option<Value> =
            serde_norway::from_str(text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
        match value {
            None | Some(Value::Null) => Ok(Self { path, keys: Map::new() }),
            Some(Value::Object(keys)) => Ok(Self { path, keys }),
            Some(_) => bail!("{} is not a list of keys with values", path.display()),
        }
    }

    /// The tunnel that it is about, by id or name.
    pub(super) fn tunnel(&self) -> Option<String> {
        self.text("tunnel")
    }

    pub(super) fn credentials_file(&self) -> Option<PathBuf> {
        self.text("credentials-file").map(|file| self.beside(&file))
    }

    pub(super) fn url(&self) -> Option<String> {
        self.text("url")
    }

    fn text(&self, key: &str) -> Option<String> {
        match self.keys.get(key)? {
            Value::String(text) => Some(text.clone()),
            other @ (Value::Number(_) | Value::Bool(_)) => Some(other.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn beside(&self, file: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(file)
    }

    fn fill(&self, options: &mut Options) -> anyhow::Result<()> {
        let fill = |option: &mut Option<String>, key: &str| {
            if option.is_none() {
                *option = self.text(key);
            }
        };
        fill(&mut options.api_url, "api-url");
        if options.origin_cert.is_none() {
            options.origin_cert = self.text("origincert").map(|file| self.beside(&file));
        }
        let edge = &mut options.edge;
        for (option, key) in [
            (&mut edge.protocol, "protocol"),
            (&mut edge.region, "region"),
            (&mut edge.edge_ip_version, "edge-ip-version"),
            (&mut edge.edge_bind_address, "edge-bind-address"),
            (&mut edge.grace_period, "grace-period"),
            (&mut edge.metrics, "metrics"),
            (&mut edge.edge_domain, "edge-domain"),
        ] {
            fill(option, key);
        }
        if edge.edge_ca.is_none() {
            edge.edge_ca = self.text("cacert").map(|file| self.beside(&file));
        }
        if edge.connections.is_none()
            && let Some(count) = self.text("ha-connections")
        {
            edge.connections =
                Some(count.parse().with_context(|| format!("`ha-connections: {count}` is no number"))?);
        }
        if edge.edge.is_empty() {
            edge.edge = match self.keys.get("edge") {
                Some(Value::Array(list)) => {
                    list.iter().filter_map(|edge| edge.as_str().map(str::to_owned)).collect()
                }
                Some(Value::String(text)) => text.split(',').map(|edge| edge.trim().to_owned()).collect(),
                _ => Vec::new(),
            };
        }
        Ok(())
    }
}

const LONGEST_FILE: u64 = 4 << 20;
