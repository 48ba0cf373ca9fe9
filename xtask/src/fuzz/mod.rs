//! Runs the fuzz targets of `fuzz/`, with the toolchain that everything else is built with.

mod seeds;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::child;
use crate::progress::{Progress, note};
use crate::tree::Tree;

/// Builds one target, or each, and runs it for so many seconds. What it finds lies in
/// `target/fuzz/findings`, what it learned in `target/fuzz/corpus`, what it began with in `target/fuzz/seeds`.
pub(crate) fn run(tree: &Tree, arguments: &[String]) -> Result<()> {
    let (targets, seconds) = match arguments {
        [] => (TARGETS, SECONDS),
        [target] => (named(target)?, SECONDS),
        [target, seconds] => {
            let seconds = seconds.parse();
            (named(target)?, seconds.context("the second argument is how many seconds it runs")?)
        }
        _ => bail!("takes a target and a number of seconds"),
    };
    let mut progress = Progress::of(1 + targets.len());
    let program = progress.step("finding cargo-fuzz", || provide(tree))?;
    for target in targets {
        progress.step(&format!("{target}, {seconds} s"), || {
            let folder = |of: &str| {
                let path = tree.target("fuzz").join(of).join(target);
                std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
                Ok::<_, anyhow::Error>(path)
            };
            let (corpus, seeds, findings) = (folder("corpus")?, folder("seeds")?, folder("findings")?);
            let sown = seeds::sow(tree, target, &seeds)?;
            note(format!("{sown} seeds"));
            if *target == "component" && !tree.target("plugins").is_dir() {
                note("of them no plugin: `cargo xtask plugins` builds some, and the search then goes deeper");
            }
            let mut command = Command::new(&program);
            command.current_dir(tree.root());
            // Of instrumentation only what leads the search, which needs no compiler of the night: there is
            // hardly any unsafe code of ours that a sanitizer could watch.
            command.args(["fuzz", "run", "--sanitizer", "none", "--codegen-units", "16"]);
            match *target {
                "protocol" | "condition" => drop(command.arg("--no-default-features")),
                "names" | "frames" => drop(command.args(["--no-default-features", "--features", "edge"])),
                _ => {}
            }
            // The first folder is the one that is written to.
            command.arg(target).args([corpus, seeds]);
            command.env("CARGO_TARGET_DIR", tree.target("fuzz/build"));
            command.args([
                "--",
                &format!("-max_total_time={seconds}"),
                "-timeout=60",
                "-print_final_stats=1",
                &format!("-max_len={}", longest(target)),
            ]);
            command.arg(format!("-artifact_prefix={}/", findings.display()));
            child::stream(&mut command, &format!("what broke it lies in {}", tree.short(&findings)))
        })?;
    }
    progress.finish("nothing was found");
    Ok(())
}

fn named(target: &str) -> Result<&'static [&'static str]> {
    let at = TARGETS.iter().position(|known| *known == target);
    at.map(|at| &TARGETS[at..=at]).with_context(|| format!("the targets are {}", TARGETS.join(", ")))
}

/// Bytes of the longest input; else it would be that of the longest seed.
fn longest(target: &str) -> usize {
    match target {
        "component" => 200 * 1024,
        "decision" | "names" => 2048,
        _ => 8192,
    }
}

/// One that is installed, or compiled into target/tools.
fn provide(tree: &Tree) -> Result<PathBuf> {
    let works = |program: &Path| {
        child::capture(Command::new(program).args(["fuzz", "--version"]), child::SHORT, "").is_ok()
    };
    let ours = tree.target("tools/bin/cargo-fuzz");
    for program in [PathBuf::from("cargo-fuzz"), ours.clone()] {
        if works(&program) {
            note(format!("{}", tree.short(&program)));
            return Ok(program);
        }
    }
    let mut cargo = tree.cargo();
    cargo.args(["install", "cargo-fuzz", "--locked", "--version", VERSION, "--root"]);
    cargo.arg(tree.target("tools")).env("CARGO_TARGET_DIR", tree.target("tools/build"));
    child::stream(&mut cargo, "install cargo-fuzz by hand")?;
    ensure!(works(&ours), "{} does not run", ours.display());
    Ok(ours)
}

/// The cheapest to build first.
const TARGETS: &[&str] = &["protocol", "condition", "names", "frames", "document", "decision", "component"];
const SECONDS: u64 = 120;
const VERSION: &str = "0.13.2";
