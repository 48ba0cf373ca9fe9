//! Decides who may pass.
//!
//! A password's hash is made to be slow, so a guard remembers for every user the last credentials
//! that passed, as a SHA-256. Nothing is remembered of those that did not: a wrong password costs
//! the full hash each time, and so does a name that nobody has.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::credentials::Credentials;
use crate::hash::{self, Hash};
use crate::plan::Plan;

/// A plan and what has been verified under it.
#[derive(Debug)]
pub struct Guard {
    plan: Plan,
    /// For each user of the plan, in its order: the digest of the credentials that passed last.
    verified: Vec<Option<[u8; 32]>>,
    /// What every check costs, whoever the user is.
    rounds: u32,
}

impl Guard {
    pub fn new(plan: Plan) -> Self {
        let verified = vec![None; plan.users.len()];
        let rounds = plan.users.iter().map(|user| user.hash.rounds()).max().unwrap_or_default();
        Self { plan, verified, rounds }
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The name of the user that these Authorization values prove; `None` if they prove nobody.
    /// More than one value proves nobody: the origin might believe another one than this guard.
    pub fn admit<'a>(&mut self, mut authorizations: impl Iterator<Item = &'a str>) -> Option<&str> {
        let (Some(authorization), None) = (authorizations.next(), authorizations.next()) else {
            return None;
        };
        let credentials = Credentials::read(authorization)?;
        let at = self.check(&credentials)?;
        Some(&self.plan.users[at].name)
    }

    /// The place of the user in the plan.
    fn check(&mut self, claimed: &Credentials) -> Option<usize> {
        let Some(at) = self.plan.users.iter().position(|user| user.name == claimed.user) else {
            hash::waste(&claimed.password, NO_SALT, self.rounds);
            return None;
        };
        // The user is known by the place: the digest need not hold the name.
        let digest: [u8; 32] = Sha256::digest(claimed.password.as_bytes()).into();
        let remembered = self.verified[at].is_some_and(|known| known.ct_eq(&digest).into());
        if remembered {
            return Some(at);
        }
        let hash: &Hash = &self.plan.users[at].hash;
        if !bool::from(hash.matches(&claimed.password, self.rounds)) {
            return None;
        }
        self.verified[at] = Some(digest);
        Some(at)
    }
}

/// As long as a usual salt, so that a made-up user costs the same.
const NO_SALT: &[u8] = b"nobody's own salt";

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding};

    use super::*;
    use crate::hash::tests::phc;

    fn guard() -> Guard {
        let config = format!(
            r#"{{"realm": "r", "users": [
                {{"name": "ada", "password": "{}"}}, {{"name": "bob", "password": "{}"}}
            ]}}"#,
            phc("engine", 1000),
            phc("builder", 3000)
        );
        Guard::new(Plan::read(&config).unwrap())
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", Base64::encode_string(text.as_bytes()))
    }

    fn admit(guard: &mut Guard, authorizations: &[String]) -> Option<String> {
        guard.admit(authorizations.iter().map(String::as_str)).map(str::to_owned)
    }

    #[test]
    fn the_right_password_passes_again_and_again() {
        let mut guard = guard();
        for _ in 0..3 {
            assert_eq!(admit(&mut guard, &[basic("ada:engine")]).as_deref(), Some("ada"));
            assert_eq!(admit(&mut guard, &[basic("bob:builder")]).as_deref(), Some("bob"));
        }
    }

    #[test]
    fn nothing_else_passes_even_after_the_right_password_did() {
        let mut guard = guard();
        for _ in 0..2 {
            for bad in
                ["ada:builder", "bob:engine", "ada:", ":engine", "eve:engine", "ada:engine2", "Ada:engine"]
            {
                assert_eq!(admit(&mut guard, &[basic(bad)]), None, "{bad}");
            }
            assert_eq!(admit(&mut guard, &[]), None);
            assert_eq!(admit(&mut guard, &["Basic".to_owned()]), None);
            assert!(admit(&mut guard, &[basic("ada:engine")]).is_some());
        }
    }

    #[test]
    fn two_authorizations_prove_nobody() {
        let both = [basic("ada:engine"), basic("ada:engine")];
        assert_eq!(admit(&mut guard(), &both), None);
    }

    #[test]
    fn only_success_is_remembered_and_one_digest_for_each_user() {
        let mut guard = guard();
        admit(&mut guard, &[basic("ada:wrong")]);
        assert_eq!(guard.verified, [None, None]);
        admit(&mut guard, &[basic("ada:engine")]);
        assert!(guard.verified[0].is_some() && guard.verified[1].is_none());
        admit(&mut guard, &[basic("ada:wrong")]);
        assert!(guard.verified[0].is_some());
        assert_eq!(guard.verified.len(), 2);
    }

    #[test]
    fn every_check_is_as_dear_as_the_dearest_user() {
        assert_eq!(guard().rounds, 3000);
    }
}
