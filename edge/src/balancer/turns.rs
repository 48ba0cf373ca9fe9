//! When what was laid out for choosing is out of date: whoever learns something that choices are made by turns a
//! number, and whoever has laid something out compares it. Knows no more than that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One number, held by all that turn it or look at it.
#[derive(Clone, Default)]
pub(crate) struct Turns(Arc<AtomicU64>);

impl Turns {
    /// Something has changed, and whoever looks from now on sees it changed.
    pub(crate) fn turn(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// To be asked for before looking at what a layout is made of.
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
