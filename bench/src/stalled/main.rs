//! Visitors who never read, uploads that no origin reads, and what others notice of them; and whether bulk pays
//! for it.
//!
//! `cargo xtask bench stalled` builds and runs it; `--help` lists the options.

mod bulk;
mod delay;
mod setup;
mod stalling;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub(crate) struct Options {
    pub(crate) visitors: usize,
    pub(crate) grace: Duration,
    pub(crate) rounds: usize,
    /// The one row of those who take nothing that is wanted, as DIRECTION,TRANSPORT.
    pub(crate) only: Option<String>,
    /// Of whom bulk is compared with.
    pub(crate) before: Option<PathBuf>,
    /// What is measured; by default this build.
    pub(crate) after: PathBuf,
    /// Times of a round trip, milliseconds.
    pub(crate) delays: Vec<u64>,
    results: PathBuf,
}

const HELP: &str = "\
Usage: cargo xtask bench stalled [options]

Measures what others notice of visitors who never read and of uploads that their origin never reads, over both
transports, the memory of edge and host meanwhile and afterwards, and the speed of bulk at several times of a
round trip.

  --visitors N      who take nothing, a half over HTTP/1.1 and a half over HTTP/2 (default 1000;
                    0 leaves this part out)
  --only ROW        one row of that table: down,quic or up,quic or down,http2 or up,http2
  --grace SECONDS   the grace that they have (default 15; 0 writes no [bodies], which older builds do not know)
  --rounds N        rounds of bulk (default 5; 0 leaves it out)
  --delays LIST     times of a round trip in bulk, milliseconds (default 0,50,100)
  --before FILE     another build of adit, whose bulk is measured in the same rounds
  --after FILE      the build that is measured (default: the one just built)
  --results FOLDER  where the tables go, as stalled.md (default bench/results)
  --help            this text
";

fn main() -> ExitCode {
    match options().and_then(|options| options.map_or(Ok(()), |options| run(&options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Option<Options>> {
    let mut options = Options {
        visitors: 1000,
        grace: Duration::from_secs(15),
        rounds: 5,
        only: None,
        before: None,
        after: PathBuf::new(),
        delays: vec![0, 50, 100],
        results: concat!(env!("CARGO_MANIFEST_DIR"), "/results").into(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(None);
            }
            // cargo adds it to whatever it runs as a benchmark.
            "--bench" => continue,
            _ => {}
        }
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        let number = |text: &str| text.parse::<u64>().with_context(|| format!("{word} {text}: not a number"));
        match word.as_str() {
            "--visitors" => options.visitors = usize::try_from(number(&value)?)?,
            "--grace" => options.grace = Duration::from_secs(number(&value)?),
            "--only" => options.only = Some(value),
            "--rounds" => options.rounds = usize::try_from(number(&value)?)?,
            "--delays" => options.delays = value.split(',').map(number).collect::<Result<_>>()?,
            "--before" => options.before = Some(value.into()),
            "--after" => options.after = value.into(),
            "--results" => options.results = value.into(),
            _ => bail!("{word}: no such option\n\n{HELP}"),
        }
    }
    if options.after.as_os_str().is_empty() {
        options.after = e2e::process::adit();
    }
    Ok(Some(options))
}

fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut text = String::new();
    runtime.block_on(async {
        if options.visitors > 0 {
            stalling::measure(options, &mut text).await.context("visitors who take nothing")?;
        }
        if options.rounds > 0 {
            bulk::measure(options, &mut text).await.context("bulk")?;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    println!("{text}");
    std::fs::create_dir_all(&options.results)?;
    std::fs::write(options.results.join("stalled.md"), &text)?;
    eprintln!("written to {}", options.results.join("stalled.md").display());
    Ok(())
}
