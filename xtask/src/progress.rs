//! Shows a person how far a command has come.

use std::cell::RefCell;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Numbers the steps of a command and times them.
#[derive(Debug)]
pub(crate) struct Progress {
    begun: Instant,
    at: usize,
    of: usize,
}

impl Progress {
    /// A command of `of` steps.
    pub(crate) fn of(of: usize) -> Self {
        Self { begun: Instant::now(), at: 0, of }
    }

    /// Does one step between two lines that say so.
    pub(crate) fn step<T>(&mut self, title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.at += 1;
        let place = format!("[{}/{}]", self.at, self.of);
        println!("{place} {title} …");
        let begun = Instant::now();
        let done = work();
        let word = if done.is_ok() { "done" } else { "FAILED" };
        println!("{place} {title}: {word} after {}", clock(begun.elapsed()));
        done
    }

    /// Waits for what was begun with [`beside`], between the same two lines and with its remarks.
    pub(crate) fn join<T>(&mut self, beside: Beside<T>) -> Result<T> {
        let Beside { title, worker } = beside;
        self.step(title, || {
            let (done, notes, took) = worker.join().map_err(|_| anyhow!("{title} has panicked"))?;
            notes.iter().for_each(note);
            note(format!("took {} beside the steps before", clock(took)));
            done
        })
    }

    /// The last line of a command that went well.
    pub(crate) fn finish(self, sentence: &str) {
        debug_assert_eq!(self.at, self.of, "the number of steps is stated once and kept");
        println!("{sentence}, after {}", clock(self.begun.elapsed()));
    }
}

/// A step that is done while others are, because it mostly waits for a network.
#[derive(Debug)]
pub(crate) struct Beside<T> {
    title: &'static str,
    worker: JoinHandle<(Result<T>, Vec<String>, Duration)>,
}

/// Begins a step beside others. What it remarks is kept until [`Progress::join`].
pub(crate) fn beside<T: Send + 'static>(
    title: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Beside<T> {
    let worker = std::thread::spawn(move || {
        let begun = Instant::now();
        NOTES.set(Some(Vec::new()));
        let done = work();
        (done, NOTES.take().unwrap_or_default(), begun.elapsed())
    });
    Beside { title, worker }
}

thread_local! {
    /// Remarks of a step that is done beside others.
    static NOTES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// A remark inside of a step.
pub(crate) fn note(text: impl AsRef<str>) {
    let text = text.as_ref();
    NOTES.with_borrow_mut(|notes| match notes {
        Some(notes) => notes.push(text.to_owned()),
        None => println!("      {text}"),
    });
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_beside_says_so_when_it_is_waited_for() {
        let mut progress = Progress::of(2);
        let work = beside("finding a thing", || {
            note("here it is");
            Ok(NOTES.with_borrow(|notes| notes.clone().unwrap_or_default()))
        });
        assert_eq!(progress.join(work).unwrap(), ["here it is"]);
        let fails = beside("finding another", || Err::<(), _>(anyhow!("no network")));
        assert_eq!(progress.join(fails).unwrap_err().to_string(), "no network");
        progress.finish("both were waited for");
    }

    #[test]
    fn times_are_written_as_people_read_them() {
        assert_eq!(clock(Duration::from_millis(1_240)), "1.2 s");
        assert_eq!(clock(Duration::from_secs(723)), "12 min 3 s");
    }
}
