//! `adit dashboard`: where a browser is shown what a host does, and a code to sign in with.
//!
//! Prints and opens nothing: a browser is given its address in its arguments, which everybody on the machine can
//! read, and the code is in it.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde_json::json;

use crate::Failure;
use crate::admin::Admin;
use crate::table::print;

#[derive(Args)]
pub(crate) struct Dashboard {
    #[command(flatten)]
    admin: Admin,
    /// Keep the requests of the next while, so that the pages have something to show: `10m`, at most a day
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    watch: Option<Duration>,
    /// With --watch: keep the beginnings of bodies too, 64 KiB each way
    #[arg(long, requires = "watch")]
    bodies: bool,
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(asked: &Dashboard) -> Result<(), Failure> {
    if let Some(period) = asked.watch {
        watch(&asked.admin, period, asked.bodies).await?;
    }
    let url = sign_in(&asked.admin).await?;
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
