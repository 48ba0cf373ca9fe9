//! Builds what is measured as it is released, and runs the benchmark.

use std::path::Path;

use anyhow::Result;

use crate::progress::Progress;
use crate::tree::Tree;
use crate::{child, plugins, wasm};

pub(crate) fn run(tree: &Tree, arguments: &[String]) -> Result<()> {
    if arguments.first().is_some_and(|first| first == "choices") {
        // Pure: nothing is measured but its own crate.
        let mut bench = tree.cargo();
        bench.args(["bench", "--quiet", "--locked", "-p", "adit-balance", "--bench", "choices"]);
        return child::stream(&mut bench, "a choice costs more than it may, or is worth less than it should");
    }
    let is_help = arguments.iter().any(|word| word == "--help" || word == "-h");
    if !is_help {
        let mut progress = Progress::of(STEPS);
        let toolchain = progress.step("finding a compiler for plugins", || wasm::provide(tree))?;
        progress.step("building the plugins", || plugins::build(tree, &toolchain))?;
        progress.step("building adit as it is released (some minutes at first)", || {
            child::stream(
                tree.cargo().args(["build", "--locked", "--release", "--workspace", "--bin", "adit"]),
                "",
            )
        })?;
        progress.finish("measuring");
    }
    let (bench_of, arguments) = match arguments.split_first() {
        Some((first, rest)) if first == "scale" => ("scale", rest),
        Some((first, rest)) if first == "stalled" => ("stalled", rest),
        _ => ("adit", arguments),
    };
    // The whole workspace, so that the libraries are those of the step before.
    let mut bench = tree.cargo();
    bench.args(["bench", "--quiet", "--locked", "--workspace", "--bench", bench_of, "--"]);
    // Cargo starts it in the folder of its crate.
    bench.args(arguments.iter().map(|word| absolute(tree, word)));
    child::stream(&mut bench, "")
}

/// A file that is named from where the user stands.
fn absolute(tree: &Tree, word: &str) -> String {
    let path = Path::new(word);
    let is_file = path.is_relative() && word.contains('/') && tree.root().join(path).exists();
    if is_file { tree.root().join(path).display().to_string() } else { word.to_owned() }
}

const STEPS: usize = 3;
