//! The name server of this edge: it answers for its own zones, from what is known at this moment, and asks nobody. No
//! recursion and no transfers of zones: another name server of the same state has the same answers.
//!
//! Read in this order: [`zones`] (what is answered), [`message`] (how that is written), [`rate`] (how often one source
//! is), [`nodes`] (which edges are well), [`serve`] (sockets).

pub(crate) mod message;
pub(crate) mod nodes;
pub(crate) mod rate;
pub(crate) mod serve;
pub(crate) mod zones;

use std::net::{IpAddr, SocketAddr};

/// What an operator says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) listen: SocketAddr,
    /// In lower case, without a final dot.
    pub(crate) zones: Vec<String>,
    pub(crate) name_servers: Vec<String>,
    pub(crate) nodes: Vec<Node>,
}

/// An edge, as resolvers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) region: String,
    pub(crate) addresses: Vec<IpAddr>,
    /// Where hosts dial.
    pub(crate) ports: Vec<u16>,
    /// Where it says whether it is ready; it always is where nothing is said.
    pub(crate) probe: Option<String>,
}
