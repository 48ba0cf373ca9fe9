//! Our edge with two hosts behind a name of its state: two replicas of one tunnel behind a plain route, or two
//! tunnels behind a load balancer without sessions. The same processes and connections either way, so that what
//! differs is what a load balancer costs.

use std::fmt;

use anyhow::{Context, Result, ensure};
use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::process::Process;
use e2e::product::{Edge, Host, Site};

/// What stands between the name and the tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Route,
    Balancer,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Route => "a route",
            Self::Balancer => "a load balancer",
        })
    }
}

/// Starts the edge and both hosts.
pub(crate) async fn start(by: By, document: &HostDocument) -> Result<(Site, Edge, Vec<Host>)> {
    let site = Site::new();
    let mut edge = EdgeDocument::new(&["north", "south"], 2);
    edge.hostnames = vec!["else.localhost".to_owned()];
    edge.more = "[api]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    site.write("edge.toml", edge.to_toml());
    run(&site, &["edge", "init", "--zone", HOST]).await?;
    let edge = site.edge(&edge).await;
    let api = edge.process.event("listening", |event| event["kind"] == "api").await;
    let api = format!("http://{}", api["address"].as_str().context("the API has an address")?);
    let names = match by {
        By::Route => ["one", "one"],
        By::Balancer => ["one", "two"],
    };
    let mut hosts = Vec::new();
    for (at, name) in names.into_iter().enumerate() {
        let credentials = format!("{name}.json");
        let flags = ["tunnel", "--api-url", &api, "--origincert", "cert.pem"];
        if !site.path(&credentials).exists() {
            run(&site, &[&flags[..], &["create", "--credentials-file", &credentials, name]].concat()).await?;
            let route: &[&str] = match by {
                By::Route => &["route", "dns", name, HOST],
                By::Balancer => &["route", "lb", name, HOST, "pool"],
            };
            run(&site, &[&flags[..], route].concat()).await?;
        }
        // What the host's document names.
        site.write("demo.json", std::fs::read(site.path(&credentials))?);
        let process = site.spawn_host_named(&format!("host-{at}"), &edge.servers, document);
        hosts.push(Host::connected(process, document.connections).await);
    }
    Ok((site, edge, hosts))
}

async fn run(site: &Site, arguments: &[&str]) -> Result<()> {
    let outcome = Process::run(arguments, site.folder(), "").await;
    ensure!(outcome.code == Some(0), "{arguments:?}: {outcome:?}");
    Ok(())
}
