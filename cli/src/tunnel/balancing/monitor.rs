//! `adit monitor`: how the health of endpoints is asked for.

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::json;

use super::{At, Caller, text, word};
use crate::Failure;
use crate::table::{Table, print, show};
use crate::tunnel::Output;

/// A monitor says how the health of endpoints is asked for; `adit pool set POOL --monitor ID` has a pool use it.
#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Monitor {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    command: MonitorCommand,
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
