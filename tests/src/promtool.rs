//! What checks metrics and rules as Prometheus does: `promtool` of Debian's package `prometheus`, which `cargo
//! xtask test` fetches. A machine without it [skips](crate::skip) what needs it.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::process::target;

/// The program.
pub struct Promtool(PathBuf);

/// What it said of something.
#[derive(Debug)]
pub struct Verdict {
    pub code: Option<i32>,
    /// All that it printed.
    pub said: String,
}

impl Promtool {
    /// `None` where there is no such program.
    pub fn find() -> Option<Self> {
        let named = std::env::var_os("ADIT_PROMTOOL").map(PathBuf::from);
        let program = named.unwrap_or_else(|| target().join("tools/prometheus/usr/bin/promtool"));
        if !program.is_file() {
            crate::skip(&format!("there is no {}; `cargo xtask setup` fetches it", program.display()));
            return None;
        }
        Some(Self(program))
    }

    /// Runs it with `input`.
    pub fn run(&self, arguments: &[&str], input: &str) -> Verdict {
        let mut promtool = Command::new(&self.0);
        promtool.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = promtool.spawn().expect("promtool starts");
        let mut stdin = child.stdin.take().expect("it was asked for");
        let input = input.to_owned();
        // It reads all before it says much, but nothing is left to that.
        let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().expect("promtool ends");
        // It may have ended without reading.
        let _ = writing.join();
        let said = [output.stdout, output.stderr].concat();
        Verdict { code: output.status.code(), said: String::from_utf8_lossy(&said).into_owned() }
    }
}
