//! The `crypto` interface: digests, signatures and random bytes, by the same library that does TLS. Keeps no key.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents, VerificationAlgorithm};
use aws_lc_rs::{digest, hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Map, Value};

use super::super::bindings::adit::plugin::crypto as bound;
use super::super::store::State;
use bound::{Algorithm, Error, Hash, PublicKey};

impl bound::Host for State {
    fn digest(&mut self, hash: Hash, data: Vec<u8>) -> Vec<u8> {
        let algorithm = match hash {
            Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha384 => &digest::SHA384,
            Hash::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, &data).as_ref().to_vec()
    }

    fn hmac(&mut self, hash: Hash, key: Vec<u8>, data: Vec<u8>) -> Vec<u8> {
        hmac::sign(&hmac_key(hash, &key), &data).as_ref().to_vec()
    }

    fn verify(
        &mut self,
        algorithm: Algorithm,
        key: PublicKey,
        data: Vec<u8>,
        signature: Vec<u8>,
    ) -> Result<bool, Error> {
        let key = parsed(algorithm, key).ok_or(Error::BadKey)?;
        Ok(key.verify_sig(&data, &signature).is_ok())
    }

    fn equal(&mut self, one: Vec<u8>, other: Vec<u8>) -> bool {
        verify_slices_are_equal(&one, &other).is_ok()
    }

    fn random_bytes(&mut self, count: u32) -> Result<Vec<u8>, Error> {
        let count =
            usize::try_from(count).ok().filter(|count| *count <= MOST_RANDOM).ok_or(Error::TooMany)?;
        let mut bytes = vec![0; count];
        rand::fill(&mut bytes).expect("a system has random numbers");
        Ok(bytes)
    }
}

pub(super) fn hmac_key(hash: Hash, key: &[u8]) -> hmac::Key {
    let algorithm = match hash {
        Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha256 => hmac::HMAC_SHA256,
        Hash::Sha384 => hmac::HMAC_SHA384,
        Hash::Sha512 => hmac::HMAC_SHA512,
    };
    hmac::Key::new(algorithm, key)
}

fn parsed(algorithm: Algorithm, key: PublicKey) -> Option<ParsedPublicKey> {
    let bytes = match key {
        PublicKey::Jwk(text) => of_jwk(algorithm, &text)?,
        // DER is a sequence; PEM begins with a hyphen, or with words.
        PublicKey::Spki(bytes) if bytes.starts_with(&[0x30]) => bytes,
        PublicKey::Spki(pem) => SubjectPublicKeyInfoDer::from_pem_slice(&pem).ok()?.to_vec(),
    };
    if is_rsa(algorithm) {
        // It looks at the size, which is otherwise looked at with each signature.
        PublicEncryptingKey::from_der(&bytes).ok()?;
    }
    ParsedPublicKey::new(verification(algorithm), &bytes).ok()
}

/// The key's bytes, in the form of its kind (RFC 7518 section 6, RFC 8037).
fn of_jwk(algorithm: Algorithm, text: &str) -> Option<Vec<u8>> {
    let jwk: Map<String, Value> = serde_json::from_str(text).ok()?;
    let is = |member: &str, wanted: &str| jwk.get(member).is_some_and(|value| value == wanted);
    let may_be = |member: &str, wanted: &[&str]| {
        jwk.get(member).is_none_or(|value| value.as_str().is_some_and(|value| wanted.contains(&value)))
    };
    let bytes = |member: &str| URL_SAFE_NO_PAD.decode(jwk.get(member)?.as_str()?).ok();
    let point = |curve: &str, length: usize| {
        let (x, y) = (bytes("x")?, bytes("y")?);
        let fits = is("kty", "EC") && is("crv", curve) && x.len() == length && y.len() == length;
        // Uncompressed (SEC 1).
        fits.then(|| [&[4][..], &x, &y].concat())
    };
    if !may_be("use", &["sig"]) || !may_be("alg", names(algorithm)) {
        return None;
    }
    match algorithm {
        Algorithm::Rs256
        | Algorithm::Rs384
        | Algorithm::Rs512
        | Algorithm::Ps256
        | Algorithm::Ps384
        | Algorithm::Ps512 => {
            let key =
                is("kty", "RSA").then_some(RsaPublicKeyComponents { n: bytes("n")?, e: bytes("e")? })?;
            Some(AsDer::as_der(&key).ok()?.as_ref().to_vec())
        }
        Algorithm::Es256 | Algorithm::Es256Asn1 => point("P-256", 32),
        Algorithm::Es384 | Algorithm::Es384Asn1 => point("P-384", 48),
        Algorithm::Ed25519 => {
            bytes("x").filter(|x| is("kty", "OKP") && is("crv", "Ed25519") && x.len() == 32)
        }
    }
}

/// What a key may say that it is for.
fn names(algorithm: Algorithm) -> &'static [&'static str] {
    match algorithm {
        Algorithm::Rs256 => &["RS256"],
        Algorithm::Rs384 => &["RS384"],
        Algorithm::Rs512 => &["RS512"],
        Algorithm::Ps256 => &["PS256"],
        Algorithm::Ps384 => &["PS384"],
        Algorithm::Ps512 => &["PS512"],
        Algorithm::Es256 | Algorithm::Es256Asn1 => &["ES256"],
        Algorithm::Es384 | Algorithm::Es384Asn1 => &["ES384"],
        // The first is the older name (RFC 9864).
        Algorithm::Ed25519 => &["EdDSA", "Ed25519"],
    }
}

fn is_rsa(algorithm: Algorithm) -> bool {
    use Algorithm::{Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
    matches!(algorithm, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512)
}

fn verification(algorithm: Algorithm) -> &'static dyn VerificationAlgorithm {
    match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
        Algorithm::Es256Asn1 => &signature::ECDSA_P256_SHA256_ASN1,
        Algorithm::Es384Asn1 => &signature::ECDSA_P384_SHA384_ASN1,
        Algorithm::Ed25519 => &signature::ED25519,
    }
}

