//! How a message says whom it is from, by Standard Webhooks 1.0: `webhook-id`, `webhook-timestamp` and
//! `webhook-signature`. Knows secrets and bytes; sends nothing.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::store::records::objects::Secret;
use crate::store::timestamp::Timestamp;

/// The value of `webhook-signature`: one signature for each secret that counts now.
pub(super) fn of(secrets: &[Secret], id: &str, timestamp: u64, body: &str, now: Timestamp) -> String {
    let counts = |secret: &&Secret| secret.until.is_none_or(|until| until > now);
    let signed = secrets.iter().filter(counts).map(|secret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key(&secret.text));
        let mut signing = hmac::Context::with_key(&key);
        for part in [id, ".", &timestamp.to_string(), ".", body] {
            signing.update(part.as_bytes());
        }
        format!("v1,{}", BASE64_STANDARD.encode(signing.sign()))
    });
    signed.collect::<Vec<_>>().join(" ")
}

/// What a secret of the form `whsec_` and base64 means. Any other text is the key itself.
fn key(secret: &str) -> Vec<u8> {
    let encoded = secret.strip_prefix(PREFIX).and_then(|rest| BASE64_STANDARD.decode(rest).ok());
    encoded.unwrap_or_else(|| secret.as_bytes().to_vec())
}

/// With which secrets begin that sign, and are never sent.
pub(crate) const PREFIX: &str = "whsec_";

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str, until: Option<Timestamp>) -> Secret {
        Secret { text: text.to_owned(), until }
    }

    #[test]
    fn a_signature_is_the_one_of_the_standard_and_those_of_replaced_secrets_stand_beside_it_while_they_count()
    {
        // The example of the specification.
        let known = secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None);
        let (id, at, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        let wanted = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let now = Timestamp::now();
        assert_eq!(of(std::slice::from_ref(&known), id, at, body, now), wanted);
        let later = now.after(std::time::Duration::from_secs(60));
        let both = of(&[secret("other", None), known.clone()], id, at, body, now);
        assert_eq!(both.split(' ').nth(1), Some(wanted));
        let replaced = secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Some(later));
        assert!(of(&[secret("other", None), replaced.clone()], id, at, body, now).ends_with(wanted));
        assert!(!of(&[secret("other", None), replaced], id, at, body, later).contains(' '));
        assert_eq!(
            of(&[secret("a b", None)], id, at, body, now),
            of(&[secret("whsec_YSBi", None)], id, at, body, now)
        );
    }
}
