//! What people are told when a handshake fails.

use std::error::Error as StdError;

use rustls::{AlertDescription, CertificateError, Error};

use crate::LIMITS;

/// What may be done about it, if that is known.
pub fn advice(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<Error>() {
            return of(error);
        }
        // An I/O error is not the source of what it wraps, only its bearer.
        next = match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    None
}

fn of(error: &Error) -> Option<&'static str> {
    let shares_nothing = [
        Error::AlertReceived(AlertDescription::HandshakeFailure),
        Error::AlertReceived(AlertDescription::ProtocolVersion),
        Error::AlertReceived(AlertDescription::InsufficientSecurity),
    ];
    if shares_nothing.contains(error) || matches!(error, Error::PeerIncompatible(_)) {
        return Some(LIMITS);
    }
    if *error == Error::InvalidCertificate(CertificateError::UnknownIssuer) {
        return Some("neither its certificate nor an authority that signed it is believed here");
    }
    matches!(error, Error::InvalidMessage(_)).then_some("it may not speak TLS at all")
}
