//! What the choice of a replica is made from: by what a visitor is known again (`affinity`), what operators say of
//! replicas (`weights`), what is under way (`under_way`) and when what was laid out for choosing is out of date (`turns`); how often a request is tried again (`retry_budget`), and
//! which requests wait while there is no connection (`queue`). The choice itself is in the crate `adit-balance`. Does
//! not know connections or requests.

pub(crate) mod affinity;
pub(crate) mod queue;
pub(crate) mod retry_budget;
pub(crate) mod turns;
pub(crate) mod under_way;
pub(crate) mod weights;
