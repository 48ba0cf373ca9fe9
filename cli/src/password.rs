//! `adit hash-password`.

use std::io::{IsTerminal, Read, stdin};

use anyhow::{Context, ensure};
use pbkdf2::password_hash::{PasswordHasher, SaltString};
use pbkdf2::{Algorithm, Params, Pbkdf2};
use uuid::Uuid;

use crate::Failure;

/// What the basic-auth plugin can check well within its time limit. A visitor who guesses makes the
/// host do this work each time, so prefer a long random password to more rounds.
const ROUNDS: u32 = 10_000;
/// Longest password that is read, bytes.
const LONGEST: u64 = 1024;

/// Reads a password from standard input, without echo at a terminal, and prints its hash.
pub(crate) fn hash() -> Result<(), Failure> {
    let password = if stdin().is_terminal() {
        rpassword::prompt_password("password: ").context("reading the password")?
    } else {
        let mut text = String::new();
        stdin().take(LONGEST).read_to_string(&mut text).context("reading the password")?;
        text.trim_end_matches(['\r', '\n']).to_owned()
    };
    println!("{}", hash_of(&password)?);
    Ok(())
}

/// A PHC string with a salt of its own.
pub(crate) fn hash_of(password: &str) -> anyhow::Result<String> {
    ensure!(!password.is_empty(), "the password is empty; type it, or send it to standard input");
    let salt = SaltString::encode_b64(Uuid::new_v4().as_bytes())
        .map_err(|error| anyhow::anyhow!("salt: {error}"))?;
    let params = Params { rounds: ROUNDS, output_length: 32 };
    let hash = Pbkdf2
        .hash_password_customized(
            password.as_bytes(),
            Some(Algorithm::Pbkdf2Sha256.ident()),
            None,
            params,
            &salt,
        )
        .map_err(|error| anyhow::anyhow!("hashing: {error}"))?;
    Ok(hash.to_string())
}
