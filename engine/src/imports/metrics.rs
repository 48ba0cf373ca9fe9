//! The `metrics` interface: a guest's own numbers, few and with plain names.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::super::bindings::adit::plugin::metrics as bound;
use super::super::store::State;

/// Most numbers of one plugin.
const MOST: usize = 64;
const LONGEST_NAME: usize = 64;

/// One plugin's numbers, over all its instances.
#[derive(Debug, Default)]
pub(crate) struct Metrics(Mutex<BTreeMap<String, Number>>);

/// A number that a plugin reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Counter(u64),
    Gauge(f64),
}

impl Metrics {
    pub(crate) fn all(&self) -> Vec<(String, Number)> {
        let numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.iter().map(|(name, number)| (name.clone(), *number)).collect()
    }

    /// `false` if there is no room, or the name is wrong or belongs to the other kind.
    fn change(&self, name: &str, first: Number, change: impl FnOnce(&mut Number) -> bool) -> bool {
        let mut numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = numbers.get_mut(name) {
            return change(number);
        }
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let fits = !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(is_plain);
        if !fits || numbers.len() >= MOST {
            return false;
        }
        numbers.insert(name.to_owned(), first);
        true
    }

    fn add(&self, name: &str, amount: u64) -> bool {
        self.change(name, Number::Counter(amount), |number| match number {
            Number::Counter(sum) => {
                *sum = sum.wrapping_add(amount);
                true
            }
            Number::Gauge(_) => false,
        })
    }

    fn set(&self, name: &str, value: f64) -> bool {
        self.change(name, Number::Gauge(value), |number| match number {
            Number::Gauge(old) => {
                *old = value;
                true
            }
            Number::Counter(_) => false,
        })
    }
}

impl bound::Host for State {
    fn add(&mut self, counter: String, amount: u64) {
        if !self.sandbox.metrics.add(&counter, amount) {
            self.sandbox.deny();
        }
    }

    fn set(&mut self, gauge: String, value: f64) {
        if !value.is_finite() || !self.sandbox.metrics.set(&gauge, value) {
            self.sandbox.deny();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_gauges_are_replaced_and_the_two_do_not_mix() {
        let metrics = Metrics::default();
        assert!(metrics.add("hits", 1) && metrics.add("hits", 2));
        assert!(metrics.set("depth", 1.5) && metrics.set("depth", 2.5));
        assert!(!metrics.set("hits", 1.0) && !metrics.add("depth", 1));
        let expected = [("depth".to_owned(), Number::Gauge(2.5)), ("hits".to_owned(), Number::Counter(3))];
        assert_eq!(metrics.all(), expected);
    }

    #[test]
    fn a_plugin_cannot_make_numbers_without_end() {
        let metrics = Metrics::default();
        for name in ["", "Hits", "a b", "x\n", &"x".repeat(LONGEST_NAME + 1)] {
            assert!(!metrics.add(name, 1), "{name:?}");
        }
        let added = (0..10 * MOST).filter(|number| metrics.add(&format!("n{number}"), 1)).count();
        assert_eq!((added, metrics.all().len()), (MOST, MOST));
        assert!(metrics.add("n0", 1), "what is there goes on");
    }
}
