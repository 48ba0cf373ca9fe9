//! What can go wrong with a plugin: when it is loaded and when it is called.

use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};

use super::meter::{LOADING, Stop, WORK};
use super::text::printable;
use crate::shared::Away;

/// Longest part of a guest's text that is kept, bytes.
const LONGEST_TEXT: usize = 4096;
/// Longest part of a guest's fault code that is kept, bytes.
const LONGEST_CODE: usize = 256;

/// How the runtime begins to say that more was copied than a call may have copied.
const THEIR_TOO_MUCH: &str = "too much data is being copied";
const TOO_MUCH: &str = "too much data for one call, which may hand over 1 MiB and 64 KiB, and for a whole body twice what it was shown besides";

/// A call that failed where the plugin's policy is to deny.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plugin {plugin}: {kind}")]
pub struct Failure {
    /// The plugin's name in the plan.
    pub plugin: String,
    pub kind: FailureKind,
}

/// How a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FailureKind {
    /// The plugin answered with an error of its own.
    #[error("fault {code}: {message}")]
    Fault { code: String, message: String },
    /// The plugin crashed, or asked for more memory, stack or data than it may have.
    #[error("trap: {reason}")]
    Trap { reason: String },
    /// The plugin used up its time.
    #[error("time limit")]
    Timeout,
    /// As many calls as the plugin may have at once were running, or no instance was free.
    #[error("no free instance")]
    Busy,
    /// The plugin broke again and again and is left in peace for a while.
    #[error("resting after repeated failures")]
    Resting,
    /// The server of its shared buckets is away, and the plugin wanted something of it.
    #[error("{0}")]
    Away(Away),
    /// The plugin's answer asked for something that it may not do.
    #[error("{what}")]
    Invalid { what: String },
}

impl FailureKind {
    /// One word for logs and counters.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Fault { .. } => "fault",
            Self::Trap { .. } => "trap",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::Resting => "resting",
            Self::Away(_) => "away",
            Self::Invalid { .. } => "invalid",
        }
    }

    pub(super) fn fault(code: &str, message: &str) -> Self {
        let fault = ConfigFault::new(code, message);
        Self::Fault { code: fault.code, message: fault.message }
    }

    pub(super) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }
}

/// Why a component did not become a plugin. Nothing of it stays behind.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{found}; {way_out}")]
    NotAComponent { found: &'static str, way_out: &'static str },
    #[error("{size} bytes are more than the {limit} that a component may have")]
    TooLarge { size: usize, limit: usize },
    #[error("not a valid component: {reason}")]
    Malformed { reason: String },
    #[error(
        "is neither a filter (it would export adit:plugin/lifecycle@0.1) nor a service (wasi:http/incoming-handler@0.2, or wasi:http/handler@0.3); it exports {}",
        list(.exports)
    )]
    NoRole { exports: Vec<String> },
    #[error(
        "was made for adit:plugin {version}, and this host has 0.1: build it with the interface of this host"
    )]
    OtherVersion { version: String },
    #[error(
        "exports adit:plugin/lifecycle@0.1 and no phase of it (request-filter, response-filter, request-body-filter, response-body-filter, request-stream-filter, response-stream-filter, access-log, ticker, refresher), so there is nothing to call"
    )]
    NoPhase,
    #[error(
        "is {role} of wasi:http 0.3, which is experimental; write experimental = true for this plugin, or build a service for wasi:http/incoming-handler@0.2"
    )]
    Experimental { role: &'static str },
    #[error("its set-up takes longer than {seconds} s")]
    Slow { seconds: u64 },
    #[error("there is no engine to run it in: {reason}")]
    NoEngine { reason: String },
    #[error(
        "asks for imports that no plugin is given: {}; plugins have the interfaces of adit:plugin@0.1, and WASI 0.2 and 0.3 without files, network or environment",
        list(.imports)
    )]
    UnknownImports { imports: Vec<String> },
    #[error(
        "was built for drafts of WASI, which fit no release: {}; build it with newer tools, which have WASI 0.2 or 0.3",
        list(.imports)
    )]
    Drafts { imports: Vec<String> },
    #[error("asks for what it is not granted: {}", missing(.imports))]
    NotGranted { imports: Vec<(String, &'static str)> },
    #[error("asks while it is loaded for what [plugin.grants] does not name: {}", list(.names))]
    Ungranted { names: Vec<String> },
    #[error(
        "takes no configuration: a service without adit:plugin/lifecycle@0.1 and wasi:config/store has nowhere to put it"
    )]
    NoConfiguration,
    #[error("cannot be given what it is granted: {reason}")]
    Sandbox { reason: String },
    #[error("fails its own probe: {fault}")]
    Probe { fault: ConfigFault },
    #[error("does not fit adit:plugin@0.1: {reason}")]
    Mismatch { reason: String },
    #[error("its manifest is not usable: {reason}")]
    Manifest { reason: String },
    #[error("refuses its configuration: {}", lines(.faults))]
    Refused { faults: Vec<ConfigFault> },
    #[error("failed in {during}: {kind}{}{}", allowed(.during, .kind), trace(.backtrace))]
    Broken { during: &'static str, kind: FailureKind, backtrace: String },
}

