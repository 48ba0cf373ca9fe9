//! `adit edge init`, `token`, `accounts`, `add-zone`, `records`, `backup` and `audit`: an edge's state, on the spot;
//! and `invite`, `join`, `drain`, `leave` and `nodes`: the fleet that shares it.

mod listing;
mod migrate;
mod nodes;
mod store;

use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_edge::{Provisioning, Settings, TokenRequest};
use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Failure;
use crate::table::{Form, Table, show};
use crate::tunnel::places;

pub(crate) use listing::{Accounts, Records, accounts, records};
pub(crate) use migrate::{Migrate, migrate};
pub(crate) use nodes::{Drain, Invite, Join, Leave, drain, invite, join, leave, rotate_authority};

#[derive(Args)]
pub(crate) struct Init {
    /// A domain whose names may lead to tunnels; once for each
    #[arg(long = "zone", value_name = "DOMAIN", required = true)]
    zones: Vec<String>,
    /// What the account is called that the tunnels belong to
    #[arg(long, value_name = "NAME", default_value = "main")]
    account: String,
    /// The edge's configuration; written if it is not there yet
    #[arg(long, value_name = "FILE", default_value = "edge.toml")]
    config: PathBuf,
    /// Where that configuration, if it is written, keeps the edge's state; of the unit for systemd that is
    /// /var/lib/adit-edge
    #[arg(long, value_name = "FOLDER", default_value = "edge-data")]
    data_dir: PathBuf,
    /// Have every name that leads to a tunnel certified by Let's Encrypt, which may write to this address; the
    /// configuration that is written then listens beyond this machine
    #[arg(long, value_name = "EMAIL")]
    acme: Option<String>,
    #[command(flatten)]
    store: store::StoreFlags,
    /// Where cert.pem goes, which is what creates tunnels and names; never overwritten
    #[arg(long, value_name = "FILE", default_value = "cert.pem")]
    cert: PathBuf,
    /// Change nothing and succeed if that file is there already, so that the command may run before each start
    #[arg(long)]
    if_missing: bool,
    #[command(flatten)]
    shown: Shown,
}

/// How what was done is shown.
#[derive(Args)]
pub(crate) struct Shown {
    /// In which form
    #[arg(long = "output", short = 'o', value_name = "FORM", value_enum, default_value_t)]
    pub(crate) form: Form,
}

#[derive(Subcommand)]
pub(crate) enum Token {
    /// Make an API token; it is printed once and kept nowhere
    Create(CreateToken),
    /// List API tokens, without their secrets
    List {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        shown: Shown,
    },
    /// End an API token
    Revoke {
        /// As `list` shows it
        id: String,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        shown: Shown,
    },
}

#[derive(Args)]
pub(crate) struct CreateToken {
    #[command(flatten)]
    at: At,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "")]
    name: String,
    /// Of this account, if there are several
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Only for the names in this zone
    #[arg(long = "zone", value_name = "DOMAIN")]
    zones: Vec<String>,
    /// Only for this tunnel
    #[arg(long = "tunnel", value_name = "ID", conflicts_with = "zones")]
    tunnels: Vec<Uuid>,
    /// Changes nothing and sees no secret
    #[arg(long)]
    read_only: bool,
    /// How long it works, such as 30d
    #[arg(long, value_name = "TIME", value_parser = span)]
    valid_for: Option<Duration>,
    #[command(flatten)]
    shown: Shown,
}

/// Which edge.
#[derive(Args)]
pub(crate) struct At {
    /// The edge's configuration
    #[arg(long, value_name = "FILE", default_value = "edge.toml")]
    config: PathBuf,
}

impl At {
    fn settings(&self) -> Result<Settings, Failure> {
        Settings::load(&self.config).map_err(|error| Failure::Configuration(error.into()))
    }

    fn ledger(&self) -> Result<Provisioning, Failure> {
        Ok(Provisioning::open(&self.settings()?)?)
    }
}

