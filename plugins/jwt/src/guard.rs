//! Decides who may pass, with the keys that are known.
//!
//! Verifying costs some hundred microseconds to milliseconds, so a guard remembers the tokens that passed,
//! by their digest, until they end. Nothing is remembered of those that did not.

use std::collections::HashMap;

use jose::Token;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::claims;
use crate::key::{Keys, Signed};
use crate::plan::Plan;

#[derive(Debug)]
pub struct Guard {
    keys: Keys,
    passed: HashMap<[u8; 32], Pass>,
}

/// What a token that passed is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Seconds since 1970.
    until: u64,
    /// For each of the plan's headers, in its order.
    pub values: Vec<Option<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passes(Pass),
    Refused,
    /// By a key that is not known here; a newer set may have it.
    UnknownKey,
}

impl Guard {
    /// A new one for each new set of keys, which forgets what the old one let pass.
    pub fn new(keys: Keys) -> Self {
        Self { keys, passed: HashMap::new() }
    }

    pub fn admit(&mut self, plan: &Plan, text: &str, now: u64) -> Verdict {
        let digest: [u8; 32] = Sha256::digest(text).into();
        if let Some(pass) = self.passed.get(&digest) {
            if now < pass.until {
                return Verdict::Passes(pass.clone());
            }
            self.passed.remove(&digest);
        }
        let Some(token) = Token::read(text) else { return Verdict::Refused };
        match self.keys.signed(&token) {
            Signed::ByUnknown => return Verdict::UnknownKey,
            Signed::No => return Verdict::Refused,
            Signed::Yes => {}
        }
        let Some(pass) = token.claims().and_then(|claims| pass(plan, &claims, now)) else {
            return Verdict::Refused;
        };
        if self.passed.len() >= MOST_REMEMBERED {
            self.passed.clear();
        }
        self.passed.insert(digest, pass.clone());
        Verdict::Passes(pass)
    }
}

fn pass(plan: &Plan, claims: &Value, now: u64) -> Option<Pass> {
    let until = claims::check(plan, claims, now)?;
    let values = plan.headers.iter().map(|(_, claim)| jose::text(claims, claim)).collect();
    Some(Pass { until, values })
}

/// Tokens of one instance.
const MOST_REMEMBERED: usize = 1024;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::key::tests::{ed25519_jwk, set, token};

    const NOW: u64 = 1_800_000_000;

    fn plan() -> Plan {
        Plan::read(
            r#"{"issuer": "i", "jwks": "https://i/keys", "audience": "app", "headers": {"x-user": "sub", "x-mail": "email"}}"#,
        )
        .unwrap()
    }

    fn guard() -> Guard {
        Guard::new(Keys::read(&set(&[ed25519_jwk()])).unwrap())
    }

    fn text(id: &str, audience: &str) -> String {
        token(
            &json!({"alg": "EdDSA", "kid": id}),
            &json!({"iss": "i", "aud": audience, "exp": NOW, "sub": "ada"}),
        )
    }

    #[test]
    fn a_good_token_passes_until_it_ends_and_tells_who_it_is() {
        let (mut guard, text) = (guard(), text("e", "app"));
        for now in [NOW - 60, NOW, NOW + 29] {
            let Verdict::Passes(pass) = guard.admit(&plan(), &text, now) else { panic!("refused at {now}") };
            // x-mail, x-user: the order of the JSON's keys.
            assert_eq!(pass.values, [None, Some("ada".to_owned())]);
        }
        assert_eq!(guard.passed.len(), 1);
        assert_eq!(guard.admit(&plan(), &text, NOW + 30), Verdict::Refused);
        assert_eq!(guard.passed.len(), 0);
    }

    #[test]
    fn nothing_else_passes_and_nothing_of_it_is_remembered() {
        let mut guard = guard();
        assert_eq!(guard.admit(&plan(), &text("e", "other"), NOW), Verdict::Refused);
        assert_eq!(guard.admit(&plan(), &text("new", "app"), NOW), Verdict::UnknownKey);
        assert_eq!(guard.admit(&plan(), "", NOW), Verdict::Refused);
        let mut forged = text("e", "app");
        forged.replace_range(forged.len() - 2.., "AA");
        assert_eq!(guard.admit(&plan(), &forged, NOW), Verdict::Refused);
        assert!(guard.passed.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut guard = guard();
        for number in 0..MOST_REMEMBERED {
            let digest: [u8; 32] = Sha256::digest(number.to_string()).into();
            guard.passed.insert(digest, Pass { until: NOW, values: Vec::new() });
        }
        assert!(matches!(guard.admit(&plan(), &text("e", "app"), NOW), Verdict::Passes(_)));
        assert_eq!(guard.passed.len(), 1);
    }
}
