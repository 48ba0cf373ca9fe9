//! WASI with nothing behind it: no files, environment, arguments, input or network. What a
//! guest prints goes to the log at debug, which is where a Rust guest's panic message ends up.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tracing::Level;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView, async_trait};

use super::super::store::State;
use super::log::{GuestLog, LONGEST_MESSAGE};

/// Most random bytes that a guest gets at once; the host allocates them.
const RANDOM_BYTES: u64 = 64 * 1024;

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        // Made when a guest first asks for it: most never do.
        let wasi = self.wasi.get_or_insert_with(|| Box::new(Wasi::new(&self.sandbox.log, &self.request)));
        WasiCtxView { ctx: &mut wasi.context, table: &mut self.resources }
    }
}

/// What an instance has of WASI.
pub(crate) struct Wasi {
    context: WasiCtx,
    /// The id of the request being handled, for what is printed meanwhile.
    request: Arc<Mutex<String>>,
}

impl Wasi {
    fn new(log: &Arc<GuestLog>, request: &str) -> Self {
        let request = Arc::new(Mutex::new(request.to_owned()));
        Self { context: context(log, &request), request }
    }

    /// What is printed from now on belongs to this request.
    pub(crate) fn begin(&self, request: &str) {
        let mut own = self.request.lock().unwrap_or_else(PoisonError::into_inner);
        own.clear();
        own.push_str(request);
    }
}

fn context(log: &Arc<GuestLog>, request: &Arc<Mutex<String>>) -> WasiCtx {
    let printed = || Printed { log: log.clone(), request: request.clone() };
    WasiCtx::builder().stdout(printed()).stderr(printed()).max_random_size(RANDOM_BYTES).build()
}

/// A guest's standard output or error.
#[derive(Clone)]
struct Printed {
    log: Arc<GuestLog>,
    request: Arc<Mutex<String>>,
}

impl IsTerminal for Printed {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printed {
    // For WASI 0.3.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Lines { printed: self.clone(), line: Vec::new() })
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Lines { printed: self.clone(), line: Vec::new() })
    }
}

/// Gathers what is printed into lines.
struct Lines {
    printed: Printed,
    line: Vec<u8>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            self.line.extend_from_slice(text);
            if ends || self.line.len() >= LONGEST_MESSAGE {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        if !line.trim().is_empty() {
            let Printed { log, request } = &self.printed;
            log.write(Level::DEBUG, &request.lock().unwrap_or_else(PoisonError::into_inner), &line);
        }
        self.line.clear();
    }
}

#[async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

impl OutputStream for Lines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(LONGEST_MESSAGE)
    }
}

impl AsyncWrite for Lines {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let taken = bytes.len().min(LONGEST_MESSAGE);
        self.get_mut().take(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.end_line();
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::CapturedLogs;
    use super::*;

    #[test]
    fn what_an_instance_prints_bears_the_id_of_the_request_that_it_handles_then() {
        let heard = CapturedLogs::default();
        let log = Arc::new(GuestLog::heard("tested", heard.clone()));
        let wasi = Wasi::new(&log, "one");
        let mut lines = Lines { printed: Printed { log, request: wasi.request.clone() }, line: Vec::new() };
        lines.take(b"first\n");
        wasi.begin("two");
        lines.take(b"second\n");
        let heard = heard.lock().expect("nobody panics");
        let requests: Vec<&str> = heard.iter().map(|line| line.request.as_str()).collect();
        assert_eq!(requests, ["one", "two"]);
    }
}
