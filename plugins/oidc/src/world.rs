//! A host and a provider that tests move. Signatures are words here; the real ones are the host's.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::surroundings::{Answer, Question, Surroundings};
use crate::url;

pub(crate) struct World {
    now: Cell<u64>,
    entries: RefCell<HashMap<String, (Vec<u8>, u64)>>,
    is_away: Cell<bool>,
    key: RefCell<String>,
    asked: Cell<u32>,
    warnings: Cell<u32>,
    drawn: Cell<u64>,
    /// What each code stands for: the challenge, and the claims of the token.
    codes: RefCell<HashMap<String, (String, Value)>>,
    pub(crate) userinfo: RefCell<Value>,
    /// The last question to the token endpoint.
    pub(crate) exchanged: RefCell<Option<Question>>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            now: Cell::new(NOW * 1000),
            entries: RefCell::default(),
            is_away: Cell::default(),
            key: RefCell::new("old".to_owned()),
            asked: Cell::default(),
            warnings: Cell::default(),
            drawn: Cell::default(),
            codes: RefCell::default(),
            userinfo: RefCell::default(),
            exchanged: RefCell::default(),
        }
    }
}

impl World {
    pub(crate) fn document() -> Value {
        json!({
            "issuer": "https://id.example.com",
            "authorization_endpoint": "https://id.example.com/auth",
            "token_endpoint": "https://id.example.com/token",
            "userinfo_endpoint": "https://id.example.com/me",
            "end_session_endpoint": "https://id.example.com/end",
            "jwks_uri": "https://id.example.com/keys",
        })
    }

    pub(crate) fn away(&self) {
        self.is_away.set(true);
    }

    pub(crate) fn back(&self) {
        self.is_away.set(false);
    }

    pub(crate) fn pass(&self, milliseconds: u64) {
        self.now.set(self.now.get() + milliseconds);
    }

    pub(crate) fn rotate(&self, key: &str) {
        *self.key.borrow_mut() = key.to_owned();
    }

    /// As after a restart.
    pub(crate) fn clear(&self) {
        self.entries.borrow_mut().clear();
    }

    pub(crate) fn asked(&self) -> u32 {
        self.asked.get()
    }

    pub(crate) fn warnings(&self) -> u32 {
        self.warnings.get()
    }

    /// Signs somebody in who was sent there, and hands back the code; `change` makes another token of the right one.
    pub(crate) fn sign_in(&self, location: &str, change: impl FnOnce(&mut Value)) -> String {
        let fields = url::fields(location).unwrap();
        let field = |name: &str| fields.iter().find(|(known, _)| known == name).unwrap().1.clone();
        assert_eq!((field("response_type"), field("code_challenge_method")), ("code".into(), "S256".into()));
        let now = self.now() / 1000;
        let mut claims = json!({
            "iss": "https://id.example.com", "aud": field("client_id"), "sub": "ada", "nonce": field("nonce"),
            "iat": now, "exp": now + 60, "groups": ["staff"], "email": "ada@example.com",
        });
        change(&mut claims);
        let code = format!("code {}", self.codes.borrow().len());
        self.codes.borrow_mut().insert(code.clone(), (field("code_challenge"), claims));
        code
    }

    fn token(&self, form: &str) -> Option<Value> {
        let fields = url::fields(&format!("?{form}"))?;
        let field =
            |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        // A code is good once, and for whoever has the verifier.
        let (challenge, claims) = self.codes.borrow_mut().remove(field("code")?)?;
        let verifier = Sha256::digest(field("code_verifier")?);
        if Base64UrlUnpadded::encode_string(&verifier) != challenge {
            return None;
        }
        let key = self.key.borrow();
        let encode = |text: String| Base64UrlUnpadded::encode_string(text.as_bytes());
        let head = encode(json!({"alg": "RS256", "kid": *key}).to_string());
        let token = format!("{head}.{}.{}", encode(claims.to_string()), encode(format!("by {key}")));
        Some(json!({"id_token": token, "access_token": "access", "token_type": "Bearer"}))
    }
}

impl Surroundings for World {
    fn now(&self) -> u64 {
        self.now.get()
    }

    fn read(&self, key: &str) -> Option<Vec<u8>> {
        let entries = self.entries.borrow();
        entries.get(key).filter(|(_, until)| self.now() < *until).map(|(value, _)| value.clone())
    }

    fn write(&self, key: &str, value: &[u8], for_ms: u64) -> bool {
        self.entries.borrow_mut().insert(key.to_owned(), (value.to_vec(), self.now() + for_ms));
        true
    }

    fn is_first(&self, key: &str, within_ms: u64) -> bool {
        self.read(key).is_none() && self.write(key, b"1", within_ms)
    }

    fn ask(&self, question: &Question) -> Result<Answer, String> {
        self.asked.set(self.asked.get() + 1);
        if self.is_away.get() {
            return Err("refused".to_owned());
        }
        let body = match question.url.strip_prefix("https://id.example.com").unwrap() {
            "/.well-known/openid-configuration" => Some(Self::document()),
            "/keys" => Some(json!({"keys": [{"kty": "RSA", "kid": *self.key.borrow()}]})),
            "/token" => {
                *self.exchanged.borrow_mut() = Some(question.clone());
                self.token(question.form.as_deref().unwrap())
            }
            "/me" => {
                assert_eq!(question.authorization.as_deref(), Some("Bearer access"));
                Some(self.userinfo.borrow().clone())
            }
            other => panic!("{other}"),
        };
        let body = body.ok_or_else(|| json!({"error": "invalid_grant"}));
        let status = if body.is_ok() { 200 } else { 400 };
        Ok(Answer { status, body: body.unwrap_or_else(|error| error).to_string().into_bytes() })
    }

    fn is_signed(&self, algorithm: &str, jwk: &str, _data: &[u8], signature: &[u8]) -> bool {
        let jwk: Value = serde_json::from_str(jwk).unwrap();
        algorithm == "RS256" && signature == format!("by {}", jwk["kid"].as_str().unwrap()).as_bytes()
    }

    fn derive(&self, secret: &str, data: &[u8]) -> Option<[u8; 32]> {
        let digest = Sha256::digest([secret.as_bytes(), data].concat());
        (secret != "absent").then(|| digest.into())
    }

    fn secret(&self, name: &str) -> Option<String> {
        Some(format!("the secret {name}"))
    }

    fn equal(&self, one: &str, other: &str) -> bool {
        one == other
    }

    fn random(&self) -> [u8; 32] {
        self.drawn.set(self.drawn.get() + 1);
        Sha256::digest(self.drawn.get().to_be_bytes()).into()
    }

    fn warn(&self, _message: &str) {
        self.warnings.set(self.warnings.get() + 1);
    }
}

const NOW: u64 = 1_800_000_000;
