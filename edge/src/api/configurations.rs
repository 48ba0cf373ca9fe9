//! The rules of a tunnel as the API keeps them: checked, with a version that only grows. Knows the form of
//! rules (wire.md 9.2); applying them is for hosts, whose verdicts it shows.

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::envelope::{self, Answer, Problem};
use super::identity::Identity;
use super::{Api, note};
use crate::state::snapshot::Kept;
use crate::store::Transaction;
use crate::store::records::{Configuration, Tunnel, key, to_json};
use crate::store::timestamp::Timestamp;
use crate::tunnel::push;

#[derive(Deserialize)]
pub(super) struct PutConfiguration {
    config: Value,
}

impl Api {
    pub(super) fn configuration(&self, id: Uuid, tunnel: &Tunnel) -> Answer {
        let kept = self.state.read(|snapshot| snapshot.configurations.get(&id).cloned());
        let mut view = view(id, tunnel, kept.map(|kept| kept.record).as_ref());
        let connected = self.registry.tunnel(&id).map(|tunnel| push::connectors(&tunnel.connections()));
        view["replicas"] = json!(self.registry.fleet.replicas(&id, &connected.unwrap_or_default()));
        envelope::success(view)
    }

    pub(super) async fn put_configuration(
        &self,
        who: &Identity,
        id: Uuid,
        tunnel: Kept<Tunnel>,
        wanted: PutConfiguration,
    ) -> Result<Answer, Problem> {
        check(&wanted.config).await?;
        let (key, before) =
            (key::configuration(id), self.state.read(|snapshot| snapshot.configurations.get(&id).cloned()));
        let Kept { record: mut tunnel, revision, bytes: _ } = tunnel;
        let mut transaction =
            Transaction::new(note(who, "configuration.put", id)).if_at(key::tunnel(id), revision);
        transaction = match &before {
            Some(before) => transaction.if_at(&key, before.revision),
            None => transaction.if_absent(&key),
        };
        let (last, bytes) = before.map_or((0, 0), |before| (before.record.version, before.bytes));
        let version = last.saturating_add(1);
        let configuration = Configuration { version, config: wanted.config, created_at: Timestamp::now() };
        tunnel.remote = true;
        let json = to_json(&configuration);
        self.state.read(|snapshot| self.share.bytes(snapshot, &tunnel.account, bytes, json.len()))?;
        let transaction = transaction.put(key, json).put(key::tunnel(id), to_json(&tunnel));
        self.change(transaction, |_| Problem::ChangedMeanwhile).await?;
        Ok(envelope::success(view(id, &tunnel, Some(&configuration))))
    }
}

fn view(id: Uuid, tunnel: &Tunnel, configuration: Option<&Configuration>) -> Value {
    json!({
        "account_id": tunnel.account,
        "tunnel_id": id,
        "version": configuration.map_or(0, |configuration| configuration.version),
        "config": configuration.map(|configuration| &configuration.config),
        "source": if tunnel.remote { "cloudflare" } else { "local" },
        "created_at": configuration.map_or(tunnel.created_at, |configuration| configuration.created_at),
    })
}

/// What every host would refuse is not kept; read with the code that hosts read it with, beside what serves.
async fn check(config: &Value) -> Result<(), Problem> {
    let json = config.to_string();
    let checked = tokio::task::spawn_blocking(move || adit_rules::remote::check(json.as_bytes()));
    match checked.await {
        Ok(outcome) => outcome.map_err(Problem::Refused),
        Err(_) => Err(Problem::Unavailable),
    }
}
