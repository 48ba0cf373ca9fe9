//! What an authority looks for, answered by every edge of a state. Only what an order that is under way has asked for
//! is answered; everything else is a request like any other.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, CustomExtension, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::aws_lc_rs;
use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;

use crate::state::fresh::Fresh;
use crate::store::records::certificates::{Challenge, ChallengeKind};
use crate::store::timestamp::Timestamp;

/// All that is looked for now. Whoever answers looks once; a second time where another edge may have told the authority
/// a moment ago.
#[derive(Default)]
pub(crate) struct Challenges {
    table: ArcSwap<Table>,
    /// Where other edges may order.
    fresh: Option<Fresh>,
}

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
    /// What any edge of a state is asked for, by what the state says at that moment.
    pub(crate) fn of_state(fresh: Fresh) -> Self {
        Self { table: ArcSwap::default(), fresh: Some(fresh) }
    }

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
        self.table.store(Arc::new(table));
    }

    /// What is at this path of this host (RFC 8555 8.3), if an order under way has asked for it.
    pub(crate) fn over_http(&self, host: &str, path: &str) -> Option<String> {
        let token = path.strip_prefix(WELL_KNOWN)?;
        let table = self.table.load();
        let (known, answer) = table.http.get(token)?;
        let host = adit_address::host(host).ok()?;
        (*known == *host).then(|| answer.clone())
    }

    /// What a TLS client is shown that asks for this host by `acme-tls/1` alone (RFC 8737).
    pub(crate) fn over_tls(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.table.load().tls_alpn.get(host).cloned()
    }

    /// The texts of `_acme-challenge.` and this host (RFC 8555 8.4).
    pub(crate) fn over_dns(&self, host: &str) -> Vec<String> {
        self.table.load().dns.get(host).cloned().unwrap_or_default()
    }

    /// What is at this path of this host, also if another edge has ordered it this moment.
    pub(crate) async fn find_over_http(&self, host: &str, path: &str) -> Option<String> {
        let known = self.over_http(host, path);
        if known.is_some() || !path.strip_prefix(WELL_KNOWN).is_some_and(can_be_token) {
            return known;
        }
        self.catch_up().await;
        self.over_http(host, path)
    }

    /// Waits until what another edge has ordered for this host is known.
    pub(crate) async fn await_over_tls(&self, host: &str) {
        if self.over_tls(host).is_none() {
            self.catch_up().await;
        }
    }

    /// Whether it is worth waiting for another edge's word.
    pub(crate) fn can_catch_up(&self) -> bool {
        self.fresh.is_some()
    }

    /// Waits until what other edges had ordered before this is known.
    pub(crate) async fn catch_up(&self) {
        if let Some(fresh) = &self.fresh {
            fresh.wait().await;
        }
    }
}

/// RFC 8555 8.3: in the alphabet of base64url. Nothing else is worth a look at the state.
fn can_be_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=LONGEST_TOKEN).contains(&text.len()) && text.bytes().all(fits)
}

/// The host that a TLS client looks at as an authority does: by one protocol and no other (RFC 8737 3).
pub(crate) fn looked_for(hello: &ClientHello<'_>) -> Option<String> {
    hello.server_name().filter(|_| looks(hello)).map(str::to_ascii_lowercase)
}

/// Whether it looks so, with or without a host.
pub(crate) fn looks(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut all| all.next() == Some(ACME_TLS) && all.next().is_none())
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
const LONGEST_TOKEN: usize = 128;

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
