//! Programs that Debian packages: downloaded and unpacked under target/tools. Nothing is installed, and no root is
//! needed: each of these packages holds a program of its own; a browser and a Redis come with their libraries.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::child;
use crate::progress::note;
use crate::tree::Tree;

/// A registry that components can be pushed to; nothing, and a word about it, where it cannot be had: then `cargo
/// xtask test` fails at the tests that want it.
pub(crate) fn docker_registry(tree: &Tree) -> Result<Option<PathBuf>> {
    provide(
        tree,
        "docker-registry",
        "docker-registry",
        "there is no registry here, so none is pushed to and pulled from",
    )
}

/// What checks metrics and rules as Prometheus reads them; the same where it cannot be had.
pub(crate) fn promtool(tree: &Tree) -> Result<Option<PathBuf>> {
    provide(tree, "prometheus", "promtool", "there is no promtool here, so metrics and rules are not checked")
}

/// An authority that speaks ACME, for tests; the same where it cannot be had. It does not say which version it is.
pub(crate) fn pebble(tree: &Tree) -> Result<Option<PathBuf>> {
    let program = find(tree, "pebble", "pebble", "there is no pebble here, so no certificate is ordered");
    Ok(program.inspect(|program| note(format!("in {}", tree.short(program)))))
}

/// What looks at the TLS of a server; the same where it cannot be had.
pub(crate) fn testssl(tree: &Tree) -> Result<Option<PathBuf>> {
    let program = find(tree, "testssl.sh", "testssl", "there is no testssl.sh here, so nobody looks at TLS");
    Ok(program.inspect(|program| note(format!("in {}", tree.short(program)))))
}

/// A browser without a window, for tests of pages: the folder that it was unpacked to, with what it needs and this
/// machine has not. Nothing where it cannot be had, and a word about it.
pub(crate) fn chromium(tree: &Tree) -> Result<Option<PathBuf>> {
    let folder = tree.target("tools").join(CHROMIUM);
    if !folder.join("usr/lib/chromium").join(CHROMIUM).is_file()
        && let Err(error) = fetch_with_what_it_needs(&folder, CHROMIUM)
    {
        note(format!("SKIPPED: there is no browser here, so no page is looked at ({error:#})"));
        return Ok(None);
    }
    note(format!("in {}", tree.short(&folder)));
    Ok(Some(folder))
}

/// What keeps the state of a fleet of edges, for tests; the same where it cannot be had. Debian's is older than what an
/// edge takes unless it is told to.
pub(crate) fn etcd(tree: &Tree) -> Result<Option<PathBuf>> {
    provide(tree, "etcd-server", "etcd", "there is no etcd here, so no fleet keeps its state there")
}

/// What keeps buckets that hosts share, for tests: the folder that it was unpacked to, with the libraries that it needs.
/// The same where it cannot be had.
pub(crate) fn redis(tree: &Tree) -> Result<Option<PathBuf>> {
    let folder = tree.target("tools").join(REDIS);
    if !folder.join("usr/bin").join(REDIS).is_file()
        && let Err(error) = fetch_with_what_it_needs(&folder, REDIS)
    {
        note(format!("SKIPPED: there is no redis-server here, so no host shares buckets ({error:#})"));
        return Ok(None);
    }
    note(format!("in {}", tree.short(&folder)));
    Ok(Some(folder))
}

fn provide(tree: &Tree, package: &str, program: &str, without: &str) -> Result<Option<PathBuf>> {
    let Some(program) = find(tree, package, program, without) else { return Ok(None) };
    let version = child::capture(Command::new(&program).arg("--version"), child::SHORT, "")?;
    note(format!("{}, in {}", version.lines().next().unwrap_or_default().trim(), tree.short(&program)));
    Ok(Some(program))
}

fn find(tree: &Tree, package: &str, program: &str, without: &str) -> Option<PathBuf> {
    let folder = tree.target("tools").join(package);
    let program = folder.join("usr/bin").join(program);
    if !program.is_file()
        && let Err(error) = fetch(&folder, package)
    {
        note(format!("SKIPPED: {without} ({error:#})"));
        return None;
    }
    Some(program)
}

fn fetch(folder: &Path, package: &str) -> Result<()> {
    fetch_all(folder, &[package.to_owned()])
}

/// What would be installed with it, as apt says itself; nothing is.
fn fetch_with_what_it_needs(folder: &Path, package: &str) -> Result<()> {
    let mut plan = Command::new("apt-get");
    plan.args(["install", "--simulate", "--no-install-recommends", package]);
    let plan = by_fresh_lists(&mut plan)?;
    let packages = plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
    let mut packages: Vec<String> = packages.map(str::to_owned).collect();
    if packages.is_empty() {
        // It is installed, and is taken from there no less than from here.
        packages.push(package.to_owned());
    }
    fetch_all(folder, &packages)
}

fn fetch_all(folder: &Path, packages: &[String]) -> Result<()> {
    for program in ["apt-get", "dpkg-deb"] {
        ensure!(child::is_there(program), "`{program}` is not there; is this machine a Debian?");
    }
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut download = Command::new("apt-get");
    download.current_dir(folder).args(["download", "-qq"]).args(packages);
    by_fresh_lists(&mut download)?;
    let files = std::fs::read_dir(folder)?.flatten().map(|file| file.path());
    let downloaded: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "deb")).collect();
    ensure!(!downloaded.is_empty(), "nothing was downloaded");
    for package in downloaded {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--extract").arg(&package).arg(folder);
        child::capture(&mut unpack, FETCH_LIMIT, "")?;
        // Only disk space.
        let _ = std::fs::remove_file(package);
    }
    Ok(())
}

/// What apt says. A machine's lists may be missing, or name what is no longer there: then they are fetched once.
fn by_fresh_lists(apt: &mut Command) -> Result<String> {
    child::capture(apt, FETCH_LIMIT, "").or_else(|_| {
        let mut update = Command::new("apt-get");
        child::capture(update.args(["update", "-qq"]), FETCH_LIMIT, "")?;
        child::capture(apt, FETCH_LIMIT, "run `apt-get update` first")
    })
}

const REDIS: &str = "redis-server";
const CHROMIUM: &str = "chromium-headless-shell";
const FETCH_LIMIT: Duration = Duration::from_secs(120);
