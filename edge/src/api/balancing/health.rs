//! The health of a pool as the reference shows it: what its endpoints are, and why. Knows what the edge serves by;
//! does not know how anybody finds out.

use adit_balance::health::{PoolHealth, State};
use serde_json::{Map, Value, json};

use super::Api;
use crate::api::envelope::{self, Answer, Problem};
use crate::api::identity::Identity;
use crate::monitors::Outcome;
use crate::steering::Endpoint;
use crate::store::records::objects::Kind;

impl Api {
    pub(super) fn pool_health(&self, who: &Identity, id: &str) -> Result<Answer, Problem> {
        self.state.read(|snapshot| {
            let kept = snapshot.objects.get(who.account(), Kind::Pool, id);
            kept.map(|_| ()).ok_or(Problem::NotFound(Kind::Pool.word()))
        })?;
        let pool = self.balancers.pool(id).ok_or(Problem::NotFound(Kind::Pool.word()))?;
        let endpoints = pool.endpoints.iter().map(|endpoint| {
            let (state, last, why) = Self::health_of(endpoint);
            let said = json!({
                "healthy": state == State::Up,
                "failure_reason": why,
                "response_code": last.status.unwrap_or(0),
                "rtt": format!("{:.1}ms", last.took.as_secs_f64() * 1e3),
            });
            Value::Object(Map::from_iter([(endpoint.address.clone(), said)]))
        });
        let healthy = matches!(pool.health(), PoolHealth::Healthy | PoolHealth::Degraded);
        let endpoints: Vec<Value> = endpoints.collect();
        let places =
            Map::from_iter([(PLACE.to_owned(), json!({ "healthy": healthy, "origins": endpoints }))]);
        Ok(envelope::success(json!({ "pool_id": id, "pop_health": places })))
    }

    /// What an endpoint is, by which result, and why.
    pub(super) fn health_of(endpoint: &Endpoint) -> (State, Outcome, String) {
        let state = endpoint.state();
        (state, endpoint.last(), endpoint.why(state))
    }
}

/// What the reference names a data centre.
const PLACE: &str = "edge";
