//! Text that guests wrote, made fit for one line of a log: short, and without control characters
//! that could forge a line or paint a terminal.

use std::borrow::Cow;

/// Cuts `text` to at most `limit` bytes and shows control characters as escapes.
pub(super) fn printable(text: &str, limit: usize) -> Cow<'_, str> {
    let text = &text[..text.floor_char_boundary(limit)];
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters_and_its_control_characters_are_shown() {
        for (text, limit, expected) in [
            ("plain", 10, "plain"),
            ("plain", 3, "pla"),
            ("aéé", 4, "aé"),
            ("one\nERROR two", 20, "one\\nERROR two"),
            ("\u{1b}[31mred", 20, "\\u{1b}[31mred"),
        ] {
            assert_eq!(printable(text, limit), expected, "{text:?}");
        }
    }
}
