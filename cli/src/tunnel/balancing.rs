//! `adit lb`, `adit pool` and `adit monitor`: load balancing by people. Each command is one or two calls of the
//! control API, and says what the API says about them. Knows names; ids are for the API.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow, ensure};
use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::{Options, Output};
use crate::Failure;
use crate::table::{Table, print, show};

/// A load balancer is a host name with pools behind it. Visitors go to the first pool that may serve, or to the one
/// that the policy chooses, and there to an endpoint that is up; what one does not answer, another one does.
///
/// Begin with one call that makes everything: `adit tunnel route lb TUNNEL app.example.com POOL`, for each tunnel.
/// `adit lb status` then says who gets what, and why somebody does not.
#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Lb {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    command: LbCommand,
}

/// A pool has endpoints, each a tunnel by its name or id. A tunnel in a pool gets requests while a host of it is
/// connected, as many as its weight says: `adit pool create shop one two=0.5` gives `two` half of what `one` gets, and
/// 0 gives it none while another one is up, which drains it.
#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Pool {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    command: PoolCommand,
}

/// A monitor says how the health of endpoints is asked for; `adit pool set POOL --monitor ID` has a pool use it.
#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Monitor {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    command: MonitorCommand,
}

/// Where the control API is, and what it lets us do.
#[derive(Args)]
struct At {
    /// cert.pem: the right to change load balancers of an account
    #[arg(long = "origincert", global = true, value_name = "FILE", env = "TUNNEL_ORIGIN_CERT")]
    origin_cert: Option<PathBuf>,
    /// The edge's control API, such as http://127.0.0.1:20250
    #[arg(long, global = true, value_name = "URL", env = "TUNNEL_API_URL")]
    api_url: Option<String>,
    /// PEM file with the authority that signed the API's certificate; by default the system's are believed
    #[arg(long, global = true, value_name = "FILE", env = "ADIT_API_CA")]
    api_ca: Option<PathBuf>,
}

#[derive(Subcommand)]
enum LbCommand {
    /// List load balancers
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Who gets requests: pools and endpoints, their health and why, their share of the last minute against their
    /// weight, and who changed them last
    Status {
        /// Its host name
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Make one: `adit lb create app.example.com east west --fallback spare`
    Create {
        /// A host name in one of the account's zones, or `*.` before one
        name: String,
        /// Pools in the order in which they are tried
        #[arg(required = true, value_name = "POOL")]
        pools: Vec<String>,
        #[command(flatten)]
        choice: LbChoice,
    },
    /// Change one: only what is said
    Set {
        /// Its host name
        name: String,
        /// Pools in the order in which they are tried, in place of those until now
        #[arg(long, value_name = "POOL", num_args = 1..)]
        pools: Vec<String>,
        /// Whether it takes requests; otherwise its name is left to a route
        #[arg(long, value_name = "BOOL")]
        enabled: Option<bool>,
        #[command(flatten)]
        choice: LbChoice,
    },
    /// Delete one; its pools stay
    Delete {
        /// Its host name
        name: String,
    },
}

#[derive(Args)]
struct LbChoice {
    /// The pool that serves where no other may, whatever its health; the last one unless it is said
    #[arg(long, value_name = "POOL")]
    fallback: Option<String>,
    /// How a pool is chosen: the first that may serve, by weight, by who asks, or by how much is under way
    #[arg(long, value_enum)]
    policy: Option<LbPolicy>,
    /// Whether what a service may have seen is tried again in another pool
    #[arg(long, value_name = "BOOL")]
    failover_across_pools: Option<bool>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LbPolicy {
    Off,
    Random,
    Hash,
    LeastOutstandingRequests,
    LeastConnections,
}

#[derive(Subcommand)]
enum PoolCommand {
    /// List pools
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Make one of tunnels: `adit pool create shop one two=0.5`
    Create {
        /// Letters, digits, `-` and `_`
        name: String,
        /// Tunnels by name or id, each with `=WEIGHT` behind it if that is not 1
        #[arg(required = true, value_name = "TUNNEL[=WEIGHT]")]
        tunnels: Vec<String>,
        #[command(flatten)]
        choice: PoolChoice,
    },
    /// Put tunnels into one, or give those in it other weights
    Add {
        name: String,
        #[arg(required = true, value_name = "TUNNEL[=WEIGHT]")]
        tunnels: Vec<String>,
    },
    /// Take tunnels out of one
    Remove {
        name: String,
        #[arg(required = true, value_name = "TUNNEL")]
        tunnels: Vec<String>,
    },
    /// Change one: only what is said
    Set {
        name: String,
        /// Whether it serves
        #[arg(long, value_name = "BOOL")]
        enabled: Option<bool>,
        #[command(flatten)]
        choice: PoolChoice,
    },
    /// Delete one that no load balancer names
    Delete { name: String },
}

#[derive(Args)]
struct PoolChoice {
    /// How an endpoint is chosen: by weight, by who asks, by how much is under way, or by how long requests took lately
    #[arg(long, value_enum)]
    policy: Option<PoolPolicy>,
    /// With fewer endpoints that are up the pool does not serve
    #[arg(long, value_name = "COUNT")]
    minimum: Option<u32>,
    /// The id of its monitor; an empty one takes it away
    #[arg(long, value_name = "ID")]
    monitor: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PoolPolicy {
    Random,
    Hash,
    LeastOutstandingRequests,
    LeastConnections,
    PeakEwma,
}

#[derive(Subcommand)]
enum MonitorCommand {
    /// List monitors
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Make one; prints its id
    Create {
        #[arg(long, value_enum, default_value = "http")]
        r#type: MonitorType,
        /// For whom and what it is
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
        #[arg(long, value_name = "PATH", default_value = "/")]
        path: String,
        /// Wanted for tcp
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Seconds from one probe to the next
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        interval: u32,
        /// Seconds for the answer
        #[arg(long, value_name = "SECONDS", default_value_t = 5)]
        timeout: u32,
        /// Further attempts, at once, where no answer came in time
        #[arg(long, value_name = "COUNT", default_value_t = 2)]
        retries: u32,
        /// Such as 200, 2xx or 200-204, with commas between them; any 2xx unless it is said
        #[arg(long, value_name = "CODES", default_value = "")]
        expected_codes: String,
        /// What the body has to contain
        #[arg(long, value_name = "TEXT", default_value = "")]
        expected_body: String,
    },
    /// Delete one that no pool names
    Delete { id: String },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MonitorType {
    Http,
    Https,
    Tcp,
}

/// A client that says what the API says.
struct Caller(Client);

impl Caller {
    fn new(at: At) -> Result<Self, Failure> {
        let At { origin_cert, api_url, api_ca } = at;
        let options = Options { origin_cert, api_url, api_ca, ..Options::default() };
        Client::new(&options).map(Self).map_err(Failure::Configuration)
    }

