//! An edge and a host of any build of adit, with an origin that answers, one that never reads, and one whose
//! answers have no end.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::Process;
use e2e::product::{Host, Site};
use e2e::stalled::DeafOrigin;

use super::delay;

/// The host name of the rule whose origin never reads.
pub(crate) const DEAF: &str = "deaf.app.localhost";

/// What the origin without an end is asked for. It is another one, so that what others wait for is no queue of
/// their origin.
pub(crate) const ENDLESS: &str = "/bytes/1099511627776";

/// Edge and host, connected.
pub(crate) struct Setup {
    // In the order in which they go.
    pub(crate) host: Process,
    pub(crate) edge: Process,
    pub(crate) http: SocketAddr,
    _origins: (Origin, DeafOrigin, Origin),
    _site: Site,
}

impl Setup {
    /// `bodies` are keys of `[bodies]`, which older builds do not know; between edge and host a round trip
    /// takes `round_trip`.
    pub(crate) async fn start(
        adit: &Path,
        protocol: &'static str,
        bodies: &str,
        round_trip: Duration,
    ) -> Result<Self> {
        let origins = (Origin::start(), DeafOrigin::start(), Origin::start());
        let site = Site::new();
        let section = if bodies.is_empty() { String::new() } else { format!("[bodies]\n{bodies}\n") };
        let document = EdgeDocument { more: section.clone(), ..EdgeDocument::new(&["west"], 1) };
        let mut text = document.to_toml();
        if bodies.is_empty() {
            // Nor do they know this one.
            text = text
                .lines()
                .filter(|line| !line.starts_with("half-closed-timeout"))
                .collect::<Vec<_>>()
                .join("\n");
        }
        site.write("edge.toml", text);
        let start = |name: &str, arguments: &[&str]| {
            Process::adit_by(Command::new(adit), name, arguments, site.folder())
        };
        let edge = start("edge", &["edge", "run", "--config", "edge.toml"]);
        let http = listening(&edge, "visitors-http").await?;
        let server = listening(&edge, "server").await?;
        let server = if round_trip.is_zero() { server } else { delay::start(server, round_trip / 2)? };
        let mut document = HostDocument::new()
            .over(protocol)
            .rule(&format!("hostname = {DEAF:?}\nservice = {:?}", origins.1.service()))
            .rule(&format!("path = \"^{ENDLESS}$\"\nservice = {:?}", origins.2.service()))
            .otherwise(&origins.0.service());
        document.plugins = section;
        site.write("host.toml", document.to_toml(&[server]));
        let host = start("host", &["tunnel", "run", "--config", "host.toml"]);
        let Host { process: host, .. } = Host::connected(host, document.connections).await;
        Ok(Self { host, edge, http, _origins: origins, _site: site })
    }
}

async fn listening(process: &Process, kind: &str) -> Result<SocketAddr> {
    let event = process.event("listening", |event| event["kind"] == kind).await;
    let address = event["address"].as_str().context("an event without an address")?;
    Ok(address.parse()?)
}
