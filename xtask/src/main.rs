//! Developer commands: `cargo xtask help` lists them.
//!
//! Read [`checks`] for what is checked and in which order, [`check`] for the minutes between, [`wasm`] for how a machine comes by a
//! compiler for plugins, [`child`] and [`progress`] for how commands are run and shown.

mod axe_core;
mod bench;
mod bench_plugins;
mod cargo_deny;
mod chaos;
mod charts;
mod check;
mod checks;
mod child;
mod component_tests;
mod debian_package;
mod demo;
mod fleet;
mod fuzz;
mod grpc;
mod languages;
mod npm;
mod oidc_provider;
mod plugin_costs;
mod plugins;
mod programs;
mod progress;
mod pypi;
mod reference;
mod release;
mod roots;
mod schemathesis;
mod sdks;
mod swaps;
mod systemd;
mod testssl;
mod tree;
mod wasm;

use std::process::ExitCode;

use anyhow::{Result, bail};
use progress::Progress;
use tree::Tree;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_else(|| "help".to_owned());
    match run(&command, &arguments.collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ncargo xtask {command}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str, arguments: &[String]) -> Result<()> {
    const WITH_ARGUMENTS: [&str; 9] =
        ["demo", "bench", "chaos", "charts", "fuzz", "reference", "programs", "release", "component-tests"];
    if !WITH_ARGUMENTS.contains(&command) && !arguments.is_empty() {
        bail!("takes no arguments, got {}", arguments.join(" "));
    }
    let tree = Tree::find()?;
    match command {
        "setup" => {
            let mut progress = Progress::of(SETUP_STEPS);
            progress.step("finding a compiler for plugins", || wasm::provide(&tree))?;
            progress.step("finding cargo-deny", || cargo_deny::provide(&tree))?;
            progress.step("finding a registry", || debian_package::docker_registry(&tree))?;
            progress.step("finding promtool", || debian_package::promtool(&tree))?;
            progress.step("finding pebble", || debian_package::pebble(&tree))?;
            progress.step("finding a browser", || debian_package::chromium(&tree))?;
            progress.step("finding etcd", || debian_package::etcd(&tree))?;
            progress.step("finding Redis", || debian_package::redis(&tree))?;
            progress.step("finding an OpenID provider", || oidc_provider::provide(&tree))?;
            progress.step("finding axe-core", || axe_core::provide(&tree))?;
            progress.finish("everything is set up");
        }
        "plugins" => {
            let mut progress = Progress::of(PLUGIN_STEPS);
            let toolchain = progress.step("finding a compiler for plugins", || wasm::provide(&tree))?;
            progress.step("building the plugins", || plugins::build(&tree, &toolchain))?;
            progress.finish("the plugins are built");
        }
        "languages" => {
            let mut progress = Progress::of(LANGUAGE_STEPS);
            let rust = progress.step("finding a compiler for plugins", || wasm::provide(&tree))?;
            progress.step("finding the tools of the other languages", || languages::provide(&tree, &rust))?;
            progress.finish("written to target/tools/languages/env, for a shell to read");
        }
        "plugin-costs" => plugin_costs::run(&tree)?,
        "demo" => demo::start(&tree, arguments)?,
        "check" => check::run(&tree)?,
        "test" => checks::run(&tree)?,
        "reference" => reference::run(&tree, arguments)?,
        "programs" => programs::run(&tree, arguments)?,
        "release" => release::run(&tree, arguments)?,
        "roots" => roots::run(&tree)?,
        "charts" => charts::run(&tree, arguments)?,
        "swaps" => swaps::run(&tree)?,
        "testssl" => testssl::run(&tree)?,
        "chaos" => chaos::run(&tree, arguments)?,
        "fleet" => fleet::run(&tree)?,
        "bench" => bench::run(&tree, arguments)?,
        "bench-plugins" => bench_plugins::run(&tree)?,
        "fuzz" => fuzz::run(&tree, arguments)?,
        "component-tests" => component_tests::run(&tree, arguments)?,
        "help" | "--help" | "-h" => print!("{HELP}"),
        _ => bail!("no such command\n\n{HELP}"),
    }
    Ok(())
}

const SETUP_STEPS: usize = 10;
const PLUGIN_STEPS: usize = 2;
const LANGUAGE_STEPS: usize = 2;

const HELP: &str = "\
Usage: cargo xtask <command>

  demo [options]  set everything up, build, and start the demonstration; options go to `adit demo`
  check           format, clippy and the unit tests of the crates that were changed since the last commit
                  that was pushed, and the layering test
  test            set everything up and run every check; what CI runs
  reference PROGRAM
                  the tests that need the reference's own program, such as /usr/bin/cloudflared; all
                  others are part of `test`, where nothing that is missing is skipped
  programs [PROGRAM]
                  OpenSSH, PostgreSQL, Redis and a remote desktop over a tunnel, through our client and,
                  with the path of its program, the reference's; says which of them have to be installed
  swaps           the long tests of changes under load, optimised: 1,000 swaps, 200 kills, replicas
                  replaced under 100,000 requests
  plugins         build the plugins into target/plugins
  bench [options] measure Adit beside its peers; `cargo xtask bench --help` lists the options
  bench choices   what a choice of the load balancer costs, and what it is worth
  charts [--write]
                  render the Helm charts and check them as Kubernetes and adit would; with --write the
                  manifests in examples/kubernetes are written anew
  release [--check] [--key FILE] [--roots FILE]
                  build the static program, and of it an OCI image, a deb, checksums and a bill of
                  materials, signed with a key; --check builds twice and compares
  roots           install the release of `release` into the roots of Debian bookworm and trixie, and
                  serve from each, and from its image with nothing around it; needs root
  languages       find or fetch the tools of every language that plugins are written in
  plugin-costs    print what a plugin costs in each language, optimised
  bench-plugins   print what a plugin costs, optimised
  fleet           run a fleet of six nodes in two regions over three members of etcd, with hosts and
                  visitors, and a menu of what may go wrong
  chaos [--long] [ROW]
                  let each thing go wrong that the table of docs/fleet.md names, and print what came of
                  it; --long for as long as the table says, else some seconds each
  testssl         have testssl.sh look at the TLS of an edge, and fail at anything above low
  fuzz [TARGET] [SECONDS]
                  search for bytes that break a decoder: protocol, condition, names, frames, document,
                  decision, component
  component-tests FOLDER [PROGRAM]
                  run cloudflared's component tests, which lie in FOLDER, with our program in its place
  setup           only find or fetch the tools: a compiler for plugins, cargo-deny, a
                  registry, promtool, pebble, etcd, a browser, an OpenID provider
  help            this text

Nothing is installed outside of target/, except that `rustup target add wasm32-wasip2` is tried
where rustup is there and the target is not.
";
