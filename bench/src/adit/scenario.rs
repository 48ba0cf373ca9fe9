//! What the visitors do, and what they saw.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::options::Options;
use crate::visitor::{self, Door};

/// Closed loops, but for [`Kind::Paced`]: each visitor asks again as soon as it has its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A small GET with a Host header only.
    Get,
    /// The same with the headers of a browser.
    Browser,
    /// A connection for every request.
    Fresh,
    /// 16 KiB of JSON.
    Post,
    /// Small GETs at a fixed rate for all visitors together, a second's worth; who comes late has waited.
    Paced(u32),
    /// Server-sent events, twenty a second for each visitor; every event counts as a request.
    Events,
    /// Messages over a WebSocket, each sent back before the next.
    Messages,
    /// Unary gRPC calls over HTTP/2 in clear.
    Call,
    /// One body to the visitor.
    Down(u64),
    /// One body from the visitor.
    Up(u64),
    /// Bytes of a service that speaks no HTTP, and for one.
    CircuitDown(u64),
    CircuitUp(u64),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) kind: Kind,
    pub(crate) visitors: usize,
}

/// What the visitors saw.
#[derive(Default)]
pub(crate) struct Load {
    /// Of every request, microseconds.
    pub(crate) latencies: Vec<u32>,
    /// Bytes of bodies, both ways.
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
}

pub(crate) fn all(options: &Options) -> Vec<Scenario> {
    let small = [Kind::Get, Kind::Browser, Kind::Fresh, Kind::Post];
    let small = small
        .into_iter()
        .flat_map(|kind| options.visitors.iter().map(move |visitors| Scenario { kind, visitors: *visitors }));
    let steady = [
        Scenario { kind: Kind::Paced(options.rate), visitors: 64 },
        Scenario { kind: Kind::Events, visitors: 100 },
        Scenario { kind: Kind::Messages, visitors: 32 },
        Scenario { kind: Kind::Call, visitors: 32 },
    ];
    let size = options.bulk;
    let bulk = [Kind::Down(size), Kind::Up(size), Kind::CircuitDown(size), Kind::CircuitUp(size)];
    let bulk = bulk.into_iter().map(|kind| Scenario { kind, visitors: 1 });
    let all: Vec<Scenario> = small.chain(steady).chain(bulk).collect();
    let names: Vec<String> = all.iter().map(Scenario::to_string).collect();
    all.into_iter().filter(|scenario| options.wants(&scenario.to_string(), &names)).collect()
}

impl Scenario {
    pub(crate) fn is_bulk(&self) -> bool {
        matches!(self.kind, Kind::Down(_) | Kind::Up(_) | Kind::CircuitDown(_) | Kind::CircuitUp(_))
    }

    /// Every visitor begins requests until `time` is over; those under way are finished and counted.
    pub(crate) async fn run(&self, door: Door, time: Duration) -> Result<Load> {
        let start = Instant::now();
        let mut visitors = JoinSet::new();
        for number in 0..self.visitors {
            visitors.spawn(visitor::visit(*self, number, door, start + time));
        }
        let mut load = Load::default();
        while let Some(visited) = visitors.join_next().await {
            let one = visited.context("a visitor panicked")??;
            load.latencies.extend(one.latencies);
            load.bytes += one.bytes;
        }
        load.time = start.elapsed();
        Ok(load)
    }
}

impl Load {
    pub(crate) fn took(&mut self, since: Instant) {
        self.latencies.push(u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let visitors = self.visitors;
        match self.kind {
            Kind::Get => write!(f, "get x{visitors}"),
            Kind::Browser => write!(f, "get with browser headers x{visitors}"),
            Kind::Fresh => write!(f, "get on new connections x{visitors}"),
            Kind::Post => write!(f, "post 16 KiB x{visitors}"),
            Kind::Paced(rate) => write!(f, "paced get, {rate} a second x{visitors}"),
            Kind::Events => write!(f, "server-sent events x{visitors}"),
            Kind::Messages => write!(f, "websocket messages x{visitors}"),
            Kind::Call => write!(f, "unary grpc x{visitors}"),
            Kind::Down(bytes) => write!(f, "down {} MiB", bytes >> 20),
            Kind::Up(bytes) => write!(f, "up {} MiB", bytes >> 20),
            Kind::CircuitDown(bytes) => write!(f, "circuit down {} MiB", bytes >> 20),
            Kind::CircuitUp(bytes) => write!(f, "circuit up {} MiB", bytes >> 20),
        }
    }
}
