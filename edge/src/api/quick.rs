//! Tunnels for everybody: made without a token, under a name that is drawn, gone soon after nobody uses
//! them. Knows how they are made; `housekeeping` removes them.

use std::net::IpAddr;

use serde_json::json;
use tracing::info;
use uuid::Uuid;

use super::Api;
use super::envelope::{self, Answer, Problem};
use super::tunnels::random_secret;
use crate::store::records::{Route, Tunnel, key, to_json};
use crate::store::timestamp::Timestamp;
use crate::store::{AuditEntry, Transaction};

/// The account of all quick tunnels. No token is of it.
pub(super) const QUICK: &str = "quick";

impl Api {
    pub(super) async fn create_quick_tunnel(&self, peer: IpAddr) -> Result<Answer, Problem> {
        let domain = self
            .quick_domain
            .as_ref()
            .ok_or(Problem::Later("quick tunnels without `quick-domain` in its configuration"))?;
        let count = self
            .state
            .read(|snapshot| snapshot.tunnels.values().filter(|tunnel| tunnel.record.quick).count());
        if count >= MOST_QUICK {
            return Err(Problem::TooMany { seconds: 60 });
        }
        let (id, hostname) = (Uuid::new_v4(), format!("{}.{domain}", drawn_name()?));
        let tunnel = Tunnel {
            account: QUICK.to_owned(),
            name: format!("qt-{}", id.simple()),
            secret: Some(random_secret()?),
            previous: None,
            created_at: Timestamp::now(),
            deleted_at: None,
            remote: false,
            quick: true,
            metadata: serde_json::Value::Null,
        };
        let route = Route::new(String::new(), id);
        let actor = format!("visitor {peer}");
        info!(%peer, tunnel = %id, hostname, "quick tunnel made");
        let transaction =
            Transaction::new(AuditEntry { actor, action: "quick-tunnel.create", subject: id.to_string() })
                .if_absent(key::route(&hostname))
                .put(key::route(&hostname), to_json(&route))
                .put(key::tunnel(id), to_json(&tunnel));
        self.change(transaction, |_| Problem::TooMany { seconds: 1 }).await?;
        Ok(envelope::success(json!({
            "id": id,
            "name": tunnel.name,
            "hostname": hostname,
            "account_tag": tunnel.account,
            "secret": tunnel.secret,
        })))
    }
}

/// Four words: more than enough for nobody to be there already.
fn drawn_name() -> Result<String, Problem> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|_| Problem::Unavailable)?;
    let mut last = [0; 2];
    getrandom::fill(&mut last).map_err(|_| Problem::Unavailable)?;
    let words: Vec<_> = bytes.iter().map(|byte| WORDS[usize::from(*byte) % WORDS.len()]).collect();
    Ok(format!("{}-{:04x}", words.join("-"), u16::from_be_bytes(last)))
}

const WORDS: [&str; 64] = [
    "amber", "apple", "arch", "autumn", "basil", "beach", "birch", "bloom", "breeze", "brook", "cedar",
    "chalk", "cliff", "cloud", "clover", "coast", "copper", "coral", "crane", "creek", "dawn", "delta",
    "dune", "ember", "fern", "field", "finch", "flint", "frost", "glade", "grain", "grove", "harbor",
    "hazel", "heron", "hill", "island", "ivy", "jade", "lake", "lark", "linen", "maple", "marsh", "meadow",
    "mint", "moss", "oak", "olive", "opal", "orchid", "pearl", "pine", "quartz", "reed", "ridge", "river",
    "rowan", "sage", "shore", "stone", "thyme", "willow", "wren",
];
/// Living ones of all visitors.
const MOST_QUICK: usize = 1_000;
