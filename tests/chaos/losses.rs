//! Rows 1, 2, 7, 13: nodes that are killed, drained, frozen, or all started at once.

use std::time::{Duration, Instant};

use e2e::document;
use e2e::load::Load;
use e2e::nodes::Nodes;
use e2e::origin::Origin;
use e2e::visitor::{Speaks, Visitor, to, with_text};
use e2e::within;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{interval, sleep};
use tokio_tungstenite::tungstenite::Message;

use crate::{UNKNOWN_FATE, alone, figure, figure_of, hosts, lasts, seed};

const REGIONS: [&str; 4] = ["west", "east", "west", "east"];

async fn kill_nodes(times: usize) {
    let _turn = alone().await;
    let Some(mut nodes) = Nodes::start(&REGIONS, 1, seed()).await else { return };
    let origin = Origin::start();
    // Two hosts, in one region each, so that half of all requests cross.
    hosts(&mut nodes, &[0, 2], 1, &origin, "quic").await;
    hosts(&mut nodes, &[1, 3], 1, &origin, "http2").await;
    let mut load = Load::steady(&nodes.fleet.visitors()).await;
    for turn in 0..times {
        let dead = turn % REGIONS.len();
        nodes.fleet.edges[dead].kill().await;
        load.passes(150).await;
        nodes.start_again(dead).await;
        nodes.acquainted().await;
        load.passes(100).await;
    }
    let report = load.finish(&format!("{times} nodes of four killed")).await;
    figure_of(&report);
    report.assert_idempotent_spotless(times * UNKNOWN_FATE, times);
    assert_eq!(origin.repeated(), [""; 0], "{report}");
    assert!(report.longest_gap < Duration::from_secs(lasts(10, 2)), "{report}");
}

#[tokio::test]
#[ignore = "a row of chaos: cargo xtask chaos"]
async fn nodes_that_are_killed_fail_no_idempotent_request() {
    kill_nodes(lasts(4, 20)).await;
}

/// A WebSocket through a node, on which something is said again and again; says for how long it lived.
async fn talk(address: std::net::SocketAddr) -> Duration {
    let tcp = TcpStream::connect(address).await.unwrap();
    let url = format!("ws://{}/websocket", document::HOST);
    let (mut socket, _) = within("a WebSocket", tokio_tungstenite::client_async(url, tcp)).await.unwrap();
    let began = Instant::now();
    let mut ticks = interval(Duration::from_millis(50));
    for number in 0.. {
        ticks.tick().await;
        let said = Message::text(format!("message {number}"));
        if socket.send(said.clone()).await.is_err()
            || !matches!(socket.next().await, Some(Ok(back)) if back == said)
        {
            break;
        }
    }
    began.elapsed()
}

#[tokio::test]
async fn nodes_that_are_drained_in_turn_fail_no_request_and_cut_no_stream_before_its_time() {
    let _turn = alone().await;
    // Longer than it lingers, shorter than anybody waits.
    let grace = Duration::from_secs(lasts(3, 8));
    let keys = format!("[drain]\nlinger = \"1s\"\nhosts = \"5s\"\ngrace-period = \"{}s\"\n", grace.as_secs());
    let Some(mut nodes) = Nodes::start_with(&REGIONS, 1, seed(), &keys).await else { return };
    let origin = Origin::start();
    hosts(&mut nodes, &[0, 1, 2, 3], 1, &origin, "quic").await;
    hosts(&mut nodes, &[1, 3], 1, &origin, "http2").await;
    let mut load = Load::steady(&nodes.fleet.visitors()).await;
    let mut shortest = Duration::MAX;
    for number in 0..lasts(2, REGIONS.len()) {
        let (name, address) = (nodes.fleet.edges[number].name.clone(), nodes.fleet.edges[number].http());
        let talks: Vec<_> = (0..3).map(|_| tokio::spawn(talk(address))).collect();
        sleep(Duration::from_millis(200)).await;
        let asked = Instant::now();
        nodes.command(&["drain", &name]).await;
        nodes.fleet.edges[number].ended().await;
        let took = asked.elapsed();
        for talk in talks {
            shortest = shortest.min(within("the end of a WebSocket", talk).await.unwrap());
        }
        eprintln!("{name} ended {took:.1?} after it was told to");
        load.passes(100).await;
        nodes.command(&["drain", "--undo", &name]).await;
        nodes.start_again(number).await;
        nodes.acquainted().await;
        load.passes(100).await;
    }
    let report = load.finish("nodes drained in turn").await;
    figure_of(&report);
    figure(&format!("the first WebSocket to end lived {shortest:.1?} of {grace:?}"));
    report.assert_spotless();
    assert_eq!(origin.repeated(), [""; 0], "{report}");
    assert!(shortest >= grace, "{shortest:?}");
}

