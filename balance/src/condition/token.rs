//! The words of a condition. Knows where each stands; does not know what they mean together.

use super::Mistake;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A field, an operator, a function, a number or an address.
    Word(&'a str),
    /// What stands between `"` and `"`, as it is written.
    Text(&'a str),
    /// What stands in a raw text, which means what is written.
    Raw(&'a str),
    /// Anything else; operators of two characters are one.
    Sign(&'static str),
    End,
}

/// A condition that is read from its beginning.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a> {
    text: &'a str,
    /// What comes next, and where it begins, in bytes.
    next: Token<'a>,
    at: usize,
    /// Where that ends.
    end: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, Mistake> {
        let mut tokens = Self { text, next: Token::End, at: 0, end: 0 };
        tokens.advance()?;
        Ok(tokens)
    }

    pub(super) fn peek(&self) -> Token<'a> {
        self.next
    }

    pub(super) fn take(&mut self) -> Result<Token<'a>, Mistake> {
        let taken = self.next;
        self.advance()?;
        Ok(taken)
    }

    /// Takes a text.
    pub(super) fn text(&mut self) -> Result<String, Mistake> {
        let text = match self.next {
            Token::Raw(text) => text.to_owned(),
            Token::Text(text) => self.unescaped(text)?,
            Token::Word(_) | Token::Sign(_) | Token::End => {
                return Err(self.mistake(format!("a text in \"\" is missing before {}", self.seen())));
            }
        };
        self.advance()?;
        Ok(text)
    }

    /// Takes a regular expression, in which a backslash means what it means there.
    pub(super) fn pattern(&mut self) -> Result<String, Mistake> {
        let Token::Text(text) = self.next else { return self.text() };
        self.advance()?;
        Ok(text.replace("\\\"", "\""))
    }

    /// Takes `sign` if it comes next.
    pub(super) fn has(&mut self, sign: &str) -> Result<bool, Mistake> {
        let is_next = matches!(self.next, Token::Sign(next) if next == sign);
        if is_next {
            self.advance()?;
        }
        Ok(is_next)
    }

    /// Takes one of these, words or signs, if it comes next.
    pub(super) fn has_either(&mut self, word: &str, sign: &str) -> Result<bool, Mistake> {
        let is_next = matches!(self.next, Token::Word(next) if next == word);
        if is_next {
            self.advance()?;
        }
        Ok(is_next || self.has(sign)?)
    }

    pub(super) fn expect(&mut self, sign: &'static str, why: &str) -> Result<(), Mistake> {
        if self.has(sign)? {
            return Ok(());
        }
        Err(self.mistake(format!("`{sign}` is missing {why}, before {}", self.seen())))
    }

    /// Something is wrong with what comes next.
    pub(super) fn mistake(&self, what: impl Into<String>) -> Mistake {
        self.mistake_at(self.at, what)
    }

    pub(super) fn mistake_at(&self, at: usize, what: impl Into<String>) -> Mistake {
        let before = self.text.get(..at).unwrap_or(self.text);
        Mistake { at: before.chars().count() + 1, what: what.into() }
    }

    /// What comes next, for people.
    pub(super) fn seen(&self) -> String {
        match &self.next {
            Token::End => "the end".to_owned(),
            Token::Word(_) | Token::Text(_) | Token::Raw(_) | Token::Sign(_) => {
                let seen = &self.text[self.at..self.end];
                let short: String = seen.chars().take(SHOWN).collect();
                if short.len() < seen.len() { format!("`{short}…`") } else { format!("`{short}`") }
            }
        }
    }

    fn advance(&mut self) -> Result<(), Mistake> {
        let rest = &self.text[self.end..];
        let trimmed = rest.trim_start();
        self.at = self.end + rest.len() - trimmed.len();
        self.end = self.at;
        let Some(first) = trimmed.chars().next() else {
            self.next = Token::End;
            return Ok(());
        };
        if first == '"' {
            return self.escaped(trimmed);
        }
        if trimmed.starts_with("r\"") || trimmed.starts_with("r#") {
            return self.raw(trimmed);
        }
        if let Some(sign) = SIGNS.iter().find(|sign| trimmed.starts_with(**sign)) {
            (self.next, self.end) = (Token::Sign(sign), self.at + sign.len());
            return Ok(());
        }
        let length = trimmed.find(|char| !is_of_word(char)).unwrap_or(trimmed.len());
        if length == 0 {
            let hint = if first == '\'' || first == '“' { "; text stands between \"" } else { "" };
            return Err(self.mistake(format!("`{first}` means nothing here{hint}")));
        }
        (self.next, self.end) = (Token::Word(&trimmed[..length]), self.at + length);
        Ok(())
    }

    /// `"…"`; after a backslash nothing is its end.
    fn escaped(&mut self, rest: &'a str) -> Result<(), Mistake> {
        let mut is_escaped = false;
        for (at, byte) in rest.bytes().enumerate().skip(1) {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => {
                    (self.next, self.end) = (Token::Text(&rest[1..at]), self.at + at + 1);
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(self.mistake("the text that begins here has no end"))
    }

    /// `\"`, `\\` and `\xHH` stand for a character.
    fn unescaped(&self, text: &str) -> Result<String, Mistake> {
        let mut unescaped = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((plain, escaped)) = rest.split_once('\\') {
            unescaped.push_str(plain);
            let code = escaped.strip_prefix('x').and_then(|digits| digits.get(..2)).and_then(hexadecimal);
            let (char, length) = match (escaped.chars().next(), code) {
                (Some(char @ ('"' | '\\')), _) => (char, 1),
                (_, Some(code)) => (char::from(code), 3),
                _ => {
                    let at = self.at + 1 + text.len() - escaped.len() - 1;
                    let what = r#"after a backslash comes `"`, `\` or `xHH`; a raw text, r"…", has no backslashes to heed"#;
                    return Err(self.mistake_at(at, what));
                }
            };
            unescaped.push(char);
            rest = &escaped[length..];
        }
        unescaped.push_str(rest);
        Ok(unescaped)
    }

    /// `r"…"`, or `r#"…"#` with as many signs on both sides.
    fn raw(&mut self, rest: &'a str) -> Result<(), Mistake> {
        let signs = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
        let begins = 1 + signs + 1;
        if rest.as_bytes().get(begins - 1) != Some(&b'"') {
            return Err(self.mistake("a raw text is r\"…\" or r#\"…\"#"));
        }
        let ends = format!("\"{}", "#".repeat(signs));
        let Some(length) = rest[begins..].find(&ends) else {
            return Err(self.mistake(format!("the text that begins here has no end, which is `{ends}`")));
        };
        let text = &rest[begins..begins + length];
        (self.next, self.end) = (Token::Raw(text), self.at + begins + length + ends.len());
        Ok(())
    }
}

/// One ASCII character in two digits; what is beyond would be no text.
fn hexadecimal(digits: &str) -> Option<u8> {
    let are_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u8::from_str_radix(digits, 16).ok().filter(|code| are_digits && code.is_ascii())
}

/// Of fields, numbers, addresses, networks and ranges.
fn is_of_word(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '_' | '.' | ':' | '/' | '-')
}

/// The longer ones first.
const SIGNS: [&str; 20] = [
    "[*]", "==", "!=", "<=", ">=", "&&", "||", "^^", "<", ">", "!", "~", "(", ")", "[", "]", "{", "}", ",",
    "$",
];
/// Characters of a word that are shown.
const SHOWN: usize = 32;
