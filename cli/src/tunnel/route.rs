//! `adit tunnel route`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::Options;
use super::client::Client;
use crate::Failure;
use crate::table::print;

#[derive(Subcommand)]
pub(super) enum Route {
    /// Lead a host name to a tunnel
    Dns(Dns),
    /// Put a tunnel behind a load balancer
    Lb(Lb),
}

#[derive(Args)]
pub(super) struct Dns {
    /// Its id or its name
    pub(super) tunnel: String,
    /// A name in one of the account's zones, such as app.example.com or *.example.com
    pub(super) hostname: String,
    /// Although it leads elsewhere now
    #[arg(long, short = 'f', env = "TUNNEL_FORCE_PROVISIONING_DNS")]
    pub(super) overwrite_dns: bool,
}

#[derive(Args)]
pub(super) struct Lb {
    /// Its id or its name
    tunnel: String,
    /// The load balancer's name in one of the account's zones, such as app.example.com; made if there is none
    hostname: String,
    /// The name of a pool; made if there is none
    pool: String,
}

#[tokio::main(flavor = "current_thread")]
pub(super) async fn route(route: Route, options: &Options) -> Result<(), Failure> {
    let client = Client::new(options).map_err(Failure::Configuration)?;
    match route {
        Route::Dns(dns) => {
            let id = client.find(&dns.tunnel).await?;
            let overwrite = dns.overwrite_dns;
            let body =
                json!({ "type": "dns", "user_hostname": dns.hostname, "overwrite_existing": overwrite });
            let done = client.route(id, &body).await?;
            let name = done["name"].as_str().unwrap_or(&dns.hostname).to_owned();
            print(&match done["cname"].as_str() {
                Some("new") => format!("{name} now leads to tunnel {id}"),
                Some("updated") => format!("{name} now leads to tunnel {id} instead of another"),
                _ => format!("{name} leads to tunnel {id} already"),
            });
        }
        Route::Lb(lb) => {
            let id = client.find(&lb.tunnel).await?;
            let body = json!({ "type": "lb", "lb_name": lb.hostname, "lb_pool": lb.pool });
            let done = client.route(id, &body).await?;
            let became = |name: &str| done[name].as_str().unwrap_or_default().to_owned();
            print(&format!(
                "{} has tunnel {id} behind it: load balancer {}, pool {} {}",
                lb.hostname,
                became("load_balancer"),
                lb.pool,
                became("pool"),
            ));
        }
    }
    Ok(())
}
