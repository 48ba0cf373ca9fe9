//! An OCI image from nothing but the program, as a layout (image-spec 1.1): one layer, its configuration, and
//! the signature that cosign would look for. Knows the format; opens no connection.

use std::collections::BTreeMap;

use adit_oci::digest::Digest;
use adit_oci::manifest::MANIFEST;
use adit_oci::signing::SigningKey;
use anyhow::Result;
use serde_json::{Value, json};

use crate::Parts;
use crate::tar::{Tree, gzip};

/// The files of a layout, by their paths in it.
pub struct Layout {
    pub files: BTreeMap<String, Vec<u8>>,
    /// Of the image's manifest.
    pub digest: Digest,
}

/// The image, signed if there is a key. `roots` are the authorities that it believes, in PEM.
///
/// # Errors
/// It could not be signed.
pub fn pack(parts: &Parts, roots: &[u8], key: Option<&SigningKey>) -> Result<Layout> {
    let mut tree = Tree::default();
    tree.file("adit", 0o755, parts.program.clone());
    tree.file("etc/ssl/certs/ca-certificates.crt", 0o644, roots);
    tree.file("etc/passwd", 0o644, format!("root:x:0:0::/:/adit\nadit:x:{USER}:{USER}::/data:/adit\n"));
    tree.file("etc/group", 0o644, format!("root:x:0:\nadit:x:{USER}:\n"));
    tree.folder("data", 0o700, USER);
    tree.folder("tmp", 0o1777, 0);
    let tar = tree.tar("", parts.time)?;
    let layer = gzip(&tar, parts.level)?;
    let config = json!({
        "created": moment(parts.time),
        "architecture": parts.architecture,
        "os": "linux",
        "config": {
            "User": format!("{USER}:{USER}"),
            "Entrypoint": ["/adit"],
            "WorkingDir": "/data",
            // The root is read-only, so that short-lived files go where the others go.
            "Env": ["PATH=/", "HOME=/data", "TMPDIR=/data"],
            "Volumes": { "/data": {} },
            "StopSignal": "SIGTERM",
            // Not of the specification; Docker and Podman read it. It is for a host: an edge's runtime asks
            // `/ready` on the listener for probes.
            "Healthcheck": {
                "Test": ["CMD", "/adit", "tunnel", "ready", "--no-origins"],
                "Interval": 10_000_000_000_u64,
                "Timeout": 5_000_000_000_u64,
                "StartPeriod": 30_000_000_000_u64,
                "Retries": 3,
            },
            "Labels": labels(parts),
        },
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&tar).to_string()] },
        "history": [{ "created": moment(parts.time), "created_by": "cargo xtask release" }],
    });
    let mut blobs = Blobs::default();
    let config = blobs.add(CONFIG, config.to_string().into_bytes());
    let layer = blobs.add(LAYER, layer);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": [layer],
        "annotations": labels(parts),
    });
    let manifest = manifest.to_string().into_bytes();
    let digest = Digest::of(&manifest);
    let mut listed = blobs.add(MANIFEST, manifest);
    listed["platform"] = json!({ "architecture": parts.architecture, "os": "linux" });
    listed["annotations"] = json!({ NAME: parts.version });
    let mut manifests = vec![listed];
    if let Some(key) = key {
        let signed = key.sign_manifest(digest, "adit")?;
        let config = blobs.add(CONFIG, json!({ "architecture": "", "os": "", "config": {}, "rootfs": { "type": "layers", "diff_ids": [] } }).to_string().into_bytes());
        let mut layer = blobs.add("application/vnd.dev.cosign.simplesigning.v1+json", signed.payload);
        layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signed.signature });
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
        let mut listed = blobs.add(MANIFEST, manifest.to_string().into_bytes());
        listed["annotations"] = json!({ NAME: format!("sha256-{}.sig", digest.hex()) });
        manifests.push(listed);
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    let mut files = blobs.files;
    files.insert("oci-layout".to_owned(), b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec());
    files.insert("index.json".to_owned(), index.to_string().into_bytes());
    Ok(Layout { files, digest })
}

impl Layout {
    /// The layout as one archive, which `skopeo`, `podman load` and `docker load` read.
    ///
    /// # Errors
    /// None that is known.
    pub fn archive(&self, time: u64) -> Result<Vec<u8>> {
        let mut tree = Tree::default();
        for (path, content) in &self.files {
            tree.file(path, 0o644, content.clone());
        }
        tree.tar("", time)
    }
}

#[derive(Default)]
struct Blobs {
    files: BTreeMap<String, Vec<u8>>,
}

impl Blobs {
    /// Its descriptor.
    fn add(&mut self, kind: &str, bytes: Vec<u8>) -> Value {
        let digest = Digest::of(&bytes);
        let descriptor = json!({ "mediaType": kind, "digest": digest.to_string(), "size": bytes.len() });
        self.files.insert(format!("blobs/sha256/{}", digest.hex()), bytes);
        descriptor
    }
}

fn labels(parts: &Parts) -> Value {
    json!({
        "org.opencontainers.image.title": "adit",
        "org.opencontainers.image.description": "Tunnels that bring traffic to a private origin, with WebAssembly plugins on the way",
        "org.opencontainers.image.version": parts.version,
        "org.opencontainers.image.revision": parts.commit,
        "org.opencontainers.image.licenses": parts.licence,
    })
}

/// Seconds since 1970 as RFC 3339 writes them.
fn moment(time: u64) -> String {
    let (days, rest) = (time / 86_400, time % 86_400);
    // Days since March of the year 0 make leap days the last of a year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Nobody on the machine around it.
pub const USER: u32 = 65_532;
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const NAME: &str = "org.opencontainers.image.ref.name";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_has_them() {
        for (time, written) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(moment(time), written);
        }
    }
}
