//! Conditions of rules: `http.host eq "app.example.com" and not ip.src in {192.0.2.0/24}`, in the language of the
//! reference as far as a load balancer knows it. Read once ([`Condition::parse`]), then held against requests
//! ([`Condition::matches`]). Reading and holding take time in proportion to what is read, whatever it is.
//!
//! Knows a [`View`] of a request; does not know what a rule does.

mod parse;
mod test;
mod token;

use std::fmt;
use std::net::IpAddr;

use test::Test;

/// A condition that was read.
#[derive(Debug, Clone)]
pub struct Condition(Node);

#[derive(Debug, Clone)]
enum Node {
    Test(Box<Test>),
    Not(Box<Self>),
    /// Of nothing: always.
    All(Vec<Self>),
    Any(Vec<Self>),
    /// An odd number of them.
    Odd(Vec<Self>),
}

/// A request as conditions see it. The host and the path are those that it is routed by.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub host: &'a str,
    pub method: &'a str,
    pub path: &'a str,
    /// Without the question mark; empty where there is none.
    pub query: &'a str,
    /// Such as `HTTP/2`.
    pub version: &'a str,
    pub headers: &'a dyn Headers,
    pub client: IpAddr,
    /// Since 1970.
    pub seconds: u64,
    /// The name of the load balancer.
    pub balancer: &'a str,
    /// The code of the region that serves the request.
    pub region: &'a str,
}

/// The headers of a request.
pub trait Headers {
    /// Shows each field, its name in lower case and its value, until `see` says that it has seen enough.
    fn each<'a>(&'a self, see: &mut dyn FnMut(&'a str, &'a [u8]) -> bool);
}

impl Headers for &[(&str, &str)] {
    fn each<'a>(&'a self, see: &mut dyn FnMut(&'a str, &'a [u8]) -> bool) {
        let _ = self.iter().any(|(name, value)| see(name, value.as_bytes()));
    }
}

/// What is wrong with a condition, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The character at which it was noticed; the first one is 1.
    pub at: usize,
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.at, self.what)
    }
}

impl std::error::Error for Mistake {}

impl Condition {
    /// The most characters that a condition has.
    pub const LONGEST: usize = 4096;

    /// Reads a condition. An empty one always holds.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        parse::parse(text).map(Self)
    }

    /// How many regular expressions it has, which take more memory than their text.
    pub fn patterns(&self) -> usize {
        self.0.patterns()
    }

    pub fn matches(&self, view: &View<'_>) -> bool {
        self.0.holds(view)
    }
}

impl Node {
    fn patterns(&self) -> usize {
        match self {
            Self::Test(test) => usize::from(matches!(test.check, test::Check::Matches(_))),
            Self::Not(node) => node.patterns(),
            Self::All(nodes) | Self::Any(nodes) | Self::Odd(nodes) => nodes.iter().map(Self::patterns).sum(),
        }
    }

    fn holds(&self, view: &View<'_>) -> bool {
        match self {
            Self::Test(test) => test.holds(view),
            Self::Not(node) => !node.holds(view),
            Self::All(nodes) => nodes.iter().all(|node| node.holds(view)),
            Self::Any(nodes) => nodes.iter().any(|node| node.holds(view)),
            Self::Odd(nodes) => nodes.iter().filter(|node| node.holds(view)).count() % 2 == 1,
        }
    }
}

#[cfg(test)]
mod tests;
