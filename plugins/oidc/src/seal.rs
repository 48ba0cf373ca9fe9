//! Values that a browser keeps and can neither read nor change: XChaCha20-Poly1305 with keys that are derived from
//! secrets, and with what a value is for as a part of what is sealed.

use base64ct::{Base64UrlUnpadded, Encoding};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};

use crate::surroundings::Surroundings;

/// Seals `value`. `None` where the secret cannot be had.
pub fn seal(host: &impl Surroundings, secrets: &[String], purpose: &str, value: &[u8]) -> Option<String> {
    let cipher = cipher(host, secrets.first()?)?;
    let nonce = &host.random()[..NONCE];
    let payload = Payload { msg: value, aad: purpose.as_bytes() };
    let sealed = cipher.encrypt(XNonce::from_slice(nonce), payload).ok()?;
    Some(Base64UrlUnpadded::encode_string(&[nonce, &sealed].concat()))
}

/// What was sealed for this purpose, by any of the secrets.
pub fn open(host: &impl Surroundings, secrets: &[String], purpose: &str, text: &str) -> Option<Vec<u8>> {
    if text.len() > LONGEST {
        return None;
    }
    let bytes = Base64UrlUnpadded::decode_vec(text).ok().filter(|bytes| bytes.len() > NONCE)?;
    let (nonce, sealed) = bytes.split_at(NONCE);
    secrets.iter().find_map(|secret| {
        let payload = Payload { msg: sealed, aad: purpose.as_bytes() };
        cipher(host, secret)?.decrypt(XNonce::from_slice(nonce), payload).ok()
    })
}

fn cipher(host: &impl Surroundings, secret: &str) -> Option<XChaCha20Poly1305> {
    let key = host.derive(secret, LABEL)?;
    Some(XChaCha20Poly1305::new(Key::from_slice(&key)))
}

const NONCE: usize = 24;
/// A key for nothing else, whatever else the secret may be used for.
const LABEL: &[u8] = b"adit shelf:oidc cookies, XChaCha20-Poly1305, 1";
/// Of a cookie that is worth opening, bytes: no browser keeps a longer one.
const LONGEST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_was_sealed_opens_for_its_purpose_and_by_its_secret_alone() {
        let world = World::default();
        let (new, both, old) = (names(&["new"]), names(&["new", "old"]), names(&["old"]));
        let text = seal(&world, &old, "session", b"ada").unwrap();
        assert!(!text.contains("ada") && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';'));
        assert_eq!(open(&world, &old, "session", &text).as_deref(), Some(&b"ada"[..]));
        assert_eq!(open(&world, &both, "session", &text).as_deref(), Some(&b"ada"[..]));
        assert_eq!(open(&world, &new, "session", &text), None);
        assert_eq!(open(&world, &old, "login", &text), None);
        // The same twice looks like something else.
        assert_ne!(seal(&world, &old, "session", b"ada").unwrap(), text);
        assert_eq!(seal(&world, &names(&["absent"]), "session", b"ada"), None);
    }

    #[test]
    fn what_was_changed_does_not_open() {
        let (world, secrets) = (World::default(), names(&["new"]));
        let text = seal(&world, &secrets, "session", b"ada").unwrap();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(open(&world, &secrets, "session", &changed), None, "{at}");
        }
        for bad in ["", "A", &text[..40], &format!("{text}A"), &"A".repeat(5000), "ü"] {
            assert_eq!(open(&world, &secrets, "session", bad), None, "{bad}");
        }
    }
}
