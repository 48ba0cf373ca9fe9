//! The authority of a fleet: what vouches for its nodes and for nothing else. Its private key is a secret of the state.
//! Knows rcgen; does not know who is a node.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SignatureAlgorithm,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use uuid::Uuid;

use super::said::PublicKey;
use crate::store::records::nodes::NodeAuthority;
use crate::tls::{CLOCK_SKEW, serial_number, since_epoch};

/// What signs for a fleet's nodes.
pub(crate) struct Authority {
    fleet: Uuid,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

#[derive(Debug, Error)]
pub(crate) enum AuthorityError {
    #[error("the fleet has no authority for its nodes; `adit edge init --store …` makes one")]
    None,
    #[error(
        "the key of the fleet's authority cannot be opened: this machine does not have the fleet's key; `adit edge join` brings it"
    )]
    Sealed,
    #[error("the fleet's authority is damaged: {0}")]
    Damaged(String),
    #[error("making a certificate for a node")]
    Make(#[from] rcgen::Error),
}

impl Authority {
    /// A new one for this fleet.
    pub(crate) fn make(fleet: Uuid) -> Result<(Self, NodeAuthority), AuthorityError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(fleet);
        let now = rcgen::date_time_ymd(1970, 1, 1) + since_epoch();
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + VALIDITY;
        params.serial_number = Some(serial_number());
        let made = params.self_signed(&pair)?;
        let kept = NodeAuthority {
            certificates: vec![made.pem()],
            key: Some(STANDARD.encode(pair.serialize_der())),
            next_key: None,
        };
        Ok((Self { fleet, certificate: made.der().clone(), issuer: Issuer::new(params, pair) }, kept))
    }

    /// The one that signs, of what the state has.
    pub(crate) fn of(fleet: Uuid, kept: &NodeAuthority) -> Result<Self, AuthorityError> {
        let damaged = |what: &dyn std::fmt::Display| AuthorityError::Damaged(what.to_string());
        let certificate = believed(kept).into_iter().next().ok_or_else(|| damaged(&"no certificate"))?;
        let key = kept.key.as_ref().ok_or(AuthorityError::Sealed)?;
        let key = STANDARD.decode(key).map_err(|error| damaged(&error))?;
        let key =
            KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key), &PKCS_ECDSA_P256_SHA256)
                .map_err(|error| damaged(&error))?;
        Ok(Self { fleet, certificate, issuer: Issuer::new(params(fleet), key) })
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate for a node's key, for a month; the chain, its own first.
    pub(crate) fn issue(
        &self,
        name: &str,
        key: &PublicKey,
    ) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        self.issue_at(name, key, since_epoch())
    }

    /// The same at a moment, said as the time since 1970.
    pub(crate) fn issue_at(
        &self,
        name: &str,
        key: &PublicKey,
        now: Duration,
    ) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, format!("Adit node {name}"));
        params.subject_alt_names = vec![SanType::URI(uri(self.fleet, name).try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial_number());
        let now = rcgen::date_time_ymd(1970, 1, 1) + now;
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + LEAF_VALIDITY;
        let leaf = params.signed_by(key, &self.issuer)?;
        Ok(vec![leaf.der().clone(), self.certificate.clone()])
    }

    /// Signs what a new node is told.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, AuthorityError> {
        Ok(rcgen::SigningKey::sign(self.issuer.key(), message)?)
    }
}

/// How far another authority has come in the place of the one that signs. Each step is for when all nodes follow the
/// one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// The new one is believed beside the old one, which signs.
    Added,
    /// It signs, and nodes have themselves certified by it; the old one is believed still.
    Signs,
    /// The old one is believed no more.
    Done,
}

/// The next step on the way from one authority to another.
pub(crate) fn rotated(
    fleet: Uuid,
    kept: &NodeAuthority,
) -> Result<(NodeAuthority, Rotation), AuthorityError> {
    if kept.key.is_none() {
        return Err(AuthorityError::Sealed);
    }
    let mut kept = kept.clone();
    if let Some(key) = kept.next_key.take() {
        kept.certificates.rotate_right(1);
        kept.key = Some(key);
        return Ok((kept, Rotation::Signs));
    }
    if kept.certificates.len() > 1 {
        kept.certificates.truncate(1);
        return Ok((kept, Rotation::Done));
    }
    let (_, made) = Authority::make(fleet)?;
    kept.certificates.extend(made.certificates);
    kept.next_key = made.key;
    Ok((kept, Rotation::Added))
}

/// All that are believed to vouch for nodes.
pub(crate) fn believed(kept: &NodeAuthority) -> Vec<CertificateDer<'static>> {
    let read = |pem: &String| CertificateDer::from_pem_slice(pem.as_bytes()).ok();
    kept.certificates.iter().filter_map(read).collect()
}

/// By what a certificate names a node.
pub(crate) fn uri(fleet: Uuid, name: &str) -> String {
    format!("adit://{fleet}/node/{name}")
}

/// All that leaves repeat of it, so that an issuer can be made from the key alone.
fn params(fleet: Uuid) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, format!("Adit fleet {fleet}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        self.point()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const VALIDITY: Duration = Duration::from_secs(10 * 365 * DAY.as_secs());
/// Of a node's certificate; it is renewed after two thirds of that.
const LEAF_VALIDITY: Duration = Duration::from_secs(30 * DAY.as_secs());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::said::Said;

    #[test]
    fn a_leaf_says_whose_it_is_and_the_authority_comes_back_from_the_state_as_it_was() {
        let fleet = Uuid::new_v4();
        let (authority, kept) = Authority::make(fleet).unwrap();
        let again = Authority::of(fleet, &kept).unwrap();
        assert_eq!(again.certificate(), authority.certificate());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let public = PublicKey::of(&key.subject_public_key_info()).unwrap();
        let chain = again.issue("west-1", &public).unwrap();
        let said = Said::of(&chain[0]).unwrap();
        assert_eq!((said.fleet, &*said.name, said.pin), (fleet, "west-1", public.pin()));
        let lasts = said.not_after - i64::try_from(since_epoch().as_secs()).unwrap();
        assert!((30 * 86_400 - 60..=30 * 86_400).contains(&lasts), "{lasts}");
        assert!(!format!("{kept:?}").contains(kept.key.as_ref().unwrap()));
        let blind = NodeAuthority { key: None, ..kept.clone() };
        assert!(matches!(Authority::of(fleet, &blind), Err(AuthorityError::Sealed)));
        assert!(rotated(fleet, &blind).is_err());
    }

    #[test]
    fn a_new_authority_is_believed_before_it_signs_and_the_old_one_until_nobody_needs_it() {
        let fleet = Uuid::new_v4();
        let (old, kept) = Authority::make(fleet).unwrap();
        let (kept, step) = rotated(fleet, &kept).unwrap();
        assert_eq!((step, believed(&kept).len()), (Rotation::Added, 2));
        assert_eq!(Authority::of(fleet, &kept).unwrap().certificate(), old.certificate());
        let (kept, step) = rotated(fleet, &kept).unwrap();
        let new = Authority::of(fleet, &kept).unwrap();
        assert_eq!(step, Rotation::Signs);
        assert_eq!(believed(&kept), [new.certificate().clone(), old.certificate().clone()]);
        assert_ne!(new.certificate(), old.certificate());
        let (kept, step) = rotated(fleet, &kept).unwrap();
        assert_eq!((step, believed(&kept)), (Rotation::Done, vec![new.certificate().clone()]));
        assert_eq!(rotated(fleet, &kept).unwrap().1, Rotation::Added, "and so on");
    }
}
