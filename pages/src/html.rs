//! Markup. Only what stands in our own sources is markup; everything else is text, and stays text.

use std::fmt::Display;

/// A piece of a page.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Html(String);

impl Html {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Markup out of our sources: nobody can hand in what was read or put together.
    pub fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text, in an element or in an attribute with quotes. What turns the direction of what follows is shown as
    /// its number, and so is what no page shows.
    pub fn text(&mut self, text: impl AsRef<str>) -> &mut Self {
        for letter in text.as_ref().chars() {
            match letter {
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '&' => self.0.push_str("&amp;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                letter if is_unseen(letter) => {
                    self.0.push_str("\\u{");
                    self.0.push_str(&format!("{:x}", u32::from(letter)));
                    self.0.push('}');
                }
                letter => self.0.push(letter),
            }
        }
        self
    }

    /// The same of anything that has a text.
    pub fn show(&mut self, what: impl Display) -> &mut Self {
        self.text(what.to_string())
    }

    /// Another piece.
    pub fn add(&mut self, piece: &Self) -> &mut Self {
        self.0.push_str(&piece.0);
        self
    }

    /// The cell of a table.
    pub fn cell(&mut self, what: impl Display) -> &mut Self {
        self.raw("<td>").show(what).raw("</td>")
    }

    /// A link to a place of these pages.
    pub fn link(&mut self, to: impl Display, what: impl Display) -> &mut Self {
        self.raw("<a href=\"").show(to).raw("\">").show(what).raw("</a>")
    }

    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

/// Letters that change how others are read, and those that nobody sees.
fn is_unseen(letter: char) -> bool {
    (letter.is_control() && !matches!(letter, '\n' | '\t' | '\r'))
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_never_becomes_markup_and_never_turns_what_follows() {
        let mut page = Html::new();
        page.raw("<p title=\"")
            .text("\" onload='x' <script>&amp;")
            .raw("\">")
            .text("a\u{202e}b\u{0}\nc")
            .raw("</p>");
        assert_eq!(
            page.into_string(),
            "<p title=\"&quot; onload=&#39;x&#39; &lt;script&gt;&amp;amp;\">a\\u{202e}b\\u{0}\nc</p>"
        );
    }
}
