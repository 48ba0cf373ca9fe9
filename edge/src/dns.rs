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
    /// Which node of the fleet it is: one that drains or has left is in no answer.
    pub(crate) node: Option<String>,
}

/// What the name server of a zone `example.com` answers to these bytes: over UDP, over TCP, and to whoever asks too much.
/// For the search for bytes that break it.
#[doc(hidden)]
#[must_use]
pub fn answers(question: &[u8]) -> Option<[Vec<u8>; 3]> {
    let node = Node {
        region: "west".to_owned(),
        addresses: vec![IpAddr::from([192, 0, 2, 1]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])],
        ports: vec![7844],
        probe: None,
        node: None,
    };
    let terms = Terms {
        listen: SocketAddr::from(([127, 0, 0, 1], 53)),
        zones: vec!["example.com".to_owned()],
        name_servers: vec!["ns1.example.net".to_owned()],
        nodes: vec![node],
    };
    let known = zones::Known {
        leads: &|name| name.starts_with("app."),
        looked_for: &|host| if host == "app.example.com" { vec!["text".to_owned()] } else { Vec::new() },
        is_up: &[true],
        asker: 7,
    };
    let answer = message::answered(question, &terms, 1, &known)?;
    Some([answer.short()?, answer.whole()?, answer.cut()?])
}
