//! How a machine becomes a node: an invitation, which it was given by hand, what it asks with that, and what it is
//! answered. Each side proves to the other that it knows the secret of the invitation, the new node that it has its own
//! private key, and the fleet that it is the one that the invitation names; nothing of it relies on what it travels
//! over. Knows messages; does not know who is invited.
//!
//! The key of the fleet is sealed with a key that only the two ends of this one exchange have (X25519, and the secret).

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::SocketAddr;
use thiserror::Error;
use uuid::Uuid;

use super::authority::{Authority, AuthorityError};
use super::folder;
use super::said::PublicKey;

/// What an operator hands to a new node. Secret: whoever has it first becomes a node.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct JoinToken {
    version: u32,
    pub(crate) id: String,
    /// In base64.
    secret: String,
    /// SHA-256 of the authority's certificate, in hexadecimal digits.
    authority: String,
    /// The URL of the control API of a node.
    pub(crate) api: String,
}

/// What a new node asks, in JSON.
#[derive(Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) addresses: Vec<SocketAddr>,
    /// PKCS #10, in base64.
    csr: String,
    /// A key for this one exchange, in base64.
    ephemeral: String,
}

/// A request as it is sent: what is asked is text, so that both sides mean the same bytes.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) invitation: String,
    request: String,
    proof: String,
}

/// What it is answered.
#[derive(Serialize, Deserialize)]
pub(crate) struct Reply {
    ephemeral: String,
    sealed: String,
    /// In PEM.
    authority: String,
    signature: String,
}

/// What a new node is given.
#[derive(Serialize, Deserialize)]
pub(crate) struct Given {
    pub(crate) fleet: Uuid,
    /// In PEM, the node's own first.
    pub(crate) chain: String,
    /// The key file of the fleet.
    pub(crate) seal: String,
}

#[derive(Debug, Error)]
pub(crate) enum JoinError {
    #[error("this is no token of `adit edge invite`")]
    NoToken,
    #[error("this token is of another version of this program")]
    OtherVersion,
    #[error("the invitation is unknown, used, over or for another node")]
    Refused,
    #[error("{0}")]
    Wrong(&'static str),
    #[error("whoever answers is not the fleet that the token names: {0}")]
    NotTheFleet(&'static str),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("keys cannot be made")]
    Keys,
}

impl JoinToken {
    /// A new one, and its secret as the state keeps it.
    pub(crate) fn make(authority: &CertificateDer<'_>, api: &str) -> Result<(Self, String), JoinError> {
        let mut bytes = [0; SECRET];
        getrandom::fill(&mut bytes).map_err(|_| JoinError::Keys)?;
        let secret = STANDARD.encode(bytes);
        let id = Uuid::new_v4().simple().to_string();
        let token = Self {
            version: VERSION,
            id,
            secret: secret.clone(),
            authority: fingerprint(authority),
            api: api.to_owned(),
        };
        Ok((token, secret))
    }

    pub(crate) fn text(&self) -> String {
        let json = serde_json::to_vec(self).expect("it has a JSON form");
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    pub(crate) fn read(text: &str) -> Result<Self, JoinError> {
        let text = text.trim().strip_prefix(PREFIX).ok_or(JoinError::NoToken)?;
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| JoinError::NoToken)?;
        let token: Self = serde_json::from_slice(&json).map_err(|_| JoinError::NoToken)?;
        if token.version != VERSION {
            return Err(JoinError::OtherVersion);
        }
        Ok(token)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).field("api", &self.api).finish_non_exhaustive()
    }
}

/// A node that has asked and was not answered yet.
pub(crate) struct Asking {
    token: JoinToken,
    request: String,
    own: EphemeralPrivateKey,
    public: PublicKey,
}

impl Asking {
    /// Asks to become this node.
    pub(crate) fn new(
        token: JoinToken,
        node: (&str, &str, &[SocketAddr]),
        csr: &[u8],
        public: PublicKey,
    ) -> Result<(Self, Ask), JoinError> {
        let (name, region, addresses) = node;
        let own =
            EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).map_err(|_| JoinError::Keys)?;
        let ephemeral = own.compute_public_key().map_err(|_| JoinError::Keys)?;
        let request = Request {
            name: name.to_owned(),
            region: region.to_owned(),
            addresses: addresses.to_vec(),
            csr: STANDARD.encode(csr),
            ephemeral: STANDARD.encode(ephemeral.as_ref()),
        };
        let request = serde_json::to_string(&request).expect("it has a JSON form");
        let tag = hmac::sign(&proof_key(&token.secret)?, request.as_bytes());
        let ask = Ask {
            invitation: token.id.clone(),
            request: request.clone(),
            proof: STANDARD.encode(tag.as_ref()),
        };
        Ok((Self { token, request, own, public }, ask))
    }

