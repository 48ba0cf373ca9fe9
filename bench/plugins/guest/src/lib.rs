//! Answers `next` unless the head has the header `x-block`, in every shape of `bench/plugins/wit`.

use bindings::exports::adit::shapes::shapes::{Action, Guest, Head, Request};

#[allow(unsafe_code)]
mod bindings {
    wit_bindgen::generate!({ path: "../wit", world: "guest" });

    #[cfg(target_arch = "wasm32")]
    use super::Shapes;
    #[cfg(target_arch = "wasm32")]
    export!(Shapes with_types_in self);
}

/// The component's exports.
pub struct Shapes;

const WANTED: &str = "x-block";

fn decide(is_there: bool) -> Action {
    if is_there { Action::Respond(403) } else { Action::Next }
}

impl Guest for Shapes {
    fn nothing() {}

    fn by_record(request: Request) -> Action {
        decide(request.path_with_query.is_empty() || request.headers.iter().any(|(name, _)| name == WANTED))
    }

    fn by_blob(lengths: Vec<u32>, text: String) -> Action {
        let mut rest = text.as_str();
        let mut parts = lengths.iter().map(|length| {
            let (part, after) = rest.split_at(usize::try_from(*length).unwrap_or(usize::MAX));
            rest = after;
            part
        });
        let path = parts.by_ref().take(5).last().unwrap_or_default();
        let is_empty = path.is_empty();
        decide(is_empty || parts.skip(1).step_by(2).any(|name| name == WANTED))
    }

    fn by_resource(head: &Head) -> Action {
        decide(head.path().is_empty() || head.header(WANTED).is_some())
    }
}
