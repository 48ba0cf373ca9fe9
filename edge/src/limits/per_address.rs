//! How much each source of visitors has open, so that one cannot take the room of all others. Knows addresses
//! and numbers; does not know sockets or HTTP.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_net::network::{Network, source};

/// What one source may have open at once; 0 is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    pub(crate) requests: usize,
    /// Where nothing is limited, such as proxies in front of this edge.
    pub(crate) unlimited: Vec<Network>,
}

/// Every source that has a connection. Its lock is taken when a connection begins and when it ends.
#[derive(Debug)]
pub(crate) struct AddressLimits {
    limits: Limits,
    known: Mutex<HashMap<IpAddr, Known>>,
    /// Bodies of no use from where nothing is limited.
    lingering: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Known {
    connections: usize,
    requests: Arc<AtomicUsize>,
    lingering: Arc<AtomicUsize>,
}

/// One connection of a source, as long as it lives.
#[derive(Debug)]
pub(crate) struct Source {
    sources: Arc<AddressLimits>,
    address: IpAddr,
    /// Of all connections of the source; absent where nothing is limited.
    requests: Option<Arc<AtomicUsize>>,
    /// Bodies of all connections of the source that are read to no end.
    lingering: Arc<AtomicUsize>,
}

/// A body that is read only so that its sender gets to see the answer, as long as it is.
#[derive(Debug)]
pub(crate) struct Lingering(Arc<AtomicUsize>);

impl AddressLimits {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, known: Mutex::default(), lingering: Arc::default() })
    }

    /// A place for one more connection from `address`, unless it has enough.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Source> {
        if self.limits.unlimited.iter().any(|network| network.contains(address)) {
            let lingering = self.lingering.clone();
            return Some(Source { sources: self.clone(), address, requests: None, lingering });
        }
        let address = source(address);
        let mut known = self.known();
        let entry = known.entry(address).or_default();
        if self.limits.connections != 0 && entry.connections >= self.limits.connections {
            return None;
        }
        entry.connections += 1;
        let requests = Some(entry.requests.clone());
        let lingering = entry.lingering.clone();
        Some(Source { sources: self.clone(), address, requests, lingering })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<IpAddr, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    /// Whether it is one of those that the operator trusts with any number.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.requests.is_none()
    }

    /// Counts a request; whether the source may have it. Either way its end is to be told.
    pub(crate) fn begin(&self) -> bool {
        let Some(requests) = &self.requests else { return true };
        let before = requests.fetch_add(1, Ordering::Relaxed);
        self.sources.limits.requests == 0 || before < self.sources.limits.requests
    }

    /// A place to read one more body of the source that is of no use, unless it has enough of them.
    pub(crate) fn linger(&self) -> Option<Lingering> {
        let before = self.lingering.fetch_add(1, Ordering::Relaxed);
        let lingering = Lingering(self.lingering.clone());
        let most = if self.requests.is_some() { MOST_LINGERING } else { MOST_LINGERING_UNLIMITED };
        (before < most).then_some(lingering)
    }

    pub(crate) fn end(&self) {
        if let Some(requests) = &self.requests {
            requests.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if self.requests.is_none() {
            return;
        }
        let mut known = self.sources.known();
        if let Some(entry) = known.get_mut(&self.address) {
            entry.connections -= 1;
            if entry.connections == 0 {
                known.remove(&self.address);
            }
        }
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bodies of no use that one source may send at once.
const MOST_LINGERING: usize = 4;
/// The same for all together that are not limited: each may stand for many visitors.
const MOST_LINGERING_UNLIMITED: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn sources(connections: usize, requests: usize) -> Arc<AddressLimits> {
        let unlimited = vec!["10.1.0.0/16".parse().unwrap(), "::1".parse().unwrap()];
        AddressLimits::new(Limits { connections, requests, unlimited })
    }

    #[test]
    fn a_source_gets_its_share_and_takes_nothing_from_others() {
        let sources = sources(2, 3);
        let first = sources.admit(address("192.0.2.1")).unwrap();
        let second = sources.admit(address("::ffff:192.0.2.1")).unwrap();
        assert!(sources.admit(address("192.0.2.1")).is_none());
        assert!(sources.admit(address("192.0.2.2")).is_some());
        assert_eq!([first.begin(), second.begin(), first.begin(), second.begin()], [true, true, true, false]);
        second.end();
        assert!(!first.begin(), "the one that was refused counts until its end");
        first.end();
        second.end();
        assert!(first.begin());
        drop(first);
        assert!(sources.admit(address("192.0.2.1")).is_some());
        drop(second);
        assert!(sources.known().is_empty());
    }

    #[test]
    fn a_source_is_read_without_use_only_so_often_at_once() {
        let sources = sources(0, 0);
        let (one, other) =
            ["192.0.2.1", "192.0.2.2"].map(|text| sources.admit(address(text)).unwrap()).into();
        let beside = sources.admit(address("192.0.2.1")).unwrap();
        let mut lingering: Vec<_> = (0..MOST_LINGERING).map(|_| one.linger().unwrap()).collect();
        assert!(one.linger().is_none() && beside.linger().is_none());
        assert!(other.linger().is_some());
        lingering.pop();
        assert!(beside.linger().is_some());
    }

    #[test]
    fn addresses_of_one_subscriber_are_one_source() {
        let sources = sources(1, 0);
        let one = sources.admit(address("2001:db8:0:1::1")).unwrap();
        assert!(sources.admit(address("2001:db8:0:1:ffff::2")).is_none());
        assert!(sources.admit(address("2001:db8:0:2::1")).is_some());
        assert!((0..100).all(|_| one.begin()), "0 is no limit");
    }

    #[test]
    fn whoever_is_not_limited_is_not_counted() {
        let sources = sources(1, 1);
        let many: Vec<_> =
            ["10.1.2.3", "10.1.2.3", "::1", "::1"].map(|text| sources.admit(address(text)).unwrap()).into();
        assert!(many.iter().all(|source| source.begin() && source.begin()));
        assert!(sources.known().is_empty());
    }
}
