//! What a visitor sent in the Authorization header.

use base64ct::{Base64, Encoding};

/// A user's name and password as the visitor claims them.
#[derive(PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

impl Credentials {
    /// Reads `Basic <base64 of name:password>` (RFC 7617 section 2); `None` for anything else.
    pub fn read(authorization: &str) -> Option<Self> {
        let (scheme, encoded) = authorization.split_once(' ')?;
        let encoded = encoded.trim_matches(' ');
        if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > LONGEST {
            return None;
        }
        let text = String::from_utf8(Base64::decode_vec(encoded).ok()?).ok()?;
        // The first colon ends the name; a password may hold more of them.
        let (user, password) = text.split_once(':')?;
        if text.chars().any(char::is_control) {
            return None;
        }
        Some(Self { user: user.to_owned(), password: password.to_owned() })
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// Bytes of base64 in a header that are worth decoding.
const LONGEST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(authorization: &str) -> Option<(String, String)> {
        Credentials::read(authorization).map(|found| (found.user, found.password))
    }

    #[test]
    fn name_and_password_part_at_the_first_colon() {
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        // RFC 7617 section 2 and 2.1.
        assert_eq!(read("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), pair("Aladdin", "open sesame"));
        assert_eq!(read("Basic dGVzdDoxMjPCow=="), pair("test", "123£"));
        assert_eq!(read(&format!("basic  {}", Base64::encode_string(b"a:b:c"))), pair("a", "b:c"));
        assert_eq!(read(&format!("BASIC {}", Base64::encode_string(b":"))), pair("", ""));
    }

    #[test]
    fn anything_else_is_no_credentials() {
        let encode = |text: &[u8]| format!("Basic {}", Base64::encode_string(text));
        for bad in [
            String::new(),
            "Basic".to_owned(),
            "Basic ".to_owned(),
            "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==".to_owned(),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ".to_owned(),
            "Basic !!!!".to_owned(),
            encode(b"no colon"),
            encode(b"a:\xff"),
            encode(b"a:b\n"),
            encode(&[b'x'; LONGEST]),
        ] {
            assert_eq!(read(&bad), None, "{bad:?}");
        }
    }
}
