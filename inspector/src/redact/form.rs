//! Pairs of names and values as queries and forms have them (WHATWG URL, 5.1), and single encoded texts.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::{Writer, is_secret_name};

impl Writer<'_> {
    /// `a=1&b=2`, with `;` between them too; in a form a `+` is a blank.
    pub(super) fn pairs(&mut self, pairs: &str, is_form: bool) {
        let mut rest = pairs;
        loop {
            let end = rest.find(['&', ';']).unwrap_or(rest.len());
            let (pair, behind) = rest.split_at(end);
            self.pair(pair, is_form);
            let Some(separator) = behind.chars().next() else { return };
            self.push(if separator == '&' { "&" } else { ";" });
            rest = &behind[1..];
        }
    }

    fn pair(&mut self, pair: &str, is_form: bool) {
        let Some((name, value)) = pair.split_once('=') else { return self.encoded(pair, is_form) };
        self.encoded(name, is_form);
        self.push("=");
        if is_secret_name(&decoded(name, is_form)) {
            self.mark(value);
        } else {
            self.encoded(value, is_form);
        }
    }

    /// A text in percent encoding; what is in it may be encoded once more, as an address within an address is.
    pub(super) fn encoded(&mut self, text: &str, is_form: bool) {
        let mut meant = decoded(text, is_form).into_owned();
        for _ in 0..MOST_CODINGS {
            let once_more = decoded(&meant, false);
            if once_more == meant {
                break;
            }
            meant = once_more.into_owned();
        }
        self.within(text, &meant, |writer, meant| writer.value(meant));
    }

    /// A value that may be of any kind.
    pub(super) fn value(&mut self, text: &str) {
        if text.trim_start().starts_with(['{', '[']) { self.json(text) } else { self.plain(text) }
    }
}

fn decoded(text: &str, is_form: bool) -> Cow<'_, str> {
    if is_form && text.contains('+') {
        let text = text.replace('+', " ");
        return percent_decode_str(&text).decode_utf8_lossy().into_owned().into();
    }
    percent_decode_str(text).decode_utf8_lossy()
}

/// How often something may be encoded and is still understood.
const MOST_CODINGS: usize = 3;
