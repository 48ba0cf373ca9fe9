//! Bytes that another node of a fleet says of itself: frames or no frames, without a panic, in no more memory than they
//! have themselves, however they come; and what was read is written as it was said.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(written) = adit_edge::peer_frames(bytes) else { return };
    // What is known is said the same way again, so that another reading says the same.
    assert_eq!(adit_edge::peer_frames(&written).as_ref(), Some(&written));
});
