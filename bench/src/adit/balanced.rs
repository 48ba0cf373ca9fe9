//! Our edge and our host behind two names of the edge's state: a plain route to a tunnel, and a load balancer without
//! sessions in front of the same tunnel and of one that is not there. The same processes and connections serve both,
//! so that what differs is what a load balancer costs.

use std::fmt;

use anyhow::{Context, Result, ensure};
use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::process::Process;
use e2e::product::{Edge, Host, Site};

/// What stands between the name and the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Route,
    Balancer,
}

impl By {
    /// The name.
    pub(crate) fn host(self) -> &'static str {
        match self {
            Self::Route => ROUTED,
            Self::Balancer => BALANCED,
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Route => "a route",
            Self::Balancer => "a load balancer",
        })
    }
}

/// Starts the edge and the host.
pub(crate) async fn start(document: &HostDocument) -> Result<(Site, Edge, Host)> {
    let site = Site::new();
    let mut edge = EdgeDocument::new(&["north", "south"], 2);
    edge.hostnames = vec!["else.localhost".to_owned()];
    edge.more = "[api]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    site.write("edge.toml", edge.to_toml());
    run(&site, &["edge", "init", "--zone", HOST]).await?;
    let edge = site.edge(&edge).await;
    let api = edge.process.event("listening", |event| event["kind"] == "api").await;
    let api = format!("http://{}", api["address"].as_str().context("the API has an address")?);
    for command in [
        &["create", "--credentials-file", "one.json", "one"][..],
        &["create", "--credentials-file", "absent.json", "absent"],
        &["route", "dns", "one", ROUTED],
        &["route", "lb", "one", BALANCED, "pool"],
        &["route", "lb", "absent", BALANCED, "pool"],
    ] {
        let flags = ["tunnel", "--api-url", &api, "--origincert", "cert.pem"];
        run(&site, &[&flags[..], command].concat()).await?;
    }
    // What the host's document names.
    site.write("demo.json", std::fs::read(site.path("one.json"))?);
    let host = site.host_at(&edge.servers, document).await;
    Ok((site, edge, host))
}

async fn run(site: &Site, arguments: &[&str]) -> Result<()> {
    let outcome = Process::run(arguments, site.folder(), "").await;
    ensure!(outcome.code == Some(0), "{arguments:?}: {outcome:?}");
    Ok(())
}

/// As long as each other: over QUIC a head is as long as its names.
const ROUTED: &str = "one.app.localhost";
const BALANCED: &str = "two.app.localhost";
