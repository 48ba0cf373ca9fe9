//! One direction of one exchange, as those see it who move its bytes. Costs them a few stores in memory.

use std::net::IpAddr;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use crate::Account;

/// A body on its way to its peer. The code that moves it says what happens: [`gave`](Flow::gave) when bytes were
/// handed to the peer's side, [`asked`](Flow::asked) when that side wants more. In between, data waits for
/// the peer. Leaves the account when dropped.
pub struct Flow {
    account: Arc<Account>,
    state: Arc<State>,
    shard: usize,
}

/// Lets go of what is held for a peer, where no task of the exchange runs that could: called by
/// [`Account::sweep`], on the thread of its caller.
pub trait Release: Send + Sync {
    fn release(&self);
}

/// Why a flow has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The peer takes less than it has to.
    TooSlow,
    /// More is held for all peers than may be, and this one is the slowest of its source.
    Shed,
}

/// Flows of which one carries the others: a connection and its exchanges, or both directions of one exchange.
/// Tells them apart for as long as the first of them lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group(usize);

impl Group {
    #[cfg(test)]
    pub(crate) fn numbered(number: usize) -> Self {
        Self(number)
    }
}

/// For whom bytes are held.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    /// The address whose share they count for.
    pub source: IpAddr,
    /// What goes too when all that is held in it is cut, and with whose first flow this one goes.
    pub within: Option<Group>,
}

pub(crate) struct State {
    pub(crate) source: IpAddr,
    within: Option<Group>,
    /// Whether all of its group ends with it.
    is_whole: bool,
    taken: AtomicU64,
    held: AtomicU64,
    is_waiting: AtomicBool,
    /// Whether the account looks at it.
    is_watched: AtomicBool,
    is_over: AtomicBool,
    /// Waits as long as it likes.
    is_patient: AtomicBool,
    cut: AtomicU8,
    waker: AtomicWaker,
    release: Option<Weak<dyn Release>>,
}

impl Flow {
    /// A body that waits for its peer from the beginning, and makes this process hold `held` bytes at most
    /// as long as it does. If it is cut, [`Flow::cut`] says so and `release` is called.
    pub fn begin(
        account: &Arc<Account>,
        shard: usize,
        owner: impl Into<Owner>,
        held: u64,
        release: Option<Weak<dyn Release>>,
    ) -> Self {
        let flow = Self::idle(account, shard, owner, release);
        flow.hold(held);
        flow.wait();
        flow
    }

    /// The same for one whose peer waits for data.
    pub fn idle(
        account: &Arc<Account>,
        shard: usize,
        owner: impl Into<Owner>,
        release: Option<Weak<dyn Release>>,
    ) -> Self {
        let owner = owner.into();
        Self::of(account, shard, owner, owner.within.is_none(), release)
    }

    fn of(
        account: &Arc<Account>,
        shard: usize,
        Owner { source, within }: Owner,
        is_whole: bool,
        release: Option<Weak<dyn Release>>,
    ) -> Self {
        let state = State {
            source: crate::source(source),
            within,
            is_whole,
            taken: AtomicU64::new(0),
            held: AtomicU64::new(0),
            is_waiting: AtomicBool::new(false),
            is_watched: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            is_patient: AtomicBool::new(false),
            cut: AtomicU8::new(0),
            waker: AtomicWaker::new(),
            release,
        };
        Self { account: account.clone(), state: Arc::new(state), shard }
    }

    /// The other direction of the same exchange, idle. Both end when one is cut.
    pub fn beside(&self) -> Self {
        let owner = Owner { source: self.state.source, within: Some(self.group()) };
        Self::of(&self.account, self.shard, owner, true, None)
    }

    /// What may go with this flow.
    pub fn group(&self) -> Group {
        self.state.group()
    }

    /// `bytes` were handed to the peer's side. Until it asks for more, what follows waits for it.
    pub fn gave(&self, bytes: usize) {
        self.take(bytes);
        self.wait();
    }

    /// The peer's side has taken `bytes` of what it was given before, and is ready for more.
    pub fn took(&self, bytes: usize) {
        self.take(bytes);
        self.asked();
    }

    /// The peer wants more: nothing waits for it.
    pub fn asked(&self) {
        self.state.is_waiting.store(false, Ordering::SeqCst);
    }

    /// From now on this process holds so much at most while the flow waits.
    pub fn hold(&self, bytes: u64) {
        self.state.held.store(bytes, Ordering::Relaxed);
    }

    /// However long its peer takes, this flow is not too slow; it may still be shed.
    pub fn be_patient(&self) {
        self.state.is_patient.store(true, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) {
        // One writer: no need for an operation that others would have to wait for.
        let taken = self.state.taken.load(Ordering::Relaxed).wrapping_add(bytes as u64);
        self.state.taken.store(taken, Ordering::Relaxed);
    }

    fn wait(&self) {
        self.state.is_waiting.store(true, Ordering::SeqCst);
        if !self.state.is_watched.load(Ordering::SeqCst)
            && !self.state.is_watched.swap(true, Ordering::SeqCst)
        {
            self.account.watch(self.shard, self.state.clone());
        }
    }

    /// Waits until this flow has to end. For one waiter; may be dropped midway.
    pub async fn cut(&self) -> Cut {
        std::future::poll_fn(|cx| self.poll_cut(cx)).await
    }

    /// Why this flow has to end, once it has to. For one waiter.
    pub fn poll_cut(&self, cx: &Context<'_>) -> Poll<Cut> {
        self.state.waker.register(cx.waker());
        self.state.cause().map_or(Poll::Pending, Poll::Ready)
    }

    /// Why this flow has to end, if it has to.
    pub fn cause(&self) -> Option<Cut> {
        self.state.cause()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Relaxed);
    }
}

impl From<IpAddr> for Owner {
    /// Of a flow that has no group yet.
    fn from(source: IpAddr) -> Self {
        Self { source, within: None }
    }
}

impl State {
    pub(crate) fn group(&self) -> Group {
        self.within.unwrap_or(Group(ptr::from_ref(self).addr()))
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.is_waiting.load(Ordering::SeqCst)
    }

    pub(crate) fn is_patient(&self) -> bool {
        self.is_patient.load(Ordering::Relaxed)
    }

    /// It has ended, or was told to.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed) || self.cause().is_some()
    }

    /// The account looks no more; false if it has begun to wait at the same moment.
    pub(crate) fn leave(&self) -> bool {
        self.is_watched.store(false, Ordering::SeqCst);
        !self.is_waiting() || self.is_watched.swap(true, Ordering::SeqCst)
    }

    pub(crate) fn end(&self, cut: Cut) {
        let cause = match cut {
            Cut::TooSlow => TOO_SLOW,
            Cut::Shed => SHED,
        };
        self.cut.store(cause, Ordering::SeqCst);
        self.waker.wake();
        if let Some(release) = self.release.as_ref().and_then(Weak::upgrade) {
            release.release();
        }
    }

    fn cause(&self) -> Option<Cut> {
        match self.cut.load(Ordering::SeqCst) {
            TOO_SLOW => Some(Cut::TooSlow),
            SHED => Some(Cut::Shed),
            _ => None,
        }
    }
}

const TOO_SLOW: u8 = 1;
const SHED: u8 = 2;
