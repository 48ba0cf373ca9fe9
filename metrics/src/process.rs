//! What the operating system knows of this process. On others than Linux it is not asked, and the figures
//! are zero.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{Kind, Page, number as float};

/// A moment of this process.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Figures {
    /// Bytes in RAM.
    pub resident: u64,
    /// Bytes of address space.
    pub reserved: u64,
    pub cpu: Duration,
    pub files: u64,
    /// The soft limit on `files`.
    pub most_files: u64,
    /// Seconds since 1970.
    pub started: f64,
}

/// Of this process, as the clients' libraries of Prometheus name it.
pub fn write(page: &mut Page) {
    let figures = figures();
    page.single("process_resident_memory_bytes", Kind::Gauge, "Memory in RAM", float(figures.resident));
    page.single("process_virtual_memory_bytes", Kind::Gauge, "Address space", float(figures.reserved));
    page.single("process_cpu_seconds_total", Kind::Counter, "Time on processors", figures.cpu.as_secs_f64());
    page.single("process_open_fds", Kind::Gauge, "Open files", float(figures.files));
    page.single("process_max_fds", Kind::Gauge, "Files that may be open", float(figures.most_files));
    page.single("process_start_time_seconds", Kind::Gauge, "Start, seconds since 1970", figures.started);
}

/// Reads /proc (proc(5)).
#[must_use]
pub fn figures() -> Figures {
    let (stat, statm) = (text("/proc/self/stat"), text("/proc/self/statm"));
    let mut pages = statm.split_whitespace().map(number);
    let (reserved, resident) = (pages.next().unwrap_or_default(), pages.next().unwrap_or_default());
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    // The second field is the program's name, which may contain anything, in brackets.
    let fields: Vec<u64> =
        stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().map(number).collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
    let (busy, begun) = (field(14) + field(15), field(22));
    let in_seconds = |count: u64| Duration::from_millis(count.saturating_mul(1000) / ticks);
    let up = text("/proc/uptime").split('.').next().map_or(0, number);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = Duration::from_secs(up).saturating_sub(in_seconds(begun));
    Figures {
        resident: resident.saturating_mul(page),
        reserved: reserved.saturating_mul(page),
        cpu: in_seconds(busy),
        files: fs::read_dir("/proc/self/fd").map_or(0, |files| u64::try_from(files.count()).unwrap_or(0)),
        most_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX),
        started: now.saturating_sub(age).as_secs_f64(),
    }
}

/// The first line of a file of the system, empty if there is none.
#[must_use]
pub fn text(path: &str) -> String {
    fs::read_to_string(path).ok().and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_default()
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_has_memory_files_and_a_past() {
        let figures = figures();
        assert!(figures.resident > 1 << 20 && figures.reserved > figures.resident, "{figures:?}");
        assert!(figures.files >= 3 && figures.most_files >= figures.files, "{figures:?}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(figures.started <= now + 1.0 && figures.started > now - 24.0 * 3600.0, "{figures:?}");
    }
}
