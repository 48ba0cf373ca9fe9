//! What a guest may answer: any bytes in its memory where a decision should be. They are a trap, or a
//! decision that is checked like any other.

#![no_main]

use std::sync::Arc;

use adit_host::plugin::{Chain, Facts, Plugin, RequestOutcome, Secrets};
use forge::{engine, filter, plan, runtime};
use http::Request;
use libfuzzer_sys::fuzz_target;

const FACTS: Facts<'_> = Facts { id: "a1b2", client_ip: "192.0.2.7", scheme: "https" };
/// Most bytes of an image: before what the guest is given.
const LARGEST: usize = 8192;

fuzz_target!(|image: &[u8]| {
    let wasm = filter(&image[..image.len().min(LARGEST)]);
    runtime().block_on(async {
        let plugin = Plugin::load(engine(), &Arc::new(plan()), &wasm, &Secrets::default(), 1).await;
        let chain = Chain::new(vec![Arc::new(plugin.expect("a good filter"))]);
        let request = Request::get("https://a.example/one?two").header("host", "a.example").body(());
        let (mut head, ()) = request.expect("a good request").into_parts();
        match chain.on_request(0, &FACTS, &mut head).await {
            RequestOutcome::Continue(_) => assert!(head.headers.contains_key("host")),
            RequestOutcome::Respond(reply, _) => assert!((200..=999).contains(&reply.status)),
            RequestOutcome::Failed(_) => {}
        }
    });
});