    async fn call(
        &self,
        what: &'static str,
        method: Method,
        zone: Option<&str>,
        rest: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        let (result, messages) = self.0.balancing(what, method, zone, rest, body.as_ref()).await?;
        for line in messages {
            // Not `eprintln!`, which panics when nobody reads.
            let _ = writeln!(std::io::stderr(), "adit: note: {line}");
        }
        Ok(result)
    }

    async fn list(&self, kind: &'static str, zone: Option<&str>) -> anyhow::Result<Vec<Value>> {
        self.0.objects(zone, kind).await
    }

    async fn pools(&self) -> anyhow::Result<Vec<Value>> {
        self.list("/pools", None).await
    }

    /// Each load balancer with the id of its zone.
    async fn balancers(&self) -> anyhow::Result<Vec<(String, Value)>> {
        let mut all = Vec::new();
        for zone in self.0.zones().await? {
            let zone = text(&zone, "id").to_owned();
            let found = self.list("", Some(&zone)).await?;
            all.extend(found.into_iter().map(|balancer| (zone.clone(), balancer)));
        }
        Ok(all)
    }

    async fn balancer(&self, name: &str) -> anyhow::Result<(String, Value)> {
        let wanted = name.trim_end_matches('.').to_ascii_lowercase();
        let found = self.balancers().await?.into_iter().find(|(_, one)| text(one, "name") == wanted);
        found.with_context(|| {
            format!("there is no load balancer `{name}`; `adit lb list` shows those that are")
        })
    }

    async fn pool(&self, name: &str) -> anyhow::Result<Value> {
        let found = self.pools().await?.into_iter().find(|pool| text(pool, "name") == name);
        found.with_context(|| format!("there is no pool `{name}`; `adit pool list` shows those that are"))
    }

    /// The ids of pools, all names that are not there said at once.
    async fn pool_ids(&self, names: &[String]) -> anyhow::Result<Vec<Value>> {
        let pools = self.pools().await?;
        let (mut ids, mut missing) = (Vec::new(), Vec::new());
        for name in names {
            match pools.iter().find(|pool| text(pool, "name") == name) {
                Some(pool) => ids.push(pool["id"].clone()),
                None => missing.push(format!("`{name}`")),
            }
        }
        ensure!(
            missing.is_empty(),
            "there is no pool {}; `adit pool list` shows those that are",
            missing.join(", ")
        );
        Ok(ids)
    }

