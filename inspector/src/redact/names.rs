//! What things are called that are nobody else's business. Does not know what is in them.

/// Whether a header with this name, in lower case, has a secret in it.
pub(super) fn is_secret_header(name: &str) -> bool {
    name.starts_with("cf-access-") || is_secret_name(name)
}

/// Whether a parameter, a field or an element with this name has a secret in it, in whatever spelling:
/// `apiKey`, `api-key`, `API_KEY`.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    PARTS.iter().any(|part| name.contains(part)) || WHOLE.contains(&name.as_str())
}

/// In a name.
const PARTS: [&str; 23] = [
    "token",
    "secret",
    "key",
    "pass",
    "pwd",
    "sig",
    "code",
    "session",
    "auth",
    "cred",
    "jwt",
    "csrf",
    "xsrf",
    "cookie",
    "bearer",
    "private",
    "assertion",
    "ticket",
    "nonce",
    "otp",
    "cvv",
    "cvc",
    "iban",
];
/// As a name of its own, since others have these letters in them.
const WHOLE: [&str; 11] =
    ["pin", "sid", "ssn", "mfa", "tan", "salt", "hash", "card", "cardnumber", "dsn", "seed"];
