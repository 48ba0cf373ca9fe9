//! What a guest may answer: any bytes in its memory where a decision should be, and any text in a decision that
//! is well-formed. They are a trap, or a decision that is checked like any other.

#![no_main]

use std::sync::{Arc, OnceLock};

use adit_engine::{Chain, Facts, Plugin, RequestOutcome, Secrets};
use forge::{DECISION, LARGEST_IMAGE, configuration, engine, filter, plan, runtime};
use http::Request;
use libfuzzer_sys::fuzz_target;

const FACTS: Facts<'_> =
    Facts { id: "a1b2", client_ip: "192.0.2.7", scheme: "https", stopwatch: None, exchange: None };
/// Bytes of `result<request-action, fault>`, behind which its strings and lists may lie.
const RESULT: usize = 60;

fuzz_target!(|bytes: &[u8]| {
    static FILTER: OnceLock<Plugin> = OnceLock::new();
    let Some((kind, rest)) = bytes.split_first() else { return };
    let mut image = if kind % 2 == 0 { rest.to_vec() } else { composed(rest) };
    image.truncate(LARGEST_IMAGE);
    let mut plan = plan();
    plan.config = configuration(&image);
    let filter = FILTER.get_or_init(|| {
        let (good, wasm, nothing) = (Arc::new(forge::plan()), filter(), Secrets::default());
        runtime().block_on(Plugin::load(engine(), &good, &wasm, &nothing, 1)).expect("a good filter")
    });
    runtime().block_on(async {
        // Compiled once, and configured for each image.
        let plugin = filter.load_again(&Arc::new(plan), &Secrets::default()).await;
        let chain = Chain::new(vec![Arc::new(plugin.expect("a good filter"))]);
        let request = Request::get("https://a.example/one?two").header("host", "a.example").body(());
        let (mut head, ()) = request.expect("a good request").into_parts();
        match chain.on_request(0, &FACTS, &mut head).await {
            RequestOutcome::Continue(_) => assert_eq!(head.headers.get_all("host").iter().count(), 1),
            RequestOutcome::Respond(reply, _) => assert!((200..=599).contains(&reply.status)),
            RequestOutcome::Failed(_) => {}
        }
    });
});

/// A decision of the right shape, all of whose text is `bytes`.
fn composed(bytes: &[u8]) -> Vec<u8> {
    let mut drawing = Drawing { rest: bytes, image: vec![0; RESULT] };
    match drawing.byte() % 4 {
        // A fault: a code and a message.
        0 => {
            drawing.image[0] = 1;
            drawing.text_at(4);
            drawing.text_at(12);
        }
        // An answer: a status, headers, a body.
        1 => {
            drawing.image[4] = 2;
            let status = [drawing.byte(), drawing.byte()];
            drawing.image[8..10].copy_from_slice(&status);
            drawing.headers_at(12, false);
            drawing.text_at(20);
        }
        // Edits: three options, changes of headers, what is carried.
        _ => {
            drawing.image[4] = 1;
            for at in [8, 20, 32] {
                if drawing.byte() % 4 == 0 {
                    drawing.image[at] = 1;
                    drawing.text_at(at + 4);
                }
            }
            drawing.headers_at(44, true);
            drawing.text_at(52);
        }
    }
    drawing.image
}

/// Puts together an image out of bytes that are used up from the front.
struct Drawing<'a> {
    rest: &'a [u8],
    image: Vec<u8>,
}

impl Drawing<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.rest.split_first().unwrap_or((&0, &[]));
        self.rest = rest;
        *first
    }

    fn place(&mut self, at: usize, begin: usize, length: usize) {
        let begin = DECISION + u32::try_from(begin).expect("an image is small");
        self.image[at..at + 4].copy_from_slice(&begin.to_le_bytes());
        let length = u32::try_from(length).expect("an image is small");
        self.image[at + 4..at + 8].copy_from_slice(&length.to_le_bytes());
    }

    /// Some bytes behind all others, and at `at` where and how many they are.
    fn text_at(&mut self, at: usize) {
        let wanted = usize::from(self.byte() % 64);
        let (text, rest) = self.rest.split_at(wanted.min(self.rest.len()));
        self.rest = rest;
        let begin = self.image.len();
        self.image.extend_from_slice(text);
        self.place(at, begin, text.len());
    }

    /// A list of pairs of text; with `ops` each of them is a change.
    fn headers_at(&mut self, at: usize, ops: bool) {
        let count = usize::from(self.byte() % 8);
        let (head, each) = if ops { (4, 20) } else { (0, 16) };
        self.image.resize(self.image.len().next_multiple_of(4), 0);
        let begin = self.image.len();
        self.image.resize(begin + count * each, 0);
        for number in 0..count {
            let item = begin + number * each;
            if ops {
                self.image[item] = self.byte() % 3;
            }
            // One that is removed has no value; nobody looks there.
            self.text_at(item + head);
            self.text_at(item + head + 8);
        }
        self.place(at, begin, count);
    }
}
