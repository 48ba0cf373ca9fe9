//! Everything that must hold before a change lands, what fails fastest first.

use std::process::Command;

use anyhow::Result;

use crate::progress::{Progress, beside, note};
use crate::tree::Tree;
use crate::{
    axe_core, cargo_deny, child, debian_package, grpc, languages, oidc_provider, plugins, schemathesis, sdks,
    systemd, wasm,
};

/// Runs every check and stops at the first that fails. What is fetched is fetched while something is compiled.
pub(crate) fn run(tree: &Tree) -> Result<()> {
    let cargo = |arguments: &[&str], way_out: &str| child::stream(tree.cargo().args(arguments), way_out);
    let mut progress = Progress::of(STEPS);

    progress.step("checking the format", || {
        let way_out = "`cargo fmt --all`, also in plugins/ and fuzz/";
        cargo(&["fmt", "--all", "--check"], way_out)?;
        cargo(&["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"], way_out)?;
        child::stream(tree.plugins_cargo("fmt").args(["--all", "--check"]), way_out)
    })?;
    let for_deny = tree.clone();
    let deny = beside("finding cargo-deny", move || cargo_deny::provide(&for_deny));
    // One after the other: both ask the same machine for packages.
    let for_tools = tree.clone();
    let tools = beside(
        "finding schemathesis, gRPC, SDKs, a registry, promtool, pebble, etcd, Redis, a browser, an OpenID provider, axe-core and systemd-analyze",
        move || {
            let (schemathesis, grpc) = (schemathesis::provide(&for_tools)?, grpc::provide(&for_tools)?);
            let (sdks, registry) = (sdks::provide(&for_tools), debian_package::docker_registry(&for_tools)?);
            let promtool = debian_package::promtool(&for_tools)?;
            let (pebble, etcd) = (debian_package::pebble(&for_tools)?, debian_package::etcd(&for_tools)?);
            let redis = debian_package::redis(&for_tools)?;
            let browser = debian_package::chromium(&for_tools)?;
            let (provider, axe) = (oidc_provider::provide(&for_tools)?, axe_core::provide(&for_tools)?);
            let analyze = systemd::provide(&for_tools)?;
            Ok((
                schemathesis,
                grpc,
                sdks,
                registry,
                promtool,
                pebble,
                (etcd, redis),
                browser,
                (provider, axe),
                analyze,
            ))
        },
    );

    let toolchain = progress.step("finding a compiler for plugins", || wasm::provide(tree))?;
    let (for_languages, rust) = (tree.clone(), toolchain.clone());
    let languages =
        beside("finding the tools of the other languages", move || languages::provide(&for_languages, &rust));
    progress.step("building the plugins", || plugins::build(tree, &toolchain))?;
    let deny = progress.join(deny)?;
    progress.step("checking dependencies, licences and sources", || {
        cargo_deny::check(&deny, tree.root())?;
        cargo_deny::check(&deny, &tree.root().join("plugins"))
    })?;
    progress.step("checking the plugins' code", || {
        child::stream(
            tree.plugins_cargo("clippy").args(["--locked", "--all-targets", "--", "-D", "warnings"]),
            "",
        )
    })?;
    progress.step("testing the plugins' code", || {
        child::stream(tree.plugins_cargo("test").arg("--locked"), "")
    })?;

    progress.step("checking the code", || {
        cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"], "")
    })?;
    let (
        schemathesis,
        grpc,
        sdks,
        registry,
        promtool,
        pebble,
        (etcd, redis),
        browser,
        (provider, axe),
        analyze,
    ) = progress.join(tools)?;
    progress.join(languages)?;
    progress.step("testing each crate by itself", || {
        // They wait more than they work: with four threads in half the time on two cores.
        let arguments = ["test", "--locked", "--workspace", "--lib", "--bins"];
        let mut cargo = short(tree.cargo());
        cargo.args(arguments).env("RUST_TEST_THREADS", "4");
        if std::env::var_os("ADIT_SKIP_NOTHING").is_none() {
            cargo.env("ADIT_SKIP_NOTHING", "1");
        }
        if let Some(program) = &etcd {
            cargo.env("ADIT_ETCD", program);
        }
        child::stream(&mut cargo, "")
    })?;
    // Builds the binary as well, which the tests of the whole product start: `cli` has a test of its own for it.
    progress.step("testing the whole", || {
        let mut cargo = short(tree.cargo());
        cargo.args(["test", "--locked", "--workspace", "--test", "*"]);
        // What a test needs was found or fetched above: a test that does without is no test. On a machine
        // that is known to lack something, `ADIT_SKIP_NOTHING=0` allows it.
        if std::env::var_os("ADIT_SKIP_NOTHING").is_none() {
            cargo.env("ADIT_SKIP_NOTHING", "1");
        }
        if let Some(program) = schemathesis {
            cargo.env("ADIT_SCHEMATHESIS", program);
        }
        if let Some(python) = &grpc {
            cargo.env("ADIT_GRPC", python);
        }
        if let Some(program) = &analyze {
            cargo.env("ADIT_SYSTEMD_ANALYZE", program);
        }
        if let Some(python) = &sdks.python {
            cargo.env("ADIT_SDK_PYTHON", python);
        }
        if let Some(folder) = &sdks.node {
            cargo.env("ADIT_SDK_NODE", folder);
        }
        if let Some(program) = &registry {
            cargo.env("ADIT_DOCKER_REGISTRY", program);
        }
        if let Some(program) = &promtool {
            cargo.env("ADIT_PROMTOOL", program);
        }
        if let Some(program) = &pebble {
            cargo.env("ADIT_PEBBLE", program);
        }
        if let Some(folder) = &browser {
            cargo.env("ADIT_CHROMIUM", folder);
        }
        if let Some(program) = &etcd {
            cargo.env("ADIT_ETCD", program);
        }
        if let Some(folder) = &redis {
            cargo.env("ADIT_REDIS", folder);
        }
        if let Some(folder) = &provider {
            cargo.env("ADIT_OIDC_PROVIDER", folder);
        }
        if let Some(folder) = &axe {
            cargo.env("ADIT_AXE", folder);
        }
        child::stream(&mut cargo, "")
    })?;
    progress.step("testing the examples in the documentation", || {
        cargo(&["test", "--locked", "--workspace", "--doc"], "")
    })?;
    progress.step("checking the documentation", || {
        child::stream(
            tree.cargo()
                .args(["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"])
                .env("RUSTDOCFLAGS", "-D warnings"),
            "",
        )
    })?;
    note("not run: what needs the reference's own program; `cargo xtask reference PROGRAM` does");
    progress.finish("cargo xtask test: everything passed");
    Ok(())
}

/// Where a test fails, what it says itself stands in the output, not thirty lines of those who called it.
fn short(mut cargo: Command) -> Command {
    cargo.env("RUST_BACKTRACE", "0");
    cargo
}

const STEPS: usize = 14;
