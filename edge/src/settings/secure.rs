//! What an operator wants of visitors: how old their TLS may be, and of which names they come over TLS and remember to.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use adit_config_reader::Spanned;
use http::HeaderValue;
use rustls::server::danger::ClientCertVerifier;

use super::{Rules, document};
use crate::tls::{Identity, TlsPolicy, visitors};
use crate::visitor::{CertificateWish, Secure, Wish};

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
        let (mut known, mut all, mut verifiers) = (HashMap::new(), Vec::new(), Vec::new());
        for table in tables {
            let span = table.span();
            let document::Name { hostnames, redirect, hsts_days, client_certificate, client_ca } =
                table.into_inner();
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
            let certificate = if client_certificate.is_some() || client_ca.is_some() {
                let Some((is_required, verifier)) = self.verifier(&span, client_certificate, client_ca)
                else {
                    continue;
                };
                verifiers.push(verifier);
                Some(CertificateWish { verifier: verifiers.len() - 1, is_required })
            } else {
                None
            };
            if redirect || hsts.is_some() || certificate.is_some() {
                let wish = Wish { redirect, hsts, certificate };
                let hostnames = hostnames.map_or_else(Vec::new, Spanned::into_inner).into_iter();
                let hostnames = hostnames.filter_map(|name| self.hostname(name, &mut known));
                all.extend(hostnames.map(|name| (name, wish.clone())).collect::<Vec<_>>());
            } else {
                let help = "write redirect = true, hsts-days = 365, or client-certificate = \"required\" with client-ca";
                self.mistakes.add_with_help(span, "nothing is wanted of these names", help);
            }
        }
        Secure::new(all, verifiers)
    }

    /// Whether visitors need a certificate, and which are believed.
    fn verifier(
        &mut self,
        table: &Range<usize>,
        word: Option<Spanned<String>>,
        file: Option<Spanned<PathBuf>>,
    ) -> Option<(bool, Arc<dyn ClientCertVerifier>)> {
        let word = word.or_else(|| {
            let help = "\"required\", or \"optional\" if visitors without one are let in, too";
            self.required(table, "client-certificate", None, help)
        });
        let file = self.required(
            table,
            "client-ca",
            file,
            "a PEM file with the authority of the visitors' certificates",
        );
        let word = word?;
        let is_required = match word.get_ref().as_str() {
            "required" => true,
            "optional" => false,
            other => {
                let message = format!("`{}` says nothing about certificates", other.escape_debug());
                let help = "write \"required\", or \"optional\" if visitors without one are let in, too";
                self.mistakes.add_with_help(word.span(), message, help);
                return None;
            }
        };
        let file = file?;
        let authorities = Identity::read_chain(&self.folder.join(file.get_ref()));
        let verifier = authorities.map_err(|error| error.to_string());
        let verifier = verifier.and_then(|authorities| visitors::client_verifier(authorities, is_required));
        verifier
            .map(|verifier| (is_required, verifier))
            .map_err(|error| self.mistakes.add(file.span(), error))
            .ok()
    }
}

/// Two years, as browsers' own lists want it; 0 has them forget.
const MOST_DAYS: i64 = 730;
const SECONDS_A_DAY: i64 = 24 * 60 * 60;
