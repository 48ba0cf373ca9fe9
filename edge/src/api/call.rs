//! What a request asks for, parsed once: everything after this, permission included, works on these values
//! and never on the path again. Knows paths and methods; does not know who asks.

use adit_protocol::management::Resource;
use http::Method;
use uuid::Uuid;

use super::{alerting, balancing, records};
use crate::settings::host_name::HostName;
use crate::store::records::objects::Kind;

/// One thing that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    OpenApi,
    VerifyToken {
        /// Named by the path, or not.
        account: Option<String>,
    },
    CreateQuickTunnel,
    /// By an invitation instead of a token.
    JoinFleet,
    ListAccounts,
    LookAtAccount {
        account: String,
    },
    ListTunnels {
        account: String,
    },
    CreateTunnel {
        account: String,
    },
    Tunnel {
        account: String,
        tunnel: Uuid,
        ask: Ask,
    },
    ListZones,
    LookAtZone {
        zone: String,
    },
    Records {
        zone: String,
        ask: records::Ask,
    },
    /// About the objects of load balancing that belong to an account.
    Balancing {
        account: String,
        ask: balancing::Ask,
    },
    /// About the alerts of an account.
    Alerting {
        account: String,
        ask: alerting::Ask,
    },
    /// About the load balancers of a zone.
    Balancers {
        zone: String,
        ask: balancing::Ask,
    },
    /// The same for zones: known, and not here yet.
    LaterInZone {
        zone: String,
        what: &'static str,
    },
    ListRoutes {
        zone: String,
    },
    PutRoute {
        zone: String,
        tunnel: Uuid,
    },
    DeleteRoute {
        zone: String,
        hostname: String,
    },
    /// Known from the reference, and not here yet.
    Later {
        account: String,
        what: &'static str,
    },
}

/// What is asked about one tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Look,
    Change,
    Delete,
    Token,
    Connectors,
    Connector(Uuid),
    Disconnect,
    Configuration,
    PutConfiguration,
    /// Good for what the path names, or for what the body does.
    ManagementToken(Option<Resource>),
}

/// Why a path and a method are no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoCall {
    Path,
    /// These methods would be.
    Method(&'static str),
}

