//! What one choice costs, in nanoseconds: the least of some rounds, beside what it may cost.

use std::hint::black_box;
use std::time::{Duration, Instant};

use adit_balance::selection::{self, Load, Rank, Score};
use adit_balance::steer::{Ballot, Candidate, ONE, Peak, Standing};
use adit_balance::{Key, Lots};

/// Prints it, and says whether every choice costs no more than it may.
pub(crate) fn print() -> bool {
    let mut prices = Prices::default();
    for (column, endpoints) in COUNTS.into_iter().enumerate() {
        pools(&mut prices, column, endpoints);
        replicas(&mut prices, column, endpoints);
    }
    println!(
        "Nanoseconds for a choice among so many; in the last column the most that it may take among 100.\n"
    );
    println!("| | {} | {} | {} | at most |\n|---|--:|--:|--:|--:|", COUNTS[0], COUNTS[1], COUNTS[2]);
    for Price { name, most, took } in &prices.0 {
        let most = most.map_or(String::new(), |most| format!("{most:.0}"));
        println!("| {name} | {:.1} | {:.1} | {:.1} | {most} |", took[0], took[1], took[2]);
    }
    println!();
    prices.0.iter().all(|price| price.most.is_none_or(|most| price.took[2] <= most))
}

/// The choices of load balancers, among pools or endpoints.
fn pools(prices: &mut Prices, column: usize, endpoints: usize) {
    let hashes: Vec<u64> = (0..endpoints).map(|at| Key::of(&at.to_le_bytes()).0).collect();
    let weight = |at: usize| (at % 100 + 1) as u32 * (ONE / 100);
    let ballot = Ballot::new(
        (0..endpoints)
            .map(|at| Some(Candidate { standing: Standing::Up, weight: weight(at), hash: hashes[at] })),
    );
    let now = Duration::from_secs(9);
    let peaks: Vec<Peak> = (0..endpoints)
        .map(|at| {
            let peak = Peak::new(Duration::ZERO);
            peak.answered(Duration::from_secs(8), Duration::from_millis(at as u64 % 7));
            peak
        })
        .collect();
    let load = |at: usize| at * 7 % 13;
    let mut time =
        |name, most, choose: &dyn Fn(u64) -> Option<usize>| prices.time(name, most, column, choose);
    time("random", TWO, &|chance| ballot.random(|_| true, chance));
    time("two by weight, the one with less to do", TWO, &|chance| ballot.least(|at| Some(load(at)), chance));
    time("two by weight, the quicker one (peak EWMA)", TWO, &|chance| {
        ballot.quickest(|at| Some((peaks[at].value(now), load(at))), chance)
    });
    time("hash", HASH, &|chance| ballot.hashed(Key(chance), |_| true));
    time("random, after all but one failed", None, &|chance| {
        let left = chance as usize % endpoints;
        ballot.random(|at| at == left, chance)
    });
}

/// The choices within a tunnel.
fn replicas(prices: &mut Prices, column: usize, replicas: usize) {
    let scores: Vec<Score> = (0..replicas)
        .map(|at| Score { rank: Rank::Serving, weight: (at % 100 + 1) as u8, requests: at * 7 % 13 })
        .collect();
    let hashes: Vec<u64> = (0..replicas).map(|at| Key::of(&at.to_le_bytes()).0).collect();
    let all = || scores.iter().copied().map(Some);
    let even = Lots::new((0..replicas).map(|_| 100_u8));
    let uneven = Lots::new(scores.iter().map(|score| score.weight));
    let better = |lots: &Lots, chance| {
        let (first, other) = lots.two(chance)?;
        Some(if scores[other].is_better_than(&scores[first]) { other } else { first })
    };
    let loads = || {
        let load = |score: &Score| Load { is_silent: false, is_far: false, requests: score.requests };
        scores.iter().map(move |score| Some(load(score)))
    };
    let mut time =
        |name, most, choose: &dyn Fn(u64) -> Option<usize>| prices.time(name, most, column, choose);
    time("replicas: two of equal weight", TWO, &|chance| better(&even, chance));
    time("replicas: two by weight", TWO, &|chance| better(&uneven, chance));
    time("replicas: all looked at", None, &|chance| selection::endpoint(all(), chance));
    time("replicas: by the visitor", HASH, &|chance| {
        selection::sticky(all(), |at| Key(chance).with(hashes[at]))
    });
    time("connections", None, &|chance| selection::connection(loads(), chance));
}

#[derive(Default)]
struct Prices(Vec<Price>);

struct Price {
    name: &'static str,
    most: Option<f64>,
    took: [f64; COUNTS.len()],
}

impl Prices {
    fn time(
        &mut self,
        name: &'static str,
        most: Option<f64>,
        column: usize,
        choose: &dyn Fn(u64) -> Option<usize>,
    ) {
        let mut least = f64::MAX;
        for _ in 0..ROUNDS {
            let began = Instant::now();
            for turn in 0..TIMES {
                black_box(choose(black_box(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
            }
            least = least.min(began.elapsed().as_nanos() as f64 / TIMES as f64);
        }
        let known = self.0.iter().position(|price| price.name == name);
        let at = known.unwrap_or_else(|| {
            self.0.push(Price { name, most, took: [0.0; COUNTS.len()] });
            self.0.len() - 1
        });
        self.0[at].took[column] = least;
    }
}

const COUNTS: [usize; 3] = [2, 10, 100];
/// Nanoseconds.
const TWO: Option<f64> = Some(200.0);
const HASH: Option<f64> = Some(1500.0);
const TIMES: u64 = 300_000;
const ROUNDS: u32 = 5;
