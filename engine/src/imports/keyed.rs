//! The `keyed` interface: cryptography with secrets that the document grants, by name. They do not enter the guest.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac};

use super::super::bindings::adit::plugin::crypto::Hash;
use super::super::bindings::adit::plugin::keyed as bound;
use super::super::store::State;
use super::crypto::hmac_key;
use bound::Error;

impl State {
    fn named(&self, secret: &str) -> Result<&[u8], Error> {
        let found = self.sandbox.secrets.0.get(secret).map(Vec::as_slice);
        found.ok_or_else(|| {
            self.sandbox.deny_name("secret", secret);
            Error::NoSuchSecret
        })
    }
}

impl bound::Host for State {
    fn hmac(&mut self, hash: Hash, secret: String, data: Vec<u8>) -> Result<Vec<u8>, Error> {
        let key = hmac_key(hash, self.named(&secret)?);
        Ok(hmac::sign(&key, &data).as_ref().to_vec())
    }

    fn verify_hmac(
        &mut self,
        hash: Hash,
        secret: String,
        data: Vec<u8>,
        tag: Vec<u8>,
    ) -> Result<bool, Error> {
        let key = hmac_key(hash, self.named(&secret)?);
        Ok(hmac::verify(&key, &data, &tag).is_ok())
    }

    fn is_secret(&mut self, secret: String, value: Vec<u8>) -> Result<bool, Error> {
        // Of digests, so that nothing is said of the length either.
        let of = |bytes: &[u8]| digest::digest(&digest::SHA256, bytes);
        let secret = of(self.named(&secret)?);
        Ok(verify_slices_are_equal(secret.as_ref(), of(&value).as_ref()).is_ok())
    }
}
