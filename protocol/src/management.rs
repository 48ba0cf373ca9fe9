//! What a host's log looks like to who watches it from far away: words, filters, lines and tokens, as the reference
//! writes them. Knows JSON; does not know who signs a token, nor where lines come from.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// As which host an edge asks a host about itself; no visitor gets there.
pub const HOSTNAME: &str = "management.argotunnel.com";
/// The log, over a WebSocket.
pub const LOGS: &str = "/logs";
/// Whether the host is there.
pub const PING: &str = "/ping";
/// Which machine it is.
pub const HOST_DETAILS: &str = "/host_details";
/// Where a token stands in the query, and the connector that is meant.
pub const ACCESS_TOKEN: &str = "access_token";
pub const CONNECTOR_ID: &str = "connector_id";
/// A host with it answers here.
pub const FEATURE: &str = "management_logs";

/// The number of a refusal for want of a token that is good.
pub const REFUSED: u32 = 1001;

/// Why a host ends a WebSocket: the first word was not to start.
pub const INVALID_COMMAND: u16 = 4001;
/// Somebody else watches.
pub const SESSION_LIMIT: u16 = 4002;
/// Nobody has asked for anything for long.
pub const IDLE: u16 = 4003;

/// From the least to the most important.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The reference leaves it out.
    #[default]
    Debug,
    Info,
    Warn,
    Error,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// The host itself. The reference leaves it out.
    #[default]
    Cloudflared,
    /// A request.
    Http,
    /// A circuit.
    Tcp,
    Udp,
}

/// Which lines are wanted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Filters {
    /// All, if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventKind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// The share of them, above 0 and at most 1; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<f64>,
}

/// What who watches says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientEvent {
    StartStreaming {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filters: Option<Filters>,
    },
    StopStreaming,
}

/// What a host says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerEvent {
    Logs { logs: Vec<Line> },
}

/// A line of the log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// RFC 3339.
    #[serde(default)]
    pub time: String,
    #[serde(default)]
    pub level: Level,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub event: EventKind,
    #[serde(default)]
    pub fields: Map<String, Value>,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub tun: TunnelClaim,
    pub actor: ActorClaim,
    /// What it is good for; an edge of others may not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub res: Vec<Resource>,
    #[serde(default)]
    pub iss: String,
    /// Seconds since 1970.
    #[serde(default)]
    pub iat: u64,
    #[serde(default)]
    pub exp: u64,
}

/// Whose host may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelClaim {
    pub id: Uuid,
    pub account_tag: String,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorClaim {
    pub id: String,
    #[serde(default)]
    pub support: bool,
}

/// What a token may be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    Logs,
    /// Everything.
    Admin,
    HostDetails,
}

impl Level {
    pub const ALL: [Self; 4] = [Self::Debug, Self::Info, Self::Warn, Self::Error];

    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl EventKind {
    pub const ALL: [Self; 4] = [Self::Cloudflared, Self::Http, Self::Tcp, Self::Udp];

    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Cloudflared => "cloudflared",
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl Resource {
    pub const ALL: [Self; 3] = [Self::Logs, Self::Admin, Self::HostDetails];

    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Admin => "admin",
            Self::HostDetails => "host_details",
        }
    }
}

impl Filters {
    /// Whether a line of this kind and level is wanted.
    #[must_use]
    pub fn want(&self, event: EventKind, level: Level) -> bool {
        self.level.is_none_or(|least| level >= least)
            && (self.events.is_empty() || self.events.contains(&event))
    }

    /// The share of lines that is wanted. As the reference has it, 0 and what is no share ask for all.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.sampling.filter(|share| *share > 0.0 && *share < 1.0).unwrap_or(1.0)
    }
}

impl Claims {
    /// What a token says, whoever has signed it. `None` of what is none, or says too little.
    #[must_use]
    pub fn unverified(token: &str) -> Option<Self> {
        if token.len() > LONGEST_TOKEN {
            return None;
        }
        let mut parts = token.split('.');
        let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
        let claims: Self = serde_json::from_slice(&claims).ok()?;
        (!claims.tun.account_tag.is_empty() && !claims.actor.id.is_empty()).then_some(claims)
    }

    /// Whether it is good for this; one that does not say is good for all.
    #[must_use]
    pub fn reach(&self, resource: Resource) -> bool {
        self.res.is_empty() || self.res.contains(&Resource::Admin) || self.res.contains(&resource)
    }
}

/// Whether this authority is that of a host that is asked about itself.
#[must_use]
pub fn is_host(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    host.trim_end_matches('.').eq_ignore_ascii_case(HOSTNAME)
}

