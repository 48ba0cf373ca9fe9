//! Giving a configuration to replicas: over one of their connections each, whichever transport it has
//! (wire.md, 9.1).

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_protocol::rpc::{Configuration, ConfigurationAnswer};
use adit_protocol::stream::RPC_SIGNATURE;
use anyhow::Context;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::{info, warn};
use uuid::Uuid;

use super::control::Control;
use crate::registry::{Connection, Tunnel};
use crate::remote_config::{DesiredConfig, RemoteConfigs};
use crate::transport::connection::{ControlStream, Transport};

/// How long a replica may take: it may have a component to compile.
const LIMIT: Duration = Duration::from_secs(60);

/// Gives what the tunnel wants to every replica that is connected, and notes the verdicts.
pub(crate) async fn to_all(fleet: &Arc<RemoteConfigs>, id: Uuid, tunnel: &Tunnel, control: &Control) {
    let Some(wanted) = fleet.wanted(&id) else { return };
    let connections = tunnel.connections();
    let mut pushes = tokio::task::JoinSet::new();
    for connector in connectors(&connections) {
        let lives: Vec<Arc<Connection>> =
            connections.iter().filter(|live| live.connector == connector).cloned().collect();
        let (fleet, wanted, control) = (fleet.clone(), wanted.clone(), control.clone());
        pushes.spawn(async move { to_one(&fleet, &id, &lives, &wanted, &control).await });
    }
    while pushes.join_next().await.is_some() {}
}

/// Gives it to the replica of a connection that has just registered, unless it was told before.
pub(crate) async fn to_newcomer(fleet: &RemoteConfigs, id: &Uuid, live: &Arc<Connection>, control: &Control) {
    let Some(wanted) = fleet.wanted(id) else { return };
    if !fleet.is_told(id, &live.connector, wanted.version) {
        to_one(fleet, id, std::slice::from_ref(live), &wanted, control).await;
    }
}

/// The replicas that have a connection which serves.
pub(crate) fn connectors(connections: &[Arc<Connection>]) -> Vec<Uuid> {
    let mut connectors: Vec<Uuid> =
        connections.iter().filter(|live| live.is_serving()).map(|live| live.connector).collect();
    connectors.sort_unstable();
    connectors.dedup();
    connectors
}

/// Tries the connections of one replica in turn.
async fn to_one(
    fleet: &RemoteConfigs,
    id: &Uuid,
    lives: &[Arc<Connection>],
    wanted: &DesiredConfig,
    control: &Control,
) {
    let mut failure = "it has no connection that serves".to_owned();
    let begun = Instant::now();
    for live in lives.iter().filter(|live| live.is_serving()) {
        match timeout(LIMIT, push(&live.link, wanted, control)).await {
            Ok(Ok(ConfigurationAnswer { latest_applied_version: version, error })) => {
                let connector = live.connector;
                match &error {
                    None => info!(%connector, pushed = wanted.version, version, "configuration taken"),
                    Some(warning) if version == wanted.version => {
                        warn!(%connector, pushed = wanted.version, warning, "configuration taken, but for a part");
                    }
                    Some(error) => {
                        warn!(%connector, pushed = wanted.version, version, error, "configuration refused");
                    }
                }
                return fleet.note(id, connector, wanted.version, begun.elapsed(), Ok((version, error)));
            }
            Ok(Err(error)) => failure = format!("{error:#}"),
            Err(_) => failure = format!("no verdict within {} s", LIMIT.as_secs()),
        }
    }
    if let Some(live) = lives.first() {
        warn!(connector = %live.connector, pushed = wanted.version, error = failure, "configuration not delivered");
        fleet.note(id, live.connector, wanted.version, begun.elapsed(), Err(failure));
    }
}

async fn push(
    link: &Transport,
    wanted: &DesiredConfig,
    control: &Control,
) -> anyhow::Result<ConfigurationAnswer> {
    match link {
        Transport::Quic(connection) => {
            let (mut send, recv) = connection.open_bi().await?;
            send.write_all(&RPC_SIGNATURE).await?;
            let stream = ControlStream { read: Box::new(recv), write: Box::new(send) };
            let configuration = Configuration { version: wanted.version, config: wanted.config.to_vec() };
            control.push(stream, configuration).await
        }
        Transport::Http2(link) => {
            let config: Value = serde_json::from_slice(&wanted.config)?;
            let body = json!({ "version": wanted.version, "config": config }).to_string();
            let answer = link.update_configuration(body.into()).await?;
            read_answer(&answer)
        }
        // The node that a host is connected to gives it its configuration.
        Transport::Peer(_) => anyhow::bail!("the host is connected to another node"),
    }
}

/// The reference writes `{}` where it means the text of an error (wire.md, section 6).
fn read_answer(answer: &Bytes) -> anyhow::Result<ConfigurationAnswer> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Said {
        last_applied_version: i32,
        err: Option<Value>,
    }
    let Said { last_applied_version, err } =
        serde_json::from_slice(answer).context("the verdict cannot be read")?;
    let unsaid = "refused; the replica's own log says why";
    let error = err.map(|error| error.as_str().unwrap_or(unsaid).to_owned());
    Ok(ConfigurationAnswer { latest_applied_version: last_applied_version, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_verdict_are_read() {
        for (text, version, refused) in [
            (r#"{"lastAppliedVersion":2,"err":null}"#, 2, None),
            (r#"{"lastAppliedVersion":2}"#, 2, None),
            (r#"{"lastAppliedVersion":-1,"err":{}}"#, -1, Some("log")),
            (r#"{"lastAppliedVersion":1,"err":"no such plugin"}"#, 1, Some("no such plugin")),
        ] {
            let answer = read_answer(&Bytes::from_static(text.as_bytes())).unwrap();
            assert_eq!(answer.latest_applied_version, version, "{text}");
            assert_eq!(answer.error.is_some(), refused.is_some(), "{text}");
            assert!(answer.error.unwrap_or_default().contains(refused.unwrap_or_default()), "{text}");
        }
        assert!(read_answer(&Bytes::from_static(b"{")).is_err());
    }
}
