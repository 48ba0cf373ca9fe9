//! What can go wrong, by name.

use std::hint::black_box;

/// What to do when a phase is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Go on unchanged.
    Ok,
    /// Run into an `unreachable` instruction.
    Trap,
    Panic,
    /// Run for ever.
    Loop,
    /// Allocate until the host says no.
    EatMemory,
    /// Call oneself until the stack is full.
    Recurse,
    /// Answer with the plugin's own error.
    Fault,
    /// Edit a header whose name and value break the grammar.
    InvalidHeader,
    /// Edit the path to one without a slash (request), the status to 1000 (response).
    InvalidEdit,
    /// Answer with status 99.
    InvalidReply,
    /// Answer with a body of 16 MiB.
    BigReply,
    /// Ask for 100,000 changes of headers.
    ManyHeaders,
    /// Set a header of 512 KiB.
    LongHeader,
    /// Set a header with a good name, whose value goes on on a line of its own.
    Inject,
    /// Write 100,000 messages to the log.
    FloodLog,
    /// Write one message of 16 MiB to the log.
    LongLog,
    /// Wait for an hour inside the host.
    Sleep,
    /// Answer with 418 and a short body.
    Respond,
    /// Response: set `x-count`.
    Count,
    /// Request: leave the header `x-carry` for the response phase. Response: set `x-carry`.
    Carry,
}

impl Act {
    pub const NAMES: [(&str, Self); 20] = [
        ("ok", Self::Ok),
        ("trap", Self::Trap),
        ("panic", Self::Panic),
        ("loop", Self::Loop),
        ("eat-memory", Self::EatMemory),
        ("recurse", Self::Recurse),
        ("fault", Self::Fault),
        ("invalid-header", Self::InvalidHeader),
        ("invalid-edit", Self::InvalidEdit),
        ("invalid-reply", Self::InvalidReply),
        ("big-reply", Self::BigReply),
        ("many-headers", Self::ManyHeaders),
        ("long-header", Self::LongHeader),
        ("inject", Self::Inject),
        ("flood-log", Self::FloodLog),
        ("long-log", Self::LongLog),
        ("sleep", Self::Sleep),
        ("respond", Self::Respond),
        ("count", Self::Count),
        ("carry", Self::Carry),
    ];

    /// The act of this name; `bad-header` is another word for `invalid-header`.
    pub fn named(name: &str) -> Option<Self> {
        let name = if name == "bad-header" { "invalid-header" } else { name };
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, act)| *act)
    }

    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, act)| *act == self).map_or("", |(name, _)| name)
    }

    /// Does what ends the call inside the guest. Returns for everything else.
    #[allow(clippy::wildcard_enum_match_arm)]
    pub fn break_down(self) {
        match self {
            Self::Trap => trap(),
            Self::Panic => panic!("asked to panic"),
            Self::Loop => loop {
                black_box(());
            },
            Self::EatMemory => eat_memory(),
            Self::Sleep => std::thread::sleep(std::time::Duration::from_secs(3600)),
            Self::Recurse => {
                black_box(recurse(0));
            }
            _ => {}
        }
    }
}

#[cfg(target_arch = "wasm32")]
fn trap() {
    std::arch::wasm32::unreachable()
}

#[cfg(not(target_arch = "wasm32"))]
fn trap() {
    std::process::abort()
}

fn eat_memory() {
    let mut eaten = Vec::new();
    loop {
        // Not zeroes: the pages must really be there.
        eaten.push(black_box(vec![0xa5_u8; 1 << 20]));
    }
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    // Not a tail call: the frame is read after it.
    recurse(depth + 1) + black_box(&frame)[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_act_is_found_by_its_name() {
        for (name, act) in Act::NAMES {
            assert_eq!(Act::named(name), Some(act));
            assert_eq!(act.name(), name);
        }
        assert_eq!(Act::named("bad-header"), Some(Act::InvalidHeader));
        assert_eq!(Act::named("dance"), None);
    }
}
