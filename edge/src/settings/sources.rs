//! What one source of visitors may have open at once.

use std::ops::RangeInclusive;

use adit_document::Spanned;

use super::Rules;
use super::document::Visitors;
use crate::visitor::{Limits, Network};

impl Rules<'_> {
    pub(super) fn sources(&mut self, section: Option<&Visitors>) -> Limits {
        let written =
            |key: fn(&Visitors) -> &Option<Spanned<i64>>| section.and_then(|keys| key(keys).as_ref());
        let connections = self.count(written(|keys| &keys.connections_per_address), CONNECTIONS, 0..=MOST);
        let requests = self.count(written(|keys| &keys.requests_per_address), REQUESTS, 0..=MOST);
        let unlimited = match section.and_then(|keys| keys.unlimited_addresses.as_ref()) {
            Some(written) => written.get_ref().iter().filter_map(|text| self.network(text)).collect(),
            None => UNLIMITED.iter().filter_map(|text| text.parse().ok()).collect(),
        };
        Limits { connections, requests, unlimited }
    }

    fn network(&mut self, text: &Spanned<String>) -> Option<Network> {
        let network = text.get_ref().parse::<Network>();
        let help = "write an address like \"192.0.2.1\" or a network like \"10.0.0.0/8\"";
        network.map_err(|error| self.mistakes.add_with_help(text.span(), error.to_string(), help)).ok()
    }

    fn count(
        &mut self,
        written: Option<&Spanned<i64>>,
        default: usize,
        bounds: RangeInclusive<usize>,
    ) -> usize {
        let Some(written) = written else { return default };
        match usize::try_from(*written.get_ref()) {
            Ok(count) if bounds.contains(&count) => count,
            Ok(_) | Err(_) => {
                let (value, lowest, highest) = (written.get_ref(), bounds.start(), bounds.end());
                let message =
                    format!("{value} is out of range, expected a whole number from {lowest} to {highest}");
                self.mistakes.add(written.span(), message);
                default
            }
        }
    }
}

/// A quarter of what one shard takes from all.
const CONNECTIONS: usize = 2_500;
const REQUESTS: usize = 5_000;
const MOST: usize = 1_000_000;
/// Whoever is on this machine, such as a proxy in front of the edge.
const UNLIMITED: [&str; 2] = ["127.0.0.0/8", "::1"];
