//! Which texts can be the name of something: of a tunnel, an account, a token. People read them in lists, logs and
//! terminals, and type them in commands and paths. Pure.

/// # Errors
/// Why this cannot be a name.
pub(crate) fn check(name: &str) -> Result<(), String> {
    if name.is_empty() || name.chars().count() > LONGEST {
        return Err(format!("a name has 1 to {LONGEST} characters"));
    }
    if name.starts_with(char::is_whitespace) || name.ends_with(char::is_whitespace) {
        return Err("a name does not begin or end with a blank".to_owned());
    }
    if let Some(hidden) = name.chars().find(|c| is_hidden(*c)) {
        return Err(format!("a name has no invisible characters, such as U+{:04X}", u32::from(hidden)));
    }
    if matches!(name, "." | "..") {
        return Err("a name is not `.` or `..`, which would be another path".to_owned());
    }
    Ok(())
}

/// Controls, and what changes how the text around it is shown without being seen itself.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'
                ..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
        )
}

const LONGEST: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_it_looks_like() {
        for good in ["demo", "Büro 2", "日本", "a.b", "...", "it's (mine)/x"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = "a".repeat(129);
        for bad in [
            "",
            " ",
            " demo",
            "demo\u{a0}",
            ".",
            "..",
            "a\u{202e}b",
            "a\u{200b}",
            "\u{feff}a",
            "a\nb",
            "a\u{1b}[0m",
            &long,
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
