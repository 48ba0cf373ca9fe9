//! What one source of visitors may have open at once, which proxies in front say where visitors come from, and what
//! one account may have of the state.

use std::ops::RangeInclusive;

use adit_config_reader::Spanned;
use adit_net::network::Network;

use super::Rules;
use super::document::Visitors;
use crate::api::share::Share;
use crate::limits::per_address::Limits;
use crate::visitor::Proxies;

impl Rules<'_> {
    pub(crate) fn sources(&mut self, section: Option<&Visitors>, proxies: &Proxies) -> Limits {
        let written =
            |key: fn(&Visitors) -> &Option<Spanned<i64>>| section.and_then(|keys| key(keys).as_ref());
        let connections = self.count(written(|keys| &keys.connections_per_address), CONNECTIONS, 0..=MOST);
        let requests = self.count(written(|keys| &keys.requests_per_address), REQUESTS, 0..=MOST);
        let mut unlimited = match section.and_then(|keys| keys.unlimited_addresses.as_ref()) {
            Some(written) => self.networks(written),
            None => UNLIMITED.iter().filter_map(|text| text.parse().ok()).collect(),
        };
        // What they have open is their visitors'.
        unlimited.extend(&proxies.trusted);
        Limits { connections, requests, unlimited }
    }

    pub(crate) fn proxies(&mut self, section: Option<&Visitors>) -> Proxies {
        let written = section.and_then(|keys| keys.trusted_proxies.as_ref());
        let trusted = written.map_or_else(Vec::new, |written| self.networks(written));
        let announce = section.and_then(|keys| keys.proxy_protocol.as_ref());
        if let Some(announce) = announce
            && *announce.get_ref()
            && written.is_none_or(|written| written.get_ref().is_empty())
        {
            let help = "say who speaks it: trusted-proxies = [\"10.0.0.0/8\"]";
            let message = "the PROXY protocol is only understood from trusted proxies, and there are none";
            self.mistakes.add_with_help(announce.span(), message, help);
        }
        Proxies { trusted, announce: announce.is_some_and(|announce| *announce.get_ref()) }
    }

    pub(super) fn share(
        &mut self,
        tunnels: Option<Spanned<i64>>,
        records: Option<Spanned<i64>>,
        bytes: Option<Spanned<String>>,
    ) -> Share {
        let bytes = self.size(bytes, USUAL_STATE, STATE);
        Share {
            tunnels: self.count(tunnels.as_ref(), TUNNELS, 0..=MOST),
            records: self.count(records.as_ref(), RECORDS, 0..=MOST),
            bytes: usize::try_from(bytes).unwrap_or(*STATE.end()),
        }
    }

    pub(super) fn networks(&mut self, written: &Spanned<Vec<Spanned<String>>>) -> Vec<Network> {
        written.get_ref().iter().filter_map(|text| self.network(text)).collect()
    }

    pub(super) fn network(&mut self, text: &Spanned<String>) -> Option<Network> {
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
/// Of one account.
const TUNNELS: usize = 100_000;
const RECORDS: usize = 100_000;
const STATE: RangeInclusive<usize> = 1 << 20..=64 << 30;
const USUAL_STATE: u64 = 256 << 20;
/// Whoever is on this machine, such as a proxy in front of the edge.
const UNLIMITED: [&str; 2] = ["127.0.0.0/8", "::1"];
