//! What an authority looks for, answered by every edge of a state. Only what an order that is under way has asked for
//! is answered; everything else is a request like any other.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, CustomExtension, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;

use crate::store::records::certificates::{Challenge, ChallengeKind};
use crate::store::timestamp::Timestamp;

/// All that is looked for now. Whoever answers looks once.
#[derive(Default)]
pub(crate) struct Challenges(ArcSwap<Table>);

#[derive(Default)]
struct Table {
    /// By token, with the host that it is for.
    http: HashMap<String, (String, String)>,
    /// By host.
    tls_alpn: HashMap<String, Arc<CertifiedKey>>,
    /// By host; a name and the wildcard beside it are looked for in the same place.
    dns: HashMap<String, Vec<String>>,
}

impl Challenges {
    /// Answers these from now on, and nothing else.
    pub(crate) fn replace<'c>(&self, all: impl Iterator<Item = &'c Challenge>, now: Timestamp) {
        let mut table = Table::default();
        for challenge in all.filter(|challenge| challenge.until > now) {
            let Challenge { host, token, answer, .. } = challenge;
            match challenge.kind {
                ChallengeKind::Http => {
                    table.http.insert(token.clone(), (host.clone(), answer.clone()));
                }
                ChallengeKind::TlsAlpn => {
                    if let Some(certified) = self_signed(host, answer) {
                        table.tls_alpn.insert(host.clone(), certified);
                    }
                }
                ChallengeKind::Dns => table.dns.entry(host.clone()).or_default().push(answer.clone()),
            }
        }
        self.0.store(Arc::new(table));
    }

    /// What is at this path of this host (RFC 8555 8.3), if an order under way has asked for it.
    pub(crate) fn over_http(&self, host: &str, path: &str) -> Option<String> {
        let token = path.strip_prefix(WELL_KNOWN)?;
        let table = self.0.load();
        let (known, answer) = table.http.get(token)?;
        let host = adit_address::host(host).ok()?;
        (*known == *host).then(|| answer.clone())
    }

    /// What a TLS client is shown that asks for this host by `acme-tls/1` alone (RFC 8737).
    pub(crate) fn over_tls(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.0.load().tls_alpn.get(host).cloned()
    }

    /// The texts of `_acme-challenge.` and this host (RFC 8555 8.4).
    pub(crate) fn over_dns(&self, host: &str) -> Vec<String> {
        self.0.load().dns.get(host).cloned().unwrap_or_default()
    }
}

/// A certificate that says nothing but the digest that is looked for.
fn self_signed(host: &str, answer: &str) -> Option<Arc<CertifiedKey>> {
    let digest = URL_SAFE_NO_PAD.decode(answer).ok()?;
    // The library asks for exactly so many.
    if digest.len() != 32 {
        return None;
    }
    let mut params = CertificateParams::new(vec![host.to_owned()]).ok()?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).ok()?;
    let certificate = params.self_signed(&key).ok()?;
    let chain = vec![certificate.der().clone()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let key = aws_lc_rs::default_provider().key_provider.load_private_key(key).ok()?;
    // Not held against each other: the library reads no certificate with such an extension.
    Some(Arc::new(CertifiedKey::new(chain, key)))
}

/// The one protocol of an authority that looks over TLS.
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";
/// Below this are tokens.
pub(crate) const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tls::leaf::Leaf;

    #[test]
    fn only_what_is_looked_for_is_answered_and_only_for_its_host() {
        let (all, now) = (Challenges::default(), Timestamp::now());
        let challenge = |kind, host: &str, token: &str, until| Challenge {
            kind,
            host: host.to_owned(),
            token: token.to_owned(),
            answer: URL_SAFE_NO_PAD.encode([token.len() as u8; 32]),
            until,
        };
        let later = now.after(Duration::from_secs(60));
        let given = [
            challenge(ChallengeKind::Http, "a.example", "token", later),
            challenge(ChallengeKind::Http, "over.example", "old", now),
            challenge(ChallengeKind::TlsAlpn, "t.example", "tt", later),
            challenge(ChallengeKind::Dns, "d.example", "one", later),
            challenge(ChallengeKind::Dns, "d.example", "three", later),
        ];
        all.replace(given.iter(), now);
        let path = |token: &str| format!("/.well-known/acme-challenge/{token}");
        assert_eq!(all.over_http("A.example:80", &path("token")).as_ref(), Some(&given[0].answer));
        for (host, token) in
            [("b.example", "token"), ("a.example", "other"), ("over.example", "old"), ("a.example", "")]
        {
            assert_eq!(all.over_http(host, &path(token)), None, "{host} {token}");
        }
        assert_eq!(all.over_http("a.example", "/token"), None);
        let shown = all.over_tls("t.example").unwrap();
        assert_eq!(Leaf::of(&shown.cert[0]).unwrap().names, ["t.example"]);
        assert!(all.over_tls("a.example").is_none());
        assert_eq!(all.over_dns("d.example").len(), 2);
        all.replace([].iter(), now);
        assert!(all.over_http("a.example", &path("token")).is_none() && all.over_tls("t.example").is_none());
    }
}
