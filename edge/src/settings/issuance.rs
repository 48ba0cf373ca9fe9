//! What an operator says about the authority that certificates are ordered from.

use std::ops::Range;
use std::path::PathBuf;

use adit_config_reader::Spanned;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::CertificateDer;

use super::{Rules, document};
use crate::issuance::budget::{IN_ALL, Limits, PER_ACCOUNT, PER_ZONE};
use crate::issuance::{ExternalAccount, Terms};
use crate::store::records::certificates::ChallengeKind;
use crate::tls::Identity;

/// What else the document has, as far as certificates depend on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around {
    pub(super) has_api: bool,
    pub(super) has_http: bool,
    pub(super) has_https: bool,
    pub(super) has_dns: bool,
}

impl Rules<'_> {
    pub(super) fn acme(&mut self, section: Option<Spanned<document::Acme>>, around: Around) -> Option<Terms> {
        let section = section?;
        let span = section.span();
        let document::Acme {
            email,
            directory,
            directory_ca,
            external_account,
            external_account_key_file,
            challenges,
            addresses,
            resolver,
            key_file: _,
            orders_per_zone,
            orders_per_account,
            orders_per_minute,
        } = section.into_inner();
        if !around.has_api {
            let help = "add [api]: certificates and accounts are kept in the state, which comes with it";
            self.mistakes.add_with_help(span.clone(), "an authority but no [api]", help);
        }
        if !around.has_https && !self.mistakes.speaks_for(&(0..0), "visitors") {
            let help = "add https = \"0.0.0.0:443\" to [visitors], or take [acme] away";
            self.mistakes.add_with_help(span.clone(), "an authority but no https address", help);
        }
        let email = email.and_then(|email| {
            let is_address = |text: &str| {
                text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
                    && text.bytes().all(|byte| byte.is_ascii_graphic())
            };
            if is_address(email.get_ref()) {
                return Some(email.into_inner());
            }
            let message = format!("`{}` is no address of mail", email.get_ref().escape_debug());
            self.mistakes.add_with_help(email.span(), message, "write it like \"you@example.com\"");
            None
        });
        let directory = match directory {
            None => LETS_ENCRYPT.to_owned(),
            Some(url) => {
                let is_good = url.get_ref().parse::<http::Uri>().is_ok_and(|parsed| {
                    parsed.scheme_str() == Some("https") && parsed.host().is_some_and(|host| !host.is_empty())
                });
                if !is_good {
                    let message = format!("`{}` is no URL of an authority", url.get_ref().escape_debug());
                    let help = format!("write the URL of its directory, such as \"{LETS_ENCRYPT}\"");
                    self.mistakes.add_with_help(url.span(), message, help);
                }
                url.into_inner()
            }
        };
        let ca: Vec<CertificateDer<'static>> = directory_ca
            .and_then(|file| {
                let chain = Identity::read_chain(&self.folder.join(file.get_ref()));
                chain.map_err(|error| self.mistakes.add(file.span(), error.to_string())).ok()
            })
            .unwrap_or_default();
        let challenges = self.challenges(challenges, around);
        let external = self.external_account(&span, external_account, external_account_key_file);
        let addresses = addresses.map_or_else(Vec::new, Spanned::into_inner).into_iter();
        let addresses = addresses.filter_map(|text| {
            let message = || format!("`{}` is no IP address", text.get_ref().escape_debug());
            text.get_ref().parse().map_err(|_| self.mistakes.add(text.span(), message())).ok()
        });
        let addresses = addresses.collect();
        let resolver = resolver.and_then(|text| {
            let message = || format!("`{}` is no address of a name server", text.get_ref().escape_debug());
            let help = "write IP and port, like \"192.0.2.53:53\"";
            let parsed = text.get_ref().parse();
            parsed.map_err(|_| self.mistakes.add_with_help(text.span(), message(), help)).ok()
        });
        let limits = Limits {
            per_zone: self.orders(orders_per_zone, PER_ZONE),
            per_account: self.orders(orders_per_account, PER_ACCOUNT),
            in_all: self.orders(orders_per_minute, IN_ALL),
        };
        Some(Terms {
            directory,
            email,
            ca,
            external,
            challenges,
            zones: Vec::new(),
            addresses,
            resolver,
            limits,
        })
    }

    /// By which an authority knows a customer whom it has given a key.
    fn external_account(
        &mut self,
        table: &Range<usize>,
        id: Option<Spanned<String>>,
        file: Option<Spanned<PathBuf>>,
    ) -> Option<ExternalAccount> {
        let (id, file) = match (id, file) {
            (None, None) => return None,
            (Some(id), Some(file)) => (id, file),
            (Some(_), None) => {
                let help = "a file with the key that the authority has given you, in base64url";
                self.required(table, "external-account-key-file", None::<Spanned<PathBuf>>, help);
                return None;
            }
            (None, Some(_)) => {
                let help = "the key's id, as the authority has given it to you";
                self.required(table, "external-account", None::<Spanned<String>>, help);
                return None;
            }
        };
        let read = adit_files::read_text(&self.folder.join(file.get_ref()), LARGEST_KEY);
        let key = match read {
            Ok(text) => {
                // Some give it in the other alphabet, or with what fills it up.
                let text = text.trim().trim_end_matches('=').replace('+', "-").replace('/', "_");
                URL_SAFE_NO_PAD.decode(text).ok().filter(|key| key.len() >= SHORTEST_KEY)
            }
            Err(error) => {
                self.mistakes.add(file.span(), format!("reading {}: {error}", file.get_ref().display()));
                return None;
            }
        };
        if key.is_none() {
            let message = format!("{} holds no key of an external account", file.get_ref().display());
            let help =
                "it has the key (HMAC) that the authority has given you, in base64url, and nothing else";
            self.mistakes.add_with_help(file.span(), message, help);
        }
        if id.get_ref().is_empty() {
            self.mistakes.add(id.span(), "an external account has an id");
        }
        Some(ExternalAccount { id: id.into_inner(), key: key? })
    }

    /// The first that an authority offers is used.
    fn challenges(
        &mut self,
        written: Option<Spanned<Vec<Spanned<String>>>>,
        around: Around,
    ) -> Vec<ChallengeKind> {
        let possible = [
            (ChallengeKind::Http, "http-01", around.has_http, "http in [visitors]"),
            (ChallengeKind::TlsAlpn, "tls-alpn-01", around.has_https, "https in [visitors]"),
            (ChallengeKind::Dns, "dns-01", around.has_dns, "[dns], which is not there"),
        ];
        let Some(written) = written else {
            let usual = possible.iter().filter(|(_, _, is_possible, _)| *is_possible);
            return usual.map(|(kind, ..)| *kind).collect();
        };
        let span = written.span();
        let mut all = Vec::new();
        for word in written.into_inner() {
            match possible.iter().find(|(_, name, ..)| name == word.get_ref()) {
                Some((kind, _, true, _)) => all.push(*kind),
                Some((_, name, false, needs)) => {
                    self.mistakes.add(word.span(), format!("{name} needs {needs}"));
                }
                None => {
                    let message = format!("`{}` is no challenge", word.get_ref().escape_debug());
                    let help = "write \"http-01\", \"tls-alpn-01\" or \"dns-01\"";
                    self.mistakes.add_with_help(word.span(), message, help);
                }
            }
        }
        if all.is_empty() {
            self.mistakes.add(span, "there is no way left for an authority to see whether a name leads here");
        }
        all
    }

    fn orders(&mut self, written: Option<Spanned<i64>>, usual: usize) -> usize {
        let Some(written) = written else { return usual };
        match usize::try_from(*written.get_ref()) {
            Ok(number) if (1..=MOST_ORDERS).contains(&number) => number,
            _ => {
                let message = format!("{} is out of range, expected 1 to {MOST_ORDERS}", written.get_ref());
                self.mistakes.add(written.span(), message);
                usual
            }
        }
    }
}

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const MOST_ORDERS: usize = 10_000;
const LARGEST_KEY: usize = 4096;
/// Bytes: RFC 2104 asks for no less than this of a good key.
const SHORTEST_KEY: usize = 16;
