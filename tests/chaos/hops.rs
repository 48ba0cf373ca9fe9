//! Row 3: a request that crosses a second node, beside one that does not.

use std::time::{Duration, Instant};

use e2e::nodes::Nodes;
use e2e::origin::Origin;
use e2e::visitor::{Speaks, Visitor, bare, to};

use crate::losses::cpu;
use crate::{alone, figure, hosts, lasts, seed};

/// One way.
const DELAY: Duration = Duration::from_millis(10);

/// The time of each request, one after the other, and what all nodes have had of a core.
async fn round(nodes: &Nodes, at: usize, count: usize) -> (Vec<Duration>, Duration) {
    let processes: Vec<u32> = nodes.fleet.edges.iter().map(|edge| edge.edge().process.id()).collect();
    let before = cpu(&processes);
    let mut times = Vec::new();
    let visitors = (0..CONNECTIONS).map(|_| async {
        let connection = Visitor::new(nodes.fleet.edges[at].http(), Speaks::Http1, None).connect().await;
        let mut times = Vec::new();
        for _ in 0..count / CONNECTIONS {
            let began = Instant::now();
            let request = bare(to("GET", "/load/600/0").header("host", e2e::document::HOST));
            assert_eq!(connection.ask(request).await.status, 200);
            times.push(began.elapsed());
        }
        times
    });
    for one in futures_util::future::join_all(visitors).await {
        times.extend(one);
    }
    (times, cpu(&processes) - before)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
#[ignore = "a row of chaos: cargo xtask chaos"]
async fn a_request_that_crosses_a_second_node_costs_at_most_twice_and_waits_for_the_line_alone() {
    let _turn = alone().await;
    let Some(mut nodes) = Nodes::start(&["west", "east"], 1, seed()).await else { return };
    let origin = Origin::start();
    hosts(&mut nodes, &[1], 1, &origin, "quic").await;
    let (rounds, count) = (lasts(5, 15), lasts(800, 8_000));
    let (mut here, mut across) = (Vec::new(), Vec::new());
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let (times, own) = round(&nodes, 1, count).await;
        here.extend(times);
        let (times, both) = round(&nodes, 0, count).await;
        across.extend(times);
        ratios.push(both.as_secs_f64() / own.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[ratios.len() / 2];
    let (near, far) = (median(here), median(across));
    // And with a long line: what it takes there and back is all that is added.
    nodes.lines.weather(|weather| weather.delay = DELAY);
    let (times, _) = round(&nodes, 0, count / 8).await;
    let long = median(times);
    let is_given = std::env::var_os("ADIT_PROGRAM").is_some();
    // Of what is not optimised nobody knows what it costs where it counts.
    let (most, program) = if is_given { (1.9, "ADIT_PROGRAM") } else { (2.3, "not optimised") };
    figure(&format!(
        "CPU of all nodes, crossing to not crossing: {ratio:.2} (median of {rounds} alternated rounds, {:.2} to {:.2}); p50 {near:.1?} here, {far:.1?} across, {long:.1?} across a line of {:?}; {program}",
        ratios[0],
        ratios[ratios.len() - 1],
        2 * DELAY
    ));
    assert!(ratio <= most, "{ratio}");
    assert!(long >= 2 * DELAY && long < 2 * DELAY + far + Duration::from_millis(5), "{long:?}");
}

const CONNECTIONS: usize = 4;
