//! The last exchanges of one shard: so many, and so many bytes. Whoever has the most of them loses its oldest when
//! there is no room, so that one who asks without end does not push the others out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::exchange::Exchange;

#[derive(Default)]
pub(crate) struct Ring {
    kept: VecDeque<Kept>,
    bytes: usize,
    /// How many each source has.
    sources: HashMap<u64, usize>,
}

struct Kept {
    source: u64,
    size: usize,
    exchange: Arc<Exchange>,
}

impl Ring {
    /// Keeps one, within `most` exchanges and `most_bytes`; how many had to go for it. One that is larger than the
    /// ring is not kept.
    pub(crate) fn push(&mut self, source: u64, exchange: Exchange, most: usize, most_bytes: usize) -> u64 {
        let size = exchange.size();
        if size > most_bytes || most == 0 {
            return 1;
        }
        let mut gone = 0;
        while self.kept.len() >= most || self.bytes + size > most_bytes {
            self.drop_one();
            gone += 1;
        }
        self.bytes += size;
        *self.sources.entry(source).or_default() += 1;
        self.kept.push_back(Kept { source, size, exchange: Arc::new(exchange) });
        gone
    }

    /// The oldest of the source that has the most.
    fn drop_one(&mut self) {
        let most = self.sources.values().copied().max().unwrap_or_default();
        let is_of_most = |kept: &Kept| self.sources.get(&kept.source) == Some(&most);
        let at = self.kept.iter().position(is_of_most).unwrap_or_default();
        let Some(Kept { source, size, exchange: _ }) = self.kept.remove(at) else { return };
        self.bytes -= size;
        if let Some(count) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Exchange>> {
        self.kept.iter().map(|kept| &kept.exchange)
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives everything back, the room too.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Message;

    fn exchange(number: u64, length: usize) -> Exchange {
        Exchange {
            number,
            id: "x".repeat(length),
            started: 0,
            generation: 1,
            rule: String::new(),
            method: "GET".to_owned(),
            scheme: "https".to_owned(),
            host: String::new(),
            target: "/".to_owned(),
            visitor: String::new(),
            status: 200,
            outcome: "whole".to_owned(),
            plugins: String::new(),
            total: 1,
            stages: Vec::new(),
            request: Message::default(),
            answer: Message::default(),
        }
    }

    #[test]
    fn a_ring_has_an_end_by_number_and_by_bytes() {
        let mut ring = Ring::default();
        for number in 0..100 {
            ring.push(1, exchange(number, 0), 10, 1 << 20);
        }
        assert_eq!(ring.iter().map(|kept| kept.number).collect::<Vec<_>>(), (90..100).collect::<Vec<_>>());
        let most = 64 << 10;
        for number in 0..1_000 {
            ring.push(1, exchange(number, 8 << 10), 10_000, most);
            assert!(ring.bytes() <= most && ring.bytes() >= ring.iter().map(|kept| kept.size()).sum());
        }
        // What cannot be kept pushes nothing out.
        let before = ring.len();
        assert_eq!(ring.push(2, exchange(0, most), 10_000, most), 1);
        assert_eq!(ring.len(), before);
        ring.clear();
        assert_eq!((ring.len(), ring.bytes(), ring.kept.capacity(), ring.sources.capacity()), (0, 0, 0, 0));
    }

    #[test]
    fn one_who_asks_without_end_pushes_nobody_else_out() {
        let mut ring = Ring::default();
        for number in 0..5 {
            ring.push(number, exchange(number, 0), 20, 1 << 20);
        }
        for number in 5..10_000 {
            ring.push(77, exchange(number, 0), 20, 1 << 20);
        }
        let left: Vec<u64> = ring.iter().map(|kept| kept.number).collect();
        assert_eq!(left[..5], [0, 1, 2, 3, 4]);
        assert_eq!(left.len(), 20);
    }
}
