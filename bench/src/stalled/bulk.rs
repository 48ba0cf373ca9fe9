//! The speed of one large body at several times of a round trip, of two builds in the same rounds.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::bulk::Bulk;
use e2e::visitor::{Speaks, Visitor, get, to, with_body};
use http_body_util::BodyExt;

use super::Options;
use super::setup::Setup;

pub(crate) async fn measure(options: &Options, text: &mut String) -> Result<()> {
    let _ = writeln!(
        text,
        "## One large body\n\nMB a second, the median of {} rounds in which builds take turns.\n\n| round trip | transport | \
         direction | this build | before | |\n|---|---|---|---|---|---|",
        options.rounds
    );
    for delay in &options.delays {
        for protocol in ["quic", "http2"] {
            eprintln!("bulk over {protocol} at {delay} ms");
            let round_trip = Duration::from_millis(*delay);
            let builds: Vec<&Path> =
                std::iter::once(&*options.after).chain(options.before.as_deref()).collect();
            let mut setups = Vec::new();
            for adit in builds {
                setups.push((Setup::start(adit, protocol, "", round_trip).await?, [Vec::new(), Vec::new()]));
            }
            for round in 0..=options.rounds {
                // The build that was first in one round is last in the next.
                if round % 2 == 1 {
                    setups.reverse();
                }
                for (setup, speeds) in &mut setups {
                    let visitor = Visitor::new(setup.http, Speaks::Http1, None);
                    let bytes = if *delay == 0 { NEAR } else { FAR };
                    let (down, up) = (down(&visitor, bytes).await?, up(&visitor, bytes).await?);
                    // The first round finds the windows of the line.
                    if round > 0 {
                        speeds[0].push(down);
                        speeds[1].push(up);
                    }
                }
                if round % 2 == 1 {
                    setups.reverse();
                }
            }
            for (at, direction) in ["down", "up"].iter().enumerate() {
                let medians: Vec<f64> =
                    setups.iter_mut().map(|(_, speeds)| median(&mut speeds[at])).collect();
                let before = medians.get(1).map_or("".to_owned(), |speed| format!("{speed:.1}"));
                let change = medians
                    .get(1)
                    .map_or("".to_owned(), |before| format!("{:+.1} %", (medians[0] / before - 1.0) * 100.0));
                let _ = writeln!(
                    text,
                    "| {delay} ms | {protocol} | {direction} | {:.1} | {before} | {change} |",
                    medians[0]
                );
            }
        }
    }
    text.push('\n');
    Ok(())
}

fn median(speeds: &mut [f64]) -> f64 {
    speeds.sort_by(f64::total_cmp);
    speeds[speeds.len() / 2]
}

async fn down(visitor: &Visitor, bytes: u64) -> Result<f64> {
    let connection = visitor.connect().await;
    let begun = Instant::now();
    let mut body = connection.send(get(&format!("/bytes/{bytes}"))).await.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    ensure!(read == bytes, "{read} of {bytes} bytes");
    Ok(speed(bytes, begun))
}

async fn up(visitor: &Visitor, bytes: u64) -> Result<f64> {
    let begun = Instant::now();
    let sunk = visitor.send(with_body(to("POST", "/sink"), Bulk::new(bytes))).await;
    ensure!(sunk.json()["bytes"] == bytes, "{} of {bytes} bytes", sunk.json()["bytes"]);
    Ok(speed(bytes, begun))
}

fn speed(bytes: u64, begun: Instant) -> f64 {
    bytes as f64 / 1e6 / begun.elapsed().as_secs_f64()
}

const NEAR: u64 = 256 << 20;
/// Some seconds at what a window of one MiB allows.
const FAR: u64 = 24 << 20;
