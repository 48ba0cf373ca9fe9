//! Gets the keys, and keeps them where all instances of the plugin see them.
//!
//! The ticker asks for the key set every `refresh`. Besides that a request asks only where no keys are
//! known, or where a token names a key that is not among them; and only one of all requests in a while, so
//! that nobody can make the plugin ask more often with made-up tokens. Where the set cannot be had the one
//! before stays good for `stale`, and then nobody passes.

use sha2::{Digest, Sha256};

use crate::guard::{Guard, Pass, Verdict};
use crate::key::Keys;
use crate::plan::Plan;

/// What the host does for this. Times are milliseconds.
pub trait Surroundings {
    /// Since 1970.
    fn now(&self) -> u64;
    fn read(&self, key: &str) -> Option<Vec<u8>>;
    fn write(&self, key: &str, value: &[u8], for_ms: u64);
    /// Whether this is the first to ask so within that time.
    fn is_first(&self, key: &str, within_ms: u64) -> bool;
    /// The body of a good answer, or what is wrong.
    fn fetch(&self, url: &str) -> Result<Vec<u8>, String>;
    fn warn(&self, message: &str);
}

/// An instance's view of the keys.
#[derive(Debug)]
pub struct Keeper {
    plan: Plan,
    /// Goes before every name in the bucket. Of the address of the keys: those of another one, from before a
    /// change of configuration, must not be taken for ours.
    prefix: String,
    /// Of the set that `guard` has.
    version: Vec<u8>,
    guard: Option<Guard>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Passes(Pass),
    Refused,
    /// Nothing can be decided without keys.
    NoKeys,
}

