//! What visitors may have: connections and requests of one address (`per_address`), what is under way
//! (`in_flight`), and what peers who do not take it may make the edge hold (`pace`).

pub(crate) mod in_flight;
pub(crate) mod pace;
pub(crate) mod per_address;
