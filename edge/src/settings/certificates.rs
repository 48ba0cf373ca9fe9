//! Certificates that an operator gives: a pair of files each, read when the document is.

use std::ops::Range;

use adit_config_reader::Spanned;

use super::Rules;
use super::document::CertificateFiles;
use crate::certificates::Owned;
use crate::certificates::place::Use;
use crate::tls::{Identity, IdentityFiles};

impl Rules<'_> {
    pub(super) fn identity(
        &mut self,
        table: &Range<usize>,
        section: &str,
        files: CertificateFiles,
    ) -> Option<Owned> {
        match (files.certificate, files.private_key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let (at_chain, at_key) = (certificate.span(), key.span());
                let files = IdentityFiles {
                    chain: self.folder.join(certificate.into_inner()),
                    key: self.folder.join(key.into_inner()),
                };
                let chain = Identity::read_chain(&files.chain);
                let key = Identity::read_key(&files.key);
                let chain = chain.map_err(|error| self.mistakes.add(at_chain.clone(), error.to_string()));
                let key = key.map_err(|error| self.mistakes.add(at_key, error.to_string()));
                let identity = Identity::new(chain.ok()?, key.ok()?)
                    .map_err(|error| self.mistakes.add(at_chain, error.to_string()))
                    .ok()?;
                Some(Owned { identity, files })
            }
            (Some(alone), None) => {
                let help = format!("{section} needs both files, or neither for a development certificate");
                if !self.mistakes.speaks_for(table, "private-key") {
                    self.mistakes.add_with_help(alone.span(), "a certificate without `private-key`", help);
                }
                None
            }
            (None, Some(alone)) => {
                let help = format!("{section} needs both files, or neither for a development certificate");
                if !self.mistakes.speaks_for(table, "certificate") {
                    self.mistakes.add_with_help(alone.span(), "a private key without `certificate`", help);
                }
                None
            }
        }
    }

    /// Those that visitors are shown by name.
    pub(super) fn certificates(
        &mut self,
        tables: Vec<Spanned<CertificateFiles>>,
        has_https: bool,
    ) -> Vec<Owned> {
        let mut all = Vec::new();
        for table in tables {
            let span = table.span();
            if !has_https && !self.mistakes.speaks_for(&(0..0), "visitors") {
                let help = "add https = \"0.0.0.0:8443\" to [visitors], or take the certificate away";
                self.mistakes.add_with_help(
                    span.clone(),
                    "a certificate for visitors but no https address",
                    help,
                );
            }
            let files = table.into_inner();
            if files.certificate.is_none() && files.private_key.is_none() {
                self.required(&span, "certificate", None::<Spanned<String>>, "a PEM file with the chain");
                continue;
            }
            let Some(owned) = self.identity(&span, "[[certificate]]", files) else { continue };
            match Use::Name.judge(&owned.identity) {
                Ok(()) => all.push(owned),
                Err(message) => {
                    self.mistakes.add_with_help(span, message, "it needs subject alternative names");
                }
            }
        }
        all
    }
}
