//! Adit and its peers on one machine: the same origin, the same load, in alternated rounds.
//!
//! `cargo xtask bench` builds and runs it; `cargo xtask bench --help` lists the options. Read in this order:
//! [`options`], [`contender`] (who carries the requests; [`balanced`] behind a load balancer, [`circuits`] for bytes, [`seen`] while somebody looks), [`scenario`] (what the visitors do), [`visitor`] (how),
//! [`cpu`] and [`wire`] (what it cost), [`report`] (medians, the table, the JSON and the chart).
//!
//! On a machine that does other work too, only processor time per request and ratios within one run mean
//! anything: requests per second and latency say as much about the neighbours.

mod balanced;
mod circuits;
mod contender;
mod cpu;
mod options;
mod report;
mod scenario;
mod seen;
mod visitor;
mod wire;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use contender::{Contender, Origins};
use e2e::grpc::Grpc;
use e2e::origin::Origin;
use options::Options;
use report::{Report, Sample};
use scenario::Scenario;

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}\n\n{}", options::HELP);
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(&options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    let origins = Origins { http: Origin::start(), grpc: Grpc::start() };
    let mut contenders = Vec::new();
    for kind in contender::all(options) {
        eprintln!("starting {kind}");
        let contender = Contender::start(kind, &origins, contenders.last()).await?;
        contenders.push(contender);
    }
    let scenarios = scenario::all(options);
    let mut report = Report::new(&contenders, &scenarios);
    for round in 1..=options.rounds {
        for (at, scenario) in scenarios.iter().enumerate() {
            eprintln!("round {round} of {}: {scenario}", options.rounds);
            // Forwards and backwards in turn, so that nobody always follows the same neighbour.
            let mut order: Vec<usize> = (0..contenders.len()).collect();
            if round % 2 == 0 {
                order.reverse();
            }
            for index in order.into_iter().filter(|index| contenders[*index].takes(scenario.kind)) {
                let sample = measure(&contenders[index], scenario, options).await;
                report.add(index, at, sample.with_context(|| contenders[index].kind.to_string())?);
            }
        }
    }
    report.finish(&options.results)
}

async fn measure(contender: &Contender, scenario: &Scenario, options: &Options) -> Result<Sample> {
    scenario.run(contender.door, WARM_UP).await?;
    let (before, sent) = (contender.cpu(), wire::sent());
    let load = scenario.run(contender.door, options.time).await?;
    let (cpu, wire) = (contender.cpu().since(&before), wire::sent() - sent);
    Ok(Sample::new(load, cpu, wire, contender.memory()))
}

/// Opens connections, fills pools and caches.
const WARM_UP: Duration = Duration::from_millis(700);
