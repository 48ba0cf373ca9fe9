//! One running program: its log, its signals, its memory, its end. Knows log lines; does not know
//! what they mean.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, kill_process_group, prlimit};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::DEADLINE;

/// A child of this process. It ends with it: its standard input ends then, and a drop kills it.
pub struct Process {
    name: String,
    child: Mutex<Child>,
    stdin: Option<ChildStdin>,
    log: Arc<Lines>,
    output: Arc<Lines>,
}

/// How a program that was run to its end ended, and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub output: String,
    pub log: String,
}

/// What a program has said so far, line by line.
struct Lines {
    lines: Mutex<Vec<String>>,
    /// How many lines there are; closed when the program closed the stream.
    count: watch::Receiver<usize>,
    /// Whether nobody wants to know more.
    is_over: AtomicBool,
}

/// A place in a log: what comes after it is new.
#[derive(Clone, Copy)]
pub struct Mark(usize);

impl Mark {
    /// Before the first line.
    pub const START: Self = Self(0);
}

impl Process {
    /// The product's own binary with JSON logs.
    pub fn adit(name: &str, arguments: &[&str], folder: &Path) -> Self {
        Self::adit_by(Command::new(adit()), name, arguments, folder)
    }

    /// The same by a command that becomes it, given its arguments.
    pub fn adit_by(mut command: Command, name: &str, arguments: &[&str], folder: &Path) -> Self {
        command.args(["--log-format", "json", "--stop-with-stdin"]).args(arguments).current_dir(folder);
        // If systemd runs the tests, these programs are not its business.
        command.env_remove("NOTIFY_SOCKET");
        Self::start(name, command)
    }

    pub fn start(name: &str, mut command: Command) -> Self {
        // What this machine sets for people must not change what is tested.
        command.env_remove("ADIT_LOG").env_remove("ADIT_LOG_FORMAT").env_remove("CACHE_DIRECTORY");
        if !command.get_envs().any(|(name, _)| name == "XDG_CACHE_HOME") {
            command.env("XDG_CACHE_HOME", target().join("tmp/cache"));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
        let log = Lines::follow(child.stderr.take().expect("stderr is piped"));
        let output = Lines::follow(child.stdout.take().expect("stdout is piped"));
        let stdin = child.stdin.take();
        Self { name: name.to_owned(), child: Mutex::new(child), stdin, log, output }
    }

    /// Runs the product's binary to its end; `input` is all that it can read.
    pub async fn run(arguments: &[&str], folder: &Path, input: &str) -> Outcome {
        let mut command = Command::new(adit());
        command.args(arguments).current_dir(folder);
        let mut process = Self::start("adit", command);
        let mut stdin = process.stdin.take().expect("stdin is piped");
        // A program that does not read its input may be gone already.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let code = process.exit().await.code();
        Outcome { code, output: process.output(), log: process.log() }
    }

    pub fn id(&self) -> u32 {
        self.child().id()
    }

    /// The fields of the first log line, old or new, with this message for which `fits` holds.
    pub async fn event(&self, message: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.event_after(Mark::START, message, fits).await
    }

    /// The same for lines behind `mark`.
    pub async fn event_after(&self, mark: Mark, message: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let found = self.log.find(mark.0, |line| fields(line, message).filter(|fields| fits(fields)));
        match timeout(DEADLINE, found).await {
            Ok(Some(fields)) => fields,
            Ok(None) => panic!("{} ended without {message:?}\n{}", self.name, self.tail()),
            Err(_) => panic!("{} did not say {message:?} within {DEADLINE:?}\n{}", self.name, self.tail()),
        }
    }

    /// The first log line, old or new, that `fits`.
    pub async fn said(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let found = self.log.find(0, |line| fits(line).then(|| line.to_owned()));
        match timeout(DEADLINE, found).await {
            Ok(Some(line)) => line,
            Ok(None) => panic!("{} ended without {what}\n{}", self.name, self.tail()),
            Err(_) => panic!("{} did not say {what} within {DEADLINE:?}\n{}", self.name, self.tail()),
        }
    }

    /// The fields of all lines with this message so far.
    pub fn events(&self, message: &str) -> Vec<Value> {
        self.log.lines().iter().filter_map(|line| fields(line, message)).collect()
    }

    pub fn mark(&self) -> Mark {
        Mark(self.log.lines().len())
    }

    /// Everything on standard error so far.
    pub fn log(&self) -> String {
        self.log.lines().join("\n")
    }

    /// The first line on standard output that contains `text`.
    pub async fn printed(&self, text: &str) -> String {
        let found = self.output.find(0, |line| line.contains(text).then(|| line.to_owned()));
        match timeout(DEADLINE, found).await {
            Ok(Some(line)) => line,
            Ok(None) => panic!("{} ended without printing {text:?}\n{}", self.name, self.tail()),
            Err(_) => panic!("{} did not print {text:?} within {DEADLINE:?}\n{}", self.name, self.tail()),
        }
    }

    /// Everything on standard output so far.
    pub fn output(&self) -> String {
        self.output.lines().join("\n")
    }

    /// What it says from now on is read and not kept: for programs that say much.
    pub fn forget(&self) {
        for lines in [&self.log, &self.output] {
            lines.is_over.store(true, Ordering::Relaxed);
        }
    }

    /// Writes to its standard input, which stays open.
    pub fn tell(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("its input is open");
        stdin.write_all(text.as_bytes()).unwrap_or_else(|error| panic!("telling {}: {error}", self.name));
    }

    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// It stands still until it [goes on](Self::go_on), as on a machine that is frozen: every thread of it does
    /// when this comes back, those too that were running elsewhere when the signal was sent.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let begun = Instant::now();
        while !self.stands_still() {
            assert!(begun.elapsed() < DEADLINE, "{} does not stand still", self.name);
            thread::yield_now();
        }
    }

