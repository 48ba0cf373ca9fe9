//! `/diag/…`: what `cloudflared tunnel diag` and scripts ask a running connector, in the reference's form. Nothing in it is secret.

use adit_metrics::process;
use serde_json::{Map, Value, json};

use super::Admin;
use crate::config::settings::Settings;

/// The page of a path, if it is one of these.
pub(super) fn page(admin: &Admin, path: &str) -> Option<Value> {
    Some(match path {
        "/diag/tunnel" => tunnel(admin),
        "/diag/system" => system(admin),
        "/diag/configuration" => admin.configuration.clone(),
        _ => return None,
    })
}

fn tunnel(admin: &Admin) -> Value {
    let shared = &admin.health.shared;
    let connections: Vec<Value> = shared
        .status
        .slots()
        .iter()
        .map(|slot| {
            let mut connection = Map::new();
            // As the reference writes it: zero and absent are the same.
            if slot.location.is_some() {
                connection.insert("isConnected".to_owned(), json!(true));
            }
            if slot.protocol == Some("quic") {
                connection.insert("protocol".to_owned(), json!(1));
            }
            if let Some(edge) = slot.edge {
                connection.insert("edgeAddress".to_owned(), json!(edge.ip()));
            }
            if slot.index > 0 {
                connection.insert("index".to_owned(), json!(slot.index));
            }
            Value::Object(connection)
        })
        .collect();
    json!({
        "tunnelID": shared.identity.credentials.tunnel_id,
        "connectorID": shared.identity.connector,
        "connections": connections,
        "icmp_sources": [],
    })
}

fn system(admin: &Admin) -> Value {
    let figures = process::figures();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    // Kibibytes, as the file has them and the reference hands them on.
    let memory = |name: &str| -> u64 {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    };
    json!({
        "info": {
            "memoryMaximum": memory("MemTotal"),
            "memoryCurrent": memory("MemTotal").saturating_sub(memory("MemAvailable")),
            "fileDescriptorMaximum": figures.most_files,
            "fileDescriptorCurrent": figures.files,
            "osSystem": std::env::consts::OS,
            "hostName": process::text("/proc/sys/kernel/hostname"),
            "osVersion": process::text("/proc/sys/kernel/version"),
            "osRelease": process::text("/proc/sys/kernel/osrelease"),
            "architecture": std::env::consts::ARCH,
            "cloudflaredVersion": admin.health.shared.identity.version,
            "processMemory": figures.resident,
        },
        "errors": [],
    })
}

/// What a process with these settings was started with.
pub fn configuration(settings: &Settings) -> Value {
    json!({
        "protocol": format!("{:?}", settings.protocol).to_lowercase(),
        "ha-connections": settings.connections.to_string(),
        "grace-period": humantime::format_duration(settings.grace_period).to_string(),
        "metrics": settings.admin.to_string(),
        "shards": settings.shards.to_string(),
        "config-source": format!("{:?}", settings.config_source).to_lowercase(),
        "label": settings.flags.label.as_deref().unwrap_or_default(),
    })
}