impl Call {
    pub(super) fn parse(method: &Method, path: &str) -> Result<Self, NoCall> {
        let path = path.strip_prefix(VERSION).unwrap_or(path);
        let path = path.strip_prefix('/').ok_or(NoCall::Path)?;
        // Nothing that would have to be decoded is the name of anything here.
        let fits = |segment: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte);
            !["", ".", ".."].contains(&segment) && segment.bytes().all(fits)
        };
        let segments: Vec<&str> = path.split('/').take(MOST_SEGMENTS + 1).collect();
        if segments.len() > MOST_SEGMENTS || !segments.iter().all(|segment| fits(segment)) {
            return Err(NoCall::Path);
        }
        match segments[..] {
            ["openapi.json"] => by_method(method, "GET", [(Method::GET, Self::OpenApi)]),
            ["tunnel"] => by_method(method, "POST", [(Method::POST, Self::CreateQuickTunnel)]),
            ["nodes"] => by_method(method, "POST", [(Method::POST, Self::JoinFleet)]),
            ["user", "tokens", "verify"] => {
                by_method(method, "GET", [(Method::GET, Self::VerifyToken { account: None })])
            }
            ["accounts"] => by_method(method, "GET", [(Method::GET, Self::ListAccounts)]),
            ["accounts", account] => {
                let call = Self::LookAtAccount { account: account.to_owned() };
                by_method(method, "GET", [(Method::GET, call)])
            }
            ["accounts", account, "tokens", "verify"] => {
                let call = Self::VerifyToken { account: Some(account.to_owned()) };
                by_method(method, "GET", [(Method::GET, call)])
            }
            // Tunnels of all types, of which there is one here.
            ["accounts", account, "tunnels"] => {
                let call = Self::ListTunnels { account: account.to_owned() };
                by_method(method, "GET", [(Method::GET, call)])
            }
            ["zones"] => by_method(method, "GET", [(Method::GET, Self::ListZones)]),
            ["accounts", account, "cfd_tunnel", ref rest @ ..] => tunnels(method, account.to_owned(), rest),
            ["accounts", account, "teamnet", "routes" | "virtual_networks", ..] => {
                Ok(Self::Later { account: account.to_owned(), what: "private networks" })
            }
            ["accounts", account, "warp_connector", ..] => {
                Ok(Self::Later { account: account.to_owned(), what: "WARP connectors" })
            }
            ["accounts", account, "load_balancers", ref rest @ ..] => {
                let ask = balancing(method, rest)?;
                Ok(Self::Balancing { account: account.to_owned(), ask })
            }
            ["accounts", account, "alerting", "v3", ref rest @ ..] => {
                let ask = alerting(method, rest)?;
                Ok(Self::Alerting { account: account.to_owned(), ask })
            }
            ["zones", zone, "load_balancers", ref rest @ ..] => {
                let ask = match rest {
                    [] => collection(method, Kind::Balancer),
                    [id] => object(method, Kind::Balancer, id),
                    [id, "status"] => {
                        let ask = balancing::Ask::Status((*id).to_owned());
                        by_method(method, "GET", [(Method::GET, ask)])
                    }
                    _ => Err(NoCall::Path),
                }?;
                Ok(Self::Balancers { zone: zone.to_owned(), ask })
            }
            ["zones", zone] => {
                by_method(method, "GET", [(Method::GET, Self::LookAtZone { zone: zone.to_owned() })])
            }
            ["zones", zone, "dns_records", ref rest @ ..] => records(method, zone.to_owned(), rest),
            ["zones", zone, "tunnels", "routes"] => {
                by_method(method, "GET", [(Method::GET, Self::ListRoutes { zone: zone.to_owned() })])
            }
            ["zones", zone, "tunnels", "routes", hostname] => {
                let name: HostName = hostname.parse().map_err(|_| NoCall::Path)?;
                let call = Self::DeleteRoute { zone: zone.to_owned(), hostname: name.to_string() };
                by_method(method, "DELETE", [(Method::DELETE, call)])
            }
            ["zones", zone, "tunnels", tunnel, "routes"] => {
                let call = Self::PutRoute { zone: zone.to_owned(), tunnel: id(tunnel)? };
                by_method(method, "PUT", [(Method::PUT, call)])
            }
            _ => Err(NoCall::Path),
        }
    }

    /// The longest body that is taken, in bytes.
    pub(super) fn body_limit(&self) -> usize {
        let is_configuration = matches!(self, Self::Tunnel { ask: Ask::PutConfiguration, .. });
        let is_batch = matches!(self, Self::Records { ask: records::Ask::Batch, .. });
        match (is_configuration, is_batch) {
            (true, _) => LONGEST_CONFIGURATION,
            (false, true) => LONGEST_BATCH,
            (false, false) => LONGEST_BODY,
        }
    }
}

fn tunnels(method: &Method, account: String, rest: &[&str]) -> Result<Call, NoCall> {
    let [tunnel, rest @ ..] = rest else {
        let create = Call::CreateTunnel { account: account.clone() };
        let list = Call::ListTunnels { account };
        return by_method(method, "GET, POST", [(Method::GET, list), (Method::POST, create)]);
    };
    let tunnel = id(tunnel)?;
    let ask = match rest {
        [] => by_method(
            method,
            "GET, PATCH, DELETE",
            [(Method::GET, Ask::Look), (Method::PATCH, Ask::Change), (Method::DELETE, Ask::Delete)],
        ),
        ["token"] => by_method(method, "GET", [(Method::GET, Ask::Token)]),
        ["connections"] => by_method(
            method,
            "GET, DELETE",
            [(Method::GET, Ask::Connectors), (Method::DELETE, Ask::Disconnect)],
        ),
        ["connectors", connector] => {
            by_method(method, "GET", [(Method::GET, Ask::Connector(id(connector)?))])
        }
        ["configurations"] => by_method(
            method,
            "GET, PUT",
            [(Method::GET, Ask::Configuration), (Method::PUT, Ask::PutConfiguration)],
        ),
        ["management"] => by_method(method, "POST", [(Method::POST, Ask::ManagementToken(None))]),
        ["management", word] => {
            let resource = Resource::ALL.into_iter().find(|resource| resource.word() == *word);
            let ask = Ask::ManagementToken(Some(resource.ok_or(NoCall::Path)?));
            by_method(method, "POST", [(Method::POST, ask)])
        }
        _ => Err(NoCall::Path),
    }?;
    Ok(Call::Tunnel { account, tunnel, ask })
}

