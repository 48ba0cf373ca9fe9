//! What a choice is worth: endpoints some of which are ten times as slow as the others, near their limit. Time is that
//! of the simulation, so that it is the same on every machine.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use adit_balance::selection::{self, Rank, Score};
use adit_balance::steer::{Ballot, Candidate, ONE, Peak, Standing};

/// Prints it, and says whether the ways are in the order that they should be in.
pub(crate) fn print() -> bool {
    println!(
        "{ENDPOINTS} endpoints with {SLOTS} places each, {SLOW} of them ten times as slow (100 ms), {REQUESTS} \
         requests at {:.0} % of what all can do.\n",
        USE * 100.0
    );
    let even = table("Of equal weight", &EVEN, 1.0);
    let uneven = table("The slow ones at half the weight", &UNEVEN, 0.5);
    even && uneven
}

fn table(title: &str, ways: &[Way], slow_weight: f64) -> bool {
    println!("| {title} | p50 ms | p99 ms | share of the slow |\n|---|--:|--:|--:|");
    let mut worst = 0.0;
    let mut is_in_order = true;
    for way in ways {
        let outcome = Simulation::new(*way, slow_weight).run();
        println!(
            "| {} | {:.0} | {:.0} | {:.1} % |",
            way.name(),
            outcome.p50,
            outcome.p99,
            outcome.slow * 100.0
        );
        is_in_order &= outcome.p99 > worst;
        worst = outcome.p99;
    }
    println!("\np99 grows from row to row: {}\n", if is_in_order { "yes" } else { "NO" });
    is_in_order
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Quickest,
    Fewest,
    TwoChoices,
    /// As Envoy has it: at random, with the weight w/(a+1).
    Bent,
    Random,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Quickest => "two by weight, the quicker one (peak EWMA)",
            Self::Fewest => "the one of all with the fewest under way",
            Self::TwoChoices => "two by weight, the one with fewer under way",
            Self::Bent => "w/(a+1) at random, not used here",
            Self::Random => "random",
        }
    }
}

struct Outcome {
    p50: f64,
    p99: f64,
    slow: f64,
}

struct Simulation {
    way: Way,
    weights: Vec<f64>,
    ballot: Ballot,
    endpoints: Vec<Endpoint>,
    /// Ends of requests: nanoseconds and endpoint.
    ends: BinaryHeap<Reverse<(u64, usize, u64)>>,
    chance: u64,
}

struct Endpoint {
    mean: f64,
    serving: usize,
    /// When they came.
    waiting: VecDeque<u64>,
    peak: Peak,
}

impl Simulation {
    fn new(way: Way, slow_weight: f64) -> Self {
        let is_slow = |at: usize| at < SLOW;
        let weights: Vec<f64> =
            (0..ENDPOINTS).map(|at| if is_slow(at) { slow_weight } else { 1.0 }).collect();
        let ballot = Ballot::new(weights.iter().enumerate().map(|(at, weight)| {
            let weight = (weight * f64::from(ONE)) as u32;
            Some(Candidate { standing: Standing::Up, weight, hash: at as u64 })
        }));
        let endpoint = |at| Endpoint {
            mean: if is_slow(at) { 10.0 * QUICK } else { QUICK },
            serving: 0,
            waiting: VecDeque::new(),
            peak: Peak::new(Duration::ZERO),
        };
        let endpoints = (0..ENDPOINTS).map(endpoint).collect();
        Self { way, weights, ballot, endpoints, ends: BinaryHeap::new(), chance: 1 }
    }

    fn run(mut self) -> Outcome {
        let capacity: f64 = self.endpoints.iter().map(|endpoint| SLOTS as f64 / endpoint.mean).sum();
        let (mut now, mut took, mut slow) = (0.0, Vec::with_capacity(REQUESTS), 0);
        for _ in 0..REQUESTS {
            now -= self.unit().ln() / (capacity * USE);
            let arrives = (now * 1e9) as u64;
            self.end_until(arrives, &mut took);
            let at = self.choose(arrives);
            slow += usize::from(at < SLOW);
            if self.endpoints[at].serving < SLOTS {
                self.begin(at, arrives, arrives);
            } else {
                self.endpoints[at].waiting.push_back(arrives);
            }
        }
        self.end_until(u64::MAX, &mut took);
        took.sort_by(f64::total_cmp);
        let part = |share: f64| took[(took.len() as f64 * share) as usize] * 1e3;
        Outcome { p50: part(0.5), p99: part(0.99), slow: slow as f64 / REQUESTS as f64 }
    }

    fn choose(&mut self, now: u64) -> usize {
        let chance = self.next();
        let load = |at: usize| self.endpoints[at].serving + self.endpoints[at].waiting.len();
        let now = Duration::from_nanos(now);
        let chosen = match self.way {
            Way::Random => self.ballot.random(|_| true, chance),
            Way::TwoChoices => self.ballot.least(|at| Some(load(at)), chance),
            Way::Quickest => {
                self.ballot.quickest(|at| Some((self.endpoints[at].peak.value(now), load(at))), chance)
            }
            Way::Fewest => {
                let score = |at| Score { rank: Rank::Serving, weight: 100, requests: load(at) };
                selection::endpoint((0..ENDPOINTS).map(|at| Some(score(at))), chance)
            }
            Way::Bent => {
                let weight = |at: usize| self.weights[at] / (load(at) as f64 + 1.0);
                let mut left =
                    (chance >> 11) as f64 / (1_u64 << 53) as f64 * (0..ENDPOINTS).map(weight).sum::<f64>();
                (0..ENDPOINTS).find(|at| {
                    left -= weight(*at);
                    left < 0.0
                })
            }
        };
        chosen.unwrap_or(ENDPOINTS - 1)
    }

    fn begin(&mut self, at: usize, now: u64, came: u64) {
        // Lognormal with this mean, by two chances (Box and Muller).
        let normal = (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        let takes = self.endpoints[at].mean * (SPREAD * normal - SPREAD * SPREAD / 2.0).exp();
        self.endpoints[at].serving += 1;
        self.ends.push(Reverse((now + (takes * 1e9) as u64, at, came)));
    }

    fn end_until(&mut self, until: u64, took: &mut Vec<f64>) {
        while let Some(Reverse((now, at, came))) =
            self.ends.peek().copied().filter(|Reverse((now, ..))| *now <= until)
        {
            self.ends.pop();
            took.push((now - came) as f64 / 1e9);
            self.endpoints[at].peak.answered(Duration::from_nanos(now), Duration::from_nanos(now - came));
            self.endpoints[at].serving -= 1;
            if let Some(came) = self.endpoints[at].waiting.pop_front() {
                self.begin(at, now, came);
            }
        }
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.chance ^ (self.chance >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1, without 0.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

/// Best first.
const EVEN: [Way; 5] = [Way::Quickest, Way::Fewest, Way::TwoChoices, Way::Bent, Way::Random];
/// With weights two are drawn instead of looking at all.
const UNEVEN: [Way; 4] = [Way::Quickest, Way::TwoChoices, Way::Bent, Way::Random];
const ENDPOINTS: usize = 50;
const SLOW: usize = 5;
const SLOTS: usize = 8;
const REQUESTS: usize = 120_000;
const USE: f64 = 0.8;
/// Seconds.
const QUICK: f64 = 0.01;
/// Of the logarithm.
const SPREAD: f64 = 0.5;
