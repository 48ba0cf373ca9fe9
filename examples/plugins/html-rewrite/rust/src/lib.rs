//! Has the links of pages lead elsewhere, as they pass by: in tags `from` becomes `to`, whatever the pieces they come in.

wit_bindgen::generate!({ path: "wit", world: "plugin", generate_all });

use adit::plugin::{body_streams::End, types::*};
use exports::adit::plugin::lifecycle;
use exports::adit::plugin::response_stream_filter::{self as stream, ResponseStreamAction as Action};

struct Plugin;
export!(Plugin);

/// `from`, `to`, and what is there of a tag that has not ended yet: a character for each byte.
static STATE: std::sync::Mutex<[String; 3]> = std::sync::Mutex::new([const { String::new() }; 3]);

/// Takes one more piece, and gives what can go on: all that is there, or up to a tag that has not ended.
fn rewritten(piece: &[u8], is_last: bool) -> Vec<u8> {
    let [from, to, held] = &mut *STATE.lock().unwrap();
    held.extend(piece.iter().map(|byte| char::from(*byte)));
    // What is longer than any tag is none.
    let open = held.rfind('<').filter(|at| held.rfind('>') < Some(*at) && held.len() < at + 65536);
    let (end, mut out) = (open.filter(|_| !is_last).unwrap_or(held.len()), String::new());
    for part in held.drain(..end).collect::<String>().split_inclusive('>') {
        let (text, tag) = part.split_at(part.find('<').unwrap_or(part.len()));
        out += &(text.to_owned() + &tag.replace(&*from, to));
    }
    out.chars().map(|char| char as u8).collect()
}

impl lifecycle::Guest for Plugin {
    fn describe() -> lifecycle::Manifest {
        let (name, version, kind) = ("html-rewrite".into(), "0.1.0".into(), "content-type".into());
        lifecycle::Manifest { name, version, request_headers: vec![], response_headers: vec![kind] }
    }
    fn configure(config: String) -> Result<(), Vec<Fault>> {
        let config: serde_json::Value = serde_json::from_str(&config).unwrap_or_default();
        let texts = ["from", "to", ""].map(|key| config[key].as_str().unwrap_or_default());
        *STATE.lock().unwrap() = texts.map(|text| text.bytes().map(char::from).collect());
        let fault = Fault { code: "/from".into(), message: "a text is needed".into() };
        if texts[0].is_empty() { Err(vec![fault]) } else { Ok(()) }
    }
}

impl stream::Guest for Plugin {
    fn begin_response(head: ResponseHead) -> Result<Action, Fault> {
        STATE.lock().unwrap()[2].clear();
        let is_page = head.headers.iter().any(|(_, kind)| kind.starts_with("text/html"));
        let edits = ResponseEdits { status: None, headers: vec![] };
        Ok(if is_page { Action::Rewrite(edits) } else { Action::Next })
    }
    fn on_response_piece(piece: Vec<u8>) -> Result<Option<Vec<u8>>, Fault> {
        Ok(Some(rewritten(&piece, false)))
    }
    fn end_response(_: Vec<Header>) -> Result<End, Fault> {
        Ok(End { rest: rewritten(&[], true), trailers: vec![] })
    }
}
