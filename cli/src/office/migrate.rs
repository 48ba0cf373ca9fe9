//! `adit edge migrate`: the state from its file to etcd, and back.

use adit_edge::{MigrateTo, Migrated, Settings};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::{At, Shown};
use crate::Failure;
use crate::table::show;

#[derive(Args)]
pub(crate) struct Migrate {
    /// Where the records go; the other place must hold none but the same, and what is moved stays where it was
    #[arg(long, value_name = "PLACE", value_enum)]
    to: Place,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Clone, Copy, ValueEnum)]
enum Place {
    /// Where `[store]` says
    Etcd,
    /// state.db in the data folder
    Sqlite,
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn migrate(migrate: Migrate) -> Result<(), Failure> {
    let Migrate { to, at, shown } = migrate;
    let settings = Settings::load(&at.config).map_err(|error| Failure::Configuration(error.into()))?;
    let (to, next) = match to {
        Place::Etcd => {
            (MigrateTo::Etcd, "adit edge run serves by it; the file stays and is not read any more")
        }
        Place::Sqlite => {
            (MigrateTo::Sqlite, "take [store] out of the configuration; etcd's records stay there")
        }
    };
    let Migrated { records, bytes, sha256, from, to } = Migrated::migrate(&settings, to).await?;
    let moved = json!({ "records": records, "bytes": bytes, "sha256": sha256, "from": from, "to": to });
    show(shown.form, &moved, || {
        format!(
            "from     {from}\nto       {to}\nrecords  {records} ({bytes} bytes)\nsha256   {sha256}, read back from both\n\nNext: {next}"
        )
    });
    Ok(())
}