    /// The zone that a host name is in: the one with the longest name that it ends with.
    async fn zone_of(&self, host: &str) -> anyhow::Result<String> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let bare = host.strip_prefix("*.").unwrap_or(&host);
        let zones = self.0.zones().await?;
        let is_of = |zone: &&Value| {
            let rest = bare.strip_suffix(text(zone, "name"));
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let found = zones.iter().filter(is_of).max_by_key(|zone| text(zone, "name").len());
        let found = found.with_context(|| format!("`{host}` is in no zone of this account"))?;
        Ok(text(found, "id").to_owned())
    }

    /// An endpoint for each `TUNNEL[=WEIGHT]`.
    async fn endpoints(&self, tunnels: &[String]) -> anyhow::Result<Vec<Value>> {
        let mut endpoints = Vec::new();
        for said in tunnels {
            let (tunnel, weight) = match said.rsplit_once('=') {
                Some((tunnel, weight)) => {
                    let weight: f64 = weight
                        .parse()
                        .map_err(|_| anyhow!("`{weight}` is no weight: a number from 0 to 1"))?;
                    (tunnel, Some(weight))
                }
                None => (said.as_str(), None),
            };
            let id = self.0.find(tunnel).await?;
            endpoints.push(json!({
                "name": tunnel, "address": format!("{id}.{DOMAIN}"), "weight": weight.unwrap_or(1.0),
            }));
        }
        Ok(endpoints)
    }
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn lb(lb: Lb) -> Result<(), Failure> {
    let caller = Caller::new(lb.at)?;
    match lb.command {
        LbCommand::List { output } => {
            let (all, pools) = (caller.balancers().await?, caller.pools().await?);
            let all: Vec<Value> = all.into_iter().map(|(_, balancer)| balancer).collect();
            let name = |id: &Value| {
                let found = pools.iter().find(|pool| pool["id"] == *id);
                found.map_or_else(|| "?".to_owned(), |pool| text(pool, "name").to_owned())
            };
            show(output.form, &json!(all), || {
                let mut table = Table::new(&["NAME", "POOLS", "FALLBACK", "POLICY", "ENABLED"]);
                for one in &all {
                    let pools = one["default_pools"].as_array().into_iter().flatten().map(name);
                    let policy = match text(one, "steering_policy") {
                        "" => "off",
                        policy => policy,
                    };
                    table.row([
                        text(one, "name").to_owned(),
                        pools.collect::<Vec<_>>().join(", "),
                        name(&one["fallback_pool"]),
                        policy.to_owned(),
                        yes(&one["enabled"]),
                    ]);
                }
                table.text()
            });
        }
        LbCommand::Status { name, output } => {
            let (zone, balancer) = caller.balancer(&name).await?;
            let rest = format!("/{}/status", text(&balancer, "id"));
            let status = caller.call("asking for its status", Method::GET, Some(&zone), &rest, None).await?;
            show(output.form, &status, || status_table(&status));
        }
        LbCommand::Create { name, pools, choice } => {
            let zone = caller.zone_of(&name).await?;
            let fallback = choice.fallback.clone().or_else(|| pools.last().cloned());
            let pools = caller.pool_ids(&pools).await?;
            let mut body = caller.lb_body(&LbChoice { fallback, ..choice }).await?;
            body.insert("name".to_owned(), json!(name));
            body.insert("default_pools".to_owned(), json!(pools));
            body.insert("proxied".to_owned(), json!(true));
            let what = "making the load balancer";
            let made = caller.call(what, Method::POST, Some(&zone), "", Some(Value::Object(body))).await?;
            print(&format!(
                "{} is a load balancer now; `adit lb status` shows who serves it",
                text(&made, "name")
            ));
        }
        LbCommand::Set { name, pools, enabled, choice } => {
            let mut body = caller.lb_body(&choice).await?;
            if !pools.is_empty() {
                body.insert("default_pools".to_owned(), json!(caller.pool_ids(&pools).await?));
            }
            if let Some(enabled) = enabled {
                body.insert("enabled".to_owned(), json!(enabled));
            }
            let (zone, balancer) = caller.balancer(&name).await?;
            let rest = format!("/{}", text(&balancer, "id"));
            let what = "changing the load balancer";
            caller.call(what, Method::PATCH, Some(&zone), &rest, Some(Value::Object(body))).await?;
            print(&format!("{name} is changed"));
        }
        LbCommand::Delete { name } => {
            let (zone, balancer) = caller.balancer(&name).await?;
            let rest = format!("/{}", text(&balancer, "id"));
            caller.call("deleting the load balancer", Method::DELETE, Some(&zone), &rest, None).await?;
            print(&format!("{name} is no load balancer any more; its pools are still there"));
        }
    }
    Ok(())
}

impl Caller {
    async fn lb_body(&self, choice: &LbChoice) -> anyhow::Result<Map<String, Value>> {
        let mut body = Map::new();
        if let Some(fallback) = &choice.fallback {
            let ids = self.pool_ids(std::slice::from_ref(fallback)).await?;
            body.insert("fallback_pool".to_owned(), ids.into_iter().collect::<Vec<_>>().remove(0));
        }
        if let Some(policy) = choice.policy {
            body.insert("steering_policy".to_owned(), json!(word(policy)));
        }
        if let Some(across) = choice.failover_across_pools {
            body.insert("adaptive_routing".to_owned(), json!({ "failover_across_pools": across }));
        }
        Ok(body)
    }
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn pool(pool: Pool) -> Result<(), Failure> {
    let caller = Caller::new(pool.at)?;
    match pool.command {
        PoolCommand::List { output } => {
            let pools = caller.pools().await?;
            show(output.form, &json!(pools), || {
                let mut table = Table::new(&["NAME", "ENDPOINTS", "POLICY", "MINIMUM", "ENABLED", "ID"]);
                for one in &pools {
                    let endpoints = one["origins"].as_array().into_iter().flatten();
                    let endpoints =
                        endpoints.map(|endpoint| format!("{}={}", label(endpoint), endpoint["weight"]));
                    table.row([
                        text(one, "name").to_owned(),
                        endpoints.collect::<Vec<_>>().join(", "),
                        one["origin_steering"]["policy"].as_str().unwrap_or("random").to_owned(),
                        one["minimum_origins"].to_string(),
                        yes(&one["enabled"]),
                        text(one, "id").to_owned(),
                    ]);
                }
                table.text()
            });
        }
        PoolCommand::Create { name, tunnels, choice } => {
            let mut body = pool_body(&choice);
            body.insert("name".to_owned(), json!(name));
            body.insert("origins".to_owned(), json!(caller.endpoints(&tunnels).await?));
            caller.call("making the pool", Method::POST, None, "/pools", Some(Value::Object(body))).await?;
            print(&format!("{name} is a pool now; `adit lb create HOST {name}` puts it behind a host name"));
        }
        PoolCommand::Add { name, tunnels } => {
            let added = caller.endpoints(&tunnels).await?;
            let pool = caller.pool(&name).await?;
            let mut endpoints = pool["origins"].as_array().cloned().unwrap_or_default();
            for new in added {
                match endpoints.iter_mut().find(|known| same_tunnel(known, &new)) {
                    Some(known) => known["weight"] = new["weight"].clone(),
                    None => endpoints.push(new),
                }
            }
            caller.put_endpoints(&pool, endpoints).await?;
        }
        PoolCommand::Remove { name, tunnels } => {
            let gone = caller.endpoints(&tunnels).await?;
            let pool = caller.pool(&name).await?;
            let mut endpoints = pool["origins"].as_array().cloned().unwrap_or_default();
            for one in &gone {
                let before = endpoints.len();
                endpoints.retain(|known| !same_tunnel(known, one));
                if endpoints.len() == before {
                    return Err(anyhow!("{} is not in the pool `{name}`", text(one, "name")).into());
                }
            }
            caller.put_endpoints(&pool, endpoints).await?;
        }
        PoolCommand::Set { name, enabled, choice } => {
            let mut body = pool_body(&choice);
            if let Some(enabled) = enabled {
                body.insert("enabled".to_owned(), json!(enabled));
            }
            let rest = format!("/pools/{}", text(&caller.pool(&name).await?, "id"));
            caller.call("changing the pool", Method::PATCH, None, &rest, Some(Value::Object(body))).await?;
            print(&format!("{name} is changed"));
        }
        PoolCommand::Delete { name } => {
            let rest = format!("/pools/{}", text(&caller.pool(&name).await?, "id"));
            caller.call("deleting the pool", Method::DELETE, None, &rest, None).await?;
            print(&format!("{name} is gone; its tunnels are still there"));
        }
    }
    Ok(())
}

impl Caller {
    async fn put_endpoints(&self, pool: &Value, endpoints: Vec<Value>) -> anyhow::Result<()> {
        let rest = format!("/pools/{}", text(pool, "id"));
        let body = json!({ "origins": endpoints });
        let changed = self.call("changing the pool", Method::PATCH, None, &rest, Some(body)).await?;
        let count = changed["origins"].as_array().map_or(0, Vec::len);
        print(&format!("{} has {count} endpoints now", text(pool, "name")));
        Ok(())
    }
}

fn pool_body(choice: &PoolChoice) -> Map<String, Value> {
    let mut body = Map::new();
    if let Some(policy) = choice.policy {
        body.insert("origin_steering".to_owned(), json!({ "policy": word(policy) }));
    }
    if let Some(minimum) = choice.minimum {
        body.insert("minimum_origins".to_owned(), json!(minimum));
    }
    if let Some(monitor) = &choice.monitor {
        body.insert("monitor".to_owned(), json!(monitor));
    }
    body
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn monitor(monitor: Monitor) -> Result<(), Failure> {
    let caller = Caller::new(monitor.at)?;
    match monitor.command {
        MonitorCommand::List { output } => {
            let monitors = caller.list("/monitors", None).await?;
            show(output.form, &json!(monitors), || {
                let mut table = Table::new(&["ID", "TYPE", "PATH", "INTERVAL", "DESCRIPTION"]);
                for one in &monitors {
                    table.row([
                        text(one, "id").to_owned(),
                        text(one, "type").to_owned(),
                        text(one, "path").to_owned(),
                        format!("{} s", one["interval"]),
                        text(one, "description").to_owned(),
                    ]);
                }
                table.text()
            });
        }
        MonitorCommand::Create {
            r#type,
            description,
            path,
            port,
            interval,
            timeout,
            retries,
            expected_codes,
            expected_body,
        } => {
            let body = json!({
                "type": word(r#type), "description": description, "path": path, "port": port,
                "interval": interval, "timeout": timeout, "retries": retries,
                "expected_codes": expected_codes, "expected_body": expected_body,
            });
            let made = caller.call("making the monitor", Method::POST, None, "/monitors", Some(body)).await?;
            print(text(&made, "id"));
        }
        MonitorCommand::Delete { id } => {
            let rest = format!("/monitors/{id}");
            caller.call("deleting the monitor", Method::DELETE, None, &rest, None).await?;
            print(&format!("{id} is gone"));
        }
    }
    Ok(())
}

fn status_table(status: &Value) -> String {
    let off = if status["enabled"] == true { "" } else { ", disabled: its name is left to a route" };
    let mut lines = format!("{}{off}, changed by {}\n", text(status, "name"), text(status, "modified_by"));
    let mut table = Table::new(&[
        "POOL",
        "ENDPOINT",
        "HEALTH",
        "OPEN",
        "LAST MINUTE",
        "SHARE",
        "BY WEIGHT",
        "CHANGED BY",
    ]);
    for pool in status["pools"].as_array().into_iter().flatten() {
        let role = if pool["fallback"] == true { " (fallback)" } else { "" };
        let serves = match (pool["enabled"] == true, pool["may_serve"] == true) {
            (false, _) => ", disabled",
            (true, false) => ", too few are up",
            (true, true) => "",
        };
        table.row([
            format!("{}{role}{serves}", text(pool, "name")),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            text(pool, "modified_by").to_owned(),
        ]);
        for endpoint in pool["endpoints"].as_array().into_iter().flatten() {
            table.row([
                String::new(),
                label(endpoint).to_owned(),
                endpoint["failure_reason"].as_str().unwrap_or("up").to_owned(),
                endpoint["requests_open"].to_string(),
                endpoint["requests_last_minute"].to_string(),
                percent(&endpoint["share_last_minute"]),
                percent(&endpoint["share_by_weight"]),
            ]);
        }
    }
    lines.push_str(&table.text());
    lines
}

/// As people know an endpoint.
fn label(endpoint: &Value) -> &str {
    let name = endpoint["tunnel_name"].as_str().unwrap_or_else(|| text(endpoint, "name"));
    if name.is_empty() { text(endpoint, "address") } else { name }
}

fn percent(share: &Value) -> String {
    share.as_f64().map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

fn yes(flag: &Value) -> String {
    if flag == true { "yes" } else { "no" }.to_owned()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// Two spellings of the name of one tunnel: its id stands first.
fn same_tunnel(one: &Value, other: &Value) -> bool {
    let id = |endpoint: &Value| {
        text(endpoint, "address").split('.').next().unwrap_or_default().to_ascii_lowercase()
    };
    id(one) == id(other)
}

/// As the API writes it.
fn word(value: impl ValueEnum) -> String {
    let name = value.to_possible_value().map(|value| value.get_name().replace('-', "_"));
    name.unwrap_or_default()
}

/// Before which every edge knows its tunnels by their ids.
const DOMAIN: &str = "cfargotunnel.com";
