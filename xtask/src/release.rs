//! `cargo xtask release`: one static program, and the packages that `adit-release` makes of it. Knows how it is
//! built so that two builds are the same; does not know what a package is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::progress::{Progress, note};
use crate::tree::Tree;
use crate::{child, plugins, wasm};

#[derive(Default)]
struct Asked {
    /// Everything twice, compared bit for bit.
    check: bool,
    /// With it the release is signed.
    key: Option<PathBuf>,
    roots: Option<PathBuf>,
}

pub(crate) fn run(tree: &Tree, arguments: &[String]) -> Result<()> {
    let asked = Asked::read(arguments)?;
    let mut progress = Progress::of(if asked.check { STEPS + CHECK_STEPS } else { STEPS });
    let toolchain = progress.step("finding a compiler for plugins", || wasm::provide(tree))?;
    progress.step("building the plugins", || plugins::build_shelf(tree, &toolchain))?;
    let first = progress.step("building adit, optimised and static (20 CPU-minutes at first)", || {
        build(tree, "release-build")
    })?;
    let output = tree.target("release-packages");
    progress.step("packing", || {
        if output.exists() {
            std::fs::remove_dir_all(&output).context("removing the packages of the run before")?;
        }
        pack(tree, &asked, &first, &output)
    })?;
    if asked.check {
        let second =
            progress.step("building it once more, in another folder", || build(tree, "release-again"))?;
        progress.step("comparing", || {
            let again = tree.target("release-packages-again");
            pack(tree, &asked, &second, &again)?;
            compare(&output, &again)
        })?;
    }
    progress.finish(&format!("the release is in {}", tree.short(&output)));
    Ok(())
}

impl Asked {
    fn read(arguments: &[String]) -> Result<Self> {
        let mut asked = Self::default();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value =
                || words.next().map(PathBuf::from).with_context(|| format!("{word} has no value"));
            match word.as_str() {
                "--check" => asked.check = true,
                "--key" => asked.key = Some(value()?),
                "--roots" => asked.roots = Some(value()?),
                _ => bail!("takes --check, --key FILE and --roots FILE, got {word}"),
            }
        }
        Ok(asked)
    }
}

/// The folder with the programs.
fn build(tree: &Tree, folder: &str) -> Result<PathBuf> {
    let target = tree.target(folder);
    let mut cargo = tree.cargo();
    cargo.args(["build", "--locked", "--release", "--workspace", "--bin", "adit", "--bin", "adit-release"]);
    // With a target named, what runs while building stays dynamic: macros could not be loaded otherwise.
    cargo.args(["--target", TARGET]);
    cargo.env("CARGO_TARGET_DIR", &target).env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    cargo.env("CARGO_INCREMENTAL", "0").env("ADIT_COMMIT", commit(tree)?);
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    // Where it was built is no part of it. The last that fits counts.
    let places =
        [(Some(tree.root().to_owned()), "/adit"), (Some(target.clone()), "/target"), (home, "/cargo")];
    let (mut rust, mut c) = (vec!["-C".to_owned(), "target-feature=+crt-static".to_owned()], Vec::new());
    for (place, name) in places {
        let Some(place) = place else { continue };
        rust.push(format!("--remap-path-prefix={}={name}", place.display()));
        c.push(format!("-ffile-prefix-map={}={name}", place.display()));
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rust.join("\u{1f}"));
    for name in ["CFLAGS", "CXXFLAGS"] {
        cargo.env(format!("{name}_{}", TARGET.replace('-', "_")), c.join(" "));
    }
    child::stream(&mut cargo, "")?;
    Ok(target.join(TARGET).join("release"))
}

fn pack(tree: &Tree, asked: &Asked, built: &Path, output: &Path) -> Result<()> {
    let program = built.join("adit");
    let needs = Command::new("ldd").arg(&program).output().context("starting ldd")?;
    let needs = String::from_utf8_lossy(&[needs.stdout, needs.stderr].concat()).into_owned();
    ensure!(
        needs.contains("statically linked") || needs.contains("not a dynamic executable"),
        "{} needs libraries:\n{needs}",
        program.display()
    );
    let roots = asked.roots.clone().unwrap_or_else(|| PathBuf::from(ROOTS));
    let mut release = Command::new(built.join("adit-release"));
    release.arg("--program").arg(&program).arg("--tree").arg(tree.root()).arg("--output").arg(output);
    release.arg("--roots").arg(roots).args(["--commit", &commit(tree)?]).args(["--time", &time(tree)?]);
    if let Some(key) = &asked.key {
        release.arg("--key").arg(key);
    }
    child::stream(&mut release, "")
}

/// Signatures differ each time, because they are made with random numbers: a signed image is left out, what it is
/// made of is not.
fn compare(first: &Path, second: &Path) -> Result<()> {
    let is_signed = first.join("SHA256SUMS.sig").exists();
    let sums = |folder: &Path| -> Result<Vec<String>> {
        let text = std::fs::read_to_string(folder.join("SHA256SUMS")).context("reading SHA256SUMS")?;
        Ok(text.lines().filter(|line| !is_signed || !line.ends_with(".oci.tar")).map(str::to_owned).collect())
    };
    let (one, other) = (sums(first)?, sums(second)?);
    ensure!(one == other, "two builds differ:\n{}\n\n{}", one.join("\n"), other.join("\n"));
    note("two builds, the same bytes");
    Ok(())
}

fn commit(tree: &Tree) -> Result<String> {
    if let Ok(commit) = std::env::var("ADIT_COMMIT") {
        return Ok(commit);
    }
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        child::capture(git.args(arguments).current_dir(tree.root()), child::SHORT, "set ADIT_COMMIT")
    };
    let commit = git(&["rev-parse", "HEAD"])?.trim().to_owned();
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Ok(if changes.trim().is_empty() { commit } else { format!("{commit}, changed") })
}

/// Of the commit, unless the field's variable says another.
fn time(tree: &Tree) -> Result<String> {
    if let Ok(time) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(time);
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(tree.root());
    Ok(child::capture(&mut git, child::SHORT, "set SOURCE_DATE_EPOCH")?.trim().to_owned())
}

const STEPS: usize = 4;
const CHECK_STEPS: usize = 2;
/// glibc can be linked statically as it is; names are looked up by what it holds itself.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// What an image believes unless other roots are named.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
