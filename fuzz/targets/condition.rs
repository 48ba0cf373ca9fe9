//! A condition that somebody wrote, held against a request that somebody sent: it is read or a mistake within it, and
//! neither reading nor holding it is a panic, or takes long.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use adit_balance::condition::{Condition, Headers, View};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // What comes after the first line is the request.
    let (condition, request) = text.split_once('\n').unwrap_or((text, ""));
    let read = match Condition::parse(condition) {
        Ok(read) => read,
        Err(mistake) => {
            assert!((1..=condition.chars().count() + 1).contains(&mistake.at) && !mistake.what.is_empty());
            return;
        }
    };
    let (target, headers) = request.split_once('\n').unwrap_or((request, ""));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let view = View {
        host: path,
        method: "GET",
        path,
        query,
        version: "HTTP/2",
        headers: &Lines(headers),
        client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        seconds: 1_800_000_000,
        balancer: "lb",
        region: "WEU",
    };
    let holds = read.matches(&view);
    // What is in brackets means the same, and its negation the contrary; unless it is as long as one may be.
    if let Ok(negated) = Condition::parse(&format!("not ({condition})"))
        && !condition.trim().is_empty()
    {
        assert_ne!(negated.matches(&view), holds);
    }
});

struct Lines<'a>(&'a str);

impl Headers for Lines<'_> {
    fn each<'a>(&'a self, see: &mut dyn FnMut(&'a str, &'a [u8]) -> bool) {
        let mut fields = self.0.lines().filter_map(|line| line.split_once(':'));
        let _ = fields.any(|(name, value)| see(name, value.as_bytes()));
    }
}
