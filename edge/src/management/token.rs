//! Tokens by which a host may be asked about itself: for one tunnel, for what they say, for an hour. Signed (ES256,
//! which is what connectors of the reference insist on) with a key of the state, so that each edge of a fleet knows
//! those of the others. Knows keys; does not know who may have a token.

use adit_protocol::management::Claims;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use thiserror::Error;

use crate::store::records::management::IssuerKey;
use crate::store::timestamp::Timestamp;

/// What signs.
pub(crate) struct Issuer(EcdsaKeyPair);

/// Why nothing can be signed.
#[derive(Debug, Error)]
#[error("the key for management tokens cannot be used: {0}")]
pub(crate) struct NoIssuer(&'static str);

/// Why a token is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum NotGood {
    #[error("the access_token is none, or not of this edge")]
    Unknown,
    #[error("the access_token is over; ask for a new one")]
    Over,
}

impl Issuer {
    /// A new one, as it is kept.
    pub(crate) fn make(now: Timestamp) -> Result<IssuerKey, NoIssuer> {
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let made = made.map_err(|_| NoIssuer("the system has no chance to give"))?;
        Ok(IssuerKey { key: Some(BASE64_STANDARD.encode(made.as_ref())), made_at: now })
    }

    pub(crate) fn of(kept: &IssuerKey) -> Result<Self, NoIssuer> {
        let key = kept.key.as_ref().ok_or(NoIssuer("this machine does not have what opens it"))?;
        let key = BASE64_STANDARD.decode(key).map_err(|_| NoIssuer("it is damaged"))?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key);
        pair.map(Self).map_err(|_| NoIssuer("it is damaged"))
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, NoIssuer> {
        let claims = serde_json::to_vec(claims).map_err(|_| NoIssuer("the claims have no JSON form"))?;
        let signed = [HEADER, &claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.map_err(|_| NoIssuer("the system has no chance to give"))?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }

    /// What a token says that was signed with this key, and is not over.
    pub(crate) fn verify(&self, token: &str, now: u64) -> Result<Claims, NotGood> {
        // The algorithm is ours to say, whatever its head claims; a head of others is none of ours.
        let (signed, signature) = token.rsplit_once('.').ok_or(NotGood::Unknown)?;
        let (head, _) = signed.split_once('.').ok_or(NotGood::Unknown)?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| NotGood::Unknown);
        if decode(head)? != HEADER {
            return Err(NotGood::Unknown);
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.0.public_key().as_ref());
        key.verify(signed.as_bytes(), &decode(signature)?).map_err(|_| NotGood::Unknown)?;
        let claims = Claims::unverified(token).ok_or(NotGood::Unknown)?;
        if claims.exp <= now { Err(NotGood::Over) } else { Ok(claims) }
    }
}

const HEADER: &[u8] = br#"{"alg":"ES256","typ":"JWT"}"#;

#[cfg(test)]
mod tests {
    use adit_protocol::management::{ActorClaim, Resource, TunnelClaim};
    use uuid::Uuid;

    use super::*;

    fn claims() -> Claims {
        Claims {
            tun: TunnelClaim { id: Uuid::from_u128(7), account_tag: "a".to_owned() },
            actor: ActorClaim { id: "me".to_owned(), support: false },
            res: vec![Resource::Logs],
            iss: "adit".to_owned(),
            iat: 1,
            exp: 100,
        }
    }

    #[test]
    fn a_token_is_good_where_it_was_signed_as_it_was_signed_and_as_long_as_it_says() {
        let kept = Issuer::make(Timestamp::now()).unwrap();
        assert!(!format!("{kept:?}").contains(kept.key.as_deref().unwrap()));
        let (issuer, other) = (Issuer::of(&kept).unwrap(), Issuer::make(Timestamp::now()).unwrap());
        let token = issuer.sign(&claims()).unwrap();
        assert_eq!(issuer.verify(&token, 99).unwrap(), claims());
        assert_eq!(issuer.verify(&token, 100), Err(NotGood::Over));
        assert_eq!(Issuer::of(&other).unwrap().verify(&token, 1), Err(NotGood::Unknown));
        let parts: Vec<&str> = token.split('.').collect();
        let more = Claims { res: vec![Resource::Admin], ..claims() };
        let more = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&more).unwrap());
        let none = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        for forged in [
            format!("{}.{more}.{}", parts[0], parts[2]),
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{token}A"),
            token[..token.len() - 2].to_owned(),
            String::new(),
            "..".to_owned(),
        ] {
            assert_eq!(issuer.verify(&forged, 1), Err(NotGood::Unknown), "{forged}");
        }
    }
}
