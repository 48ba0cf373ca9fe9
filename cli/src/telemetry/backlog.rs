//! Log lines on their way to standard error or to a file. Whoever serves does not wait for whoever reads them: lines are
//! gathered for a moment and written together by a thread of their own.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Where lines are put; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Backlog(Arc<Shared>);

/// Writes what is left when it is dropped.
pub(crate) struct Writer {
    backlog: Backlog,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    lines: Vec<u8>,
    /// Lines that found no room.
    lost: u64,
    is_closed: bool,
}

impl Backlog {
    /// Starts to write what is put here.
    pub(super) fn write(&self, mut out: impl Write + Send + 'static) -> io::Result<Writer> {
        let shared = self.clone();
        let thread = thread::Builder::new().name("log".to_owned()).spawn(move || shared.drain(&mut out))?;
        Ok(Writer { backlog: self.clone(), thread: Some(thread) })
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, line: &[u8]) {
        let line = &*one_line(line);
        let mut pending = self.pending();
        if pending.lines.len() + line.len() > MOST {
            pending.lost += 1;
            return;
        }
        let was_empty = pending.lines.is_empty();
        pending.lines.extend_from_slice(line);
        drop(pending);
        // A writer that has lines to write looks again without being told.
        if was_empty {
            self.0.changed.notify_one();
        }
    }

    /// Until closed and empty.
    fn drain(&self, out: &mut impl Write) {
        let mut lines = Vec::new();
        loop {
            let nothing_new = |pending: &mut Pending| pending.lines.is_empty() && !pending.is_closed;
            let mut pending = self
                .0
                .changed
                .wait_while(self.pending(), nothing_new)
                .unwrap_or_else(PoisonError::into_inner);
            if !pending.is_closed {
                // More will come with the first; whoever closes need not wait.
                let gathering = self.0.changed.wait_timeout_while(pending, GATHER, |it| !it.is_closed);
                pending = gathering.unwrap_or_else(PoisonError::into_inner).0;
            }
            let is_over = pending.is_closed;
            std::mem::swap(&mut lines, &mut pending.lines);
            let lost = std::mem::take(&mut pending.lost);
            drop(pending);
            // A reader that is gone is no reason to stop serving, and there is nowhere else to say so.
            let _ = out.write_all(&lines);
            lines.clear();
            lines.shrink_to(USUAL);
            if lost > 0 {
                tracing::warn!(lost, "log lines were lost: they are taken too slowly");
            }
            if is_over && lost == 0 {
                return;
            }
        }
    }
}

/// A line as it is, unless something of it would be taken for another line, or read in another order: what
/// others say stands in lines too. Escapes of terminals are the subscriber's own, or escaped by it.
fn one_line(line: &[u8]) -> Cow<'_, [u8]> {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    let is_plain = |byte: &u8| (0x20..0x7f).contains(byte) || *byte == 0x1b || *byte == b'\t';
    if text.iter().all(is_plain) {
        return Cow::Borrowed(line);
    }
    let text = String::from_utf8_lossy(text);
    let mut plain = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '\x1b' | '\t' => plain.push(letter),
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                plain.extend(letter.escape_unicode());
            }
            letter if letter.is_control() => plain.extend(letter.escape_default()),
            letter => plain.push(letter),
        }
    }
    plain.push('\n');
    Cow::Owned(plain.into_bytes())
}

/// One line at a time, as the subscriber hands them over.
impl Write for &Backlog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Backlog {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.backlog.pending().is_closed = true;
        self.backlog.0.changed.notify_one();
        let Some(thread) = self.thread.take() else { return };
        // Who does not read must not keep the process.
        let deadline = std::time::Instant::now() + PATIENCE;
        while !thread.is_finished() && std::time::Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// How long lines wait for others.
pub(crate) const GATHER: Duration = Duration::from_millis(10);
/// Bytes that wait for a reader; more are lost.
const MOST: usize = 4 << 20;
/// What is kept of a buffer.
const USUAL: usize = 256 << 10;
/// How long an ending process waits for the reader of its last lines.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_written_in_order_and_whole_when_closed() {
        let backlog = Backlog::default();
        for number in 0..100 {
            writeln!(&backlog, "line {number}").expect("never fails");
        }
        backlog.pending().is_closed = true;
        let mut out = Vec::new();
        backlog.drain(&mut out);
        let all: String = (0..100).map(|number| format!("line {number}\n")).collect();
        assert_eq!(String::from_utf8(out).expect("text"), all);
    }

    #[test]
    fn nobody_else_writes_a_line_of_its_own() {
        let backlog = Backlog::default();
        for line in ["grün\n", "\x1b[2mWARN\x1b[0m error=no\n2026 INFO forged\r\n", "\u{202e}live\n"] {
            backlog.put(line.as_bytes());
        }
        let lines = String::from_utf8(backlog.pending().lines.clone()).expect("text");
        let wanted = "grün\n\x1b[2mWARN\x1b[0m error=no\\n2026 INFO forged\\r\n\\u{202e}live\n";
        assert_eq!(lines, wanted);
    }

    #[test]
    fn lines_without_room_are_counted_and_the_others_are_whole() {
        let backlog = Backlog::default();
        let line = vec![b'x'; MOST / 4 + 1];
        for _ in 0..5 {
            backlog.put(&line);
        }
        let pending = backlog.pending();
        assert_eq!((pending.lines.len(), pending.lost), (3 * line.len(), 2));
    }
}