    /// Takes what was answered, if it is from the fleet of the token and about this node's key.
    pub(crate) fn take(self, reply: &Reply) -> Result<Given, JoinError> {
        let wrong = JoinError::NotTheFleet;
        let authority = folder::certificates(&reply.authority).ok().and_then(|all| all.into_iter().next());
        let authority = authority.ok_or_else(|| wrong("it shows no authority"))?;
        if fingerprint(&authority) != self.token.authority {
            return Err(wrong("its authority has another fingerprint"));
        }
        let signer =
            PublicKey::of_certificate(&authority).ok_or_else(|| wrong("its authority's key is unknown"))?;
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| wrong("its answer cannot be read"));
        let (ephemeral, sealed) = (decode(&reply.ephemeral)?, decode(&reply.sealed)?);
        let said = transcript(&self.request, &ephemeral, &sealed);
        if !signer.has_signed(&said, &decode(&reply.signature)?) {
            return Err(wrong("its answer is not signed by that authority"));
        }
        let key = agreed(self.own, &ephemeral, &self.token.secret, &self.request)?;
        let (nonce, sealed) =
            sealed.split_at_checked(NONCE_LEN).ok_or_else(|| wrong("its answer is short"))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong("its answer is short"))?;
        let mut opened = sealed.to_vec();
        let opened = key
            .open_in_place(nonce, Aad::from(SEALED), &mut opened)
            .map_err(|_| wrong("it does not know the secret of the token"))?;
        let given: Given = serde_json::from_slice(opened).map_err(|_| wrong("its answer cannot be read"))?;
        let chain = folder::certificates(&given.chain).map_err(|_| wrong("it gave no certificate"))?;
        let own = chain.first().and_then(super::said::Said::of);
        if own.is_none_or(|own| own.pin != self.public.pin() || own.fleet != given.fleet) {
            return Err(wrong("its certificate is for another key"));
        }
        Ok(given)
    }
}

/// A request whose proofs are right.
pub(crate) struct Proved {
    text: String,
    pub(crate) request: Request,
    pub(crate) key: PublicKey,
    secret: String,
}

impl Ask {
    /// Whether whoever asks knows the secret and has the key that is to be certified.
    pub(crate) fn prove(self, secret: &str) -> Result<Proved, JoinError> {
        let proof = STANDARD.decode(&self.proof).map_err(|_| JoinError::Refused)?;
        hmac::verify(&proof_key(secret)?, self.request.as_bytes(), &proof).map_err(|_| JoinError::Refused)?;
        let request: Request = serde_json::from_str(&self.request)
            .map_err(|_| JoinError::Wrong("the request cannot be read"))?;
        let csr = STANDARD.decode(&request.csr).map_err(|_| JoinError::Wrong("`csr` is no base64"))?;
        let key = PublicKey::of_request(&csr);
        let key =
            key.ok_or(JoinError::Wrong("`csr` is no request of a key on P-256 that its owner has signed"))?;
        Ok(Proved { text: self.request, request, key, secret: secret.to_owned() })
    }
}

impl Proved {
    /// The answer, which only whoever has asked can read.
    pub(crate) fn answer(self, authority: &Authority, given: &Given) -> Result<Reply, JoinError> {
        let theirs = STANDARD
            .decode(&self.request.ephemeral)
            .map_err(|_| JoinError::Wrong("`ephemeral` is no base64"))?;
        let own =
            EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).map_err(|_| JoinError::Keys)?;
        let ephemeral = own.compute_public_key().map_err(|_| JoinError::Keys)?;
        let key = agreed(own, &theirs, &self.secret, &self.text)?;
        let mut text = serde_json::to_vec(given).expect("it has a JSON form");
        let nonce =
            key.seal_in_place_append_tag(Aad::from(SEALED), &mut text).map_err(|_| JoinError::Keys)?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.extend_from_slice(&text);
        let signature = authority.sign(&transcript(&self.text, ephemeral.as_ref(), &sealed))?;
        Ok(Reply {
            ephemeral: STANDARD.encode(ephemeral.as_ref()),
            sealed: STANDARD.encode(sealed),
            authority: folder::pem(authority.certificate()),
            signature: STANDARD.encode(signature),
        })
    }
}

fn proof_key(secret: &str) -> Result<hmac::Key, JoinError> {
    let secret = STANDARD.decode(secret).map_err(|_| JoinError::NoToken)?;
    let mut key = [0; 32];
    let drawn = Salt::new(HKDF_SHA256, b"adit join")
        .extract(&secret)
        .expand(&[b"request"], HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key));
    drawn.map_err(|_| JoinError::Keys)?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &key))
}

/// What both ends of this exchange have, and nobody else.
fn agreed(
    own: EphemeralPrivateKey,
    theirs: &[u8],
    secret: &str,
    request: &str,
) -> Result<RandomizedNonceKey, JoinError> {
    let secret = STANDARD.decode(secret).map_err(|_| JoinError::NoToken)?;
    let request = Sha256::digest(request);
    agreement::agree_ephemeral(own, UnparsedPublicKey::new(&X25519, theirs), JoinError::Keys, |shared| {
        let mut key = [0; 32];
        Salt::new(HKDF_SHA256, &secret)
            .extract(shared)
            .expand(&[b"adit join reply", &request], HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key))
            .map_err(|_| JoinError::Keys)?;
        RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(|_| JoinError::Keys)
    })
}

