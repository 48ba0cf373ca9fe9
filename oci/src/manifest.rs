//! Manifests of components, after the guidance for Wasm in OCI registries: a config of
//! `application/vnd.wasm.config.v0+json` and one layer of `application/wasm`. Pure.

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::digest::Digest;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
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

/// The component that a manifest is about.
pub fn component(json: &[u8]) -> anyhow::Result<Blob> {
    let manifest = read(json)?;
    match &manifest.layers[..] {
        [layer] if layer.media_type == LAYER => layer.blob(),
        [] => bail!("its manifest has no layer: an index of several, or no artifact of {LAYER}"),
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
