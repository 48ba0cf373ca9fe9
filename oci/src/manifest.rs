//! Manifests of components, after the guidance for Wasm in OCI registries: a config of
//! `application/vnd.wasm.config.v0+json` and one layer of `application/wasm`. Pure.

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::digest::Digest;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Of several manifests under one name.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.wasm.config.v0+json";
pub const LAYER: &str = "application/wasm";

/// What a manifest says of something that lies beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    pub digest: Digest,
    pub size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    schema_version: u64,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
    /// Of an index.
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
    /// What a manifest is of, in an index.
    #[serde(default)]
    pub(crate) artifact_type: String,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
}

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    Component(Blob),
    /// The manifest of the component, of those in an index.
    Listed(Blob),
}

impl Descriptor {
    pub(crate) fn blob(&self) -> anyhow::Result<Blob> {
        Ok(Blob { digest: self.digest.parse()?, size: self.size })
    }
}

pub(crate) fn read(json: &[u8]) -> anyhow::Result<Manifest> {
    let manifest: Manifest =
        serde_json::from_slice(json).context("its manifest is not one of an artifact")?;
    ensure!(manifest.schema_version == 2, "its manifest is of version {}, not 2", manifest.schema_version);
    Ok(manifest)
}

/// What a manifest is about, or which of an index is the component's: the only one, or the only one for WebAssembly.
pub fn named(json: &[u8]) -> anyhow::Result<Named> {
    let manifest = read(json)?;
    if manifest.manifests.is_empty() {
        return component(json).map(Named::Component);
    }
    let is_wasm = |one: &&Descriptor| {
        one.platform.as_ref().is_some_and(|platform| platform.architecture == "wasm")
            || [LAYER, CONFIG].contains(&one.artifact_type.as_str())
    };
    let listed: Vec<_> = manifest.manifests.iter().filter(is_wasm).collect();
    match (&listed[..], &manifest.manifests[..]) {
        ([one], _) => Ok(Named::Listed(one.blob()?)),
        ([], [one]) => Ok(Named::Listed(one.blob()?)),
        (listed, all) => bail!(
            "it is an index of {} manifests, of which {} are for WebAssembly: name one by its digest",
            all.len(),
            listed.len()
        ),
    }
}

/// What it is to be called where it is handed over.
pub(crate) fn kind(json: &[u8]) -> &'static str {
    if read(json).is_ok_and(|manifest| !manifest.manifests.is_empty()) { INDEX } else { MANIFEST }
}

/// The manifests of an index.
pub(crate) fn listed(json: &[u8]) -> anyhow::Result<Vec<Descriptor>> {
    Ok(read(json)?.manifests)
}

/// The component that a manifest is about.
pub fn component(json: &[u8]) -> anyhow::Result<Blob> {
    let manifest = read(json)?;
    match &manifest.layers[..] {
        [layer] if layer.media_type == LAYER => layer.blob(),
        [] => bail!("its manifest has no layer: it is no artifact of {LAYER}"),
        [layer] => bail!("it is {:?} and not {LAYER}", layer.media_type.chars().take(64).collect::<String>()),
        layers => bail!("it has {} layers; a component is one of {LAYER}", layers.len()),
    }
}

/// The config and the manifest of a component. The same component always has the same.
pub fn write(component: Blob) -> (Vec<u8>, Vec<u8>) {
    let config = json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [component.digest.to_string()],
    });
    let config = config.to_string().into_bytes();
    let descriptor = |kind: &str, blob: Blob| -> Value {
        json!({ "mediaType": kind, "digest": blob.digest.to_string(), "size": blob.size })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, blob(&config)),
        "layers": [descriptor(LAYER, component)],
    });
    (config, manifest.to_string().into_bytes())
}

pub fn blob(bytes: &[u8]) -> Blob {
    Blob { digest: Digest::of(bytes), size: bytes.len() as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_manifest_leads_back_to_its_component() {
        let wasm = blob(b"\0asm");
        let (_, manifest) = write(wasm);
        assert_eq!(component(&manifest).unwrap(), wasm);
        assert_eq!(write(wasm).1, manifest);
    }

    #[test]
    fn an_index_leads_to_its_only_component() {
        let one = |architecture: &str, bytes: &[u8]| {
            json!({"mediaType": MANIFEST, "digest": Digest::of(bytes).to_string(), "size": 1,
                "platform": {"architecture": architecture, "os": "wasip2"}})
        };
        let index =
            |all: &[Value]| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": all}).to_string();
        let found = |all: &[Value]| named(index(all).as_bytes());
        let wasm = Named::Listed(Blob { digest: Digest::of(b"a"), size: 1 });
        assert_eq!(found(&[one("wasm", b"a"), one("amd64", b"b")]).unwrap(), wasm);
        assert_eq!(found(&[one("unknown", b"a")]).unwrap(), wasm);
        let error = found(&[one("wasm", b"a"), one("wasm", b"b")]).unwrap_err().to_string();
        assert!(error.contains("an index of 2 manifests, of which 2 are for WebAssembly"), "{error}");
        let component = blob(b"\0asm");
        assert_eq!(named(&write(component).1).unwrap(), Named::Component(component));
    }

    #[test]
    fn manifests_of_other_things_are_refused() {
        let layer = |kind: &str| json!({"mediaType": kind, "digest": Digest::of(b"").to_string(), "size": 0});
        for bad in [
            json!([]),
            json!({}),
            json!({"schemaVersion": 1, "layers": [layer(LAYER)]}),
            json!({"schemaVersion": 2, "manifests": []}),
            json!({"schemaVersion": 2, "layers": [layer("application/vnd.oci.image.layer.v1.tar+gzip")]}),
            json!({"schemaVersion": 2, "layers": [layer(LAYER), layer(LAYER)]}),
            json!({"schemaVersion": 2, "layers": [{"mediaType": LAYER, "digest": "sha256:0", "size": 0}]}),
            json!({"schemaVersion": 2, "layers": [{"mediaType": LAYER, "size": -1}]}),
        ] {
            assert!(component(bad.to_string().as_bytes()).is_err(), "{bad}");
        }
    }
}