fn transcript(request: &str, ephemeral: &[u8], sealed: &[u8]) -> Vec<u8> {
    let mut said = b"adit join 1\0".to_vec();
    for part in [request.as_bytes(), ephemeral, sealed] {
        said.extend_from_slice(&Sha256::digest(part));
    }
    said
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}

const PREFIX: &str = "adit-join-";
const VERSION: u32 = 1;
const SECRET: usize = 32;
/// What the sealed part of an answer is bound to.
const SEALED: &str = "adit join reply";

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

    use super::*;

    struct Case {
        fleet: Uuid,
        authority: Authority,
        token: JoinToken,
        secret: String,
        public: PublicKey,
        csr: Vec<u8>,
    }

    fn case() -> Case {
        let fleet = Uuid::new_v4();
        let (authority, _) = Authority::make(fleet).unwrap();
        let (token, secret) = JoinToken::make(authority.certificate(), "http://127.0.0.1:1").unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
        Case { fleet, authority, token, secret, public: folder::public(&key).unwrap(), csr }
    }

    impl Case {
        fn ask(&self) -> (Asking, Ask) {
            let token = JoinToken::read(&self.token.text()).unwrap();
            Asking::new(token, ("b", "west", &[]), &self.csr, self.public).unwrap()
        }

        fn answer(&self, ask: Ask, key: &PublicKey, authority: &Authority) -> Reply {
            let proved = ask.prove(&self.secret).unwrap();
            assert!(proved.key == self.public && proved.request.name == "b");
            let chain = authority.issue("b", key).unwrap().iter().map(|link| folder::pem(link)).collect();
            let given = Given { fleet: self.fleet, chain, seal: "the key".to_owned() };
            proved.answer(authority, &given).unwrap()
        }
    }

    #[test]
    fn a_node_that_knows_the_secret_is_given_the_key_of_the_fleet_which_nobody_else_can_read() {
        let case = case();
        let (asking, ask) = case.ask();
        let reply = case.answer(ask, &case.public, &case.authority);
        let text = serde_json::to_string(&reply).unwrap();
        assert!(!text.contains("the key") && !text.contains(&STANDARD.encode("the key")));
        // Another one that has asked by the same token cannot read it.
        let (other, _) = case.ask();
        assert!(matches!(other.take(&reply), Err(JoinError::NotTheFleet(_))));
        assert_eq!(asking.take(&reply).unwrap().seal, "the key");
    }

    #[test]
    fn who_does_not_know_the_secret_or_not_have_the_key_is_no_node() {
        let case = case();
        let (_, other_secret) = JoinToken::make(case.authority.certificate(), "").unwrap();
        assert!(matches!(case.ask().1.prove(&other_secret), Err(JoinError::Refused)));
        let mut ask = case.ask().1;
        ask.request = ask.request.replace("west", "east");
        assert!(matches!(ask.prove(&case.secret), Err(JoinError::Refused)), "what is asked was changed");
        let mut csr = case.csr.clone();
        *csr.last_mut().unwrap() ^= 1;
        let (_, ask) = Asking::new(case.token.clone(), ("b", "west", &[]), &csr, case.public).unwrap();
        assert!(matches!(ask.prove(&case.secret), Err(JoinError::Wrong(_))), "a key that it does not have");
    }

    #[test]
    fn a_node_takes_no_answer_of_another_fleet_and_none_for_another_key() {
        let case = case();
        let (other, _) = Authority::make(case.fleet).unwrap();
        let (asking, ask) = case.ask();
        let reply = case.answer(ask, &case.public, &other);
        assert!(matches!(asking.take(&reply), Err(JoinError::NotTheFleet(_))), "its authority is another");

        let (asking, ask) = case.ask();
        let reply = case.answer(ask, &case.public, &other);
        let forged = Reply { authority: folder::pem(case.authority.certificate()), ..reply };
        assert!(matches!(asking.take(&forged), Err(JoinError::NotTheFleet(_))), "not signed by it");

        let stolen = folder::public(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()).unwrap();
        let (asking, ask) = case.ask();
        let reply = case.answer(ask, &stolen, &case.authority);
        assert!(matches!(asking.take(&reply), Err(JoinError::NotTheFleet(_))), "for another key");
    }

    #[test]
    fn a_token_comes_back_from_its_text_and_does_not_print_its_secret() {
        let case = case();
        let text = case.token.text();
        let again = JoinToken::read(&format!(" {text}\n")).unwrap();
        assert_eq!((&again.id, &again.api), (&case.token.id, &case.token.api));
        assert!(!format!("{again:?}").contains(&case.secret));
        for wrong in ["", "adit-join-", "adit-join-e30", &text[1..], &text[..text.len() - 9]] {
            assert!(matches!(JoinToken::read(wrong), Err(JoinError::NoToken)), "{wrong}");
        }
    }
}