/// Random bytes of one call.
const MOST_RANDOM: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::PublicKeyX509Der;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    const SAID: &[u8] = b"what was said";

    fn verify(algorithm: Algorithm, key: &PublicKey, data: &[u8], signature: &[u8]) -> Option<bool> {
        Some(parsed(algorithm, key.clone())?.verify_sig(data, signature).is_ok())
    }

    /// The key as bytes, as PEM and as a JWK with these members.
    fn forms(spki: &[u8], members: &str) -> [PublicKey; 3] {
        let pem =
            format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(spki));
        [
            PublicKey::Spki(spki.to_vec()),
            PublicKey::Spki(pem.into_bytes()),
            PublicKey::Jwk(format!("{{{members}}}")),
        ]
    }

    fn coded(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn holds_in_every_form(algorithm: Algorithm, other: Algorithm, forms: &[PublicKey], signature: &[u8]) {
        for key in forms {
            assert_eq!(verify(algorithm, key, SAID, signature), Some(true), "{algorithm:?} {key:?}");
            assert_eq!(verify(algorithm, key, b"what was sai", signature), Some(false), "another text");
            let mut bent = signature.to_vec();
            bent[7] ^= 1;
            assert_eq!(verify(algorithm, key, SAID, &bent), Some(false), "a bent signature");
            assert_eq!(verify(algorithm, key, SAID, b""), Some(false), "no signature");
            assert_ne!(verify(other, key, SAID, signature), Some(true), "{other:?} with {key:?}");
        }
    }

    #[test]
    fn signatures_hold_for_what_was_signed_whatever_the_form_of_the_key() {
        let chance = SystemRandom::new();
        let pair = Ed25519KeyPair::generate().unwrap();
        let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let members = format!(r#""kty":"OKP","crv":"Ed25519","x":"{}""#, coded(pair.public_key().as_ref()));
        let keys = forms(spki.as_ref(), &members);
        holds_in_every_form(Algorithm::Ed25519, Algorithm::Es256, &keys, pair.sign(SAID).as_ref());

        for (signing, algorithm, other, curve, name) in [
            (
                &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
                Algorithm::Es256,
                Algorithm::Es384,
                "P-256",
                "ES256",
            ),
            (
                &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
                Algorithm::Es256Asn1,
                Algorithm::Es256,
                "P-256",
                "ES256",
            ),
            (
                &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
                Algorithm::Es384,
                Algorithm::Es256,
                "P-384",
                "ES384",
            ),
        ] {
            let pair = EcdsaKeyPair::generate(signing).unwrap();
            let point = pair.public_key().as_ref();
            let (x, y) = point[1..].split_at(point.len() / 2);
            let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            let (x, y) = (coded(x), coded(y));
            let members = format!(
                r#""kty":"EC","crv":"{curve}","x":"{x}","y":"{y}","alg":"{name}","use":"sig","kid":"one""#
            );
            let keys = forms(spki.as_ref(), &members);
            holds_in_every_form(algorithm, other, &keys, pair.sign(&chance, SAID).unwrap().as_ref());
        }

        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        // RFC 8017, appendix A.1.1: a sequence of the modulus, behind a zero, and the exponent.
        let modulus = &pair.public_key().as_ref()[9..9 + 256];
        let members = format!(r#""kty":"RSA","n":"{}","e":"AQAB""#, coded(modulus));
        for (padding, algorithm, other) in [
            (&signature::RSA_PKCS1_SHA256, Algorithm::Rs256, Algorithm::Ps256),
            (&signature::RSA_PSS_SHA384, Algorithm::Ps384, Algorithm::Rs384),
        ] {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(padding, &chance, SAID, &mut signature).unwrap();
            holds_in_every_form(algorithm, other, &forms(spki.as_ref(), &members), &signature);
        }
    }

    #[test]
    fn what_is_no_key_of_its_kind_is_said_to_be_none() {
        let x = coded(&[7; 32]);
        for (algorithm, key) in [
            (Algorithm::Ed25519, PublicKey::Jwk("{".to_owned())),
            (Algorithm::Ed25519, PublicKey::Jwk("[]".to_owned())),
            (Algorithm::Ed25519, PublicKey::Jwk(format!(r#"{{"kty":"EC","crv":"Ed25519","x":"{x}"}}"#))),
            (Algorithm::Ed25519, PublicKey::Jwk(format!(r#"{{"kty":"OKP","crv":"X25519","x":"{x}"}}"#))),
            (
                Algorithm::Ed25519,
                PublicKey::Jwk(format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","use":"enc"}}"#)),
            ),
            (
                Algorithm::Ed25519,
                PublicKey::Jwk(format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","alg":"ES256"}}"#)),
            ),
            (Algorithm::Ed25519, PublicKey::Jwk(r#"{"kty":"OKP","crv":"Ed25519","x":"YQ"}"#.to_owned())),
            (
                Algorithm::Es256,
                PublicKey::Jwk(format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{x}"}}"#)),
            ),
            // Of 512 bits.
            (
                Algorithm::Rs256,
                PublicKey::Jwk(format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, coded(&[0xc5; 64]))),
            ),
            (Algorithm::Rs256, PublicKey::Spki(Vec::new())),
            (Algorithm::Rs256, PublicKey::Spki(vec![0x30, 3, 2, 1, 1])),
            (
                Algorithm::Es256,
                PublicKey::Spki(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".to_vec()),
            ),
        ] {
            assert!(parsed(algorithm, key.clone()).is_none(), "{algorithm:?} {key:?}");
        }
    }
}
