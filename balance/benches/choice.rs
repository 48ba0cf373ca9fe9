//! What one choice costs, in nanoseconds: `cargo bench -p adit-balance`.

use std::hint::black_box;
use std::time::Instant;

use adit_balance::selection::{Load, Rank, Score, connection, endpoint, sticky};
use adit_balance::{Key, Lots};

fn main() {
    for endpoints in [2, 10, 100] {
        let scores: Vec<Score> = (0..endpoints)
            .map(|at| Score { rank: Rank::Serving, weight: (at % 100 + 1) as u8, requests: at * 7 % 13 })
            .collect();
        let hashes: Vec<u64> = (0..endpoints).map(|at| Key::of(&at.to_le_bytes()).0).collect();
        let all = || scores.iter().copied().map(Some);
        let even = Lots::new((0..endpoints).map(|_| 100));
        let uneven = Lots::new(scores.iter().map(|score| score.weight));
        let better = |lots: &Lots, chance| {
            let (first, other) = lots.two(chance).unwrap_or_default();
            if scores[other].is_better_than(&scores[first]) { other } else { first }
        };
        println!("{endpoints} endpoints");
        time("two of equal weight", |chance| better(&even, chance));
        time("two by weight", |chance| better(&uneven, chance));
        time("all looked at", |chance| endpoint(all(), chance).unwrap_or_default());
        time("by the visitor", |chance| sticky(all(), |at| Key(chance).with(hashes[at])).unwrap_or_default());
        let loads = || scores.iter().map(|score| Some(of(score)));
        time("of as many connections", |chance| connection(loads(), chance).unwrap_or_default());
    }
}

fn of(score: &Score) -> Load {
    Load { is_silent: false, is_far: false, requests: score.requests }
}

fn time(name: &str, choose: impl Fn(u64) -> usize) {
    const TIMES: u64 = 1_000_000;
    let mut least = f64::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        for turn in 0..TIMES {
            black_box(choose(black_box(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
        }
        least = least.min(began.elapsed().as_nanos() as f64 / TIMES as f64);
    }
    println!("  {name:<24} {least:7.1} ns");
}
