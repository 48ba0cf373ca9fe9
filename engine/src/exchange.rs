//! What is known of one exchange besides its heads, for plugins that ask for it, and what plugins of a chain leave for
//! each other. Knows no guests.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use http::{HeaderMap, Method, Uri, request};

/// Most that the plugins of a chain may leave for each other in one exchange: names, and bytes of names and values.
const MOST_NAMES: usize = 64;
const MOST_BYTES: usize = 64 * 1024;

/// What the edge says of the visitor's side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VisitorFacts {
    /// Which attempt of the edge at this request this is, from 1; unknown where the edge says nothing.
    pub attempt: Option<u32>,
    pub port: Option<u16>,
    /// "1.0", "1.1" or "2".
    pub http_version: Option<Cow<'static, str>>,
    /// "1.2" or "1.3"; nothing where it was not TLS, or that is not known.
    pub tls_version: Option<Cow<'static, str>>,
    pub country: Option<String>,
}

/// Where an exchange goes: the rule that it is for, and what that leads to, as it stands in the document.
#[derive(Debug, Clone)]
pub struct RuleNames {
    pub rule: Arc<str>,
    pub service: Arc<str>,
}

/// One exchange, from its request to its answer. Made only for a chain that asks for it.
#[derive(Debug)]
pub struct Exchange {
    names: RuleNames,
    scheme: Cow<'static, str>,
    visitor: VisitorFacts,
    /// As it went on to the service.
    request: OnceLock<Sent>,
    shared: Mutex<Shared>,
}

#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) method: Method,
    pub(crate) authority: String,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
}

#[derive(Debug, Default)]
struct Shared {
    /// The plugin whose answer it is.
    answered_by: Option<String>,
    left: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

/// There is no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl Exchange {
    pub fn new(names: RuleNames, scheme: Cow<'static, str>, visitor: VisitorFacts) -> Self {
        Self { names, scheme, visitor, request: OnceLock::new(), shared: Mutex::default() }
    }

    pub(crate) fn rule(&self) -> &str {
        &self.names.rule
    }

    pub(crate) fn service(&self) -> &str {
        &self.names.service
    }

    pub(crate) fn scheme(&self) -> &str {
        &self.scheme
    }

    pub(crate) fn visitor(&self) -> &VisitorFacts {
        &self.visitor
    }

    /// The request has gone through the chain. In front of middleware that is the first part of it.
    pub(crate) fn sent(&self, head: &request::Parts) {
        self.request.get_or_init(|| Sent {
            method: head.method.clone(),
            authority: crate::head::authority(head).to_owned(),
            uri: head.uri.clone(),
            headers: head.headers.clone(),
        });
    }

    pub(crate) fn request(&self) -> Option<&Sent> {
        self.request.get()
    }

    /// A plugin answers in the place of the service.
    pub(crate) fn answered(&self, plugin: &str) {
        self.shared().answered_by = Some(plugin.to_owned());
    }

    pub(crate) fn answered_by(&self) -> Option<String> {
        self.shared().answered_by.clone()
    }

    pub(crate) fn left(&self, name: &str) -> Option<Vec<u8>> {
        self.shared().left.get(name).cloned()
    }

    pub(crate) fn leave(&self, name: String, value: Vec<u8>) -> Result<(), Full> {
        let mut shared = self.shared();
        let old = shared.left.get(&name).map(|old| name.len() + old.len());
        let bytes = shared.bytes - old.unwrap_or_default() + name.len() + value.len();
        if bytes > MOST_BYTES || (old.is_none() && shared.left.len() >= MOST_NAMES) {
            return Err(Full);
        }
        shared.bytes = bytes;
        shared.left.insert(name, value);
        Ok(())
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_plugins_leave_for_each_other_is_bounded() {
        let names = RuleNames { rule: "r".into(), service: "s".into() };
        let exchange = Exchange::new(names, Cow::Borrowed("http"), VisitorFacts::default());
        assert_eq!(exchange.leave("a".into(), vec![0; MOST_BYTES - 1]), Ok(()));
        assert_eq!(exchange.leave("b".into(), vec![]), Err(Full));
        assert_eq!(exchange.leave("a".into(), b"less".to_vec()), Ok(()), "in place of what was there");
        for number in 1..MOST_NAMES {
            assert_eq!(exchange.leave(number.to_string(), vec![1]), Ok(()));
        }
        assert_eq!(exchange.leave("one more".into(), vec![]), Err(Full));
        assert_eq!(exchange.left("a"), Some(b"less".to_vec()));
    }
}
