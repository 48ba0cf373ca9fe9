//! Shows a person how far a command has come.

use std::time::{Duration, Instant};

use anyhow::Result;

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

    /// The last line of a command that went well.
    pub(crate) fn finish(self, sentence: &str) {
        debug_assert_eq!(self.at, self.of, "the number of steps is stated once and kept");
        println!("{sentence}, after {}", clock(self.begun.elapsed()));
    }
}

/// A remark inside of a step.
pub(crate) fn note(text: impl AsRef<str>) {
    println!("      {}", text.as_ref());
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
    fn times_are_written_as_people_read_them() {
        assert_eq!(clock(Duration::from_millis(1_240)), "1.2 s");
        assert_eq!(clock(Duration::from_secs(723)), "12 min 3 s");
    }
}
