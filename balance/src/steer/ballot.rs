//! Candidates laid out for drawing: endpoints of a pool, or pools of a balancer. Made when one comes, leaves, or
//! changes its standing or weight; a choice only reads it. What changes with each request, how much is under way
//! and what was tried already, is asked for while choosing.

use super::Standing;
use crate::hash::bid;
use crate::{Key, Lots, next};

/// One that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub standing: Standing,
    /// In parts of [`ONE`], compared with the weights of the others. One without weight serves only where nobody
    /// else does.
    pub weight: u32,
    /// Of what it is called, the same on every edge.
    pub hash: u64,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ballot {
    candidates: Vec<Kept>,
    /// Which of them are of the best class, and their weights laid out.
    best: Vec<u16>,
    lots: Lots,
    /// Of those of the best class.
    mean: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Kept {
    /// `None` is out of the question.
    class: Option<Class>,
    weight: u32,
    hash: u64,
}

/// Who comes before whom, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Up,
    Unknown,
    UpWithoutWeight,
    UnknownWithoutWeight,
    Down,
    DownWithoutWeight,
}

impl Class {
    fn of(candidate: &Candidate) -> Self {
        match (candidate.standing, candidate.weight) {
            (Standing::Up, 1..) => Self::Up,
            (Standing::Unknown, 1..) => Self::Unknown,
            (Standing::Up, 0) => Self::UpWithoutWeight,
            (Standing::Unknown, 0) => Self::UnknownWithoutWeight,
            (Standing::Down, 1..) => Self::Down,
            (Standing::Down, 0) => Self::DownWithoutWeight,
        }
    }
}

impl Ballot {
    /// `None` keeps a place for one that is out of the question, such as a disabled endpoint or a critical pool.
    /// Those beyond the first 65,536 are left out.
    pub fn new(candidates: impl IntoIterator<Item = Option<Candidate>>) -> Self {
        let candidates: Vec<_> =
            candidates.into_iter().take(1 + usize::from(u16::MAX)).map(Kept::of).collect();
        let class = candidates.iter().filter_map(|kept| kept.class).min();
        let best: Vec<u16> = (0..=u16::MAX)
            .zip(&candidates)
            .filter(|(_, kept)| kept.class.is_some() && kept.class == class)
            .map(|(at, _)| at)
            .collect();
        let weights = || best.iter().map(|at| candidates[usize::from(*at)].weight);
        let mean = weights().map(f64::from).sum::<f64>() / best.len().max(1) as f64;
        let lots = Lots::new(weights());
        Self { candidates, best, lots, mean }
    }

    pub fn len(&self) -> usize {
        self.candidates.len()
    }

    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// The part of all choices by weight that one is worth, as long as all of them are open.
    pub fn part(&self, at: usize) -> f64 {
        let is_best = self.best.iter().any(|best| usize::from(*best) == at);
        let weight = self.candidates.get(at).filter(|_| is_best).map_or(0, |kept| kept.weight);
        f64::from(weight) / (self.mean * self.best.len() as f64).max(1.0)
    }

    /// Each as often as its weight says. Those that are not `open` are passed over: tried by this request already.
    pub fn random(&self, open: impl Fn(usize) -> bool, chance: u64) -> Option<usize> {
        let drawn = match self.best.as_slice() {
            [] => return None,
            [one] => Some(*one),
            best => self.lots.draw(chance).map(|at| best[at]),
        };
        match drawn.map(usize::from) {
            Some(at) if open(at) => Some(at),
            Some(_) | None => self.scan(open, chance).map(|[one, _]| one),
        }
    }

    /// The one that `key` belongs to: weighted rendezvous hashing. When one goes only its own keys move, and return
    /// with it; a new weight moves keys only to or from its candidate.
    pub fn hashed(&self, key: Key, open: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best: Option<(Class, f64, usize)> = None;
        for (at, kept) in self.candidates.iter().enumerate() {
            let Some(class) = kept.class else { continue };
            if best.is_some_and(|(least, ..)| class > least) || !open(at) {
                continue;
            }
            let highest = best.filter(|(least, ..)| *least == class).map_or(0.0, |(_, highest, _)| highest);
            if let Some(bid) = bid(f64::from(kept.weight), key.with(kept.hash), highest) {
                best = Some((class, bid, at));
            }
        }
        best.map(|(.., at)| at)
    }

