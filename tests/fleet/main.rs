//! A fleet to play with: six nodes in two regions over three members of etcd, two hosts, visitors, and a menu of what
//! may go wrong. `cargo xtask fleet` builds and starts it.

// What it cannot do ends it, and says why.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, Write};
use std::time::Duration;

use e2e::document::HostDocument;
use e2e::load::Load;
use e2e::nodes::Nodes;
use e2e::origin::Origin;
use tokio::sync::mpsc;

const REGIONS: [&str; 6] = ["west", "east", "west", "east", "west", "east"];

const MENU: &str = "\
  status              what visitors got since the last look, and how each node sees the others
  kill N, start N     a node, at once, and back
  freeze N, go N      a node stands still, and goes on
  drain N, undo N     a node is told to drain, and may come back (start N)
  cut, heal           the lines between the regions
  line MS LOST        they take so many milliseconds one way, and lose so many of a thousand pieces
  etcd freeze|go|kill M|start M
                      all of etcd, or one member
  quit
";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let seed = std::process::id().into();
    println!("starting six nodes over three members of etcd; seed {seed}");
    let Some(mut nodes) = Nodes::start(&REGIONS, 3, seed).await else { return };
    let origin = Origin::start();
    let document = HostDocument { edge_ca: "ca.pem".into(), ..HostDocument::new() };
    let document = document.connections(4).otherwise(&origin.service());
    // One knows all nodes, one those of the west alone.
    nodes.fleet.replicas(1, &document).await;
    nodes.fleet.replicas_at(&[0, 2, 4], 1, &document.clone().connections(3)).await;
    nodes.serve().await;
    let mut load = Load::steady(&nodes.fleet.visitors()).await;
    for (number, edge) in nodes.fleet.edges.iter().enumerate() {
        let http = edge.http();
        println!(
            "  {number}  {:8}  curl -H 'host: {}' http://{http}/load/600/0",
            edge.name,
            e2e::document::HOST
        );
    }
    println!("files and documents: {}", nodes.fleet.site.folder().display());
    println!("{MENU}");
    let (say, mut said) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if say.blocking_send(line).is_err() {
                return;
            }
        }
    });
    loop {
        print!("> ");
        let _ = std::io::stdout().flush();
        let Some(line) = said.recv().await else { break };
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["quit"] => break,
            ["status"] => load = status(&nodes, load).await,
            words => {
                if !done(&mut nodes, words).await {
                    println!("{MENU}");
                }
            }
        }
    }
    load.finish("all in all since the last look").await;
}

async fn status(nodes: &Nodes, load: Load) -> Load {
    load.finish("since the last look").await;
    for (number, edge) in nodes.fleet.edges.iter().enumerate() {
        let answer = if edge.is_running() {
            let peers = tokio::time::timeout(Duration::from_secs(2), e2e::nodes::peers(edge)).await;
            let peer = |peer: &serde_json::Value| {
                let is = |key: &str| peer[key] == true;
                let how = match () {
                    () if is("gone") => "gone",
                    () if is("suspect") => "suspect",
                    () if is("leaving") => "leaving",
                    () if is("connected") => "well",
                    () => "not reached",
                };
                format!("{} {how}", peer["name"].as_str().unwrap_or_default())
            };
            let peers = peers.map(|peers| peers.iter().map(peer).collect::<Vec<_>>().join(", "));
            peers.unwrap_or_else(|_| "does not answer".to_owned())
        } else {
            "does not run".to_owned()
        };
        println!("  {number}  {:8}  {answer}", edge.name);
    }
    Load::start(&nodes.fleet.visitors(), 24, Duration::from_millis(120))
}

/// False: there is no such thing to do.
async fn done(nodes: &mut Nodes, words: &[&str]) -> bool {
    let number = |word: &str, most: usize| word.parse::<usize>().ok().filter(|number| *number < most);
    match words {
        ["cut"] => nodes.lines.weather(|weather| weather.is_cut = true),
        ["heal"] => nodes.lines.weather(|weather| weather.is_cut = false),
        ["line", delay, lost] => {
            let (Ok(delay), Ok(lost)) = (delay.parse(), lost.parse()) else { return false };
            nodes
                .lines
                .weather(|weather| (weather.delay, weather.lost) = (Duration::from_millis(delay), lost));
        }
        ["etcd", "freeze"] => nodes.etcd.freeze(),
        ["etcd", "go"] => nodes.etcd.go_on(),
        ["etcd", what @ ("kill" | "start"), member] => {
            let Some(member) = number(member, 3) else { return false };
            nodes.etcd.kill(member);
            if *what == "start" {
                nodes.etcd.start_again(member).await;
            }
        }
        [what, node] => {
            let Some(node) = number(node, REGIONS.len()) else { return false };
            let (is_running, name) =
                (nodes.fleet.edges[node].is_running(), nodes.fleet.edges[node].name.clone());
            match *what {
                "kill" if is_running => nodes.fleet.edges[node].kill().await,
                "start" if !is_running => nodes.start_again(node).await,
                "freeze" if is_running => nodes.fleet.edges[node].edge().process.freeze(),
                "go" if is_running => nodes.fleet.edges[node].edge().process.go_on(),
                "drain" if is_running => {
                    nodes.command(&["drain", &name]).await;
                    nodes.fleet.edges[node].ended().await;
                }
                "undo" => drop(nodes.command(&["drain", "--undo", &name]).await),
                _ => return false,
            }
        }
        _ => return false,
    }
    true
}