#[tokio::test]
#[ignore = "a row of chaos: cargo xtask chaos"]
async fn a_node_that_stands_still_loses_its_requests_to_others_and_nothing_is_done_twice() {
    let _turn = alone().await;
    let Some(mut nodes) = Nodes::start(&REGIONS, 1, seed()).await else { return };
    let origin = Origin::start();
    // Both have the tunnel; visitors come to the other two.
    hosts(&mut nodes, &[1], 1, &origin, "quic").await;
    hosts(&mut nodes, &[3], 1, &origin, "http2").await;
    let visitors = [nodes.fleet.edges[0].http(), nodes.fleet.edges[2].http()];
    let mut load = Load::steady(&visitors).await;
    let mut longest = Duration::ZERO;
    for _ in 0..lasts(1, 3) {
        nodes.fleet.edges[1].edge().process.freeze();
        let frozen = Instant::now();
        // What it had under way waits for it, if it must not be done twice. What comes later than this does not.
        sleep(Duration::from_millis(1_500)).await;
        while frozen.elapsed() < Duration::from_secs(lasts(5, 10)) {
            for address in visitors {
                let (began, visitor) = (Instant::now(), Visitor::new(address, Speaks::Http1, None));
                let request = with_text(to("POST", "/load/0/0").header("host", document::HOST), "once");
                let answer = visitor.send(request).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                longest = longest.max(began.elapsed());
            }
        }
        nodes.fleet.edges[1].edge().process.go_on();
        nodes.acquainted().await;
        load.passes(100).await;
    }
    let report = load.finish("a node stands still").await;
    figure_of(&report);
    figure(&format!(
        "no POST that came 1.5 s after the silence began, or later, took longer than {longest:.0?}"
    ));
    assert_eq!(report.failed_idempotent(), 0, "{report}");
    let repeated: Vec<_> = origin.repeated().into_iter().filter(|mark| mark != "none").collect();
    assert_eq!(repeated, [""; 0], "{report}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

#[tokio::test]
#[ignore = "a row of chaos: cargo xtask chaos"]
async fn all_nodes_start_at_once_and_serve_soon() {
    let _turn = alone().await;
    let count = lasts(8, 30);
    let regions: Vec<&str> = ["west", "east"].into_iter().cycle().take(count).collect();
    let Some(mut nodes) = Nodes::start(&regions, 3, seed()).await else { return };
    let origin = Origin::start();
    hosts(&mut nodes, &[0, 1, 2, 3], 1, &origin, "quic").await;
    for edge in &mut nodes.fleet.edges {
        edge.kill().await;
    }
    let (began, before) = (Instant::now(), cpu(&nodes.etcd.processes()));
    let starting = nodes.fleet.edges.iter_mut().map(|edge| edge.start());
    futures_util::future::join_all(starting).await;
    nodes.placed();
    nodes.serve().await;
    let (took, used) = (began.elapsed(), cpu(&nodes.etcd.processes()) - before);
    let share = used.as_secs_f64() / took.as_secs_f64() * 100.0;
    figure(&format!(
        "{count} nodes serve {took:.1?} after they began together; etcd took {share:.0} % of a core"
    ));
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(share < 70.0, "{share}");
}

/// The time that processes have had of a core.
pub(crate) fn cpu(processes: &[u32]) -> Duration {
    let of = |process: &u32| {
        let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        let words: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = words[11].parse::<u64>().unwrap() + words[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    };
    processes.iter().map(of).sum()
}
