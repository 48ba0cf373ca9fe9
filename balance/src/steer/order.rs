//! Pools in an order: the first that may serve. One that is up comes before one of which nothing is known, whatever
//! the order says; one that is down is never chosen here, because a balancer has a fallback for that.

use super::Standing;

/// A pool as steering sees it. `None` in a list is out of the question: tried already, or disabled.
pub type Seen<T> = Option<(Standing, T)>;

/// A place on Earth, in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub latitude: f64,
    pub longitude: f64,
}

/// As they are written.
pub fn first(pools: impl Iterator<Item = Option<Standing>>) -> Option<usize> {
    by(pools.map(|standing| Some((standing?, 0.0))))
}

/// The nearest to `from`. Pools without a place come last, in their order; so do all where it is not known where
/// this is.
pub fn nearest(from: Option<Point>, pools: impl Iterator<Item = Seen<Option<Point>>>) -> Option<usize> {
    by(pools.map(|seen| {
        let (standing, place) = seen?;
        let distance = from.zip(place).map_or(f64::INFINITY, |(from, place)| from.angle(place));
        Some((standing, distance))
    }))
}

/// The one with the least latency, in seconds; those of which none is known come after, in their order. `current`,
/// where the last request went, stays until another is better by a tenth and by five milliseconds: else two
/// that are alike would take turns with each probe.
pub fn quickest(current: Option<usize>, pools: impl Iterator<Item = Seen<Option<f64>>>) -> Option<usize> {
    let (mut best, mut now): (Option<Rated>, Option<Rated>) = (None, None);
    for (at, seen) in pools.enumerate() {
        let Some((standing, latency)) = seen else { continue };
        let rated = Rated { standing, value: latency.unwrap_or(f64::INFINITY), at };
        if standing == Standing::Down {
            continue;
        }
        if Some(at) == current && rated.value.is_finite() {
            now = Some(rated);
        }
        if best.is_none_or(|best| rated.is_before(&best)) {
            best = Some(rated);
        }
    }
    let best = best?;
    let stays = now.filter(|now| {
        let is_better =
            best.value <= now.value * (1.0 - CLEARLY) && best.value <= now.value - CLEARLY_SECONDS;
        now.standing == best.standing && !is_better
    });
    Some(stays.unwrap_or(best).at)
}

/// The least value of the best standing, the first one of equals.
fn by(pools: impl Iterator<Item = Seen<f64>>) -> Option<usize> {
    let mut best: Option<Rated> = None;
    for (at, seen) in pools.enumerate() {
        let Some((standing, value)) = seen else { continue };
        let rated = Rated { standing, value, at };
        if standing != Standing::Down && best.is_none_or(|best| rated.is_before(&best)) {
            best = Some(rated);
        }
    }
    best.map(|best| best.at)
}

#[derive(Clone, Copy)]
struct Rated {
    standing: Standing,
    value: f64,
    at: usize,
}

impl Rated {
    fn is_before(&self, other: &Self) -> bool {
        self.standing < other.standing || (self.standing == other.standing && self.value < other.value)
    }
}

impl Point {
    /// `None` unless both are degrees on Earth.
    pub fn new(latitude: f64, longitude: f64) -> Option<Self> {
        let is_there = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        is_there.then_some(Self { latitude, longitude })
    }

    /// The angle between two places seen from the middle of the Earth, in radians: the great-circle distance on
    /// a ball. By the haversine, which is exact for near places, and clamped, because rounding makes a little
    /// more than the other side of the Earth.
    pub fn angle(self, other: Self) -> f64 {
        let haversine = |angle: f64| (angle.to_radians() / 2.0).sin().powi(2);
        let (one, two) = (self.latitude.to_radians(), other.latitude.to_radians());
        let along = one.cos() * two.cos() * haversine(other.longitude - self.longitude);
        2.0 * (haversine(other.latitude - self.latitude) + along).clamp(0.0, 1.0).sqrt().asin()
    }
}

/// How much better another pool has to be.
const CLEARLY: f64 = 0.1;
const CLEARLY_SECONDS: f64 = 0.005;
