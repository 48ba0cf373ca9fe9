//! Connections of visitors who may say by a certificate who they are: for which name each was made, and what came with
//! it. What is checked by the name of the handshake counts for that name alone: a request for another one is misdirected.
//! Knows certificates; does not know who is let in.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use super::error_page::Problem;
use crate::certificates::place::moment;
use crate::tls::distinguished;
use crate::tls::leaf::Leaf;

/// What a name wants of its visitors' certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CertificateWish {
    /// Which of [`Secure`](super::Secure)'s verifiers says who is believed.
    pub(crate) verifier: usize,
    pub(crate) is_required: bool,
}

/// One connection over which a certificate was asked for.
pub(crate) struct Identified {
    /// The host of the handshake, as [`adit_address::host`] has it.
    host: String,
    has_certificate: bool,
    /// What its requests tell the origin.
    facts: Vec<(HeaderName, HeaderValue)>,
}

impl Identified {
    /// A connection for `host`, over which the first of `chain` was verified, if there is any.
    pub(crate) fn new(host: String, chain: Option<&[CertificateDer<'_>]>) -> Self {
        let leaf = chain.and_then(|chain| chain.first());
        Self { host, has_certificate: leaf.is_some(), facts: facts(leaf) }
    }
}

/// What a request for `host` tells of its visitor's certificate.
///
/// # Errors
/// It must not come over this connection.
pub(crate) fn told<'c>(
    wanted: CertificateWish,
    connection: Option<&'c Identified>,
    host: &str,
    is_over_tls: bool,
) -> Result<&'c [(HeaderName, HeaderValue)], Problem> {
    match connection.filter(|connection| connection.host == host) {
        Some(connection) if connection.has_certificate || !wanted.is_required => Ok(&connection.facts),
        // The visitor can make another one.
        None if is_over_tls => Err(Problem::Misdirected),
        None if !wanted.is_required => Ok(&[]),
        Some(_) | None => Err(Problem::NoCertificate),
    }
}

fn facts(leaf: Option<&CertificateDer<'_>>) -> Vec<(HeaderName, HeaderValue)> {
    let is_there = HeaderValue::from_static(if leaf.is_some() { "true" } else { "false" });
    let mut all = vec![(PRESENTED, is_there.clone()), (VERIFIED, is_there)];
    let Some(certificate) = leaf else { return all };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut add = |name: HeaderName, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            all.push((name, value));
        }
    };
    // RFC 9440 2.1.
    add(CLIENT_CERT, format!(":{}:", STANDARD.encode(certificate)));
    add(FINGERPRINT, hex(&Sha256::digest(certificate)));
    if let Some(leaf) = Leaf::of(certificate) {
        add(SERIAL, hex(&leaf.serial));
        add(NOT_BEFORE, moment(leaf.not_before).to_string());
        add(NOT_AFTER, moment(leaf.not_after).to_string());
    }
    if let Some((subject, issuer)) = distinguished::names(certificate) {
        add(SUBJECT, subject);
        add(ISSUER, issuer);
    }
    all
}

const PRESENTED: HeaderName = HeaderName::from_static("cf-cert-presented");
const VERIFIED: HeaderName = HeaderName::from_static("cf-cert-verified");
const FINGERPRINT: HeaderName = HeaderName::from_static("cf-cert-fingerprint-sha256");
const SERIAL: HeaderName = HeaderName::from_static("cf-cert-serial");
const NOT_BEFORE: HeaderName = HeaderName::from_static("cf-cert-not-before");
const NOT_AFTER: HeaderName = HeaderName::from_static("cf-cert-not-after");
const SUBJECT: HeaderName = HeaderName::from_static("cf-cert-subject-dn");
const ISSUER: HeaderName = HeaderName::from_static("cf-cert-issuer-dn");
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_for_one_name_counts_for_no_other() {
        let certificate = CertificateDer::from(b"any".to_vec());
        let with = Identified::new("a.test".to_owned(), Some(std::slice::from_ref(&certificate)));
        let without = Identified::new("a.test".to_owned(), None);
        let required = CertificateWish { verifier: 0, is_required: true };
        let optional = CertificateWish { is_required: false, ..required };
        for (wanted, connection, host, is_over_tls, outcome) in [
            (required, Some(&with), "a.test", true, Ok("true")),
            (required, Some(&with), "b.test", true, Err(Problem::Misdirected)),
            (required, Some(&without), "a.test", true, Err(Problem::NoCertificate)),
            (required, None, "a.test", true, Err(Problem::Misdirected)),
            (required, None, "a.test", false, Err(Problem::NoCertificate)),
            (optional, Some(&with), "a.test", true, Ok("true")),
            (optional, Some(&without), "a.test", true, Ok("false")),
            (optional, Some(&with), "b.test", true, Err(Problem::Misdirected)),
            (optional, None, "a.test", true, Err(Problem::Misdirected)),
            (optional, None, "a.test", false, Ok("")),
        ] {
            let told = told(wanted, connection, host, is_over_tls);
            let told = told.map(|facts| facts.first().map_or("", |(_, value)| value.to_str().unwrap()));
            assert_eq!(told, outcome, "{wanted:?} {host} {is_over_tls}");
        }
    }
}
