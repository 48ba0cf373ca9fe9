//! A document that somebody wrote, or an edge pushed: every mistake of it is reported, and none is a panic.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = adit_host::config::parse("host.toml", text, Path::new("/nowhere"));
});
