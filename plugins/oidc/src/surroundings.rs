//! What the host does for this plugin. Times are milliseconds.

/// An answer to a request of ours.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// A request of ours: to the provider, and with a body by `POST`.
#[derive(Clone, Debug, Default)]
pub struct Question {
    pub url: String,
    pub authorization: Option<String>,
    pub form: Option<String>,
}

pub trait Surroundings {
    /// Since 1970.
    fn now(&self) -> u64;
    fn read(&self, key: &str) -> Option<Vec<u8>>;
    /// Whether it is kept now.
    fn write(&self, key: &str, value: &[u8], for_ms: u64) -> bool;
    /// Whether this is the first to ask so within that time.
    fn is_first(&self, key: &str, within_ms: u64) -> bool;
    fn ask(&self, question: &Question) -> Result<Answer, String>;
    /// Whether the signature is one by the key of this JWK.
    fn is_signed(&self, algorithm: &str, jwk: &str, data: &[u8], signature: &[u8]) -> bool;
    /// HMAC with SHA-256 by the secret of this name.
    fn derive(&self, secret: &str, data: &[u8]) -> Option<[u8; 32]>;
    /// The secret of this name, to show it to the provider.
    fn secret(&self, name: &str) -> Option<String>;
    /// In a time that says nothing of where they differ.
    fn equal(&self, one: &str, other: &str) -> bool;
    /// Bytes that nobody can guess.
    fn random(&self) -> [u8; 32];
    fn warn(&self, message: &str);
}
