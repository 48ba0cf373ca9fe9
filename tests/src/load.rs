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
use tokio_util::sync::CancellationToken;

pub use report::{Failure, Report};

use crate::within;
use browser::Browser;

/// Visitors that ask until they are told to finish.
pub struct Load {
    passed: watch::Receiver<u64>,
    ended: oneshot::Receiver<()>,
    report: Arc<Mutex<Report>>,
    stop: CancellationToken,
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
        let (ending, ended) = oneshot::channel();
        let report = Arc::new(Mutex::new(Report::start()));
        let (addresses, stopped) = (Arc::<[SocketAddr]>::from(addresses), stop.clone());
        let whole = report.clone();
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
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
            // Nobody may want to know any more.
            let _ = ending.send(());
        });
        Self { passed, ended, report, stop }
    }

    /// Waits until so many further requests were answered as they should be.
    pub async fn passes(&mut self, more: u64) {
        let goal = *self.passed.borrow_and_update() + more;
        let passed = self.passed.wait_for(|passed| *passed >= goal);
        within("further answers under load", passed).await.expect("the load goes on");
    }

    /// How many were answered as they should be so far.
    pub fn answered(&self) -> u64 {
        *self.passed.borrow()
    }

    /// Lets what is under way end; prints the summary.
    pub async fn finish(mut self, case: &str) -> Report {
        self.stop.cancel();
        within("the end of the load", &mut self.ended).await.expect("the load ends");
        let mut report = std::mem::replace(&mut *report::lock(&self.report), Report::start());
        report.case = case.to_owned();
        eprintln!("{report}");
        report
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.cancel();
        if thread::panicking() {
            eprintln!("the load so far{}", report::lock(&self.report));
        }
    }
}

/// With [`EVERY`], 200 requests in a second.
const VISITORS: usize = 24;
const EVERY: Duration = Duration::from_millis(120);