fn records(method: &Method, zone: String, rest: &[&str]) -> Result<Call, NoCall> {
    use records::Ask;
    let later = |what| Call::LaterInZone { zone: zone.clone(), what };
    let ask = match rest {
        [] => by_method(method, "GET, POST", [(Method::GET, Ask::List), (Method::POST, Ask::Create)]),
        ["batch"] => by_method(method, "POST", [(Method::POST, Ask::Batch)]),
        ["export"] => return by_method(method, "GET", [(Method::GET, later(FILES))]),
        ["import"] => return by_method(method, "POST", [(Method::POST, later(FILES))]),
        ["scan"] | ["scan", "trigger"] => return by_method(method, "POST", [(Method::POST, later(SCANS))]),
        ["scan", "review"] => {
            let calls = [(Method::GET, later(SCANS)), (Method::POST, later(SCANS))];
            return by_method(method, "GET, POST", calls);
        }
        [id] => {
            let id = (*id).to_owned();
            by_method(
                method,
                "GET, PUT, PATCH, DELETE",
                [
                    (Method::GET, Ask::Look(id.clone())),
                    (Method::PUT, Ask::Replace(id.clone())),
                    (Method::PATCH, Ask::Edit(id.clone())),
                    (Method::DELETE, Ask::Delete(id)),
                ],
            )
        }
        _ => Err(NoCall::Path),
    }?;
    Ok(Call::Records { zone, ask })
}

fn balancing(method: &Method, rest: &[&str]) -> Result<balancing::Ask, NoCall> {
    use balancing::Ask;
    let (kind, rest) = match rest {
        ["regions"] => return by_method(method, "GET", [(Method::GET, Ask::Regions)]),
        ["regions", code] => {
            return by_method(method, "GET", [(Method::GET, Ask::Region((*code).to_owned()))]);
        }
        ["search"] => return by_method(method, "GET", [(Method::GET, Ask::Search)]),
        ["preview", id] => return by_method(method, "GET", [(Method::GET, Ask::Preview((*id).to_owned()))]),
        ["monitors", rest @ ..] => (Kind::Monitor, rest),
        ["monitor_groups", rest @ ..] => (Kind::MonitorGroup, rest),
        ["pools", rest @ ..] => (Kind::Pool, rest),
        _ => return Err(NoCall::Path),
    };
    match (kind, rest) {
        (Kind::Pool, []) => by_method(
            method,
            "GET, POST, PATCH",
            [
                (Method::GET, Ask::List(kind)),
                (Method::POST, Ask::Create(kind)),
                (Method::PATCH, Ask::EditAll),
            ],
        ),
        (_, []) => collection(method, kind),
        (_, [id]) => object(method, kind, id),
        (Kind::Pool, [id, "health"]) => {
            by_method(method, "GET", [(Method::GET, Ask::Health((*id).to_owned()))])
        }
        (_, [id, "references"]) => {
            by_method(method, "GET", [(Method::GET, Ask::References(kind, (*id).to_owned()))])
        }
        (Kind::Pool | Kind::Monitor, [id, "preview"]) => {
            by_method(method, "POST", [(Method::POST, Ask::StartPreview(kind, (*id).to_owned()))])
        }
        _ => Err(NoCall::Path),
    }
}

fn alerting(method: &Method, rest: &[&str]) -> Result<alerting::Ask, NoCall> {
    use alerting::Ask;
    let later = |what| Ok(Ask::Later(what));
    let (kind, rest) = match rest {
        ["available_alerts"] => return by_method(method, "GET", [(Method::GET, Ask::Types)]),
        ["destinations", "eligible"] => return by_method(method, "GET", [(Method::GET, Ask::Mechanisms)]),
        ["destinations", "pagerduty", ..] => return later("PagerDuty; a webhook can be told instead"),
        ["silences", ..] => return later("silences"),
        ["history"] => return by_method(method, "GET", [(Method::GET, Ask::History)]),
        ["destinations", "webhooks", rest @ ..] => (Kind::Webhook, rest),
        ["policies", rest @ ..] => (Kind::Policy, rest),
        _ => return Err(NoCall::Path),
    };
    match rest {
        [] => by_method(
            method,
            "GET, POST",
            [(Method::GET, Ask::List(kind)), (Method::POST, Ask::Create(kind))],
        ),
        [id] => {
            let id = || (*id).to_owned();
            by_method(
                method,
                "GET, PUT, DELETE",
                [
                    (Method::GET, Ask::Look(kind, id())),
                    (Method::PUT, Ask::Edit(kind, id())),
                    (Method::DELETE, Ask::Delete(kind, id())),
                ],
            )
        }
        _ => Err(NoCall::Path),
    }
}