impl Shown {
    /// What people need not be told.
    fn done(&self, value: &Value) {
        if self.form != Form::Table {
            show(self.form, value, String::new);
        }
    }
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn init(init: Init) -> Result<(), Failure> {
    if init.cert.exists() {
        if init.if_missing {
            let cert = init.cert.display().to_string();
            let text = format!("{cert} is there already; nothing was changed");
            show(init.shown.form, &json!({ "certificate": cert, "changed": false }), || text);
            return Ok(());
        }
        let message = format!(
            "{} is there already; move it away, name another with --cert, or give --if-missing",
            init.cert.display()
        );
        return Err(anyhow!(message).into());
    }
    let zone = init.zones.first().context("a zone")?.trim_end_matches('.').to_ascii_lowercase();
    let is_new = !init.config.exists();
    if !is_new && init.acme.is_some() {
        let message =
            format!("{} is there already and is not changed; add [acme] to it", init.config.display());
        return Err(anyhow!(message).into());
    }
    if !is_new && init.store.is_given() {
        let message =
            format!("{} is there already and is not changed; add [store] to it", init.config.display());
        return Err(anyhow!(message).into());
    }
    if is_new {
        let text = document(&zone, &init.data_dir, init.acme.as_deref());
        std::fs::write(&init.config, text + &init.store.section())
            .with_context(|| format!("writing {}", init.config.display()))?;
    }
    let settings = Settings::load(&init.config).map_err(|error| {
        // What was said is wrong: the next attempt begins as this one did.
        if is_new {
            let _ = std::fs::remove_file(&init.config);
        }
        Failure::Configuration(error.into())
    })?;
    settings.make_seal()?;
    let (ledger, founding) = Provisioning::found_for(&settings, &init.account, &init.zones).await?;
    let (_, zone_id) = founding.zones.first().context("a zone")?;
    let wish = TokenRequest {
        name: "made by adit edge init".to_owned(),
        account: Some(founding.account.clone()),
        ..TokenRequest::default()
    };
    let cert = ledger.create_certificate(wish, zone_id).await?;
    places::write_secret(&init.cert, &cert.to_pem(), 0o600)
        .with_context(|| format!("writing {}", init.cert.display()))?;
    let (config, pem) = (init.config.display(), init.cert.display());
    let state = if is_new { "written" } else { "was there" };
    let zones: Vec<_> = founding.zones.iter().map(|(name, _)| name.as_str()).collect();
    let ca = founding.ca.display();
    let zone = |(name, id): &(String, String)| json!({ "name": name, "id": id });
    let made = json!({
        "changed": true,
        "account": founding.account,
        "zones": founding.zones.iter().map(zone).collect::<Vec<_>>(),
        "configuration": config.to_string(),
        "authority": ca.to_string(),
        "certificate": pem.to_string(),
        "node": founding.node,
    });
    let node = founding.node.as_ref().map_or(String::new(), |node| format!("\nnode           {node}"));
    show(init.shown.form, &made, || {
        format!(
            "account        {}\nzones          {}{node}\nconfiguration  {config} ({state})\nauthority      {ca}\ncertificate    {pem}: keep it secret, it creates tunnels and names\n\nNext: adit edge run --config {config}",
            founding.account,
            zones.join(", "),
        )
    });
    Ok(())
}

/// An edge to start from: on this machine alone, or with an authority for all who can reach it.
fn document(zone: &str, data_dir: &Path, acme: Option<&str>) -> String {
    let (host, visitors, acme) = match acme {
        None => ("127.0.0.1", "http = \"127.0.0.1:8080\"".to_owned(), String::new()),
        Some(email) => (
            "0.0.0.0",
            "http = \"0.0.0.0:80\"\nhttps = \"0.0.0.0:443\"".to_owned(),
            format!("\n[acme]\nemail = {}\n", json!(email)),
        ),
    };
    let mut text = format!(
        "# Made by `adit edge init`. Everything that can be written here: docs/configuration.md\n\n\
         data-dir = {}\n\n[visitors]\n{visitors}\n{acme}\n\
         [api]\nlisten = \"127.0.0.1:20250\"\ntunnel-domain = \"tunnels.{zone}\"\nquick-domain = \"try.{zone}\"\n\n\
         [admin]\nlisten = \"127.0.0.1:20240\"\n",
        // A JSON string is a TOML string.
        json!(data_dir)
    );
    for (region, port) in [("west", 7841), ("east", 7842), ("west", 7843), ("east", 7844)] {
        text.push_str(&format!("\n[[server]]\nregion = \"{region}\"\nlisten = \"{host}:{port}\"\n"));
    }
    text
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn token(token: Token) -> Result<(), Failure> {
    match token {
        Token::Create(create) => {
            let ledger = create.at.ledger()?;
            let wish = TokenRequest {
                name: create.name,
                account: create.account,
                zones: create.zones,
                tunnels: create.tunnels,
                read_only: create.read_only,
                valid_for: create.valid_for,
            };
            let (id, text) = ledger.create_token(wish).await?;
            let text = text.as_str();
            show(create.shown.form, &json!({ "id": id, "token": text }), || text.to_owned());
        }
        Token::List { at, shown: Shown { form } } => {
            let tokens = at.ledger()?.tokens().await?;
            let lines = tokens.iter().map(|token| {
                json!({
                    "id": token.id,
                    "name": token.name,
                    "account": token.account,
                    "scope": token.scope,
                    "created_at": token.created_at,
                    "expires_at": token.expires_at,
                    "status": token.status,
                })
            });
            show(form, &lines.collect(), || {
                let mut table = Table::new(&["ID", "NAME", "SCOPE", "STATUS", "CREATED", "EXPIRES"]);
                for token in &tokens {
                    table.row([
                        token.id.clone(),
                        token.name.clone(),
                        token.scope.clone(),
                        token.status.to_owned(),
                        token.created_at.clone(),
                        token.expires_at.clone().unwrap_or_default(),
                    ]);
                }
                table.text()
            });
        }
        Token::Revoke { id, at, shown } => {
            at.ledger()?.revoke_token(&id).await?;
            shown.done(&json!({ "id": id, "status": "revoked" }));
        }
    }
    Ok(())
}

/// Gives the account one more zone.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn add_zone(
    at: &At,
    account: Option<&str>,
    name: &str,
    shown: &Shown,
) -> Result<(), Failure> {
    let ledger = at.ledger()?;
    let account = ledger.account(account).await?;
    let (name, id) = ledger.add_zone(&account, name).await?;
    let made = json!({ "id": id, "name": name, "account": account });
    show(shown.form, &made, || format!("{name} is a zone of account {account}, with id {id}"));
    Ok(())
}

/// Copies the state while the edge runs.
pub(crate) fn backup(at: &At, to: &Path, shown: &Shown) -> Result<(), Failure> {
    at.ledger()?.backup(to)?;
    let file = to.display().to_string();
    show(shown.form, &json!({ "file": file }), || {
        format!("The state is in {file}; it holds the tunnels' secrets.")
    });
    Ok(())
}

/// Who changed what.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn audit(at: &At, count: u32, shown: &Shown) -> Result<(), Failure> {
    let lines = at.ledger()?.audit(count).await?;
    let listed = lines.iter().map(|line| {
        json!({ "revision": line.revision, "at": line.at, "actor": line.actor, "action": line.action, "subject": line.subject })
    });
    show(shown.form, &listed.collect(), || {
        let mut table = Table::new(&["REVISION", "TIME", "WHO", "WHAT", "ON"]);
        for line in &lines {
            table.row([
                line.revision.to_string(),
                line.at.clone(),
                line.actor.clone(),
                line.action.clone(),
                line.subject.clone(),
            ]);
        }
        table.text()
    });
    Ok(())
}

/// A number with its unit: s, m, h or d.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number with its unit: 90s, 15m, 12h or 30d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}
