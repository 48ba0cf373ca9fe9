//! What an operator says about the control API: where it listens, what it is shown by, and what each account may have.

use std::ops::Range;

use adit_config_reader::Spanned;

use super::document::CertificateFiles;
use super::{Api, Rules, Transport, document};

impl Rules<'_> {
    pub(super) fn api(&mut self, section: Spanned<document::Api>, has_acme: bool) -> Option<Api> {
        let span = section.span();
        let document::Api {
            listen,
            certificate,
            private_key,
            hostname,
            key_file: _,
            tunnel_domain,
            quick_domain,
            tunnels_per_account,
            records_per_account,
            state_per_account,
        } = section.into_inner();
        let share = self.share(tunnels_per_account, records_per_account, state_per_account);
        let hostname = hostname.and_then(|name| Some((name.span(), self.domain(name)?)));
        let is_issued = private_key.is_none()
            && certificate.as_ref().is_some_and(|file| file.get_ref().as_os_str() == ISSUED);
        let (identity, hostname) = if is_issued {
            let name = self.issued_for(&span, hostname, certificate.map(|file| file.span()), has_acme);
            (None, name)
        } else {
            if let Some((at, _)) = hostname {
                let help = "add certificate = \"acme\", or take the name away";
                self.mistakes.add_with_help(at, "a name for which no certificate is ordered", help);
            }
            (self.identity(&span, "[api]", CertificateFiles { certificate, private_key }), None)
        };
        let tunnel_domain = tunnel_domain.and_then(|domain| self.domain(domain));
        let quick_domain = quick_domain.and_then(|domain| self.domain(domain));
        let listen = self.required(&span, "listen", listen, "like \"127.0.0.1:20250\"")?;
        let listen = self.address(&listen, Transport::Tcp, "api.listen")?;
        Some(Api { listen, identity, hostname, tunnel_domain, quick_domain, share })
    }

    /// The name of the control API that an authority is to certify.
    fn issued_for(
        &mut self,
        table: &Range<usize>,
        hostname: Option<(Range<usize>, String)>,
        at: Option<Range<usize>>,
        has_acme: bool,
    ) -> Option<String> {
        if !has_acme && !self.mistakes.speaks_for(&(0..0), "acme") {
            let help = "add [acme] with your email, or write the name of a file, like \"./acme\"";
            let at = at.unwrap_or_else(|| table.clone());
            self.mistakes.add_with_help(at, "a certificate is to be ordered, but there is no [acme]", help);
        }
        if hostname.is_none() && !self.mistakes.speaks_for(table, "hostname") {
            self.mistakes.add_missing(table.clone(), "hostname", "like \"api.example.com\"");
        }
        hostname.map(|(_, name)| name)
    }
}

/// Instead of a file.
const ISSUED: &str = "acme";