fn collection(method: &Method, kind: Kind) -> Result<balancing::Ask, NoCall> {
    use balancing::Ask;
    by_method(method, "GET, POST", [(Method::GET, Ask::List(kind)), (Method::POST, Ask::Create(kind))])
}

fn object(method: &Method, kind: Kind, id: &str) -> Result<balancing::Ask, NoCall> {
    use balancing::Ask;
    let id = || id.to_owned();
    by_method(
        method,
        "GET, PUT, PATCH, DELETE",
        [
            (Method::GET, Ask::Look(kind, id())),
            (Method::PUT, Ask::Replace(kind, id())),
            (Method::PATCH, Ask::Edit(kind, id())),
            (Method::DELETE, Ask::Delete(kind, id())),
        ],
    )
}

fn by_method<T, const N: usize>(
    method: &Method,
    allowed: &'static str,
    calls: [(Method, T); N],
) -> Result<T, NoCall> {
    let found = calls.into_iter().find(|(known, _)| known == method);
    found.map(|(_, call)| call).ok_or(NoCall::Method(allowed))
}

/// Only the usual form, so that one tunnel has one path.
fn id(text: &str) -> Result<Uuid, NoCall> {
    let id: Uuid = text.parse().map_err(|_| NoCall::Path)?;
    if text.len() == id.hyphenated().to_string().len() { Ok(id) } else { Err(NoCall::Path) }
}

/// The base path of the public API; ours answers with and without it.
const VERSION: &str = "/client/v4";
const FILES: &str = "files of zones";
const SCANS: &str = "scans for records of a zone elsewhere";
const MOST_SEGMENTS: usize = 8;
const LONGEST_BODY: usize = 64 << 10;
const LONGEST_BATCH: usize = 1 << 20;
const LONGEST_CONFIGURATION: usize = adit_protocol::rpc::MAX_CONFIGURATION;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "f0b1d4d0-1111-4222-8333-444455556666";

    #[test]
    fn a_path_and_a_method_are_one_call_or_none() {
        let id: Uuid = ID.parse().unwrap();
        let tunnel = |ask| Call::Tunnel { account: "a1".to_owned(), tunnel: id, ask };
        for (method, path, wanted) in [
            (
                Method::GET,
                "/accounts/a1/cfd_tunnel".to_owned(),
                Ok(Call::ListTunnels { account: "a1".into() }),
            ),
            (
                Method::POST,
                "/client/v4/accounts/a1/cfd_tunnel".to_owned(),
                Ok(Call::CreateTunnel { account: "a1".into() }),
            ),
            (Method::DELETE, format!("/accounts/a1/cfd_tunnel/{ID}"), Ok(tunnel(Ask::Delete))),
            (Method::GET, format!("/accounts/a1/cfd_tunnel/{ID}/token"), Ok(tunnel(Ask::Token))),
            (
                Method::DELETE,
                format!("/accounts/a1/cfd_tunnel/{ID}/connections"),
                Ok(tunnel(Ask::Disconnect)),
            ),
            (
                Method::PUT,
                format!("/zones/z1/tunnels/{ID}/routes"),
                Ok(Call::PutRoute { zone: "z1".into(), tunnel: id }),
            ),
            (Method::PUT, format!("/accounts/a1/cfd_tunnel/{ID}"), Err(NoCall::Method("GET, PATCH, DELETE"))),
            (Method::GET, "/accounts/a1/cfd_tunnel/demo".to_owned(), Err(NoCall::Path)),
            (Method::GET, format!("/accounts/a1/cfd_tunnel/{}", id.simple()), Err(NoCall::Path)),
            (Method::GET, format!("/accounts/a1/../a2/cfd_tunnel/{ID}"), Err(NoCall::Path)),
            (Method::GET, format!("/accounts/a1%2Fcfd_tunnel/{ID}"), Err(NoCall::Path)),
            (Method::GET, format!("/accounts/a1/cfd_tunnel//{ID}"), Err(NoCall::Path)),
            (Method::GET, format!("//accounts/a1/cfd_tunnel/{ID}"), Err(NoCall::Path)),
            (Method::GET, format!("/accounts/a1/cfd_tunnel/{ID}/"), Err(NoCall::Path)),
            (Method::GET, "/".to_owned(), Err(NoCall::Path)),
            (Method::GET, "*".to_owned(), Err(NoCall::Path)),
        ] {
            assert_eq!(Call::parse(&method, &path), wanted, "{method} {path}");
        }
    }
}
