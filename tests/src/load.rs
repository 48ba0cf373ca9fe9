//! A steady load of visitors that behave as browsers do: they know several addresses of one name, stay
//! with one while it works, and send an idempotent request once more elsewhere when a connection breaks
//! before any byte of its answer came. What was never sent is sent elsewhere whatever its method.
//!
//! Runs on a thread of its own, so that no test's waiting disturbs it. Knows `/load/…` of
//! [`crate::origin`]; does not know what happens to the product meanwhile.

mod browser;
mod report;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use report::{Failure, Report};

use crate::within;
use browser::Browser;

/// Visitors that ask until they are told to finish.
pub struct Load {
    passed: watch::Receiver<u64>,
    report: oneshot::Receiver<Report>,
    stop: CancellationToken,
    _stop: DropGuard,
}

impl Load {
    /// The usual load over these addresses, once every visitor was served.
    pub async fn steady(addresses: &[SocketAddr]) -> Self {
        let mut load = Self::start(addresses, VISITORS, EVERY);
        load.passes(2 * VISITORS as u64).await;
        load
    }

    /// `visitors` of which each asks `every` so often, a little slower when answers are.
    pub fn start(addresses: &[SocketAddr], visitors: usize, every: Duration) -> Self {
        let stop = CancellationToken::new();
        let (passing, passed) = watch::channel(0);
        let (reporting, report) = oneshot::channel();
        let (addresses, stopped) = (Arc::<[SocketAddr]>::from(addresses), stop.clone());
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let whole = Arc::new(Mutex::new(Report::start()));
            runtime.block_on(async {
                let mut tasks = JoinSet::new();
                for number in 0..visitors {
                    let browser = Browser::new(number, addresses.clone(), whole.clone(), passing.clone());
                    let phase = every.mul_f64(number as f64 / visitors as f64);
                    tasks.spawn(browser.run(phase, every, stopped.clone()));
                }
                while let Some(ended) = tasks.join_next().await {
                    ended.expect("a visitor does not panic");
                }
            });
            let report = std::mem::replace(&mut *report::lock(&whole), Report::start());
            let _ = reporting.send(report);
        });
        Self { passed, report, _stop: stop.clone().drop_guard(), stop }
    }

    /// Waits until so many further requests were answered as they should be.
    pub async fn passes(&mut self, more: u64) {
        let goal = *self.passed.borrow_and_update() + more;
        let passed = self.passed.wait_for(|passed| *passed >= goal);
        within("further answers under load", passed).await.expect("the load goes on");
    }

    /// Lets what is under way end; prints the summary.
    pub async fn finish(self, case: &str) -> Report {
        self.stop.cancel();
        let mut report = within("the end of the load", self.report).await.expect("the load ends");
        report.case = case.to_owned();
        eprintln!("{report}");
        report
    }
}

/// With [`EVERY`], 200 requests in a second.
const VISITORS: usize = 24;
const EVERY: Duration = Duration::from_millis(120);
