//! Medians over the rounds: a table to read, JSON to keep, a chart to show.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::contender::Contender;
use crate::scenario::{Load, Scenario};

/// One contender in one scenario in one round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    requests: u64,
    per_second: f64,
    /// Microseconds.
    p50: u32,
    p99: u32,
    p999: u32,
    /// Bytes of bodies per second.
    throughput: f64,
    /// Processor time of each process: microseconds per request, milliseconds per GB.
    per_request: HashMap<&'static str, f64>,
    per_gigabyte: HashMap<&'static str, f64>,
    /// Bytes on all hops together, for each request.
    wire: f64,
    /// Resident bytes behind the load.
    memory: HashMap<&'static str, u64>,
}

pub(crate) struct Report {
    contenders: Vec<String>,
    scenarios: Vec<Scenario>,
    /// By contender, then by scenario.
    samples: Vec<Vec<Vec<Sample>>>,
}

/// Least, median, greatest.
#[derive(Debug, Clone, Copy, Serialize)]
struct Spread {
    least: f64,
    median: f64,
    greatest: f64,
}

#[derive(Serialize)]
struct Entry<'a> {
    contender: &'a str,
    scenario: String,
    rounds: &'a [Sample],
}

impl Sample {
    pub(crate) fn new(
        load: Load,
        cpu: HashMap<&'static str, Duration>,
        wire: u64,
        memory: HashMap<&'static str, u64>,
    ) -> Self {
        let Load { mut latencies, bytes, time } = load;
        latencies.sort_unstable();
        let requests = latencies.len().max(1);
        let at = |share: f64| latencies.get((requests as f64 * share) as usize).or(latencies.last());
        let at = |share| at(share).copied().unwrap_or_default();
        let per = |unit: f64, count: f64| -> HashMap<&'static str, f64> {
            cpu.iter().map(|(name, used)| (*name, used.as_secs_f64() * unit / count)).collect()
        };
        Self {
            requests: requests as u64,
            per_second: requests as f64 / time.as_secs_f64(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            throughput: bytes as f64 / time.as_secs_f64(),
            per_request: per(1e6, requests as f64),
            per_gigabyte: per(1e3, bytes as f64 / 1e9),
            wire: wire as f64 / requests as f64,
            memory,
        }
    }
}

impl Report {
    pub(crate) fn new(contenders: &[Contender], scenarios: &[Scenario]) -> Self {
        Self {
            contenders: contenders.iter().map(|contender| contender.kind.to_string()).collect(),
            scenarios: scenarios.to_vec(),
            samples: vec![vec![Vec::new(); scenarios.len()]; contenders.len()],
        }
    }

    pub(crate) fn add(&mut self, contender: usize, scenario: usize, sample: Sample) {
        self.samples[contender][scenario].push(sample);
    }

    /// Prints the table, and writes all three into `folder`.
    pub(crate) fn finish(&self, folder: &Path) -> Result<()> {
        let table = self.table();
        println!("{table}");
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        write("latest.md", &table)?;
        write("latest.json", &serde_json::to_string_pretty(&self.entries())?)?;
        write("latest.svg", &self.chart())?;
        eprintln!("written to {}: latest.md, latest.json, latest.svg", folder.display());
        Ok(())
    }

