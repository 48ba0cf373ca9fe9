//! Signatures as cosign makes them with a key, for what we release ourselves: of manifests (`simple signing`) and
//! of files. What verifies plugins verifies them too.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;

use crate::digest::Digest;
use crate::signature::{KIND, P256};

/// A key that signs: ECDSA P-256. Never shown.
pub struct SigningKey(EcdsaKeyPair);

/// A payload, and what signs it in base64.
pub struct SignedManifest {
    pub payload: Vec<u8>,
    pub signature: String,
}

impl SigningKey {
    /// From PKCS #8 in PEM, not encrypted, as `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`
    /// writes it.
    ///
    /// # Errors
    /// The file cannot be read or holds another kind of key.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            adit_files::read(path, LARGEST_KEY).with_context(|| format!("reading {}", path.display()))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| {
            anyhow!("{}: it is not a private key (PKCS #8, not encrypted) in PEM", path.display())
        })?;
        Self::from_der(key.secret_pkcs8_der()).with_context(|| path.display().to_string())
    }

    /// A new one, with its PEM to be kept.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate() -> Result<(Self, String)> {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
            .map_err(|_| anyhow!("a key could not be made"))?;
        Ok((Self::from_der(document.as_ref())?, pem("PRIVATE KEY", document.as_ref())))
    }

    fn from_der(der: &[u8]) -> Result<Self> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
            .map(Self)
            .map_err(|_| anyhow!("it is no ECDSA P-256 key"))
    }

    /// What others verify with, in PEM as `cosign.pub` has it.
    pub fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &[&P256, self.0.public_key().as_ref()].concat())
    }

    /// Of a manifest, which is to be known by this name.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn sign_manifest(&self, manifest: Digest, name: &str) -> Result<SignedManifest> {
        let payload = json!({
            "critical": {
                "identity": { "docker-reference": name },
                "image": { "docker-manifest-digest": manifest.to_string() },
                "type": KIND,
            },
            "optional": null,
        });
        let payload = payload.to_string().into_bytes();
        let signature = self.sign(&payload)?;
        Ok(SignedManifest { payload, signature })
    }

    /// Of a file, in base64 as `cosign sign-blob` writes it.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn sign(&self, file: &[u8]) -> Result<String> {
        let signature = self.0.sign(&SystemRandom::new(), file).map_err(|_| anyhow!("signing failed"))?;
        Ok(STANDARD.encode(signature))
    }
}

fn pem(kind: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n"))
}

/// Bytes of a file with a key.
const LARGEST_KEY: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::{Key, Signed, verify, verify_file};

    #[test]
    fn what_we_sign_is_what_our_own_verifier_takes_and_nothing_else() {
        let (key, text) = SigningKey::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (private, public) = (folder.path().join("key"), folder.path().join("key.pub"));
        std::fs::write(&private, &text).unwrap();
        std::fs::write(&public, key.public_pem()).unwrap();
        let (key, other) = (SigningKey::read(&private).unwrap(), SigningKey::generate().unwrap().0);
        let keys = [Key::read(&public).unwrap()];
        let manifest = Digest::of(b"manifest");
        let signed = |by: &SigningKey, of: Digest| {
            let signed = by.sign_manifest(of, "adit").unwrap();
            [Signed::new(&signed.payload, signed.signature)]
        };
        assert!(verify(manifest, &signed(&key, manifest), &keys));
        assert!(!verify(manifest, &signed(&key, Digest::of(b"other")), &keys));
        assert!(!verify(manifest, &signed(&other, manifest), &keys));
        let signature = key.sign(b"sums").unwrap();
        assert!(verify_file(b"sums", &signature, &keys));
        assert!(!verify_file(b"some", &signature, &keys) && !verify_file(b"sums", "x", &keys));
        let said = SigningKey::read(&public).err().unwrap().to_string();
        assert!(said.contains("not a private key") && !said.contains("BEGIN"), "{said}");
    }
}