    fn stands_still(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child().id())).expect("its threads");
        threads.flatten().all(|thread| {
            // A thread that has ended meanwhile does nothing any more.
            let Ok(stat) = std::fs::read_to_string(thread.path().join("stat")) else { return true };
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        })
    }

    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// From now on it can write no byte to any file, as on a disk that is full. It has to ignore the signal of that.
    pub fn fill_disk(&self) {
        self.limit_files(Some(0));
    }

    /// There is room again.
    pub fn free_disk(&self) {
        self.limit_files(getrlimit(Resource::Fsize).current);
    }

    fn limit_files(&self, current: Option<u64>) {
        let maximum = getrlimit(Resource::Fsize).maximum;
        prlimit(Some(Pid::from_child(&self.child())), Resource::Fsize, Rlimit { current, maximum })
            .unwrap_or_else(|error| panic!("limiting the files of {}: {error}", self.name));
    }

    /// What a terminal does on Ctrl-C. For a process that was started as the leader of a group.
    pub fn interrupt_group(&self) {
        let mut child = self.child();
        if matches!(child.try_wait(), Ok(None)) {
            kill_process_group(Pid::from_child(&child), Signal::INT)
                .unwrap_or_else(|error| panic!("SIGINT to the group of {}: {error}", self.name));
        }
    }

    fn signal(&self, signal: Signal) {
        let mut child = self.child();
        // Not yet waited for, so that the id is still this child's.
        if matches!(child.try_wait(), Ok(None)) {
            kill_process(Pid::from_child(&child), signal)
                .unwrap_or_else(|error| panic!("{signal:?} to {}: {error}", self.name));
        }
    }

    pub fn is_running(&self) -> bool {
        matches!(self.child().try_wait(), Ok(None))
    }

    /// How it ended. Call it for a process that was asked to end or must end by itself.
    pub async fn exit(&self) -> ExitStatus {
        let silent = async {
            // A process that is gone holds no stream open.
            let _: Option<()> = self.log.find(0, |_| None).await;
            let _: Option<()> = self.output.find(0, |_| None).await;
        };
        if timeout(DEADLINE, silent).await.is_err() {
            panic!("{} did not end within {DEADLINE:?}\n{}", self.name, self.tail());
        }
        self.child().wait().unwrap_or_else(|error| panic!("waiting for {}: {error}", self.name))
    }

    /// Resident memory now, bytes.
    pub fn memory(&self) -> u64 {
        resident(self.id())
            .unwrap_or_else(|| panic!("{} has no memory: it is gone\n{}", self.name, self.tail()))
    }

    /// Watches resident memory until the handle is asked for the peak.
    pub fn watch_memory(&self) -> MemoryWatch {
        let id = self.id();
        let start = self.memory();
        let peak = Arc::new(AtomicU64::new(start));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (peak.clone(), stop.clone());
        let sampler = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                seen.fetch_max(resident(id).unwrap_or_default(), Ordering::Relaxed);
                thread::sleep(SAMPLE_EVERY);
            }
        });
        MemoryWatch { start, peak, stop, sampler: Some(sampler) }
    }

    /// The ids of its children, by the kernel's own list.
    pub fn children(&self) -> Vec<u32> {
        let id = self.id();
        let list = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        list.split_whitespace().filter_map(|id| id.parse().ok()).collect()
    }

    /// The last lines of what it said, for the message of a failed test.
    pub fn tail(&self) -> String {
        let last = |lines: &Lines| {
            let lines = lines.lines();
            lines[lines.len().saturating_sub(TAIL)..].join("\n")
        };
        format!("--- {} said\n{}\n{}\n---", self.name, last(&self.output), last(&self.log))
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.tail());
        }
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The memory of a process while something happens to it.
pub struct MemoryWatch {
    start: u64,
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    sampler: Option<thread::JoinHandle<()>>,
}

