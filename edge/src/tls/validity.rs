//! Until when a certificate holds, read from the certificate (RFC 5280 4.1). Nothing else of it is looked at.

use rustls_pki_types::CertificateDer;
use yasna::models::{GeneralizedTime, UTCTime};
use yasna::tags::{TAG_GENERALIZEDTIME, TAG_UTCTIME};
use yasna::{ASN1Error, ASN1ErrorKind, ASN1Result, BERReader, Tag};

/// Its last second, since 1970; `None` of what cannot be read.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<i64> {
    let outer = yasna::parse_der(certificate, |certificate| {
        certificate.read_sequence(|parts| {
            let validity = parts.next().read_sequence(|fields| {
                // The version.
                fields.read_optional(|field| {
                    field.read_tagged(Tag::context(0), |version| version.read_der())
                })?;
                // Serial number, signature, issuer.
                for _ in 0..3 {
                    fields.next().read_der()?;
                }
                let until = fields.next().read_sequence(|times| {
                    times.next().read_der()?;
                    time(times.next())
                })?;
                // Subject and key; then what may be there.
                while fields.read_optional(|field| field.read_der())?.is_some() {}
                Ok(until)
            })?;
            // How it is signed.
            for _ in 0..2 {
                parts.next().read_der()?;
            }
            Ok(validity)
        })
    });
    outer.ok()
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

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read_before_and_after_2050() {
        let key = KeyPair::generate().unwrap();
        for (year, seconds) in [(2031, 1_924_992_000), (2051, 2_556_144_000)] {
            let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let certificate = params.self_signed(&key).unwrap();
            assert_eq!(not_after(certificate.der()), Some(seconds), "{year}");
            // Bytes that are missing or changed are no reason to fail otherwise.
            let whole = certificate.der().as_ref();
            for at in 0..whole.len() {
                assert_eq!(not_after(&CertificateDer::from(&whole[..at])), None, "{at}");
                let mut other = whole.to_vec();
                other[at] ^= 0xff;
                let _ = not_after(&CertificateDer::from(other));
            }
        }
    }
}
