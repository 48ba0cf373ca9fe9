use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rcgen::{Certificate, Issuer};

use super::*;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// As `openssl req -x509` makes it: an authority, and a server of these names.
fn made(names: &[&str], is_ca: bool, years: std::ops::Range<i32>) -> Certificate {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap()
}

fn asked(listed: &Certificate, shown: &CertificateDer<'_>, name: &str) -> Result<(), Error> {
    let mut roots = RootCertStore::empty();
    roots.add(listed.der().clone()).unwrap();
    let name = ServerName::try_from(name).unwrap();
    let verifier = by_roots(Arc::new(roots), &provider());
    verifier.verify_server_cert(shown, &[], &name, &[], UnixTime::now()).map(|_| ())
}

#[test]
fn a_certificate_that_is_listed_is_believed_whatever_its_place_in_a_chain_would_be() {
    for is_ca in [true, false] {
        let one = made(&["a.example.com", "127.0.0.1"], is_ca, 2020..2090);
        for name in ["a.example.com", "127.0.0.1"] {
            asked(&one, one.der(), name).unwrap_or_else(|error| panic!("{is_ca} {name}: {error}"));
        }
        // It is believed for what it names, and so is every other only if it is listed.
        assert!(matches!(
            asked(&one, one.der(), "b.example.com"),
            Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }))
        ));
        let other = made(&["a.example.com"], is_ca, 2020..2090);
        assert!(matches!(
            asked(&one, other.der(), "a.example.com"),
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature))
        ));
        // One that names nobody was listed for the server that has it.
        let bare = made(&[], is_ca, 2020..2090);
        asked(&bare, bare.der(), "anything.example.com").unwrap();
        // What is over is over.
        let over = made(&["a.example.com"], is_ca, 2010..2020);
        assert!(matches!(
            asked(&over, over.der(), "a.example.com"),
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext { .. }))
        ));
    }
}

#[test]
fn a_listed_certificate_of_an_authority_that_is_not_is_believed_too() {
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "authority");
    let issuer = Issuer::new(authority, ca_key);
    let leaf =
        CertificateParams::new(vec!["a.example.com".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    asked(&leaf, leaf.der(), "a.example.com").unwrap();
}

#[test]
fn without_any_root_nothing_is_believed() {
    let one = made(&["a.example.com"], true, 2020..2090);
    let verifier = by_roots(Arc::new(RootCertStore::empty()), &provider());
    let name = ServerName::try_from("a.example.com").unwrap();
    assert!(verifier.verify_server_cert(one.der(), &[], &name, &[], UnixTime::now()).is_err());
}