    /// Two are drawn by weight, and the one with less to do for its weight is it, the first one at a tie. `load`
    /// is how much is under way, requests or connections; `None` has been tried already.
    pub fn least(&self, load: impl Fn(usize) -> Option<usize>, chance: u64) -> Option<usize> {
        self.better_of_two(&load, chance, |(load, weight), (other, other_weight)| {
            load as u128 * u128::from(other_weight) < other as u128 * u128::from(weight)
        })
    }

    /// The same by latency: the one that would answer earlier, if each had to serve before it what it has under
    /// way for its weight. `load` is the latency ([`super::Peak`]) and how much is under way.
    pub fn quickest(&self, load: impl Fn(usize) -> Option<(f64, usize)>, chance: u64) -> Option<usize> {
        let wait = |((latency, load), weight): ((f64, usize), u32)| {
            latency * (load as f64 * self.mean / f64::from(weight) + 1.0)
        };
        self.better_of_two(&load, chance, |one, other| wait(one) < wait(other))
    }

    /// Compares what it was told once: a load may change from one look to the next.
    fn better_of_two<L: Copy>(
        &self,
        load: &impl Fn(usize) -> Option<L>,
        chance: u64,
        is_better: impl Fn((L, u32), (L, u32)) -> bool,
    ) -> Option<usize> {
        let drawn = match self.best.as_slice() {
            [] => return None,
            [one] => Some((*one, *one)),
            best => self.lots.two(chance).map(|(first, other)| (best[first], best[other])),
        };
        let loads = drawn.map(|(first, other)| {
            let (first, other) = (usize::from(first), usize::from(other));
            ((first, load(first)), (other, load(other)))
        });
        let (first, other) = match loads {
            Some(((first, Some(its)), (other, Some(others)))) => ((first, its), (other, others)),
            Some(((at, Some(_)), (_, None)) | ((_, None), (at, Some(_)))) => return Some(at),
            Some(((_, None), (_, None))) | None => {
                let [first, other] = self.scan(|at| load(at).is_some(), chance)?;
                let (Some(its), Some(others)) = (load(first), load(other)) else { return Some(first) };
                ((first, its), (other, others))
            }
        };
        let weight = |at: usize| self.candidates[at].weight;
        let is_other = is_better((other.1, weight(other.0)), (first.1, weight(first.0)));
        Some(if is_other { other.0 } else { first.0 })
    }

    /// Two drawn by weight from those that are open, of their best class, in one pass.
    fn scan(&self, open: impl Fn(usize) -> bool, mut chance: u64) -> Option<[usize; 2]> {
        let mut best: Option<(Class, u64, [usize; 2])> = None;
        for (at, kept) in self.candidates.iter().enumerate() {
            let Some(class) = kept.class else { continue };
            if best.is_some_and(|(least, ..)| class > least) || !open(at) {
                continue;
            }
            let weight = u64::from(kept.weight);
            match &mut best {
                Some((least, sum, drawn)) if *least == class => {
                    *sum += weight;
                    for drawn in drawn {
                        // Each is the last that was kept with the likelihood of its weight.
                        if (u128::from(next(&mut chance)) * u128::from(*sum)) >> 32 < u128::from(weight) {
                            *drawn = at;
                        }
                    }
                }
                Some(_) | None => best = Some((class, weight, [at; 2])),
            }
        }
        best.map(|(.., drawn)| drawn)
    }
}

impl Kept {
    fn of(candidate: Option<Candidate>) -> Self {
        let Some(candidate) = candidate else { return Self { class: None, weight: 0, hash: 0 } };
        // Those without weight are only among themselves, and alike.
        let weight = if candidate.weight == 0 { ONE } else { candidate.weight };
        Self { class: Some(Class::of(&candidate)), weight, hash: candidate.hash }
    }
}

/// The weight 1. A weight has hundredths, and slow start makes hundredths of them.
pub const ONE: u32 = 10_000;
