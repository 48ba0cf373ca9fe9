//! What a node's certificate says of it, and what a node asks to be certified (PKCS #10, RFC 2986). Reads bytes of
//! strangers; judges neither.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls_pki_types::CertificateDer;
use uuid::Uuid;
use yasna::models::ObjectIdentifier;
use yasna::{ASN1Error, ASN1ErrorKind, ASN1Result, Tag};

use crate::store::records::nodes::Pin;
use crate::tls::leaf::Leaf;

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) fleet: Uuid,
    pub(crate) name: String,
    pub(crate) pin: Pin,
    /// Its last second, since 1970.
    pub(crate) not_after: i64,
}

impl Said {
    /// `None` of what cannot be read, and of what names no node or more than one.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (key, uris) = yasna::parse_der(certificate, |certificate| {
            certificate.read_sequence(|parts| {
                let found = parts.next().read_sequence(|fields| {
                    // The version.
                    fields.read_optional(|field| {
                        field.read_tagged(Tag::context(0), |version| version.read_der())
                    })?;
                    // Serial number, signature, issuer, times, subject.
                    for _ in 0..5 {
                        fields.next().read_der()?;
                    }
                    let key = fields.next().read_der()?;
                    let mut uris = Vec::new();
                    while let Some(field) = fields.read_optional(|field| field.read_der())? {
                        if field.first() == Some(&EXTENSIONS) {
                            uris = named(&field)?;
                        }
                    }
                    Ok((key, uris))
                })?;
                // How it is signed.
                for _ in 0..2 {
                    parts.next().read_der()?;
                }
                Ok(found)
            })
        })
        .ok()?;
        let [uri] = uris.as_slice() else { return None };
        let (fleet, name) = uri.strip_prefix("adit://")?.split_once("/node/")?;
        let not_after = Leaf::of(certificate)?.not_after;
        Some(Self { fleet: fleet.parse().ok()?, name: name.to_owned(), pin: Pin::of(&key), not_after })
    }
}

/// The URIs among the other names of a certificate.
fn named(field: &[u8]) -> ASN1Result<Vec<String>> {
    let names_id = ObjectIdentifier::from_slice(&[2, 5, 29, 17]);
    let mut uris = Vec::new();
    yasna::parse_der(field, |field| {
        field.read_tagged(Tag::context(3), |list| {
            list.read_sequence_of(|extension| {
                let (id, value) = extension.read_sequence(|parts| {
                    let id = parts.next().read_oid()?;
                    parts.read_optional(|critical| critical.read_bool())?;
                    Ok((id, parts.next().read_bytes()?))
                })?;
                if id == names_id {
                    let all = yasna::parse_der(&value, |list| {
                        list.collect_sequence_of(|name| name.read_tagged_der())
                    })?;
                    for name in all.iter().filter(|name| name.tag() == Tag::context(6)) {
                        let uri = std::str::from_utf8(name.value());
                        uris.push(uri.map_err(|_| ASN1Error::new(ASN1ErrorKind::Invalid))?.to_owned());
                    }
                }
                Ok(())
            })
        })
    })?;
    Ok(uris)
}

/// A public key on P-256, the one kind that nodes have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PublicKey([u8; POINT]);

impl PublicKey {
    /// Of what certificates and requests have it in.
    pub(crate) fn of(info: &[u8]) -> Option<Self> {
        let point = info.strip_prefix(P256)?;
        Some(Self(point.try_into().ok()?))
    }

    pub(crate) fn point(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn pin(&self) -> Pin {
        Pin::of(&[P256, &self.0].concat())
    }

    /// Whether the owner of the private key has signed this.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0).verify(message, signature).is_ok()
    }

    /// Of a certificate.
    pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let key = yasna::parse_der(certificate, |certificate| {
            certificate.read_sequence(|parts| {
                let key = parts.next().read_sequence(|fields| {
                    fields.read_optional(|field| {
                        field.read_tagged(Tag::context(0), |version| version.read_der())
                    })?;
                    for _ in 0..5 {
                        fields.next().read_der()?;
                    }
                    let key = fields.next().read_der()?;
                    while fields.read_optional(|field| field.read_der())?.is_some() {}
                    Ok(key)
                })?;
                for _ in 0..2 {
                    parts.next().read_der()?;
                }
                Ok(key)
            })
        });
        Self::of(&key.ok()?)
    }

    /// Of a request whose signature proves that whoever made it has the private key; what else it says does not count.
    pub(crate) fn of_request(request: &[u8]) -> Option<Self> {
        let (whole, info, signature) = yasna::parse_der(request, |request| {
            request.read_sequence(|parts| {
                let whole = parts.next().read_der()?;
                // By which algorithm: there is one for such a key.
                parts.next().read_der()?;
                let (signature, _) = parts.next().read_bitvec_bytes()?;
                let info = yasna::parse_der(&whole, |info| {
                    info.read_sequence(|fields| {
                        // Version and subject.
                        for _ in 0..2 {
                            fields.next().read_der()?;
                        }
                        let key = fields.next().read_der()?;
                        while fields.read_optional(|field| field.read_der())?.is_some() {}
                        Ok(key)
                    })
                })?;
                Ok((whole, info, signature))
            })
        })
        .ok()?;
        Self::of(&info).filter(|key| key.has_signed(&whole, &signature))
    }
}

/// How the field of extensions begins.
const EXTENSIONS: u8 = 0xa3;
/// How the public key of P-256 begins in DER: its two identifiers, and that 65 bytes follow.
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Uncompressed.
const POINT: usize = 65;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType};

    use super::*;

    #[test]
    fn a_request_is_of_the_owner_of_its_key_and_spoilt_bytes_are_none() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        let whole = request.der().to_vec();
        let read = PublicKey::of_request(&whole).unwrap();
        assert_eq!(read.pin(), Pin::of(&key.subject_public_key_info()));
        for at in 0..whole.len() {
            assert!(PublicKey::of_request(&whole[..at]).is_none(), "{at}");
            let mut other = whole.clone();
            other[at] ^= 1;
            let other = PublicKey::of_request(&other);
            // The name of the algorithm is not signed, and does not count.
            assert!(other.is_none_or(|key| key == read), "{at}");
        }
    }

    #[test]
    fn a_certificate_that_names_no_node_or_two_is_of_none() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let fleet = Uuid::new_v4();
        let said = |uris: &[String]| {
            let mut params = CertificateParams::default();
            let uris = uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap()));
            params.subject_alt_names = uris.collect();
            let certificate = params.self_signed(&key).unwrap();
            assert_eq!(PublicKey::of_certificate(certificate.der()).unwrap().point(), key.der_bytes());
            Said::of(certificate.der())
        };
        let one = format!("adit://{fleet}/node/a");
        assert_eq!(said(std::slice::from_ref(&one)).unwrap().name, "a");
        for uris in [
            vec![],
            vec![one.clone(), format!("adit://{fleet}/node/b")],
            vec![format!("spiffe://{fleet}/node/a")],
            vec!["adit://main/node/a".to_owned()],
            vec![format!("adit://{fleet}/host/a")],
        ] {
            assert_eq!(said(&uris), None, "{uris:?}");
        }
    }
}
