//! `adit dashboard`: where a browser is shown what a host or an edge does, and a code to sign in with.
//!
//! Prints and opens nothing: a browser is given its address in its arguments, which everybody on the machine can
//! read, and the code is in it.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde_json::json;

use crate::Failure;
use crate::admin::Admin;
use crate::table::print;

#[derive(Args)]
pub(crate) struct Dashboard {
    /// Of an edge, instead of a host
    #[arg(long)]
    edge: bool,
    /// Where the admin API listens, as `[admin] listen` in the configuration; otherwise ADIT_ADMIN or 127.0.0.1:20241,
    /// for an edge ADIT_EDGE_ADMIN or 127.0.0.1:20240
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// The file with the token that it wants, as `[admin] token-file`; otherwise ADIT_ADMIN_TOKEN_FILE, for an edge
    /// ADIT_EDGE_ADMIN_TOKEN_FILE
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Keep the requests of the next while, so that the pages have something to show: `10m`, at most a day
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with = "edge")]
    watch: Option<Duration>,
    /// With --watch: keep the beginnings of bodies too, 64 KiB each way
    #[arg(long, requires = "watch")]
    bodies: bool,
}

impl Dashboard {
    fn whom(&self) -> Admin {
        let named = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let (address, usual, file) = match self.edge {
            true => ("ADIT_EDGE_ADMIN", "127.0.0.1:20240", "ADIT_EDGE_ADMIN_TOKEN_FILE"),
            false => ("ADIT_ADMIN", "127.0.0.1:20241", "ADIT_ADMIN_TOKEN_FILE"),
        };
        let said = self.admin.clone().or_else(|| named(address)?.into_string().ok());
        let admin = said.unwrap_or_else(|| usual.to_owned());
        let file = self.admin_token_file.clone().or_else(|| named(file).map(PathBuf::from));
        if self.edge { Admin::of_edge(admin, file) } else { Admin::of_host(admin, file) }
    }
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(asked: &Dashboard) -> Result<(), Failure> {
    let admin = asked.whom();
    if let Some(period) = asked.watch {
        watch(&admin, period, asked.bodies).await?;
    }
    let url = sign_in(&admin).await?;
    print(&format!(
        "{url}\n\nGood once, for ten minutes. Without a script in the browser: what is behind the # is the code."
    ));
    Ok(())
}

/// Has a host keep requests for a while.
pub(crate) async fn watch(admin: &Admin, period: Duration, with_bodies: bool) -> anyhow::Result<()> {
    let bodies = if with_bodies { BODIES } else { 0 };
    let wanted = json!({ "for": humantime::format_duration(period).to_string(), "bodies": bodies });
    admin.ask("PUT", "/inspector", None, wanted.to_string().into()).await?.page()?;
    Ok(())
}

/// The address of the pages with a code, for one sign-in.
pub(crate) async fn sign_in(admin: &Admin) -> anyhow::Result<String> {
    let page = admin.ask("POST", "/ui/code", None, Bytes::new()).await?.page()?;
    let text = |key: &str| page[key].as_str().unwrap_or_default();
    Ok(format!("{}#{}", text("url"), text("code")))
}

/// Kept of each body, bytes.
const BODIES: usize = 64 << 10;