    fn entries(&self) -> Vec<Entry<'_>> {
        let mut entries = Vec::new();
        for (contender, by_scenario) in self.contenders.iter().zip(&self.samples) {
            for (scenario, rounds) in self.scenarios.iter().zip(by_scenario) {
                entries.push(Entry { contender, scenario: scenario.to_string(), rounds });
            }
        }
        entries
    }

    fn table(&self) -> String {
        let mut text = String::new();
        for (at, scenario) in self.scenarios.iter().enumerate() {
            let _ = writeln!(text, "## {scenario}\n");
            let (cpu, speed) = match scenario.is_bulk() {
                true => ("CPU-ms per GB", "MB/s"),
                false => ("CPU-us per request", "req/s"),
            };
            let _ = writeln!(
                text,
                "| | edge {cpu} | host {cpu} | {speed} | to the first | p50 us | p99 us | p99.9 us | wire KB | MiB edge + host |"
            );
            let _ = writeln!(text, "|---|---|---|---|---|---|---|---|---|---|");
            let speed = |sample: &Sample| match scenario.is_bulk() {
                true => sample.throughput / 1e6,
                false => sample.per_second,
            };
            for (name, by_scenario) in self.contenders.iter().zip(&self.samples) {
                let samples = &by_scenario[at];
                if samples.is_empty() {
                    continue;
                }
                let first = self.samples.first().map_or(&[][..], |first| first[at].as_slice());
                // Round by round, since only neighbours in time can be compared.
                let ratio = Spread::of(samples.iter().zip(first).map(|(it, first)| speed(it) / speed(first)));
                let cpu = |process: &str| {
                    let of = |sample: &Sample| match scenario.is_bulk() {
                        true => sample.per_gigabyte.get(process).copied(),
                        false => sample.per_request.get(process).copied(),
                    };
                    Spread::of(samples.iter().filter_map(of)).map_or("-".into(), |it| it.to_text(1))
                };
                let edge = if samples[0].memory.contains_key("proxy") { "proxy" } else { "edge" };
                let latency = |of: fn(&Sample) -> u32| {
                    Spread::of(samples.iter().map(|it| f64::from(of(it)))).map_or(0., |it| it.median)
                };
                let memory = |process: &str| {
                    let of =
                        |it: &Sample| it.memory.get(process).map(|bytes| *bytes as f64 / f64::from(1 << 20));
                    Spread::of(samples.iter().filter_map(of))
                        .map_or("-".into(), |it| format!("{:.0}", it.greatest))
                };
                let _ = writeln!(
                    text,
                    "| {name} | {} | {} | {:.0} | {} | {:.0} | {:.0} | {:.0} | {:.1} | {} + {} |",
                    cpu(edge),
                    cpu("host"),
                    Spread::of(samples.iter().map(speed)).map_or(0., |it| it.median),
                    ratio.map_or("-".into(), |it| it.to_text(2)),
                    latency(|it| it.p50),
                    latency(|it| it.p99),
                    latency(|it| it.p999),
                    Spread::of(samples.iter().map(|it| it.wire)).map_or(0., |it| it.median / 1e3),
                    memory(edge),
                    memory("host"),
                );
            }
            text.push('\n');
        }
        text.push_str(&self.balanced());
        text.push_str(&self.circuits());
        text.push_str(
            "Spreads are least / median / greatest of the rounds. Wire is what the loopback device carried for \
             a request on all hops together, the visitor's and the origin's too.\n",
        );
        text
    }

    /// What the edge of a contender behind a load balancer costs against the one behind a route, round by round, since
    /// only neighbours in time can be compared.
    fn balanced(&self) -> String {
        let mut rows = String::new();
        for (at, name) in self.contenders.iter().enumerate() {
            let Some(before) = name.strip_suffix("a load balancer") else { continue };
            let route = self.contenders.iter().position(|other| *other == format!("{before}a route"));
            let Some(route) = route else { continue };
            for (scenario, (own, others)) in
                self.scenarios.iter().zip(self.samples[at].iter().zip(&self.samples[route]))
            {
                let edge = |sample: &Sample| sample.per_request.get("edge").copied();
                let pairs = own.iter().zip(others).filter(|_| !scenario.is_bulk());
                let ratios = pairs.filter_map(|(own, other)| Some(edge(own)? / edge(other)?));
                if let Some(spread) = Spread::of(ratios) {
                    let _ = writeln!(rows, "| {name}, {scenario} | {} |", spread.to_text(3));
                }
            }
        }
        if rows.is_empty() {
            return rows;
        }
        format!(
            "## What a load balancer costs\n\n| | edge CPU per request, to a route's |\n|---|---|\n{rows}\n"
        )
    }

    /// What carrying bytes of services costs our client and host against the reference's, round by round.
    fn circuits(&self) -> String {
        let mut rows = String::new();
        for (at, name) in self.contenders.iter().enumerate() {
            let Some(protocol) = name.strip_prefix("adit ").filter(|rest| rest.ends_with(" at both ends"))
            else {
                continue;
            };
            let theirs =
                self.contenders.iter().position(|other| *other == format!("the reference {protocol}"));
            let Some(theirs) = theirs else { continue };
            for (scenario, (own, others)) in
                self.scenarios.iter().zip(self.samples[at].iter().zip(&self.samples[theirs]))
            {
                let ends = |sample: &Sample| sample.per_gigabyte.get("host").copied();
                let ratios =
                    own.iter().zip(others).filter_map(|(own, other)| Some(ends(own)? / ends(other)?));
                if let Some(spread) = Spread::of(ratios) {
                    let _ = writeln!(rows, "| {name}, {scenario} | {} |", spread.to_text(3));
                }
            }
        }
        if rows.is_empty() {
            return rows;
        }
        format!(
            "## What circuits cost\n\n| | CPU of client and host, to the reference's |\n|---|---|\n{rows}\n"
        )
    }

    /// Bars of the host's and the edge's processor time per request, for the scenarios with small requests.
    fn chart(&self) -> String {
        let mut bars = String::new();
        let mut y = 10.;
        for (at, scenario) in self.scenarios.iter().enumerate().filter(|(_, scenario)| !scenario.is_bulk()) {
            let _ = writeln!(bars, r#"<text x="10" y="{}" font-weight="bold">{scenario}</text>"#, y + 14.);
            y += 22.;
            let median = |contender: usize, process: &str| {
                let samples = self.samples[contender][at].iter();
                Spread::of(samples.filter_map(|it| it.per_request.get(process).copied()))
                    .map_or(0., |it| it.median)
            };
            let all = 0..self.contenders.len();
            let most = all.clone().map(|it| median(it, "edge") + median(it, "host") + median(it, "proxy"));
            let scale = BAR / most.fold(1., f64::max);
            for contender in all {
                let mut x = LEFT;
                let _ = writeln!(
                    bars,
                    r#"<text x="{}" y="{}" text-anchor="end">{}</text>"#,
                    LEFT - 6.,
                    y + 11.,
                    self.contenders[contender]
                );
                let mut total = 0.;
                for (process, colour) in [("proxy", "#8a8a8a"), ("edge", "#5b8def"), ("host", "#e0803a")] {
                    let value = median(contender, process);
                    let width = value * scale;
                    let _ = writeln!(
                        bars,
                        r#"<rect x="{x:.1}" y="{y}" width="{width:.1}" height="13" fill="{colour}"><title>{process} {value:.1} us</title></rect>"#
                    );
                    x += width;
                    total += value;
                }
                let _ = writeln!(bars, r#"<text x="{:.1}" y="{}">{total:.0} us</text>"#, x + 5., y + 11.);
                y += 17.;
            }
            y += 10.;
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"900\" height=\"{}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"10\" y=\"{}\">Processor time per request: edge blue, host orange, plain proxy grey</text>\n\
             {bars}</svg>\n",
            y + 30.,
            y + 15.
        )
    }
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Self { least, median, greatest })
    }

    fn to_text(self, digits: usize) -> String {
        let Self { least, median, greatest } = self;
        format!("{least:.digits$} / {median:.digits$} / {greatest:.digits$}")
    }
}

/// Where bars begin, and how long the longest is.
const LEFT: f64 = 220.;
const BAR: f64 = 560.;
