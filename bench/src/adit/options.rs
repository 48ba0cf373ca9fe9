//! What the command line asks for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub(crate) struct Options {
    pub(crate) rounds: usize,
    /// How long one measurement takes.
    pub(crate) time: Duration,
    pub(crate) visitors: Vec<usize>,
    /// Requests in a second of the open loop.
    pub(crate) rate: u32,
    /// Bytes of one bulk transfer.
    pub(crate) bulk: u64,
    /// Words that a contender's or a scenario's name must contain; empty lets all in.
    pub(crate) only: Vec<String>,
    /// The program of the reference connector.
    pub(crate) reference: Option<PathBuf>,
    /// The program of a tunnel that knows no HTTP.
    pub(crate) rathole: Option<PathBuf>,
    /// The folder of the programs `frps` and `frpc`.
    pub(crate) frp: Option<PathBuf>,
    pub(crate) results: PathBuf,
}

pub(crate) const HELP: &str = "\
Usage: cargo xtask bench [options]

Runs Adit and its peers on this machine, in alternated rounds, and prints medians with their least and
greatest values. Needs about contenders x scenarios x rounds x seconds; leave the machine alone meanwhile.

  --rounds N        how often everything is measured (default 5)
  --seconds S       how long one measurement takes (default 2)
  --visitors A,B    how many visitors at once (default 1,32,64,256)
  --rate N          requests in a second of the open loop (default 2000)
  --bulk MIB        size of a bulk transfer (default 1024)
  --only WORD       only contenders and scenarios whose name contains the word; can be repeated, as in
                    `--only quic --only get`; `--only seeing` measures what traces and the inspector cost,
                    which is left out otherwise
  --reference PATH  also measure this connector of the same protocol, on our edge
  --rathole PATH    also measure this tunnel, both of its ends
  --frp FOLDER      also measure the tunnel whose frps and frpc are there
  --results FOLDER  where the table, the JSON and the chart go (default bench/results)
  --help            this text
";

impl Options {
    /// `None` if only help was asked for.
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let mut options = Self {
            rounds: 5,
            time: Duration::from_secs(2),
            visitors: vec![1, 32, 64, 256],
            rate: 2000,
            bulk: 1 << 30,
            only: Vec::new(),
            reference: None,
            rathole: None,
            frp: None,
            results: concat!(env!("CARGO_MANIFEST_DIR"), "/results").into(),
        };
        while let Some(word) = words.next() {
            if word == "--help" || word == "-h" {
                print!("{HELP}");
                return Ok(None);
            }
            // cargo adds it to whatever it runs as a benchmark.
            if word == "--bench" {
                continue;
            }
            let value = words.next().with_context(|| format!("{word} needs a value"))?;
            let number = || value.parse::<usize>().with_context(|| format!("{word} {value}: not a number"));
            match word.as_str() {
                "--rounds" => options.rounds = number()?.max(1),
                "--seconds" => options.time = Duration::from_secs(number()?.max(1) as u64),
                "--visitors" => {
                    let counts = value.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>();
                    options.visitors = counts.with_context(|| format!("{word} {value}: not numbers"))?;
                    if options.visitors.contains(&0) {
                        bail!("{word} {value}: at least one visitor");
                    }
                }
                "--rate" => options.rate = u32::try_from(number()?.max(1))?,
                "--bulk" => options.bulk = (number()?.max(1) as u64) << 20,
                "--only" => options.only.push(value),
                "--reference" => options.reference = Some(value.into()),
                "--rathole" => options.rathole = Some(value.into()),
                "--frp" => options.frp = Some(value.into()),
                "--results" => options.results = value.into(),
                _ => bail!("{word}: no such option"),
            }
        }
        Ok(Some(options))
    }

    /// Whether a name is to be measured, of all the names of its kind.
    pub(crate) fn wants(&self, name: &str, all: &[String]) -> bool {
        let mut concerned = self.only.iter().filter(|word| all.iter().any(|name| name.contains(*word)));
        let first = concerned.next();
        first.is_none_or(|first| name.contains(first) || concerned.any(|word| name.contains(word)))
    }
}
