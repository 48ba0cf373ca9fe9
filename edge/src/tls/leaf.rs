//! What a certificate says of itself (RFC 5280 4.1): until when it holds, for which names, and by what its authority
//! knows it. Does not judge any of it.

use rustls_pki_types::CertificateDer;
use yasna::models::{GeneralizedTime, ObjectIdentifier, UTCTime};
use yasna::tags::{TAG_GENERALIZEDTIME, TAG_UTCTIME};
use yasna::{ASN1Error, ASN1ErrorKind, ASN1Result, BERReader, Tag};

/// What is read of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Leaf {
    /// Its first and its last second, since 1970.
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    /// The bytes of its serial number, as they are encoded.
    pub(crate) serial: Vec<u8>,
    /// Host names in lower case, wildcards included.
    pub(crate) names: Vec<String>,
    /// By which its authority's key is known, if it says so.
    pub(crate) authority_key: Option<Vec<u8>>,
}

impl Leaf {
    /// `None` of what cannot be read.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let outer = yasna::parse_der(certificate, |certificate| {
            certificate.read_sequence(|parts| {
                let leaf = parts.next().read_sequence(|fields| {
                    // The version.
                    fields.read_optional(|field| {
                        field.read_tagged(Tag::context(0), |version| version.read_der())
                    })?;
                    let serial = fields.next().read_tagged_der()?.value().to_vec();
                    // Signature, issuer.
                    for _ in 0..2 {
                        fields.next().read_der()?;
                    }
                    let (not_before, not_after) = fields
                        .next()
                        .read_sequence(|times| Ok((time(times.next())?, time(times.next())?)))?;
                    let mut leaf = Self { not_before, not_after, serial, ..Self::default() };
                    // Subject and key; then what may be there.
                    while let Some(field) = fields.read_optional(|field| field.read_der())? {
                        if field.first() == Some(&EXTENSIONS) {
                            leaf.read_extensions(&field)?;
                        }
                    }
                    Ok(leaf)
                })?;
                // How it is signed.
                for _ in 0..2 {
                    parts.next().read_der()?;
                }
                Ok(leaf)
            })
        });
        outer.ok()
    }

    fn read_extensions(&mut self, field: &[u8]) -> ASN1Result<()> {
        let (names_id, authority_id) =
            (ObjectIdentifier::from_slice(&[2, 5, 29, 17]), ObjectIdentifier::from_slice(&[2, 5, 29, 35]));
        yasna::parse_der(field, |field| {
            field.read_tagged(Tag::context(3), |list| {
                list.read_sequence_of(|extension| {
                    let (id, value) = extension.read_sequence(|parts| {
                        let id = parts.next().read_oid()?;
                        parts.read_optional(|critical| critical.read_bool())?;
                        Ok((id, parts.next().read_bytes()?))
                    })?;
                    if id == names_id {
                        self.names = names(&value)?;
                    } else if id == authority_id {
                        self.authority_key = authority_key(&value)?;
                    }
                    Ok(())
                })
            })
        })
    }
}

fn names(value: &[u8]) -> ASN1Result<Vec<String>> {
    let all = yasna::parse_der(value, |list| list.collect_sequence_of(|name| name.read_tagged_der()))?;
    let hosts = all.iter().filter(|name| name.tag() == Tag::context(2));
    let hosts = hosts.filter_map(|name| std::str::from_utf8(name.value()).ok());
    Ok(hosts.map(|name| name.trim_end_matches('.').to_ascii_lowercase()).collect())
}

fn authority_key(value: &[u8]) -> ASN1Result<Option<Vec<u8>>> {
    let parts = yasna::parse_der(value, |list| list.collect_sequence_of(|part| part.read_tagged_der()))?;
    Ok(parts.iter().find(|part| part.tag() == Tag::context(0)).map(|part| part.value().to_vec()))
}

fn time(field: BERReader<'_, '_>) -> ASN1Result<i64> {
    match field.lookahead_tag()? {
        TAG_UTCTIME => field.read_utctime().map(|time: UTCTime| time.datetime().unix_timestamp()),
        TAG_GENERALIZEDTIME => {
            field.read_generalized_time().map(|time: GeneralizedTime| time.datetime().unix_timestamp())
        }
        _ => Err(ASN1Error::new(ASN1ErrorKind::Invalid)),
    }
}

/// How the field of extensions begins.
const EXTENSIONS: u8 = 0xa3;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, Issuer, KeyPair};

    use super::*;

    #[test]
    fn what_a_certificate_says_is_read_before_and_after_2050() {
        let key = KeyPair::generate().unwrap();
        for (year, seconds) in [(2031, 1_924_992_000), (2051, 2_556_144_000)] {
            let names = vec!["A.example".to_owned(), "*.b.example".to_owned(), "127.0.0.1".to_owned()];
            let mut params = CertificateParams::new(names).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.serial_number = Some(vec![0x7f, 1, 2].into());
            params.use_authority_key_identifier_extension = true;
            let authority = Issuer::new(CertificateParams::default(), KeyPair::generate().unwrap());
            let certificate = params.signed_by(&key, &authority).unwrap();
            let leaf = Leaf::of(certificate.der()).unwrap();
            assert_eq!((leaf.not_before, leaf.not_after), (978_307_200, seconds), "{year}");
            assert_eq!(leaf.names, ["a.example", "*.b.example"]);
            assert_eq!(leaf.serial, [0x7f, 1, 2]);
            assert_eq!(leaf.authority_key.map(|key| key.len()), Some(20));
            // Bytes that are missing or changed are no reason to fail otherwise.
            let whole = certificate.der().as_ref();
            for at in 0..whole.len() {
                assert_eq!(Leaf::of(&CertificateDer::from(&whole[..at])), None, "{at}");
                let mut other = whole.to_vec();
                other[at] ^= 0xff;
                let _ = Leaf::of(&CertificateDer::from(other));
            }
        }
    }
}
