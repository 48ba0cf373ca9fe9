//! Public keys as a JSON Web Key Set lists them (RFC 7517), for RS256, ES256 and EdDSA.

use ed25519_dalek::VerifyingKey as Ed25519;
use jose::{Token, decode};
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey as P256};
use p256::{EncodedPoint, FieldBytes};
use serde_json::Value;

use crate::rsa;

/// The keys of a set that can be used here; others are left out, as RFC 7517 section 5 asks.
#[derive(Debug, Default)]
pub struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    public: Public,
}

/// The kind of a key says which algorithm it is for.
#[derive(Debug)]
enum Public {
    Rs256(rsa::PublicKey),
    Es256(P256),
    Ed25519(Ed25519),
}

/// What a key set says of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    Yes,
    No,
    /// No key of this id is here; a newer set may have it.
    ByUnknown,
}

impl Keys {
    /// Reads a key set; `None` if it is none or no key in it can be used.
    pub fn read(json: &[u8]) -> Option<Self> {
        let set: Value = serde_json::from_slice(json).ok()?;
        let keys = set.get("keys")?.as_array()?;
        let keys: Vec<Key> = keys.iter().take(MOST_KEYS).filter_map(key).collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// Whether a key of this set has signed the token: the one that it names, or the only one of its kind.
    pub fn signed(&self, token: &Token<'_>) -> Signed {
        let fit = |key: &&Key| key.public.is_for(&token.algorithm);
        let key = match &token.key_id {
            Some(id) => {
                // Ids may repeat among keys of different kinds (RFC 7517 section 4.5).
                let mut named = self.0.iter().filter(|key| key.id.as_ref() == Some(id)).peekable();
                if named.peek().is_none() {
                    return Signed::ByUnknown;
                }
                named.find(fit)
            }
            None => {
                let mut fitting = self.0.iter().filter(fit);
                fitting.next().filter(|_| fitting.next().is_none())
            }
        };
        match key {
            Some(key) if key.public.verifies(token.signed, &token.signature) => Signed::Yes,
            _ => Signed::No,
        }
    }
}

impl Public {
    fn is_for(&self, algorithm: &str) -> bool {
        match self {
            Self::Rs256(_) => algorithm == "RS256",
            Self::Es256(_) => algorithm == "ES256",
            // The second is the newer name (RFC 9864).
            Self::Ed25519(_) => algorithm == "EdDSA" || algorithm == "Ed25519",
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rs256(key) => key.verify(message, signature),
            Self::Es256(key) => Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Self::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
        }
    }
}

fn key(jwk: &Value) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let number = |name: &str| decode(text(name)?);
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let public = match (text("kty")?, text("crv")) {
        ("RSA", _) => Public::Rs256(rsa::PublicKey::new(&number("n")?, &number("e")?)?),
        ("EC", Some("P-256")) => {
            let coordinate = |name: &str| {
                let bytes: [u8; 32] = number(name)?.try_into().ok()?;
                Some(FieldBytes::from(bytes))
            };
            let point = EncodedPoint::from_affine_coordinates(&coordinate("x")?, &coordinate("y")?, false);
            Public::Es256(P256::from_encoded_point(&point).ok()?)
        }
        ("OKP", Some("Ed25519")) => {
            let bytes: [u8; 32] = number("x")?.try_into().ok()?;
            Public::Ed25519(Ed25519::from_bytes(&bytes).ok()?)
        }
        _ => return None,
    };
    if text("alg").is_some_and(|algorithm| !public.is_for(algorithm)) {
        return None;
    }
    Some(Key { id: text("kid").map(str::to_owned), public })
}

/// Of one set that are looked at.
const MOST_KEYS: usize = 64;

#[cfg(test)]
pub(crate) mod tests {
    use base64ct::{Base64, Base64UrlUnpadded, Encoding};
    use ed25519_dalek::Signer;
    use p256::ecdsa::SigningKey;
    use serde_json::json;

    use super::*;
    use crate::rsa::tests::{MESSAGE, MODULUS, SIGNATURE};

    pub(crate) fn encode(bytes: &[u8]) -> String {
        Base64UrlUnpadded::encode_string(bytes)
    }

    fn p256() -> SigningKey {
        SigningKey::from_slice(&[7; 32]).unwrap()
    }

    pub(crate) fn ed25519() -> ed25519_dalek::SigningKey {
        ed25519_dalek::SigningKey::from_bytes(&[9; 32])
    }

    fn rsa_jwk() -> Value {
        let modulus = encode(&Base64::decode_vec(MODULUS).unwrap());
        json!({"kty": "RSA", "kid": "r", "alg": "RS256", "use": "sig", "n": modulus, "e": "AQAB"})
    }

