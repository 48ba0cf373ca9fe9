//! Lets requests pass whose body the owner of a secret has signed: `x-signature: sha256=HEX`.

wit_bindgen::generate!({ path: "wit", world: "plugin", generate_all });

use adit::plugin::bodies::{Beyond, Limits};
use adit::plugin::crypto::Hash;
use adit::plugin::keyed;
use adit::plugin::types::{Fault, Reply, RequestHead};
use exports::adit::plugin::lifecycle::{Guest as Lifecycle, Manifest};
use exports::adit::plugin::request_body_filter::{Guest as RequestBodyFilter, RequestBodyAction};

struct Plugin;
export!(Plugin);

impl Lifecycle for Plugin {
    fn describe() -> Manifest {
        Manifest {
            name: "body-signature".to_owned(),
            version: "0.1.0".to_owned(),
            request_headers: vec!["x-signature".to_owned()],
            response_headers: vec![],
        }
    }

    fn configure(_config: String) -> Result<(), Vec<Fault>> {
        Ok(())
    }
}

impl RequestBodyFilter for Plugin {
    fn request_body_limits() -> Limits {
        Limits { most: 1 << 20, beyond: Beyond::Refuse }
    }

    fn on_request_body(head: RequestHead, body: Vec<u8>) -> Result<RequestBodyAction, Fault> {
        let told = head.headers.first().and_then(|(_, value)| value.strip_prefix("sha256="));
        let signed = match told.and_then(unhex) {
            Some(tag) => keyed::verify_hmac(Hash::Sha256, "webhook", &body, &tag),
            None => Ok(false),
        };
        match signed {
            Ok(true) => Ok(RequestBodyAction::Next),
            Ok(false) => Ok(RequestBodyAction::Respond(Reply { status: 401, headers: vec![], body: vec![] })),
            Err(error) => Err(Fault { code: "secret".to_owned(), message: error.name().to_owned() }),
        }
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| Some(digit.to_digit(16)? as u8)).collect();
    let pairs = digits?;
    pairs.chunks(2).map(|pair| Some(pair[0] << 4 | pair.get(1)?)).collect()
}
