//! Streams that the edge opens to an address by itself, with no request in front: which rule names the address, and
//! whether anything else allows it. Knows addresses; opens nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Backend, Rule};
use crate::config::plan::{IpRule, TcpPlan};
use crate::origin::Origin;

/// Laid out once for a generation.
#[derive(Debug)]
pub struct Streams {
    named: HashMap<SocketAddr, Named>,
    /// What is allowed besides, and by what.
    asked: Arc<Origin>,
    ip_rules: Vec<IpRule>,
    most_circuits: usize,
}

/// Whose address it is.
#[derive(Debug, Clone, Copy)]
enum Named {
    By(usize),
    /// One of its rules has plugins in front, which see requests and nothing else.
    Guarded(usize),
}

/// Who carries a stream.
#[derive(Debug)]
pub struct Carrier<'g> {
    /// Absent where `[tcp] ip-rules` alone allow it.
    pub rule: Option<&'g Rule>,
    pub origin: &'g Arc<Origin>,
    pub most_circuits: usize,
}

/// Why nobody does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoStream {
    #[error("no rule leads to {to}, and no rule of [tcp] ip-rules allows it")]
    Unknown { to: SocketAddr },
    #[error("rule {rule} leads to {to} behind plugins, which look at requests, and this is none")]
    Guarded { to: SocketAddr, rule: String },
}

impl Streams {
    pub(super) fn new(rules: &[Rule], plan: &TcpPlan, previous: Option<&Self>) -> Self {
        let mut named = HashMap::new();
        for (index, rule) in rules.iter().enumerate() {
            let Backend::Origin(origin, _) = &rule.backend else { continue };
            let Some(address) = origin.address() else { continue };
            if !rule.chain.is_empty() {
                named.insert(address, Named::Guarded(index));
            } else {
                named.entry(address).or_insert(Named::By(index));
            }
        }
        let same = previous.filter(|previous| previous.ip_rules == plan.ip_rules);
        let asked = same.map_or_else(|| Arc::new(Origin::asked(&plan.ip_rules)), |same| same.asked.clone());
        Self { named, asked, ip_rules: plan.ip_rules.clone(), most_circuits: plan.most_circuits }
    }

    pub(super) fn find<'g>(&'g self, rules: &'g [Rule], to: SocketAddr) -> Result<Carrier<'g>, NoStream> {
        let most_circuits = self.most_circuits;
        let canonical = SocketAddr::new(to.ip().to_canonical(), to.port());
        let named = self.named.get(&canonical);
        match named.map(|named| (*named, &rules[named.index()])) {
            Some((Named::Guarded(_), rule)) => Err(NoStream::Guarded { to, rule: rule.name.clone() }),
            Some((Named::By(_), rule)) => match &rule.backend {
                Backend::Origin(origin, _) => Ok(Carrier { rule: Some(rule), origin, most_circuits }),
                Backend::Component(_) => Err(NoStream::Unknown { to }),
            },
            // Without a rule that allows anything it is not even asked.
            None if self.ip_rules.is_empty() => Err(NoStream::Unknown { to }),
            None => Ok(Carrier { rule: None, origin: &self.asked, most_circuits }),
        }
    }
}

impl Named {
    fn index(self) -> usize {
        match self {
            Self::By(index) | Self::Guarded(index) => index,
        }
    }
}
