//! Which kinds of content are worth compressing.

/// A pattern for media types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Media {
    /// `text/html`
    Exactly(String),
    /// `text/*`, kept with its slash.
    Below(String),
    /// `*+json`, kept with its plus: a structured syntax suffix, RFC 6838 section 4.2.8.
    Suffix(String),
}

impl Media {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        if let Some(suffix) = text.strip_prefix('*') {
            return suffix
                .strip_prefix('+')
                .filter(|name| is_name(name))
                .map(|_| Self::Suffix(suffix.to_owned()));
        }
        let (kind, name) = text.split_once('/')?;
        match name {
            _ if !is_name(kind) => None,
            "*" => Some(Self::Below(format!("{kind}/"))),
            _ if !is_name(name) => None,
            _ => Some(Self::Exactly(text)),
        }
    }

    /// Whether a Content-Type is one of these.
    pub fn fits(&self, content_type: &str) -> bool {
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match self {
            Self::Exactly(whole) => essence == *whole,
            Self::Below(kind) => essence.starts_with(kind.as_str()),
            Self::Suffix(suffix) => essence.ends_with(suffix.as_str()),
        }
    }
}

/// RFC 6838 section 4.2.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_fit_whole_by_their_first_half_or_by_their_suffix() {
        for (pattern, content_type, fits) in [
            ("text/*", "text/html; charset=utf-8", true),
            ("text/*", "TEXT/Event-Stream", true),
            ("text/*", "textual/html", false),
            ("application/json", "application/json;charset=utf-8", true),
            ("application/json", "application/jsonl", false),
            ("Image/SVG+XML", "image/svg+xml", true),
            ("*+json", "application/problem+json", true),
            ("*+json", "application/json", false),
            ("text/*", "", false),
        ] {
            assert_eq!(Media::parse(pattern).unwrap().fits(content_type), fits, "{pattern} {content_type}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_not_read() {
        for bad in
            ["", "text", "*", "*/*", "*json", "*+", "text/", "/html", "text/h tml", "te*t/html", "text/*ml"]
        {
            assert_eq!(Media::parse(bad), None, "{bad}");
        }
    }
}