/// The value of a name in a query; tokens and ids need no decoding.
#[must_use]
pub fn of_query<'q>(query: Option<&'q str>, name: &str) -> Option<&'q str> {
    let mut pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value).filter(|value| !value.is_empty())
}

/// Characters of a token.
const LONGEST_TOKEN: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_reference() {
        let text = r#"{"type":"start_streaming","filters":{"events":["http","cloudflared"],"level":"warn","sampling":0.5}}"#;
        let event: ClientEvent = serde_json::from_str(text).unwrap();
        let ClientEvent::StartStreaming { filters: Some(filters) } = &event else { panic!("{event:?}") };
        assert_eq!(filters.events, [EventKind::Http, EventKind::Cloudflared]);
        assert!(filters.want(EventKind::Http, Level::Error) && !filters.want(EventKind::Http, Level::Info));
        assert!(!filters.want(EventKind::Tcp, Level::Error));
        assert_eq!(serde_json::to_string(&event).unwrap(), text);
        for (text, wanted) in [
            (r#"{"type":"start_streaming"}"#, ClientEvent::StartStreaming { filters: None }),
            (r#"{"type":"stop_streaming"}"#, ClientEvent::StopStreaming),
        ] {
            assert_eq!(serde_json::from_str::<ClientEvent>(text).unwrap(), wanted);
        }
        // The reference leaves out what is the first of its words.
        let text =
            r#"{"type":"logs","logs":[{"time":"2026-01-01T00:00:00Z","message":"m","fields":{"a":1}}]}"#;
        let ServerEvent::Logs { logs } = serde_json::from_str(text).unwrap();
        assert_eq!((logs[0].level, logs[0].event), (Level::Debug, EventKind::Cloudflared));
        for (level, event) in Level::ALL.into_iter().zip(EventKind::ALL) {
            assert_eq!(serde_json::to_value(level).unwrap(), level.word());
            assert_eq!(serde_json::to_value(event).unwrap(), event.word());
        }
        for resource in Resource::ALL {
            assert_eq!(serde_json::to_value(resource).unwrap(), resource.word());
        }
    }

    #[test]
    fn shares_that_are_none_ask_for_all() {
        for (sampling, share) in
            [(None, 1.0), (Some(0.0), 1.0), (Some(-1.0), 1.0), (Some(7.0), 1.0), (Some(0.25), 0.25)]
        {
            assert!((Filters { sampling, ..Filters::default() }.share() - share).abs() < f64::EPSILON);
        }
    }

    #[test]
    fn what_says_too_little_is_no_token() {
        let token = |claims: &str| format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let id = Uuid::nil();
        let whole = format!(
            r#"{{"tun":{{"id":"{id}","account_tag":"a"}},"actor":{{"id":"me","support":false}},"exp":7}}"#
        );
        let claims = Claims::unverified(&token(&whole)).unwrap();
        assert_eq!((claims.tun.id, claims.exp), (id, 7));
        assert!(claims.reach(Resource::Logs), "the reference's edge does not say");
        let narrow = Claims { res: vec![Resource::HostDetails], ..claims.clone() };
        assert!(narrow.reach(Resource::HostDetails) && !narrow.reach(Resource::Logs));
        assert!(Claims { res: vec![Resource::Admin], ..claims }.reach(Resource::Logs));
        for wrong in [
            "",
            "a.b",
            "a.b.c.d",
            "..",
            "e30.!.x",
            &token("{}"),
            &token(&whole.replace("\"me\"", "\"\"")),
            &token(&whole.replace("\"a\"", "\"\"")),
            &token(&whole.replace(&id.to_string(), "x")),
            &"x".repeat(LONGEST_TOKEN + 1),
        ] {
            assert_eq!(Claims::unverified(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_host_is_known_in_every_spelling() {
        for same in
            ["management.argotunnel.com", "Management.ArgoTunnel.com:443", "management.argotunnel.com."]
        {
            assert!(is_host(same), "{same}");
        }
        for other in ["", "x.management.argotunnel.com", "argotunnel.com", "management.argotunnel.com:a"] {
            assert!(!is_host(other), "{other}");
        }
    }

    #[test]
    fn a_query_is_read_by_name() {
        let query = Some("access_token=a.b.c&connector_id=&x");
        assert_eq!(of_query(query, ACCESS_TOKEN), Some("a.b.c"));
        assert_eq!(of_query(query, CONNECTOR_ID), None);
        assert_eq!(of_query(None, ACCESS_TOKEN), None);
    }
}