    fn p256_jwk() -> Value {
        let point = p256().verifying_key().to_encoded_point(false);
        json!({"kty": "EC", "crv": "P-256", "kid": "p", "x": encode(point.x().unwrap()), "y": encode(point.y().unwrap())})
    }

    pub(crate) fn ed25519_jwk() -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": "e", "x": encode(ed25519().verifying_key().as_bytes())})
    }

    pub(crate) fn set(keys: &[Value]) -> Vec<u8> {
        json!({ "keys": keys }).to_string().into_bytes()
    }

    /// A token with this header, signed with the Ed25519 key.
    pub(crate) fn token(header: &Value, claims: &Value) -> String {
        let signed =
            format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = ed25519().sign(signed.as_bytes());
        format!("{signed}.{}", encode(&signature.to_bytes()))
    }

    fn signed(set: &[u8], text: &str) -> Signed {
        Keys::read(set).unwrap().signed(&Token::read(text).unwrap())
    }

    #[test]
    fn each_kind_of_key_verifies_its_own_algorithm_and_no_other() {
        let keys = set(&[rsa_jwk(), p256_jwk(), ed25519_jwk()]);
        let key = Keys::read(&keys).unwrap();
        assert_eq!(key.0.len(), 3);
        assert!(key.0[0].public.verifies(MESSAGE, &Base64::decode_vec(SIGNATURE).unwrap()));
        let signature: Signature = p256().sign(b"message");
        assert!(key.0[1].public.verifies(b"message", &signature.to_bytes()));
        assert!(!key.0[1].public.verifies(b"massage", &signature.to_bytes()));
        // The form of X.509 is not that of a token.
        assert!(!key.0[1].public.verifies(b"message", signature.to_der().as_bytes()));

        for (header, outcome) in [
            (json!({"alg": "EdDSA", "kid": "e"}), Signed::Yes),
            (json!({"alg": "Ed25519", "kid": "e"}), Signed::Yes),
            (json!({"alg": "EdDSA"}), Signed::Yes),
            (json!({"alg": "EdDSA", "kid": "p"}), Signed::No),
            (json!({"alg": "RS256", "kid": "e"}), Signed::No),
            (json!({"alg": "none", "kid": "e"}), Signed::No),
            (json!({"alg": "none"}), Signed::No),
            (json!({"alg": "HS256", "kid": "r"}), Signed::No),
            (json!({"alg": "eddsa", "kid": "e"}), Signed::No),
            (json!({"alg": "EdDSA", "kid": "new"}), Signed::ByUnknown),
        ] {
            assert_eq!(signed(&keys, &token(&header, &json!({}))), outcome, "{header}");
        }
        // Without a name there must be no choice.
        let mut second = ed25519_jwk();
        second["kid"] = json!("f");
        let two = set(&[ed25519_jwk(), second]);
        assert_eq!(signed(&two, &token(&json!({"alg": "EdDSA"}), &json!({}))), Signed::No);
    }

    #[test]
    fn an_empty_signature_signs_nothing() {
        let keys = set(&[rsa_jwk(), p256_jwk(), ed25519_jwk()]);
        for (algorithm, id) in [("RS256", "r"), ("ES256", "p"), ("EdDSA", "e"), ("none", "e")] {
            let whole = token(&json!({"alg": algorithm, "kid": id}), &json!({}));
            let (signed_part, _) = whole.rsplit_once('.').unwrap();
            for zeros in [0, 64, 256] {
                let text = format!("{signed_part}.{}", encode(&vec![0; zeros]));
                assert_eq!(signed(&keys, &text), Signed::No, "{algorithm} {zeros}");
            }
        }
    }

    #[test]
    fn keys_that_are_not_for_this_are_left_out() {
        let with = |mut key: Value, name: &str, value: &str| {
            key[name] = json!(value);
            key
        };
        for unfit in [
            with(rsa_jwk(), "use", "enc"),
            with(rsa_jwk(), "alg", "RS512"),
            with(rsa_jwk(), "e", "AQ"),
            with(rsa_jwk(), "n", "!"),
            with(p256_jwk(), "crv", "P-384"),
            with(p256_jwk(), "x", &encode(&[1; 32])),
            with(p256_jwk(), "x", &encode(&[1; 31])),
            with(ed25519_jwk(), "x", ""),
            json!({"kty": "oct", "k": "c2VjcmV0"}),
            json!({}),
            json!(7),
        ] {
            assert!(Keys::read(&set(std::slice::from_ref(&unfit))).is_none(), "{unfit}");
            assert_eq!(Keys::read(&set(&[unfit, ed25519_jwk()])).unwrap().0.len(), 1);
        }
        for no_set in ["", "[]", "{}", r#"{"keys": {}}"#, r#"{"keys": []}"#] {
            assert!(Keys::read(no_set.as_bytes()).is_none(), "{no_set}");
        }
    }
}
