//! A malformed component: whatever it is made of, it is refused or loaded, and describes itself.

#![no_main]

use std::sync::OnceLock;

use adit_engine::inspect;
use forge::{engine, filter, plan, runtime};
use libfuzzer_sys::fuzz_target;

/// Where the bytes begin to be a component.
const HEAD: &[u8] = b"\0asm\x0d\0\x01\0";

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let wasm = match kind % 4 {
        0 => rest.to_vec(),
        1 => [HEAD, rest].concat(),
        _ => damaged(rest),
    };
    // Anything but a panic or a wait without end.
    let _ = runtime().block_on(inspect(engine(), &plan(), &wasm));
});

/// A good component in which some bytes are others: three of `damage` say where, and which.
fn damaged(damage: &[u8]) -> Vec<u8> {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    let mut wasm = WHOLE.get_or_init(filter).clone();
    for piece in damage.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([piece[0], piece[1]])) % wasm.len();
        match piece[0] % 8 {
            // Cut, and doubled in part: sections whose lengths no longer fit.
            0 => wasm.truncate(at.max(HEAD.len())),
            1 => wasm.extend_from_within(at..),
            _ => wasm[at] = piece[2],
        }
        if wasm.len() > 1 << 20 {
            break;
        }
    }
    wasm
}
