//! Runs other programs and says plainly which one did not do its work.

use std::fmt::Write as _;
use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// Runs `command` with its output going where ours goes.
pub(crate) fn stream(command: &mut Command, way_out: &str) -> Result<()> {
    let line = written(command);
    println!("      $ {line}");
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("starting `{line}`\n  way out: is the program installed?"))?;
    if status.success() { Ok(()) } else { Err(failure(&line, status, "", way_out)) }
}

/// Runs `command` for at most `limit`, keeps its output, and shows it only if it fails. Hands back
/// what it wrote to its standard output.
pub(crate) fn capture(command: &mut Command, limit: Duration, way_out: &str) -> Result<String> {
    let line = written(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting `{line}`"))?;
    let output = collect(child.stdout.take());
    let complaints = collect(child.stderr.take());

    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| format!("waiting for `{line}`"))? {
            break status;
        }
        if begun.elapsed() > limit {
            child.kill().with_context(|| format!("ending `{line}`"))?;
            child.wait().with_context(|| format!("waiting for `{line}`"))?;
            bail!("`{line}` was ended after {} s without an answer{}", limit.as_secs(), hint(way_out));
        }
        std::thread::sleep(POLL);
    };
    let (output, complaints) = (finish(output), finish(complaints));
    if status.success() { Ok(output) } else { Err(failure(&line, status, &(output + &complaints), way_out)) }
}

/// Whether a program of this name answers to `--version`.
pub(crate) fn is_there(program: &str) -> bool {
    capture(Command::new(program).arg("--version"), SHORT, "").is_ok()
}

/// The command line as a person would type it.
fn written(command: &Command) -> String {
    let mut line = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value.filter(|_| name != "CARGO_TARGET_DIR" && name != "PATH") {
            let _ = write!(line, "{}={} ", name.to_string_lossy(), quoted(&value.to_string_lossy()));
        }
    }
    let program = command.get_program().to_string_lossy();
    // The toolchain's own cargo is called by its full path; nobody types that.
    line.push_str(if program.ends_with("/cargo") { "cargo" } else { &program });
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&quoted(&argument.to_string_lossy()));
    }
    line
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{word}'") }
}

fn failure(line: &str, status: ExitStatus, output: &str, way_out: &str) -> anyhow::Error {
    let mut message = format!("`{line}` ended with {status}");
    let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
    for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
        let _ = write!(message, "\n  | {line}");
    }
    anyhow!(message + &hint(way_out))
}

fn hint(way_out: &str) -> String {
    if way_out.is_empty() { String::new() } else { format!("\n  way out: {way_out}") }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn finish(reader: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}

/// For questions that a program answers from what it has.
pub(crate) const SHORT: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(20);

/// Lines of a failed program's output that are shown.
const LAST_LINES: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_its_output_and_the_way_out() {
        let error = capture(Command::new("sh").args(["-c", "echo no luck >&2; exit 3"]), SHORT, "try again")
            .unwrap_err()
            .to_string();
        for part in
            ["`sh -c 'echo no luck >&2; exit 3'`", "exit status: 3", "| no luck", "way out: try again"]
        {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let error = capture(Command::new("sleep").arg("600"), Duration::from_millis(1), "").unwrap_err();
        assert!(error.to_string().contains("without an answer"), "{error}");
    }
}
