//! `adit lb`: host names with pools behind them.

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::{Map, Value, json};

use super::{At, Caller, label, text, word, yes};
use crate::Failure;
use crate::table::{Table, print, show};
use crate::tunnel::Output;

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

fn percent(share: &Value) -> String {
    share.as_f64().map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}
