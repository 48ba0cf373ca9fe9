//! What an operator wants of visitors: how old their TLS may be, and of which names they come over TLS and remember to.

use std::collections::HashMap;

use adit_config_reader::Spanned;
use http::HeaderValue;

use super::{Rules, document};
use crate::tls::TlsPolicy;
use crate::visitor::{Secure, Wish};

impl Rules<'_> {
    pub(super) fn policy(&mut self, word: Option<Spanned<String>>) -> TlsPolicy {
        let Some(word) = word else { return TlsPolicy::default() };
        match word.get_ref().as_str() {
            "intermediate" => TlsPolicy::Intermediate,
            "modern" => TlsPolicy::Modern,
            other => {
                let message = format!("`{}` is no policy", other.escape_debug());
                let help = "write \"intermediate\" (TLS 1.2 and 1.3) or \"modern\" (TLS 1.3)";
                self.mistakes.add_with_help(word.span(), message, help);
                TlsPolicy::default()
            }
        }
    }

    pub(super) fn secure(&mut self, tables: Vec<Spanned<document::Name>>, has_https: bool) -> Secure {
        let (mut known, mut all) = (HashMap::new(), Vec::new());
        for table in tables {
            let span = table.span();
            let document::Name { hostnames, redirect, hsts_days } = table.into_inner();
            if !has_https && !self.mistakes.speaks_for(&(0..0), "visitors") {
                let help = "add https = \"0.0.0.0:443\" to [visitors]";
                self.mistakes.add_with_help(
                    span.clone(),
                    "TLS is wanted but there is no https address",
                    help,
                );
            }
            let help = "like [\"app.example.com\", \"*.example.com\"]";
            let hostnames = self.required(&span, "hostnames", hostnames, help);
            let hsts = hsts_days.and_then(|days| {
                if (0..=MOST_DAYS).contains(days.get_ref()) {
                    let seconds = *days.get_ref() * SECONDS_A_DAY;
                    return HeaderValue::from_str(&format!("max-age={seconds}")).ok();
                }
                let message = format!("{} is out of range, expected 0 to {MOST_DAYS}", days.get_ref());
                self.mistakes.add(days.span(), message);
                None
            });
            let redirect = redirect.is_some_and(Spanned::into_inner);
            if redirect || hsts.is_some() {
                let wish = Wish { redirect, hsts };
                let hostnames = hostnames.map_or_else(Vec::new, Spanned::into_inner).into_iter();
                let hostnames = hostnames.filter_map(|name| self.hostname(name, &mut known));
                all.extend(hostnames.map(|name| (name, wish.clone())).collect::<Vec<_>>());
            } else {
                let help = "write redirect = true, hsts-days = 365 or both";
                self.mistakes.add_with_help(span, "nothing is wanted of these names", help);
            }
        }
        Secure::new(all)
    }
}

/// Two years, as browsers' own lists want it; 0 has them forget.
const MOST_DAYS: i64 = 730;
const SECONDS_A_DAY: i64 = 24 * 60 * 60;
