//! Signatures as cosign makes them with a key: `simple signing` payloads that name a manifest's digest,
//! beside the component under the tag `sha256-….sig`, and since its version 3 bundles that refer to the manifest. Verified
//! with pinned keys; no certificate, no log.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::bundle;
use crate::client::Client;
use crate::digest::Digest;
use crate::manifest;
use crate::reference::Reference;

/// A pinned key.
pub struct Key {
    algorithm: &'static dyn VerificationAlgorithm,
    public: Vec<u8>,
}

/// A payload and what signs it, as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Signed {
    payload: String,
    signature: String,
    /// Whether the payload is a statement in an envelope.
    #[serde(default)]
    is_enveloped: bool,
}

impl Key {
    /// ECDSA P-256 or Ed25519, in PEM as `cosign.pub` has it.
    ///
    /// # Errors
    /// The file cannot be read or holds another kind of key.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            adit_files::read(path, LARGEST_KEY).with_context(|| format!("reading {}", path.display()))?;
        Self::from_pem(&text).with_context(|| format!("reading {}", path.display()))
    }

    fn from_pem(text: &[u8]) -> anyhow::Result<Self> {
        let der =
            SubjectPublicKeyInfoDer::from_pem_slice(text).ok().context("it is not a public key in PEM")?;
        let kinds: [(&[u8], usize, &'static dyn VerificationAlgorithm); 2] =
            [(&P256, 65, &ECDSA_P256_SHA256_ASN1), (&ED, 32, &ED25519)];
        for (prefix, length, algorithm) in kinds {
            if let Some(public) = der.strip_prefix(prefix).filter(|public| public.len() == length) {
                return Ok(Self { algorithm, public: public.to_vec() });
            }
        }
        bail!("it is neither an ECDSA P-256 nor an Ed25519 key")
    }
}

/// Whether any of these is a signature of this manifest by any of the keys.
pub fn verify(manifest: Digest, signed: &[Signed], keys: &[Key]) -> bool {
    signed.iter().any(|one| {
        let (Ok(payload), Ok(signature)) = (STANDARD.decode(&one.payload), STANDARD.decode(&one.signature))
        else {
            return false;
        };
        let is_signed_by = |bytes: &[u8]| {
            let verify =
                |key: &Key| UnparsedPublicKey::new(key.algorithm, &key.public).verify(bytes, &signature);
            keys.iter().any(|key| verify(key).is_ok())
        };
        if one.is_enveloped {
            is_signed_by(&bundle::signed_bytes(&payload)) && bundle::names(&payload, manifest)
        } else {
            is_signed_by(&payload) && names(&payload, manifest)
        }
    })
}

impl Signed {
    /// A payload with its signature in base64.
    pub fn new(payload: &[u8], signature: String) -> Self {
        Self { payload: STANDARD.encode(payload), signature, is_enveloped: false }
    }
}

/// Whether this is a signature, in base64, of a file by any of the keys.
pub fn verify_file(file: &[u8], signature: &str, keys: &[Key]) -> bool {
    let Ok(signature) = STANDARD.decode(signature.trim()) else { return false };
    keys.iter().any(|key| UnparsedPublicKey::new(key.algorithm, &key.public).verify(file, &signature).is_ok())
}

/// Whether a payload, whose signature is good, is about this manifest.
fn names(payload: &[u8], manifest: Digest) -> bool {
    let Ok(payload) = serde_json::from_slice::<serde_json::Value>(payload) else { return false };
    let text = |pointer: &str| payload.pointer(pointer).and_then(serde_json::Value::as_str);
    text("/critical/type") == Some(KIND)
        && text("/critical/image/docker-manifest-digest") == Some(&manifest.to_string())
}

/// The signatures that the registry has of a manifest; none is no error.
///
/// # Errors
/// The registry cannot be asked, or what it hands out is damaged.
pub async fn fetch(client: &Client, component: &Reference, manifest: Digest) -> anyhow::Result<Vec<Signed>> {
    let place =
        Reference { tag: Some(format!("sha256-{}.sig", manifest.hex())), digest: None, ..component.clone() };
    let mut signed = Vec::new();
    if let Some((_, json)) = client.manifest(&place).await? {
        let listed = manifest::read(&json)?;
        ensure!(listed.layers.len() <= MOST_SIGNATURES, "it has more than {MOST_SIGNATURES} signatures");
        for layer in listed.layers {
            let Some(signature) = layer.annotations.get(ANNOTATION) else { continue };
            let payload = client.blob(&place, layer.blob()?, LARGEST_PAYLOAD).await?;
            signed.push(Signed::new(&payload, signature.clone()));
        }
    }
    let bundles = client.referrers(component, manifest).await?;
    let bundles: Vec<_> =
        bundles.into_iter().filter(|one| one.artifact_type.starts_with(bundle::KIND)).collect();
    ensure!(bundles.len() <= MOST_SIGNATURES, "it has more than {MOST_SIGNATURES} bundles");
    for one in bundles {
        let place = component.at(one.blob()?.digest);
        let Some((_, json)) = client.manifest(&place).await? else { continue };
        for layer in manifest::read(&json)?.layers {
            if !layer.media_type.starts_with(bundle::KIND) {
                continue;
            }
            let json = client.blob(&place, layer.blob()?, LARGEST_BUNDLE).await?;
            let Some((payload, signatures)) = bundle::read(&json) else { continue };
            let one = |signature| Signed { payload: payload.clone(), signature, is_enveloped: true };
            signed.extend(signatures.into_iter().map(one));
            ensure!(signed.len() <= 2 * MOST_SIGNATURES, "it has more than {MOST_SIGNATURES} signatures");
        }
    }
    Ok(signed)
}

/// What a payload calls itself.
pub(crate) const KIND: &str = "cosign container image signature";
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
const MOST_SIGNATURES: usize = 32;
const LARGEST_PAYLOAD: usize = 64 * 1024;
/// With the proofs of logs, which nobody here reads.
const LARGEST_BUNDLE: usize = 256 * 1024;

/// DER of SubjectPublicKeyInfo up to the key itself (RFC 5480, RFC 8410).
pub(crate) const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const ED: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Bytes of a file with a key; comments may stand around it.
const LARGEST_KEY: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

    use super::*;

    fn pem(prefix: &[u8], public: &[u8]) -> String {
        let der = STANDARD.encode([prefix, public].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")
    }

    fn payload(kind: &str, manifest: Digest) -> Vec<u8> {
        let payload = serde_json::json!({
            "critical": {
                "identity": {"docker-reference": "registry.example.com/jwt"},
                "image": {"docker-manifest-digest": manifest.to_string()},
                "type": kind,
            },
            "optional": null,
        });
        payload.to_string().into_bytes()
    }

    fn signed(payload: &[u8], signature: &[u8]) -> Vec<Signed> {
        vec![Signed::new(payload, STANDARD.encode(signature))]
    }

    #[test]
    fn a_pinned_key_signs_one_manifest_and_nothing_else_does() {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref()).unwrap();
        let ours = Key::from_pem(pem(&P256, pair.public_key().as_ref()).as_bytes()).unwrap();
        let other = Ed25519KeyPair::generate().unwrap();
        let theirs = Key::from_pem(pem(&ED, other.public_key().as_ref()).as_bytes()).unwrap();
        let manifest = Digest::of(b"manifest");
        let text = payload(KIND, manifest);
        let by_us = pair.sign(&random, &text).unwrap();
        let by_them = other.sign(&text);

        let keys = [ours];
        assert!(verify(manifest, &signed(&text, by_us.as_ref()), &keys));
        assert!(!verify(manifest, &signed(&text, by_them.as_ref()), &keys));
        assert!(verify(manifest, &signed(&text, by_them.as_ref()), &[theirs]));
        assert!(!verify(Digest::of(b"other"), &signed(&text, by_us.as_ref()), &keys));
        let other_kind = payload("other", manifest);
        let signature = pair.sign(&random, &other_kind).unwrap();
        assert!(!verify(manifest, &signed(&other_kind, signature.as_ref()), &keys));
        assert!(!verify(manifest, &signed(&payload(KIND, Digest::of(b"")), by_us.as_ref()), &keys));
        assert!(!verify(manifest, &[], &keys) && !verify(manifest, &signed(&text, by_us.as_ref()), &[]));
    }

    #[test]
    fn a_bundle_signs_what_its_statement_says_and_an_envelope_is_never_taken_for_a_payload() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let keys = [Key::from_pem(pem(&ED, pair.public_key().as_ref()).as_bytes()).unwrap()];
        let manifest = Digest::of(b"manifest");
        let bundled = |kind: &str, about: Digest, is_enveloped: bool| {
            let payload = bundle::statement(kind, about);
            let signature = STANDARD.encode(pair.sign(&bundle::signed_bytes(&payload)).as_ref());
            vec![Signed { is_enveloped, ..Signed::new(&payload, signature) }]
        };
        let kind = "https://sigstore.dev/cosign/sign/v1";
        assert!(verify(manifest, &bundled(kind, manifest, true), &keys));
        assert!(!verify(manifest, &bundled(kind, Digest::of(b"other"), true), &keys));
        assert!(!verify(manifest, &bundled("https://slsa.dev/provenance/v1", manifest, true), &keys));
        assert!(!verify(manifest, &bundled(kind, manifest, false), &keys));
        let other = Ed25519KeyPair::generate().unwrap();
        let others = [Key::from_pem(pem(&ED, other.public_key().as_ref()).as_bytes()).unwrap()];
        assert!(!verify(manifest, &bundled(kind, manifest, true), &others));
    }

    #[test]
    fn other_keys_are_refused() {
        for bad in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", &pem(&ED, &[0; 31])] {
            assert!(Key::from_pem(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
