//! Bytes that somebody sends to the name server: they are answered or not, without a panic; an answer is one to the
//! question, fits where it is sent, and is no lever for whoever asks in another's name.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|question: &[u8]| {
    let Some([short, whole, cut]) = adit_edge::dns_answers(question) else { return };
    for answer in [&short, &whole, &cut] {
        assert!(answer.len() >= HEAD && answer[..2] == question[..2], "the question is known by its number");
        assert!(answer[2] & 0x80 != 0, "an answer says that it is one, or servers would answer each other");
        assert!(answer[3] & 0x80 == 0, "nobody is asked for others");
    }
    assert!(short.len() <= LONGEST, "no network breaks it into pieces");
    // At most what was asked, in the form of names that takes most room, and what says how much is taken.
    assert!(cut.len() <= question.len().max(HEAD) * 2 + HEAD, "{} for {}", cut.len(), question.len());
});

/// Bytes of a head.
const HEAD: usize = 12;
const LONGEST: usize = 1232;
