//! Signatures as cosign makes them since its version 3: a Sigstore bundle, which refers to the manifest that it signs,
//! with an in-toto statement in a DSSE envelope. Pure.

use serde::Deserialize;

use crate::digest::Digest;

/// How the type of what such a bundle is kept in begins; its version follows.
pub(crate) const KIND: &str = "application/vnd.dev.sigstore.bundle.v0.";
/// What an envelope says that its payload is.
pub(crate) const STATEMENT: &str = "application/vnd.in-toto+json";
/// What a statement says that it is about: the subject itself, and no property of it.
const SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";

/// A bundle, as far as a pinned key needs it: certificates and logs are of no interest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    /// Absent in the bundle of a bare signature, which says nothing of what it is about.
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    #[serde(default)]
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

/// A payload in base64 and the signatures of its envelope; nothing if the bundle is about something else.
pub(crate) fn read(json: &[u8]) -> Option<(String, Vec<String>)> {
    let envelope = serde_json::from_slice::<Bundle>(json).ok()?.dsse_envelope?;
    let signatures = envelope.signatures.into_iter().map(|signature| signature.sig).collect();
    (envelope.payload_type == STATEMENT).then_some((envelope.payload, signatures))
}

/// What an envelope's signature is of.
pub(crate) fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {STATEMENT} {} ", STATEMENT.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Whether a statement, whose signature is good, signs this manifest.
pub(crate) fn names(payload: &[u8], manifest: Digest) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Statement {
        predicate_type: String,
        subject: Vec<Subject>,
    }
    #[derive(Deserialize)]
    struct Subject {
        digest: std::collections::BTreeMap<String, String>,
    }
    let Ok(statement) = serde_json::from_slice::<Statement>(payload) else { return false };
    let is_it = |subject: &Subject| subject.digest.get("sha256").is_some_and(|hex| *hex == manifest.hex());
    // One that is about several things is about each.
    statement.predicate_type == SIGNATURE && statement.subject.iter().any(is_it)
}

/// As cosign writes it, for tests.
#[cfg(test)]
pub(crate) fn statement(kind: &str, manifest: Digest) -> Vec<u8> {
    let statement = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": manifest.hex()}, "annotations": {}}],
        "predicateType": kind,
        "predicate": {},
    });
    statement.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn only_a_statement_that_signs_this_manifest_is_about_it() {
        let manifest = Digest::of(b"manifest");
        assert!(names(&statement(SIGNATURE, manifest), manifest));
        assert!(!names(&statement(SIGNATURE, Digest::of(b"other")), manifest));
        assert!(!names(&statement("https://slsa.dev/provenance/v1", manifest), manifest), "a property of it");
        assert!(!names(b"{}", manifest) && !names(b"", manifest));
    }

    #[test]
    fn a_bundle_of_something_else_is_none_of_ours() {
        let bundle = |kind: &str| {
            let payload = STANDARD.encode("{}");
            serde_json::json!({
                "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                "verificationMaterial": {"publicKey": {"hint": "x"}, "tlogEntries": []},
                "dsseEnvelope": {"payload": payload, "payloadType": kind, "signatures": [{"sig": "AA=="}]},
            })
            .to_string()
        };
        let (payload, signatures) = read(bundle(STATEMENT).as_bytes()).unwrap();
        assert_eq!((payload, signatures), (STANDARD.encode("{}"), vec!["AA==".to_owned()]));
        assert!(read(bundle("text/plain").as_bytes()).is_none());
        assert!(read(br#"{"messageSignature": {"signature": "AA=="}}"#).is_none());
        assert_eq!(signed_bytes(b"{}"), b"DSSEv1 28 application/vnd.in-toto+json 2 {}");
    }
}
