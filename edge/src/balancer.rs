//! Which replica and which of its connections serves a request, how often it is tried again, and who waits
//! while there is none. Decides with numbers that it is given; does not know connections or requests.

pub(crate) mod affinity;
pub(crate) mod queue;
pub(crate) mod retry_budget;
pub(crate) mod selection;
pub(crate) mod weights;
