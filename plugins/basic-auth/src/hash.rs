//! Password hashes: PBKDF2 with HMAC-SHA-256, written as PHC strings.

use pbkdf2::password_hash::PasswordHash;
use pbkdf2::{Params, pbkdf2_hmac_array};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

/// A password's hash, salt and number of rounds. Rounds are within [`FEWEST_ROUNDS`] and
/// [`MOST_ROUNDS`].
pub struct Hash {
    rounds: u32,
    salt: Vec<u8>,
    key: [u8; KEY],
}

impl Hash {
    /// Reads `$pbkdf2-sha256$i=<rounds>,l=32$<salt>$<hash>`. The error never repeats the text.
    pub fn read(text: &str) -> Result<Self, String> {
        let parsed = PasswordHash::new(text).map_err(|_| SHAPE.to_owned())?;
        if parsed.algorithm != pbkdf2::Algorithm::PBKDF2_SHA256_IDENT {
            return Err(format!("a hash of another kind than pbkdf2-sha256; {SHAPE}"));
        }
        if parsed.params.get("i").is_none() {
            return Err(format!("no number of rounds; {SHAPE}"));
        }
        let params = Params::try_from(&parsed).map_err(|_| SHAPE.to_owned())?;
        if params.rounds < FEWEST_ROUNDS {
            return Err(format!(
                "i={} rounds are too few to slow a guesser; at least {FEWEST_ROUNDS}",
                params.rounds
            ));
        }
        if params.rounds > MOST_ROUNDS {
            return Err(format!(
                "i={} rounds would not finish within the run time that the host grants a call; at most {MOST_ROUNDS}",
                params.rounds
            ));
        }
        let (Some(salt), Some(key)) = (parsed.salt, parsed.hash) else { return Err(SHAPE.to_owned()) };
        let mut buffer = [0; 64];
        let salt = salt.decode_b64(&mut buffer).map_err(|_| SHAPE.to_owned())?.to_vec();
        if salt.len() < SHORTEST_SALT {
            return Err(format!("the salt is {} bytes long; at least {SHORTEST_SALT}", salt.len()));
        }
        let key = <[u8; KEY]>::try_from(key.as_bytes())
            .map_err(|_| format!("the hash is {} bytes long, not {KEY}", key.as_bytes().len()))?;
        Ok(Self { rounds: params.rounds, salt, key })
    }

    /// Whether this is the hash of `password`. Takes as long as a hash of `rounds` rounds, if that
    /// is longer than its own.
    pub fn matches(&self, password: &str, rounds: u32) -> Choice {
        let found = pbkdf2_hmac_array::<Sha256, KEY>(password.as_bytes(), &self.salt, self.rounds);
        if let Some(rest) = rounds.checked_sub(self.rounds).filter(|rest| *rest > 0) {
            waste(password, &self.salt, rest);
        }
        found.ct_eq(&self.key)
    }

    pub fn rounds(&self) -> u32 {
        self.rounds
    }
}

/// Takes as long as [`Hash::matches`] does with this number of rounds.
pub fn waste(password: &str, salt: &[u8], rounds: u32) {
    std::hint::black_box(pbkdf2_hmac_array::<Sha256, KEY>(password.as_bytes(), salt, rounds));
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash(..)")
    }
}

/// Bytes of a derived key: one block of SHA-256, so that a hash costs `rounds` and not a multiple.
const KEY: usize = 32;

/// RFC 8018 section 4.2.
const FEWEST_ROUNDS: u32 = 1_000;

/// About 17 ms on a 3 GHz core; the host grants a call 50 ms of run time unless told otherwise.
const MOST_ROUNDS: u32 = 20_000;

/// RFC 8018 section 4.1.
const SHORTEST_SALT: usize = 8;

const SHAPE: &str = "expected a PHC string such as $pbkdf2-sha256$i=10000,l=32$<salt>$<hash>";

#[cfg(test)]
pub(crate) mod tests {
    use pbkdf2::Pbkdf2;
    use pbkdf2::password_hash::{PasswordHasher, Salt};

    use super::*;

    /// A PHC string as other tools write it.
    pub(crate) fn phc(password: &str, rounds: u32) -> String {
        let salt = Salt::from_b64("c2FsdHNhbHRzYWx0").unwrap();
        let params = Params { rounds, output_length: KEY };
        Pbkdf2.hash_password_customized(password.as_bytes(), None, None, params, salt).unwrap().to_string()
    }

    #[test]
    fn a_hash_matches_its_own_password_only() {
        let hash = Hash::read(&phc("open sesame", 1000)).unwrap();
        assert_eq!(hash.rounds(), 1000);
        for rounds in [0, 1000, 1500] {
            assert!(bool::from(hash.matches("open sesame", rounds)));
            assert!(!bool::from(hash.matches("open sesam", rounds)));
        }
    }

    #[test]
    fn a_hash_that_another_program_made_is_understood() {
        // hashlib.pbkdf2_hmac("sha256", b"correct horse", b"0123456789abcdef", 2000)
        let hash = Hash::read(KNOWN).unwrap();
        assert!(bool::from(hash.matches("correct horse", 0)));
    }

    const KNOWN: &str =
        "$pbkdf2-sha256$i=2000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$MGoh2Ym969nMJuWoRTjFXPmoi5ptqegZ9PzZ3FTIVOM";

    #[test]
    fn what_cannot_be_checked_in_time_or_is_too_weak_is_refused() {
        let refused = |text: &str| Hash::read(text).unwrap_err();
        let good = phc("x", 1000);
        assert!(refused(&good.replace("i=1000", "i=600000")).contains("at most"));
        assert!(refused(&good.replace("i=1000", "i=999")).contains("too few"));
        assert!(refused(&good.replace("sha256", "sha512")).contains("another kind"));
        assert!(refused(&good.replace("i=1000,", "")).contains("rounds"));
        assert!(refused(&good.replace("c2FsdHNhbHRzYWx0", "c2FsdA")).contains("salt"));
        assert!(
            refused("$pbkdf2-sha256$i=1000,l=16$c2FsdHNhbHRzYWx0$MDEyMzQ1Njc4OWFiY2RlZg")
                .contains("16 bytes")
        );
        assert!(refused(&good[..good.rfind('$').unwrap()]).contains("PHC"));
    }

    #[test]
    fn a_password_written_in_clear_is_not_repeated_in_the_message() {
        for secret in ["hunter2", "$2b$12$hunter2", "$pbkdf2-sha256$i=hunter2"] {
            let message = Hash::read(secret).unwrap_err();
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
