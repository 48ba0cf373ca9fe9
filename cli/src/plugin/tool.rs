//! The programs that build plugins: finding them, and running them in sight of a person.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The first of these programs that is in one of the folders, or else on PATH.
pub(super) fn find(names: &[&str], folders: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = folders.iter().cloned().chain(std::env::split_paths(&path)).collect();
    names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|file| is_program(file)))
}

#[cfg(unix)]
fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(file: &Path) -> bool {
    file.is_file()
}

/// Runs a program with its messages going where ours go, and says so that it works if that takes long.
pub(super) fn run(title: &str, command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    // What it prints is for the person; our standard output is for results.
    command.stdin(Stdio::null()).stdout(Stdio::from(std::io::stderr()));
    let status = step(title, || command.status().with_context(|| format!("starting {program}")))?;
    if !status.success() {
        bail!("{program} ended with {status}; what it said is above");
    }
    Ok(())
}

/// Does something that may take long, between two lines that say so.
pub(super) fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    say(&format!("{title} …"));
    let begun = Instant::now();
    let (done, wait) = mpsc::channel::<()>();
    let outcome = thread::scope(|scope| {
        scope.spawn(move || {
            while wait.recv_timeout(BEAT) == Err(mpsc::RecvTimeoutError::Timeout) {
                say(&format!("still at it after {} s …", begun.elapsed().as_secs()));
            }
        });
        let outcome = work();
        drop(done);
        outcome
    });
    if outcome.is_ok() {
        say(&format!("{title}: done after {:.1} s", begun.elapsed().as_secs_f64()));
    }
    outcome
}

pub(super) fn say(line: &str) {
    // Not `eprintln!`, which panics when nobody reads.
    let _ = writeln!(std::io::stderr(), "{line}");
}

const BEAT: Duration = Duration::from_secs(10);