/// What a step of a load may take, where that was too little.
fn allowed(during: &str, kind: &FailureKind) -> String {
    if *kind != FailureKind::Timeout {
        return String::new();
    }
    let budget = if during == FIRST_TICK { WORK } else { LOADING };
    format!(" (it may run for {:?} and take {:?} with all that it waits for)", budget.run, budget.wall)
}

/// The first call of the regular work, which a plugin does not serve without.
pub(super) const FIRST_TICK: &str = "its first on-tick";

/// One thing that a plugin does not like about its configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", place(.code))]
pub struct ConfigFault {
    /// The place as a JSON pointer; empty for the configuration as a whole.
    pub code: String,
    pub message: String,
}

impl ConfigFault {
    pub(super) fn new(code: &str, message: &str) -> Self {
        Self {
            code: printable(code, LONGEST_CODE).into_owned(),
            message: printable(message, LONGEST_TEXT).into_owned(),
        }
    }
}

/// A failure with what only the log gets to see.
#[derive(Debug)]
pub(super) struct CallError {
    pub(super) kind: FailureKind,
    /// The guest's stack on one line, innermost function first; empty if there is none.
    pub(super) backtrace: String,
}

impl From<FailureKind> for CallError {
    fn from(kind: FailureKind) -> Self {
        Self { kind, backtrace: String::new() }
    }
}

impl From<Stop> for CallError {
    fn from(stop: Stop) -> Self {
        let error = match stop {
            Stop::Timeout => return FailureKind::Timeout.into(),
            Stop::Panicked(message) => {
                return FailureKind::Trap { reason: format!("the host panicked: {message}") }.into();
            }
            Stop::Trapped(error) => error,
        };
        if error.is::<PoolConcurrencyLimitError>() {
            return FailureKind::Busy.into();
        }
        if let Some(away) = error.downcast_ref::<Away>() {
            return FailureKind::Away(away.clone()).into();
        }
        let reason = match error.downcast_ref::<Trap>() {
            Some(trap) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
            None => {
                let reason = error.root_cause().to_string();
                if reason.starts_with(THEIR_TOO_MUCH) {
                    TOO_MUCH.to_owned()
                } else {
                    printable(&reason, LONGEST_TEXT).into_owned()
                }
            }
        };
        let backtrace = error.downcast_ref::<WasmBacktrace>().map(stack).unwrap_or_default();
        Self { kind: FailureKind::Trap { reason }, backtrace }
    }
}

/// wasmtime's own rendering, which demangles the names, brought to one line. A frame that repeats,
/// as in a recursion, is shown once with its count.
fn stack(backtrace: &WasmBacktrace) -> String {
    let text = backtrace.to_string();
    let mut frames: Vec<(&str, usize)> = Vec::new();
    for line in text.lines().skip(1) {
        let frame = line.split_once(':').map_or(line, |(_number, frame)| frame).trim();
        match frames.last_mut() {
            Some((last, count)) if *last == frame => *count += 1,
            _ => frames.push((frame, 1)),
        }
    }
    let shown = frames
        .into_iter()
        .map(|(frame, count)| if count == 1 { frame.to_owned() } else { format!("{frame} ({count} times)") });
    printable(&shown.collect::<Vec<_>>().join(" | "), LONGEST_TEXT).into_owned()
}

fn trace(backtrace: &str) -> String {
    if backtrace.is_empty() { String::new() } else { format!(" (at {backtrace})") }
}

fn place(code: &str) -> String {
    if code.is_empty() { String::new() } else { format!("{code}: ") }
}

fn missing(imports: &[(String, &'static str)]) -> String {
    let each =
        imports.iter().map(|(import, grant)| format!("{import}, which takes `{grant}` in [plugin.grants]"));
    each.collect::<Vec<_>>().join("; ")
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn lines(faults: &[ConfigFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
