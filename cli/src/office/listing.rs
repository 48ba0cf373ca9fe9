//! `adit edge accounts` and `records`: who has what, and which names lead where.

use clap::Subcommand;
use serde_json::json;

use super::{At, Shown};
use crate::Failure;
use crate::table::{Table, show};

#[derive(Subcommand)]
pub(crate) enum Accounts {
    /// List accounts with their zones
    List {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        shown: Shown,
    },
    /// Make one more account; `add-zone` gives it its domains
    Create {
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        shown: Shown,
    },
}

#[derive(Subcommand)]
pub(crate) enum Records {
    /// List the names that lead to tunnels
    List {
        /// Of this zone alone
        #[arg(long, value_name = "DOMAIN")]
        zone: Option<String>,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        shown: Shown,
    },
    /// Let a name lead nowhere any more
    Delete {
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        shown: Shown,
    },
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn accounts(accounts: Accounts) -> Result<(), Failure> {
    match accounts {
        Accounts::List { at, shown } => {
            let accounts = at.ledger()?.accounts().await?;
            let lines = accounts.iter().map(|account| {
                json!({
                    "id": account.id,
                    "name": account.name,
                    "zones": account.zones,
                    "tunnels": account.tunnels,
                    "created_at": account.created_at,
                })
            });
            show(shown.form, &lines.collect(), || {
                let mut table = Table::new(&["ID", "NAME", "ZONES", "TUNNELS", "CREATED"]);
                for account in &accounts {
                    table.row([
                        account.id.clone(),
                        account.name.clone(),
                        account.zones.join(", "),
                        account.tunnels.to_string(),
                        account.created_at.clone(),
                    ]);
                }
                table.text()
            });
        }
        Accounts::Create { name, at, shown } => {
            let id = at.ledger()?.create_account(&name).await?;
            show(shown.form, &json!({ "id": id, "name": name }), || {
                format!("account {name} has the id {id}")
            });
        }
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn records(records: Records) -> Result<(), Failure> {
    match records {
        Records::List { zone, at, shown } => {
            let records = at.ledger()?.records(zone.as_deref()).await?;
            let lines = records.iter().map(|record| {
                json!({
                    "id": record.id,
                    "name": record.name,
                    "zone": record.zone,
                    "account": record.account,
                    "tunnel_id": record.tunnel,
                    "tunnel_name": record.tunnel_name,
                    "comment": record.comment,
                    "created_at": record.created_at,
                    "modified_at": record.modified_at,
                })
            });
            show(shown.form, &lines.collect(), || {
                let mut table = Table::new(&["NAME", "TUNNEL", "TUNNEL ID", "ZONE", "CREATED", "COMMENT"]);
                for record in &records {
                    table.row([
                        record.name.clone(),
                        record.tunnel_name.clone(),
                        record.tunnel.to_string(),
                        record.zone.clone(),
                        record.created_at.clone(),
                        record.comment.clone().unwrap_or_default(),
                    ]);
                }
                table.text()
            });
        }
        Records::Delete { name, at, shown } => {
            at.ledger()?.delete_record(&name).await?;
            shown.done(&json!({ "name": name }));
        }
    }
    Ok(())
}
