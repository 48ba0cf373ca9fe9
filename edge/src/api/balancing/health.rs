//! The health of a pool as the reference shows it. Knows presence: an endpoint is up as long as a host of its
//! tunnel is connected.

use serde_json::{Map, Value, json};

use super::Api;
use crate::api::envelope::{self, Answer, Problem};
use crate::api::identity::Identity;
use crate::store::records::objects::{Kind, tunnel_of};

impl Api {
    pub(super) fn pool_health(&self, who: &Identity, id: &str) -> Result<Answer, Problem> {
        let pool = self.state.read(|snapshot| {
            let kept = snapshot.objects.get(who.account(), Kind::Pool, id).cloned();
            kept.ok_or(Problem::NotFound(Kind::Pool.word()))
        })?;
        let mut up = 0;
        let endpoints: Vec<Value> = pool
            .record
            .endpoints()
            .filter_map(|endpoint| {
                let address = endpoint.get("address")?.as_str()?;
                let is_enabled = endpoint.get("enabled") != Some(&Value::Bool(false));
                let reason = if is_enabled { self.why_down(address) } else { Some("disabled") };
                up += u64::from(reason.is_none());
                let said = json!({
                    "healthy": reason.is_none(),
                    "failure_reason": reason.unwrap_or("No failures"),
                    "response_code": 0,
                    "rtt": "0.0ms",
                });
                Some(Value::Object(Map::from_iter([(address.to_owned(), said)])))
            })
            .collect();
        let wanted = pool.record.said.get("minimum_origins").and_then(Value::as_u64).unwrap_or(1);
        let healthy = pool.record.is_enabled() && up >= wanted.max(1);
        let places =
            Map::from_iter([(PLACE.to_owned(), json!({ "healthy": healthy, "origins": endpoints }))]);
        Ok(envelope::success(json!({ "pool_id": id, "pop_health": places })))
    }

    /// Why an endpoint gets no requests.
    fn why_down(&self, address: &str) -> Option<&'static str> {
        let Some((id, _)) = tunnel_of(address, self.fixed.domain.as_deref()) else {
            return Some("not the name of a tunnel");
        };
        let Some(tunnel) = self.registry.tunnel(&id) else { return Some("the tunnel was deleted") };
        (!tunnel.is_connected()).then_some("no host of the tunnel is connected")
    }
}

/// What the reference names a data centre.
const PLACE: &str = "edge";
