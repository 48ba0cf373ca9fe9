//! Weights laid out for drawing: made when an endpoint comes, leaves or gets another weight, and only read for a
//! choice. Knows weights; does not know how endpoints are at the moment.

use crate::part;

/// Lots in an urn: each endpoint has as many as its weight.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lots {
    /// Up to and with each endpoint.
    sums: Vec<u32>,
    /// Every endpoint has the same weight, and it is not 0.
    is_even: bool,
}

impl Lots {
    pub fn new(weights: impl IntoIterator<Item = impl Into<u32>>) -> Self {
        let (mut sum, mut first, mut is_even) = (0_u32, None, true);
        let sums = weights
            .into_iter()
            .map(|weight| {
                let weight = weight.into();
                is_even &= weight > 0 && *first.get_or_insert(weight) == weight;
                sum = sum.saturating_add(weight);
                sum
            })
            .collect();
        Self { sums, is_even }
    }

    /// Two endpoints to compare, the first of which is each as likely as its weight says. `None` where there are
    /// fewer than two, or none has a weight.
    ///
    /// Of endpoints of one weight they are two different ones. Of others the second is drawn like the first, and
    /// may be the same one: a heavy endpoint that always had to compare with a light one would lose its share to
    /// it whenever little is under way.
    pub fn two(&self, chance: u64) -> Option<(usize, usize)> {
        let count = self.sums.len();
        if count < 2 {
            return None;
        }
        if self.is_even {
            let (first, other) = (part(chance >> 32, count), part(chance, count - 1));
            return Some((first, if other < first { other } else { other + 1 }));
        }
        Some((self.draw(chance >> 32)?, self.draw(chance)?))
    }

    /// One endpoint, each as likely as its weight says, by the lower half of `chance`.
    pub fn draw(&self, chance: u64) -> Option<usize> {
        let all = *self.sums.last().filter(|all| **all > 0)?;
        let lot = part(chance, all as usize) as u32;
        Some(self.sums.partition_point(|sum| *sum <= lot))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::selection::tests::{cases, chances, is_within_chance};

    #[test]
    fn every_pair_of_alike_endpoints_is_as_likely_as_any_other() {
        let (lots, mut seen) = (Lots::new([7_u8; 4]), HashMap::new());
        for chance in chances(12_000) {
            let (one, other) = lots.two(chance).unwrap();
            assert!(one != other && one < 4 && other < 4);
            *seen.entry((one, other)).or_insert(0_u32) += 1;
        }
        assert_eq!(seen.len(), 12);
        assert!(seen.values().all(|times| is_within_chance(*times, 12_000, 1.0 / 12.0)), "{seen:?}");
    }

    #[test]
    fn there_is_nothing_to_draw_from_one_endpoint_or_from_none_with_a_weight() {
        for weights in [&[][..], &[1_u8], &[0, 0]] {
            assert_eq!(Lots::new(weights.iter().copied()).two(7), None, "{weights:?}");
        }
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn each_is_drawn_as_often_as_its_weight_says(weights in prop::collection::vec(0..=100_u8, 2..20)) {
            let all: u32 = weights.iter().copied().map(u32::from).sum();
            prop_assume!(all > 0);
            let lots = Lots::new(weights.iter().copied());
            let mut firsts = vec![0_u32; weights.len()];
            for chance in chances(5_000) {
                firsts[lots.two(chance).unwrap().0] += 1;
            }
            for (drawn, weight) in firsts.into_iter().zip(weights) {
                let share = f64::from(weight) / f64::from(all);
                prop_assert!(is_within_chance(drawn, 5_000, share), "{drawn} of 5,000 for {share}");
                prop_assert!(weight > 0 || drawn == 0);
            }
        }

        #[test]
        fn weights_are_compared_and_nothing_else(
            weights in prop::collection::vec(0..=25_u8, 2..20), factor in 1..=4_u8, chance: u64,
        ) {
            let scaled = Lots::new(weights.iter().map(|weight| weight * factor));
            prop_assert_eq!(Lots::new(weights).two(chance), scaled.two(chance));
        }
    }
}
