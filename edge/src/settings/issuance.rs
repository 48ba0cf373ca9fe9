//! What an operator says about the authority that certificates are ordered from.

use std::path::Path;

use adit_config_reader::Spanned;
use rustls_pki_types::CertificateDer;

use super::{Rules, document};
use crate::certificates::seal::SealKeys;
use crate::issuance::budget::{IN_ALL, Limits, PER_ACCOUNT, PER_ZONE};
use crate::issuance::{Keys, Terms};
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
    pub(super) fn acme(
        &mut self,
        section: Option<Spanned<document::Acme>>,
        around: Around,
        data_dir: &Path,
    ) -> Option<Terms> {
        let section = section?;
        let span = section.span();
        let document::Acme {
            email,
            directory,
            directory_ca,
            challenges,
            key_file,
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
        let keys = match key_file {
            None => Keys::Made(data_dir.join(KEY_FILE)),
            Some(file) => match SealKeys::read(&self.folder.join(file.get_ref())) {
                Ok(keys) => Keys::Given(keys),
                Err(error) => {
                    let help = "make one with: openssl rand -base64 32 > seal.key";
                    self.mistakes.add_with_help(file.span(), error.to_string(), help);
                    Keys::Made(data_dir.join(KEY_FILE))
                }
            },
        };
        let limits = Limits {
            per_zone: self.orders(orders_per_zone, PER_ZONE),
            per_account: self.orders(orders_per_account, PER_ACCOUNT),
            in_all: self.orders(orders_per_minute, IN_ALL),
        };
        Some(Terms { directory, email, ca, challenges, zones: Vec::new(), limits, keys })
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
/// In the data folder, where the document names no other.
const KEY_FILE: &str = "seal.key";
const MOST_ORDERS: usize = 10_000;
