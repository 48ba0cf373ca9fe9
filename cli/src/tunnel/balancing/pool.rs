//! `adit pool`: tunnels that serve together.

use anyhow::anyhow;
use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::{Map, Value, json};

use super::{At, Caller, label, text, word, yes};
use crate::Failure;
use crate::table::{Table, print, show};
use crate::tunnel::Output;

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

/// Two spellings of the name of one tunnel: its id stands first.
fn same_tunnel(one: &Value, other: &Value) -> bool {
    let id = |endpoint: &Value| {
        text(endpoint, "address").split('.').next().unwrap_or_default().to_ascii_lowercase()
    };
    id(one) == id(other)
}
