//! The grammar of header fields, as far as a plugin may edit them.

/// Why a text cannot be a header name or value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfit(&'static str);

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// The lower-case form of a header name that a plugin may edit: a token (RFC 9110 section 5.1)
/// that does not frame the message or belong to one hop.
pub fn name(text: &str) -> Result<String, Unfit> {
    if text.is_empty() {
        return Err(Unfit("a header name cannot be empty"));
    }
    if !text.bytes().all(is_token) {
        return Err(Unfit("a header name consists of letters, digits and !#$%&'*+-.^_`|~"));
    }
    let name = text.to_ascii_lowercase();
    if RESERVED.contains(&name.as_str()) {
        return Err(Unfit("this header frames the message or belongs to one hop and cannot be edited"));
    }
    Ok(name)
}

/// Checks a header value (RFC 9110 section 5.5): no control characters but tab, no white space at
/// either end. UTF-8 beyond ASCII is let through.
pub fn value(text: &str) -> Result<(), Unfit> {
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Unfit("a header value cannot hold line breaks or other control characters"));
    }
    if text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']) {
        return Err(Unfit("a header value cannot begin or end with white space"));
    }
    Ok(())
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 section 7.6.1 and the fields that say where a message ends or whom it is for.
const RESERVED: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tokens_in_lower_case() {
        assert_eq!(name("X-Frame-Options").as_deref(), Ok("x-frame-options"));
        for bad in ["", "x y", "x:y", "ü", "x\r\n", ":path"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_that_frame_the_message_are_refused() {
        for bad in ["Content-Length", "transfer-encoding", "Host", "CONNECTION"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values_hold_no_line_breaks_and_no_outer_white_space() {
        for good in ["", "a", "a b\tc", "größe"] {
            assert_eq!(value(good), Ok(()), "{good:?}");
        }
        for bad in [" a", "a\t", "a\r\nb: c", "a\0", "\u{7f}", "\u{85}"] {
            assert!(value(bad).is_err(), "{bad:?}");
        }
    }
}
