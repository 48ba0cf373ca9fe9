//! Whose a certificate is and who issued it, as one line each (RFC 4514). What is in it was written by strangers: the
//! line has only characters that can be printed.

use std::fmt::Write as _;

use rustls_pki_types::CertificateDer;
use yasna::models::{ObjectIdentifier, TaggedDerValue};
use yasna::tags::{TAG_BMPSTRING, TAG_IA5STRING, TAG_PRINTABLESTRING, TAG_UTF8STRING};
use yasna::{ASN1Result, Tag, TagClass};

/// Subject and issuer; `None` of what cannot be read.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> Option<(String, String)> {
    let found = yasna::parse_der(certificate, |certificate| {
        certificate.read_sequence(|parts| {
            let found = parts.next().read_sequence(|fields| {
                // The version.
                fields.read_optional(|field| {
                    field.read_tagged(Tag::context(0), |version| version.read_der())
                })?;
                // Serial number and signature.
                for _ in 0..2 {
                    fields.next().read_der()?;
                }
                let issuer = fields.next().read_der()?;
                // Its times.
                fields.next().read_der()?;
                let subject = fields.next().read_der()?;
                while fields.read_optional(|field| field.read_der())?.is_some() {}
                Ok((subject, issuer))
            })?;
            // How it is signed.
            for _ in 0..2 {
                parts.next().read_der()?;
            }
            Ok(found)
        })
    });
    let (subject, issuer) = found.ok()?;
    Some((line(&subject).ok()?, line(&issuer).ok()?))
}

type Attribute = (ObjectIdentifier, TaggedDerValue);

fn line(name: &[u8]) -> ASN1Result<String> {
    let parts: Vec<Vec<Attribute>> = yasna::parse_der(name, |parts| {
        parts.collect_sequence_of(|part| {
            part.collect_set_of(|attribute| {
                attribute
                    .read_sequence(|fields| Ok((fields.next().read_oid()?, fields.next().read_tagged_der()?)))
            })
        })
    })?;
    // The last comes first.
    let parts = parts.iter().rev().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+"));
    Ok(parts.collect::<Vec<_>>().join(","))
}

fn attribute((kind, value): &Attribute) -> String {
    let digits = kind.components();
    let known = KINDS.iter().find(|(known, _)| *known == digits.as_slice());
    let text: Option<String> = match value.tag() {
        TAG_UTF8STRING | TAG_PRINTABLESTRING | TAG_IA5STRING | TAG_T61STRING => {
            Some(String::from_utf8_lossy(value.value()).into_owned())
        }
        TAG_BMPSTRING => {
            let units = value.value().as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair));
            Some(
                char::decode_utf16(units)
                    .map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER))
                    .collect(),
            )
        }
        _ => None,
    };
    match (known, text) {
        (Some((_, name)), Some(text)) => format!("{name}={}", escaped(&text)),
        (None, Some(text)) => format!("{kind}={}", escaped(&text)),
        (_, None) => {
            let hex = value.value().iter().fold(String::new(), |mut all, byte| {
                let _ = write!(all, "{byte:02x}");
                all
            });
            format!("{kind}=#{hex}")
        }
    }
}

fn escaped(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => {
                all.push('\\');
                all.push(char::from(byte));
            }
            b'#' | b' ' if at == 0 => {
                all.push('\\');
                all.push(char::from(byte));
            }
            b' ' if at == last => all.push_str("\\ "),
            b' '..=b'~' => all.push(char::from(byte)),
            _ => {
                let _ = write!(all, "\\{byte:02X}");
            }
        }
    }
    all
}

const TAG_T61STRING: Tag = Tag { tag_class: TagClass::Universal, tag_number: 20 };
/// Those that RFC 4514 3 lists.
const KINDS: [(&[u64], &str); 9] = [
    (&[2, 5, 4, 3], "CN"),
    (&[2, 5, 4, 7], "L"),
    (&[2, 5, 4, 8], "ST"),
    (&[2, 5, 4, 10], "O"),
    (&[2, 5, 4, 11], "OU"),
    (&[2, 5, 4, 6], "C"),
    (&[2, 5, 4, 9], "STREET"),
    (&[0, 9, 2342, 19_200_300, 100, 1, 25], "DC"),
    (&[0, 9, 2342, 19_200_300, 100, 1, 1], "UID"),
];

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, Issuer, KeyPair};

    use super::*;

    #[test]
    fn names_are_one_line_that_can_be_printed_whatever_is_in_them() {
        let key = KeyPair::generate().unwrap();
        let mut issuer = CertificateParams::default();
        issuer.distinguished_name = DistinguishedName::new();
        issuer.distinguished_name.push(DnType::CommonName, "The authority");
        let issuer = Issuer::new(issuer, KeyPair::generate().unwrap());
        for (name, wanted) in [
            ("alice", "CN=alice,O=Example\\, Inc."),
            ("a+b=\"c\"\\", "CN=a\\+b\\=\\\"c\\\"\\\\,O=Example\\, Inc."),
            (" #x ", "CN=\\ #x\\ ,O=Example\\, Inc."),
            ("a\r\nx-admin: 1\0", "CN=a\\0D\\0Ax-admin: 1\\00,O=Example\\, Inc."),
            ("b\u{fc}cher", "CN=b\\C3\\BCcher,O=Example\\, Inc."),
        ] {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
            params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String(name.to_owned()));
            let certificate = params.signed_by(&key, &issuer).unwrap();
            let found = names(certificate.der()).unwrap();
            assert_eq!(found, (wanted.to_owned(), "CN=The authority".to_owned()));
            let whole = certificate.der().as_ref();
            for at in 0..whole.len() {
                let mut other = whole.to_vec();
                other[at] ^= 0xff;
                let spoilt = names(&CertificateDer::from(other));
                let printable = |line: &String| line.bytes().all(|byte| (b' '..=b'~').contains(&byte));
                assert!(
                    spoilt.is_none_or(|(subject, issuer)| printable(&subject) && printable(&issuer)),
                    "{at}"
                );
            }
        }
    }
}
