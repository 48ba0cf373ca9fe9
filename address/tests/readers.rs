//! What a server comes to is always among the readings, so that a rule which asks all of them guards it.

use adit_address::Readings;
use proptest::prelude::*;
use servers::READERS;

mod servers;

fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "/", "//", "private", "x", ".", "..", "%2e", "%2E", "%2f", "%5c", "\\", ";", ";a=b", "%3b", "%70",
        "%2570", "%252e", "%252f", "%00", "%3f", "/../", "/./", "%20", "%", "a",
    ])
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..9).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_server_comes_to_is_among_the_readings(path in path()) {
        let readings = Readings::of(&path);
        for (name, reader) in READERS {
            let comes_to = reader(&path);
            let is_known = readings.any(|reading| reading == comes_to);
            prop_assert!(is_known, "{name} takes {path} for {comes_to}: {readings:?}");
        }
    }

    #[test]
    fn no_path_takes_long_or_panics(path in ".{0,200}") {
        Readings::of(&path);
        adit_address::plain(&path);
    }
}