impl Keeper {
    pub fn new(plan: Plan) -> Self {
        let prefix = short(plan.jwks.as_bytes());
        Self { plan, prefix, version: Vec::new(), guard: None }
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Asks for the key set if that is due. Outside of requests.
    pub fn refresh(&self, host: &impl Surroundings) {
        let is_due = host.read(&self.name("fresh")).is_none();
        if is_due && host.is_first(&self.name("due"), AFTER_FAILURE) {
            self.fetch(host);
        }
    }

    pub fn admit(&mut self, host: &impl Surroundings, token: &str) -> Decision {
        self.look(host);
        if self.guard.is_none() && host.is_first(&self.name("none"), WITHOUT_KEYS) {
            self.fetch(host);
            self.look(host);
        }
        let verdict = self.ask(host, token);
        if verdict == Some(Verdict::UnknownKey) && host.is_first(&self.name("miss"), UNKNOWN_KEY) {
            self.fetch(host);
            self.look(host);
            return decision(self.ask(host, token));
        }
        decision(verdict)
    }

    fn ask(&mut self, host: &impl Surroundings, token: &str) -> Option<Verdict> {
        let now = host.now() / 1000;
        self.guard.as_mut().map(|guard| guard.admit(&self.plan, token, now))
    }

    /// Takes over what another instance may have fetched, or what has become too old.
    fn look(&mut self, host: &impl Surroundings) {
        let version = host.read(&self.name("version")).unwrap_or_default();
        if version == self.version {
            return;
        }
        self.guard = host.read(&self.name("set")).and_then(|set| Keys::read(&set)).map(Guard::new);
        // Without a guard it is looked at again.
        self.version = if self.guard.is_some() { version } else { Vec::new() };
    }

    fn fetch(&self, host: &impl Surroundings) {
        let set = host.fetch(&self.plan.jwks).and_then(|set| match Keys::read(&set) {
            Some(_) => Ok(set),
            None => Err("it is no key set with a key for RS256, ES256 or EdDSA".to_owned()),
        });
        match set {
            Ok(set) => {
                let stale = milliseconds(self.plan.stale);
                host.write(&self.name("set"), &set, stale);
                host.write(&self.name("version"), short(&set).as_bytes(), stale);
                host.write(&self.name("fresh"), b"1", milliseconds(self.plan.refresh));
            }
            Err(error) => host.warn(&format!("the keys at {}: {error}", self.plan.jwks)),
        }
    }

    fn name(&self, what: &str) -> String {
        format!("{}.{what}", self.prefix)
    }
}

fn decision(verdict: Option<Verdict>) -> Decision {
    match verdict {
        None => Decision::NoKeys,
        Some(Verdict::Passes(pass)) => Decision::Passes(pass),
        Some(Verdict::Refused | Verdict::UnknownKey) => Decision::Refused,
    }
}

fn short(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How often a token with an unknown key makes the plugin ask, at most.
const UNKNOWN_KEY: u64 = 30_000;
/// How often a request without any keys does.
const WITHOUT_KEYS: u64 = 2_000;
/// How often the ticker tries again.
const AFTER_FAILURE: u64 = 5_000;

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;
    use crate::key::tests::{ed25519_jwk, set, token};

    /// A bucket with a clock that the test moves, and what the address answers.
    struct World {
        now: Cell<u64>,
        entries: RefCell<HashMap<String, (Vec<u8>, u64)>>,
        answer: RefCell<Result<Vec<u8>, String>>,
        fetches: Cell<u32>,
        warnings: Cell<u32>,
    }

    impl Surroundings for World {
        fn now(&self) -> u64 {
            self.now.get()
        }

        fn read(&self, key: &str) -> Option<Vec<u8>> {
            let entries = self.entries.borrow();
            entries.get(key).filter(|(_, until)| self.now() < *until).map(|(value, _)| value.clone())
        }

        fn write(&self, key: &str, value: &[u8], for_ms: u64) {
            self.entries.borrow_mut().insert(key.to_owned(), (value.to_vec(), self.now() + for_ms));
        }

        fn is_first(&self, key: &str, within_ms: u64) -> bool {
            let is_first = self.read(key).is_none();
            if is_first {
                self.write(key, b"1", within_ms);
            }
            is_first
        }

        fn fetch(&self, _url: &str) -> Result<Vec<u8>, String> {
            self.fetches.set(self.fetches.get() + 1);
            self.answer.borrow().clone()
        }

        fn warn(&self, _message: &str) {
            self.warnings.set(self.warnings.get() + 1);
        }
    }

    const NOW: u64 = 1_800_000_000;

    fn world(answer: Result<Vec<u8>, String>) -> World {
        World {
            now: Cell::new(NOW * 1000),
            entries: RefCell::default(),
            answer: RefCell::new(answer),
            fetches: Cell::default(),
            warnings: Cell::default(),
        }
    }

    fn keeper(url: &str) -> Keeper {
        let config = format!(
            r#"{{"issuer": "i", "jwks": "{url}", "audience": "app", "refresh": "60s", "stale": "1h"}}"#
        );
        Keeper::new(Plan::read(&config).unwrap())
    }

    fn good(id: &str) -> String {
        let claims = json!({"iss": "i", "aud": "app", "exp": NOW + 100_000});
        token(&json!({"alg": "EdDSA", "kid": id}), &claims)
    }

    fn keys(id: &str) -> Vec<u8> {
        let mut key = ed25519_jwk();
        key["kid"] = json!(id);
        set(&[key])
    }

    fn passes(decision: &Decision) -> bool {
        matches!(decision, Decision::Passes(_))
    }

    #[test]
    fn without_keys_nobody_passes_and_few_ask() {
        let (world, mut keeper) = (world(Err("refused".to_owned())), keeper("https://i/keys"));
        for _ in 0..10 {
            assert_eq!(keeper.admit(&world, &good("e")), Decision::NoKeys);
        }
        assert_eq!((world.fetches.get(), world.warnings.get()), (1, 1));
        world.now.set(world.now() + WITHOUT_KEYS);
        *world.answer.borrow_mut() = Ok(keys("e"));
        assert!(passes(&keeper.admit(&world, &good("e"))));
        // Another instance has them too.
        assert!(passes(&self::keeper("https://i/keys").admit(&world, &good("e"))));
        assert_eq!(world.fetches.get(), 2);
    }

    #[test]
    fn a_new_key_is_found_and_made_up_ones_ask_once_in_a_while() {
        let (world, mut keeper) = (world(Ok(keys("e"))), keeper("https://i/keys"));
        keeper.refresh(&world);
        *world.answer.borrow_mut() = Ok(keys("f"));
        assert!(passes(&keeper.admit(&world, &good("f"))));
        assert_eq!(world.fetches.get(), 2);
        for id in ["x", "y", "z"] {
            assert_eq!(keeper.admit(&world, &good(id)), Decision::Refused);
        }
        assert_eq!(world.fetches.get(), 2);
        // The old one is gone, also for the tokens that had passed.
        assert_eq!(keeper.admit(&world, &good("e")), Decision::Refused);
        world.now.set(world.now() + UNKNOWN_KEY);
        assert_eq!(keeper.admit(&world, &good("x")), Decision::Refused);
        assert_eq!(world.fetches.get(), 3);
    }

    #[test]
    fn the_ticker_asks_when_it_is_due_and_old_keys_are_good_for_a_while() {
        let (world, mut keeper) = (world(Ok(keys("e"))), keeper("https://i/keys"));
        keeper.refresh(&world);
        keeper.refresh(&world);
        assert_eq!(world.fetches.get(), 1);
        for bad in [Err("gone".to_owned()), Ok(b"<html>".to_vec()), Ok(br#"{"keys": []}"#.to_vec())] {
            *world.answer.borrow_mut() = bad;
            world.now.set(world.now() + 60_000);
            keeper.refresh(&world);
            keeper.refresh(&world);
            assert!(passes(&keeper.admit(&world, &good("e"))));
        }
        assert_eq!((world.fetches.get(), world.warnings.get()), (4, 3));
        world.now.set(NOW * 1000 + 3_600_000);
        assert_eq!(keeper.admit(&world, &good("e")), Decision::NoKeys);
    }

    #[test]
    fn keys_of_another_address_are_not_ours() {
        let world = world(Ok(keys("e")));
        keeper("https://i/keys").refresh(&world);
        *world.answer.borrow_mut() = Err("gone".to_owned());
        assert_eq!(keeper("https://other/keys").admit(&world, &good("e")), Decision::NoKeys);
    }
}
