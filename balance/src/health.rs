//! Health: what becomes of the results of probes, and what an endpoint and a pool are worth for it. Knows results,
//! and what else is known of an endpoint; does not know how anything is probed. Pure.

use std::fmt;

use crate::steer::Standing;

/// What probes of one monitor say of one endpoint, from one place. It takes some results in a row to change that; 0
/// and 1 are as good as each other, and the very first result counts at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// `None` before the first result.
    is_up: Option<bool>,
    /// Results in a row that say otherwise.
    against: u32,
}

/// How many results in a row it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Thresholds {
    pub consecutive_up: u32,
    pub consecutive_down: u32,
}

impl Verdict {
    pub fn is_up(&self) -> Option<bool> {
        self.is_up
    }

    /// What somebody else has made of its results.
    pub fn found(is_up: bool) -> Self {
        Self { is_up: Some(is_up), against: 0 }
    }

    /// Takes note of a result, and says whether it changed the verdict.
    pub fn see(&mut self, passed: bool, thresholds: Thresholds) -> bool {
        if self.is_up == Some(passed) {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let needed = if passed { thresholds.consecutive_up } else { thresholds.consecutive_down };
        if self.is_up.is_some() && self.against < needed {
            return false;
        }
        *self = Self { is_up: Some(passed), against: 0 };
        true
    }
}

/// What most say: nodes of a region, and then regions. Who knows nothing has no vote, and a tie leaves everything
/// as it was.
pub fn majority(votes: impl IntoIterator<Item = Option<bool>>, before: Option<bool>) -> Option<bool> {
    let (mut up, mut down) = (0, 0);
    for vote in votes.into_iter().flatten() {
        *(if vote { &mut up } else { &mut down }) += 1_u32;
    }
    match up.cmp(&down) {
        std::cmp::Ordering::Greater => Some(true),
        std::cmp::Ordering::Less => Some(false),
        std::cmp::Ordering::Equal if up == 0 => None,
        std::cmp::Ordering::Equal => before,
    }
}

/// A monitor of a group, and what it says of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub is_enabled: bool,
    /// Without it nothing is well.
    pub must_be_healthy: bool,
    /// It is only looked at, and has no vote.
    pub monitoring_only: bool,
    pub is_up: Option<bool>,
}

/// What the monitors of a group say together: down if one that must be healthy says so, or more than half of those
/// that vote. Unknown as long as one that must be healthy, or all of them, have said nothing.
pub fn group(members: impl IntoIterator<Item = Member>) -> Option<bool> {
    let (mut up, mut down, mut is_waiting) = (0_u32, 0_u32, false);
    for member in members {
        if !member.is_enabled || member.monitoring_only {
            continue;
        }
        match member.is_up {
            Some(true) => up += 1,
            Some(false) if member.must_be_healthy => return Some(false),
            Some(false) => down += 1,
            None => is_waiting |= member.must_be_healthy,
        }
    }
    if down > up {
        Some(false)
    } else if is_waiting || up + down == 0 {
        None
    } else {
        Some(true)
    }
}

/// What monitors say of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Active {
    /// Nobody asks, so nobody says that it is down.
    NotMonitored,
    Up,
    Down,
    /// Nothing yet, and it is not time yet: the edge has just started, or the endpoint or its monitor is new.
    Unknown,
    /// Nothing, though there was time for it.
    Overdue,
}

impl Active {
    pub fn new(is_monitored: bool, is_up: Option<bool>, is_overdue: bool) -> Self {
        match (is_monitored, is_up) {
            (false, _) => Self::NotMonitored,
            (true, Some(true)) => Self::Up,
            (true, Some(false)) => Self::Down,
            (true, None) if is_overdue => Self::Overdue,
            (true, None) => Self::Unknown,
        }
    }
}

/// All that is known of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signs {
    pub is_enabled: bool,
    /// Its tunnel has a connection here. `None` for what needs none.
    pub is_connected: Option<bool>,
    pub active: Active,
    pub is_ejected: bool,
    /// It serves only the sessions that it has.
    pub is_draining: bool,
}

/// What an endpoint is, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Up,
    Unknown,
    Draining,
    /// Its requests failed lately: it is left out, but its pool does not count it as down.
    Ejected,
    /// Its monitor says so.
    Down,
    /// Its monitor says nothing.
    Overdue,
    NotConnected,
    Disabled,
}

impl Signs {
    pub fn state(&self) -> State {
        // Presence is known at once and for sure; no monitor knows better.
        match self {
            Self { is_draining: true, is_connected: Some(true) | None, .. } => State::Draining,
            Self { is_enabled: false, .. } => State::Disabled,
            Self { is_connected: Some(false), .. } => State::NotConnected,
            Self { active: Active::Down, .. } => State::Down,
            Self { active: Active::Overdue, .. } => State::Overdue,
            Self { is_ejected: true, .. } => State::Ejected,
            Self { active: Active::Unknown, .. } => State::Unknown,
            Self { active: Active::NotMonitored | Active::Up, .. } => State::Up,
        }
    }
}

impl State {
    /// What it is worth when one is chosen; `None` gets nothing new. What is down is a last resort only where
    /// nobody asks for health, and one that is not connected cannot be asked at all.
    pub fn standing(self) -> Option<Standing> {
        match self {
            Self::Up => Some(Standing::Up),
            Self::Unknown => Some(Standing::Unknown),
            Self::Ejected | Self::Down | Self::Overdue => Some(Standing::Down),
            Self::Draining | Self::NotConnected | Self::Disabled => None,
        }
    }

    /// Whether passive ejection may count on it: it serves as far as others are concerned.
    pub fn is_able(self) -> bool {
        match self {
            Self::Up | Self::Unknown | Self::Ejected => true,
            Self::Draining | Self::Down | Self::Overdue | Self::NotConnected | Self::Disabled => false,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unknown => "unknown",
            Self::Draining => "draining",
            Self::Ejected => "ejected",
            Self::Down => "down",
            Self::Overdue => "overdue",
            Self::NotConnected => "not-connected",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolHealth {
    Healthy,
    /// Enough endpoints are up, and some are not.
    Degraded,
    /// Fewer are up than the pool asks for: it gets nothing.
    Critical,
    /// Enough may be up.
    Unknown,
    Disabled,
}

impl PoolHealth {
    /// Of the states of its endpoints. Ejection is an opinion of one node for some seconds, and makes no pool
    /// critical; endpoints that are disabled or draining are as if they were not there.
    pub fn new(is_enabled: bool, minimum: usize, states: impl IntoIterator<Item = State>) -> Self {
        let (mut up, mut unknown, mut down) = (0, 0, 0);
        for state in states {
            match state {
                State::Up | State::Ejected => up += 1,
                State::Unknown => unknown += 1,
                State::Down | State::Overdue | State::NotConnected => down += 1,
                State::Draining | State::Disabled => {}
            }
        }
        let minimum = minimum.max(1);
        if !is_enabled {
            Self::Disabled
        } else if up >= minimum {
            if down > 0 { Self::Degraded } else { Self::Healthy }
        } else if up + unknown >= minimum {
            Self::Unknown
        } else {
            Self::Critical
        }
    }

    /// What it is worth when one is chosen; `None` gets nothing.
    pub fn standing(self) -> Option<Standing> {
        match self {
            Self::Healthy | Self::Degraded => Some(Standing::Up),
            Self::Unknown => Some(Standing::Unknown),
            Self::Critical | Self::Disabled => None,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for PoolHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests;
