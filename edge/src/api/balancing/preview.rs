//! Previews: a monitor that is not kept is asked once of the endpoints of pools, and what it saw can be looked at for a
//! while. Knows pools as they are served; changes nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use adit_balance::health::State;
use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::Api;
use crate::api::envelope::{self, Answer, Problem};
use crate::api::identity::Identity;
use crate::api::parse;
use crate::forward::ray::Rays;
use crate::monitors::{Outcome, Preview};
use crate::steering::Pool;
use crate::store::records::objects::{Kind, Object};

/// Those that can be looked at, by their ids.
#[derive(Default)]
pub(in crate::api) struct Previews(Mutex<HashMap<String, Kept>>);

struct Kept {
    account: String,
    began: Instant,
    pools: Vec<Arc<Looked>>,
    /// Ends with it.
    _asking: AbortOnDropHandle<()>,
}

/// What was seen of a pool so far.
struct Looked {
    pool: Arc<Pool>,
    /// In the order of its endpoints: nothing as long as one was not asked, and then nothing of one that cannot be.
    seen: Mutex<Vec<Option<Option<Outcome>>>>,
}

impl Previews {
    /// The oldest of an account that has too many goes, or else the oldest of all.
    fn keep(&self, id: String, kept: Kept) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, known| known.began.elapsed() < LASTS);
        let oldest = |all: &HashMap<String, Kept>, fits: &dyn Fn(&Kept) -> bool| {
            let own = all.iter().filter(|(_, known)| fits(known));
            own.min_by_key(|(_, known)| known.began).map(|(id, _)| id.clone())
        };
        let is_own = |known: &Kept| known.account == kept.account;
        let gone = if all.values().filter(|known| is_own(known)).count() >= MOST_OF_ACCOUNT {
            oldest(&all, &is_own)
        } else if all.len() >= MOST {
            oldest(&all, &|_| true)
        } else {
            None
        };
        if let Some(gone) = gone {
            all.remove(&gone);
        }
        all.insert(id, kept);
    }
}

impl Looked {
    fn seen(&self) -> MutexGuard<'_, Vec<Option<Option<Outcome>>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> Value {
        let seen = self.seen();
        let well = |seen: &Option<Option<Outcome>>| {
            seen.as_ref().is_some_and(|seen| seen.as_ref().is_some_and(|seen| seen.fault.is_none()))
        };
        let endpoints = self.pool.endpoints.iter().zip(seen.iter()).map(|(endpoint, seen)| {
            let last = seen.clone().flatten().unwrap_or_default();
            let why = match seen {
                None => "not asked yet".to_owned(),
                Some(None) => endpoint.why(State::NotConnected),
                Some(Some(_)) => last.fault.unwrap_or_else(|| "No failures".to_owned()),
            };
            let said = json!({
                "healthy": well(seen),
                "failure_reason": why,
                "response_code": last.status.unwrap_or(0),
                "rtt": format!("{:.1}ms", last.took.as_secs_f64() * 1e3),
            });
            Value::Object(Map::from_iter([(endpoint.address.clone(), said)]))
        });
        let endpoints: Vec<Value> = endpoints.collect();
        json!({ "healthy": seen.iter().filter(|seen| well(seen)).count() >= self.pool.minimum, "origins": endpoints })
    }
}

impl Api {
    /// Of a pool, or of all pools that a monitor is named by.
    pub(super) fn start_preview(
        &self,
        who: &Identity,
        kind: Kind,
        id: &str,
        body: &[u8],
    ) -> Result<Answer, Problem> {
        let (monitor, names) = self.state.read(|snapshot| {
            let mut draft = self.drafted(who, snapshot);
            draft.find(kind, None, id)?;
            let monitor = draft.trial(Kind::Monitor, None, &parse(body)?)?;
            let mut names: HashMap<String, String> = HashMap::new();
            let named = |object: &Object| object.text("name").unwrap_or_default().to_owned();
            if kind == Kind::Pool {
                names.insert(id.to_owned(), named(draft.find(kind, None, id)?));
            } else {
                let groups = draft.referrers(Kind::Monitor, id).filter(|(by, ..)| *by == Kind::MonitorGroup);
                let groups: Vec<String> = groups.map(|(_, group, _)| group.to_owned()).collect();
                let of_groups = groups.iter().flat_map(|group| draft.referrers(Kind::MonitorGroup, group));
                let all = draft.referrers(Kind::Monitor, id).chain(of_groups);
                let pools = all.filter(|(by, ..)| *by == Kind::Pool);
                names.extend(pools.map(|(_, pool, object)| (pool.to_owned(), named(object))));
            }
            Ok::<_, Problem>((monitor, names))
        })?;
        let preview = Preview::of(&monitor).ok_or_else(|| {
            Problem::Refused(vec!["`type` asks nothing here: validation failed".to_owned()])
        })?;
        let looked = names.keys().filter_map(|id| {
            let pool = self.balancers.pool(id)?;
            let seen = Mutex::new(vec![None; pool.endpoints.len()]);
            Some(Arc::new(Looked { pool, seen }))
        });
        let pools: Vec<Arc<Looked>> = looked.collect();
        let asking = tokio::spawn(ask(preview, pools.clone(), self.rays.clone()));
        let preview_id = Uuid::new_v4().simple().to_string();
        let kept = Kept {
            account: who.account().to_owned(),
            began: Instant::now(),
            pools,
            _asking: AbortOnDropHandle::new(asking),
        };
        self.previews.keep(preview_id.clone(), kept);
        Ok(envelope::success(json!({ "preview_id": preview_id, "pools": names })))
    }

    pub(super) fn look_at_preview(&self, who: &Identity, id: &str) -> Result<Answer, Problem> {
        let all = self.previews.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.get(id).filter(|kept| kept.account == who.account() && kept.began.elapsed() < LASTS);
        let kept = kept.ok_or(Problem::NotFound("preview"))?;
        let pools = kept.pools.iter().map(|looked| (looked.pool.id.clone(), looked.view()));
        Ok(envelope::success(Value::Object(pools.collect())))
    }
}

/// Asks all endpoints, some at a time.
async fn ask(preview: Preview, pools: Vec<Arc<Looked>>, rays: Arc<Rays>) {
    let (preview, room) = (&preview, &Semaphore::new(AT_ONCE));
    let endpoints = pools.iter().flat_map(|looked| {
        looked.pool.endpoints.iter().enumerate().map(move |(at, endpoint)| (looked, at, endpoint))
    });
    let questions = endpoints.map(|(looked, at, endpoint)| {
        let rays = &rays;
        async move {
            let Ok(_place) = room.acquire().await else { return };
            let seen = match &endpoint.tunnel {
                Some(tunnel) => preview.look(tunnel, endpoint.host.as_ref(), &endpoint.address, rays).await,
                None => None,
            };
            if let Some(place) = looked.seen().get_mut(at) {
                *place = Some(seen);
            }
        }
    });
    join_all(questions).await;
}

/// Previews of all accounts, and of one.
const MOST: usize = 64;
const MOST_OF_ACCOUNT: usize = 4;
/// Questions of one preview at a time.
const AT_ONCE: usize = 4;
/// How long one can be looked at.
const LASTS: Duration = Duration::from_secs(10 * 60);