impl MemoryWatch {
    /// How far above its start the memory ever was, bytes.
    pub fn growth(&self) -> u64 {
        self.peak.load(Ordering::Relaxed).saturating_sub(self.start)
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.sampler.take().map(thread::JoinHandle::join);
    }
}

impl Lines {
    /// Reads a stream to its end on a thread of its own, so that no test's runtime owns it.
    fn follow(stream: impl Read + Send + 'static) -> Arc<Self> {
        let (counter, count) = watch::channel(0);
        let lines = Arc::new(Self { lines: Mutex::new(Vec::new()), count, is_over: AtomicBool::new(false) });
        let sink = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n') {
                let Ok(line) = line else { return };
                if sink.is_over.load(Ordering::Relaxed) {
                    continue;
                }
                let line = String::from_utf8_lossy(&line).into_owned();
                let count = {
                    let mut lines = sink.lines();
                    lines.push(line);
                    lines.len()
                };
                let _ = counter.send(count);
            }
        });
        lines
    }

    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `pick` makes of the first line from `at` on that it takes; `None` when the stream ends.
    async fn find<T>(&self, mut at: usize, pick: impl Fn(&str) -> Option<T>) -> Option<T> {
        let mut count = self.count.clone();
        loop {
            let has_ended = count.has_changed().is_err();
            count.mark_unchanged();
            {
                let lines = self.lines();
                while let Some(line) = lines.get(at) {
                    at += 1;
                    if let Some(found) = pick(line) {
                        return Some(found);
                    }
                }
            }
            if has_ended {
                return None;
            }
            // An error is the end of the stream: look once more at what came last.
            let _ = count.changed().await;
        }
    }
}

/// The fields of a JSON log line with this message.
fn fields(line: &str, message: &str) -> Option<Value> {
    let mut line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get_mut("fields")?.take();
    (fields["message"] == message).then_some(fields)
}

fn resident(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Where cargo puts the product: beside the folder of this test binary.
pub fn target() -> PathBuf {
    let exe = std::env::current_exe().expect("a test binary has a path");
    let target = exe.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    target.expect("tests run from cargo's target folder").to_owned()
}

/// The product's binary, of the same profile as this test.
pub fn adit() -> PathBuf {
    if let Some(program) = std::env::var_os("ADIT_PROGRAM") {
        return program.into();
    }
    let exe = std::env::current_exe().expect("a test binary has a path");
    // Tests lie in target/PROFILE/deps, other programs beside it.
    let places = exe.ancestors().skip(1).take(2).map(|folder| folder.join("adit"));
    let found = places.clone().find(|program| program.is_file());
    found.unwrap_or_else(|| {
        panic!("there is none of {:?}; run `cargo build --workspace` first", places.collect::<Vec<_>>())
    })
}

/// A component that `cargo xtask plugins` has built, such as "headers" or "test/misbehave".
pub fn component(name: &str) -> PathBuf {
    let path = target().join("plugins").join(format!("{name}.wasm"));
    assert!(path.is_file(), "there is no {}; run `cargo xtask plugins` first", path.display());
    path
}

const SAMPLE_EVERY: Duration = Duration::from_millis(5);
const TAIL: usize = 80;
