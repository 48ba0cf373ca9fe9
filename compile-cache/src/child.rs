//! The child process that compiles one component: bytes in, machine code out. It gets no
//! environment, no files and no time without end, so that a component made to break a compiler
//! breaks nothing that serves.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tracing::debug;

use super::compiler::REFUSED;
use super::{CodeError, LARGEST_CODE, WALL_LIMIT};

/// Most bytes of what a child says about a component that are kept.
const LONGEST_REASON: u64 = 4096;

/// The program that compiles, which must call [`confine`](super::confine) and
/// [`compile`](super::compile).
#[derive(Debug)]
pub struct Program {
    pub path: PathBuf,
    pub arguments: Vec<OsString>,
    wall: Duration,
}

impl Program {
    pub fn new(path: PathBuf, arguments: Vec<OsString>) -> Self {
        Self { path, arguments, wall: WALL_LIMIT }
    }

    /// Compiles. May be dropped midway, which ends the child.
    pub(super) async fn run(&self, wasm: &[u8]) -> Result<Vec<u8>, CodeError> {
        let no_child = |error: std::io::Error| CodeError::NoChild {
            reason: format!("{}: {error}", self.path.display()),
        };
        let mut child = Command::new(&self.path)
            // What a list of processes shows.
            .arg0("adit")
            .args(&self.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(no_child)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let ask = async {
            let Some(mut stdin) = stdin else { return };
            // One that went early says why by its end.
            let _ = stdin.write_all(wasm).await;
        };
        let exchange = async {
            let ((), code, reason) =
                tokio::join!(ask, read(stdout, LARGEST_CODE), read(stderr, LONGEST_REASON));
            Ok::<_, std::io::Error>((child.wait().await?, code?, reason?))
        };
        let (status, code, reason) = match tokio::time::timeout(self.wall, exchange).await {
            Ok(ended) => ended.map_err(no_child)?,
            Err(_) => {
                let reason = format!("compiling it took more than {} s", self.wall.as_secs());
                return Err(CodeError::Refused { reason });
            }
        };
        judge(status, code, &String::from_utf8_lossy(&reason))
    }
}

/// What the end of a child means.
fn judge(status: ExitStatus, code: Vec<u8>, said: &str) -> Result<Vec<u8>, CodeError> {
    use std::os::unix::process::ExitStatusExt;

    let said = said.trim();
    match (status.code(), status.signal()) {
        (Some(0), _) if code.len() as u64 > LARGEST_CODE => {
            Err(CodeError::Refused { reason: format!("its machine code has over {LARGEST_CODE} bytes") })
        }
        (Some(0), _) if !code.is_empty() => {
            if !said.is_empty() {
                debug!(said, "the child that compiled a plugin");
            }
            Ok(code)
        }
        (Some(REFUSED), _) => Err(CodeError::Refused { reason: said.to_owned() }),
        // By a limit, by the kernel short of memory, or by a fault of the compiler: it would do the
        // same to whoever tries next.
        (None, Some(signal)) => Err(CodeError::Refused {
            reason: format!("its compiler was ended by signal {signal}, as by a limit of time or memory"),
        }),
        _ => Err(CodeError::NoChild { reason: format!("the compiler ended with {status}: {said}") }),
    }
}

/// All of it, or `limit` bytes and one more. What is over is left to a reader that is gone.
async fn read(from: Option<impl AsyncRead + Unpin>, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(limit + 1).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        let arguments = vec!["-c".into(), script.into()];
        Program { wall: Duration::from_secs(20), ..Program::new("/bin/sh".into(), arguments) }
    }

    async fn outcome(script: &str) -> Result<Vec<u8>, CodeError> {
        shell(script).run(b"some wasm").await
    }

    #[tokio::test]
    async fn the_child_gets_the_component_and_hands_back_code() {
        assert_eq!(outcome("cat").await.unwrap(), b"some wasm");
        // More than a pipe holds, in both directions.
        let large = vec![7; 3 << 20];
        assert_eq!(shell("cat").run(&large).await.unwrap(), large);
    }

    #[tokio::test]
    async fn the_child_sees_neither_the_environment_nor_the_folder() {
        let seen = outcome("pwd; env").await.unwrap();
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.starts_with("/\n") && !seen.contains("CARGO") && !seen.contains("HOME"), "{seen}");
    }

    #[tokio::test]
    async fn a_component_that_the_compiler_refuses_or_dies_of_is_refused() {
        let script = format!("cat > /dev/null; echo 'bad section' >&2; exit {REFUSED}");
        let error = outcome(&script).await.unwrap_err();
        assert!(matches!(&error, CodeError::Refused { reason } if reason == "bad section"), "{error}");
        let error = outcome("kill -9 $$").await.unwrap_err();
        assert!(matches!(&error, CodeError::Refused { reason } if reason.contains("signal 9")), "{error}");
        let endless = Program { wall: Duration::from_millis(50), ..shell("sleep 600") };
        let error = endless.run(b"").await.unwrap_err();
        assert!(matches!(&error, CodeError::Refused { reason } if reason.contains("took more")), "{error}");
    }

    #[tokio::test]
    async fn a_child_that_cannot_work_is_no_fault_of_the_component() {
        for script in ["echo usage >&2; exit 2", "exit 0", "exit 101"] {
            let error = outcome(script).await.unwrap_err();
            assert!(matches!(error, CodeError::NoChild { .. }), "{script}: {error}");
        }
        let absent = Program::new("/no/such/program".into(), Vec::new());
        assert!(matches!(absent.run(b"").await, Err(CodeError::NoChild { .. })));
    }
}
