//! Load balancers as they are served: pools of endpoints, each endpoint a tunnel. Made anew when an object or a
//! tunnel changes; a request only reads them ([`Way`] is its way through one). Knows what was said of pools and who
//! is connected; does not know how requests are sent. The choices themselves are in the crate `adit-balance`.
//!
//! Along a request: `rules` and `session` say which [`Plan`] counts for it and where it belongs, `way` goes from
//! endpoint to endpoint, `tour` chooses pools and `pool` endpoints, by the boards of `keeper`. What was said is read
//! by `said`; `explain` says what all of it comes to.

mod counts;
mod explain;
mod keeper;
mod plan;
mod pool;
mod rules;
mod said;
mod session;
mod tour;
mod way;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use adit_balance::condition::View;
use adit_balance::steer::{Place, Point};
use arc_swap::{ArcSwap, ArcSwapOption};
use http::uri::Authority;
use http::{Request, Version};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::balancer::retry_budget::RetryBudget;
use crate::balancer::turns::Turns;
use crate::monitors::{Change, Monitors, Voice, Watch};
use crate::registry::Tunnel;
use crate::settings::host_name::HostName;
use crate::state::snapshot::{Kept, Snapshot};
use crate::store::StoreRevision;
use crate::store::records::objects::{Kind, Object};

use counts::Counts;
pub(crate) use counts::{Counted, Stay};
pub(crate) use explain::Explained;
pub(crate) use plan::Plan;
use pool::Around;
pub(crate) use pool::{End, Endpoint, Pool};
pub(crate) use rules::FixedResponse;
use rules::{Fields, Found, Rules};
pub(crate) use way::{Stopover, Way};

/// One load balancer.
pub(crate) struct Balancer {
    id: String,
    /// Its host name, as it is written.
    name: String,
    plan: Arc<Plan>,
    rules: Rules,
    /// Those that rules have made so far, by which rules they were.
    others: ArcSwap<HashMap<u64, Arc<Plan>>>,
    pub(crate) retries: Arc<RetryBudget>,
    counts: Arc<Counts>,
    /// What it says, and the pools that it names.
    said: Map<String, Value>,
    pools: HashMap<String, Arc<Pool>>,
    around: Around,
    revision: StoreRevision,
}

/// What of a request counts for the way through a load balancer.
pub(crate) struct Visit {
    pub(crate) plan: Arc<Plan>,
    /// Which of its pools, by where the request is from.
    tour: usize,
    who: session::Who,
}

/// A request as steering sees it.
pub(crate) struct Asked<'r> {
    pub(crate) visitor: IpAddr,
    pub(crate) is_secure: bool,
    /// By which it came.
    pub(crate) version: Version,
    pub(crate) request: &'r Request<()>,
    /// Where it is from; looked at where that matters.
    pub(crate) place: &'r dyn Fn() -> Place<'r>,
}

impl Asked<'_> {
    fn view<'v>(&'v self, balancer: &'v Balancer, host: &'v str, headers: &'v Fields<'v>) -> View<'v> {
        let (uri, now) = (self.request.uri(), SystemTime::now());
        View {
            host,
            method: self.request.method().as_str(),
            path: uri.path(),
            query: uri.query().unwrap_or_default(),
            version: match self.version {
                Version::HTTP_09 => "HTTP/0.9",
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_3 => "HTTP/3",
                _ => "HTTP/1.1",
            },
            headers,
            client: self.visitor,
            seconds: now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
            balancer: &balancer.name,
            region: (self.place)().region.unwrap_or_default(),
        }
    }
}

/// What becomes of a request.
pub(crate) enum Entry<'b> {
    Goes(Visit),
    IsAnswered(&'b FixedResponse),
}

/// How one of several is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// The first that may serve.
    Off,
    /// By weight.
    Random,
    /// By who asks, and by weight.
    Hash,
    /// Two by weight, and of these the one with less to do for its weight.
    Least,
    /// Two by weight, and of these the one that would answer first, by what its requests took lately.
    Peak,
    /// The one that monitors see answer first.
    Quickest,
    /// The one that is least far away.
    Nearest,
}

/// What every load balancer of the edge is made of, and was made of before.
pub(crate) struct Balancers {
    pub(crate) monitors: Monitors,
    around: Around,
    built: Mutex<Built>,
}

#[derive(Default)]
struct Built {
    pools: HashMap<String, Arc<Pool>>,
    balancers: HashMap<String, Arc<Balancer>>,
}

impl Balancers {
    /// Of tunnels that turn these, on an edge at this place.
    pub(crate) fn new(turns: Turns, here: Option<Point>) -> Self {
        let keys = Arc::new(ArcSwapOption::empty());
        let around = Around { turns, began: Instant::now(), here, keys };
        Self { monitors: Monitors::default(), around, built: Mutex::default() }
    }

    /// Makes what is served of a snapshot. What has not changed stays, with all that is known of it.
    pub(crate) fn follow(
        &self,
        snapshot: &Snapshot,
        tunnels: &HashMap<Uuid, Arc<Tunnel>>,
        own_domain: Option<&str>,
    ) {
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let mut change = self.monitors.change();
        self.around.keys.store(snapshot.session_keys.as_ref().map(|kept| Arc::new(kept.record.keys())));
        let pools = snapshot.objects.of(Kind::Pool).iter().map(|(id, kept)| {
            let tunnel_of = |id: &Uuid| {
                // A tunnel of another account is none.
                let own = snapshot.tunnel(&kept.record.account, *id);
                own.filter(|own| !own.record.is_deleted()).and_then(|_| tunnels.get(id)).cloned()
            };
            let before = built.pools.get(id);
            let watches = |tunnel: &Arc<Tunnel>, host: Option<&Authority>, address: &str| {
                watches(snapshot, &kept.record, &mut change, tunnel, host, address)
            };
            (id.clone(), Pool::follow(id, kept, before, tunnel_of, watches, own_domain, &self.around))
        });
        built.pools = pools.collect();
        change.done();
        let balancers = snapshot.objects.of(Kind::Balancer).iter().map(|(id, kept)| {
            let pool_of = |id: &str| {
                let own = snapshot.objects.get(&kept.record.account, Kind::Pool, id);
                own.and_then(|_| built.pools.get(id)).cloned()
            };
            (id.clone(), Balancer::follow(id, kept, built.balancers.get(id), pool_of, &self.around))
        });
        built.balancers = balancers.collect();
    }

    /// Those that take requests, by host name.
    pub(crate) fn serving(&self, snapshot: &Snapshot) -> Vec<(HostName, Arc<Balancer>)> {
        let built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let all = snapshot.objects.of(Kind::Balancer).iter();
        let enabled = all.filter(|(_, kept)| kept.record.is_enabled());
        let named = enabled.filter_map(|(id, kept)| {
            let name = kept.record.name.as_ref()?.parse().ok()?;
            Some((name, built.balancers.get(id)?.clone()))
        });
        named.collect()
    }

    /// All pools by their ids.
    pub(crate) fn pools(&self) -> HashMap<String, Arc<Pool>> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner).pools.clone()
    }

    /// All load balancers by their ids.
    pub(crate) fn balancers(&self) -> HashMap<String, Arc<Balancer>> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner).balancers.clone()
    }

    pub(crate) fn pool(&self, id: &str) -> Option<Arc<Pool>> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner).pools.get(id).cloned()
    }
}

impl Balancer {
    fn follow(
        id: &str,
        kept: &Kept<Object>,
        before: Option<&Arc<Self>>,
        pool_of: impl Fn(&str) -> Option<Arc<Pool>>,
        around: &Around,
    ) -> Arc<Self> {
        let said = &kept.record.said;
        let pools = said::mentioned(said).into_iter().filter_map(|id| Some((id.to_owned(), pool_of(id)?)));
        let pools: HashMap<_, _> = pools.collect();
        if let Some(before) = before
            && before.revision == kept.revision
            && are_same(&before.pools, &pools)
        {
            return before.clone();
        }
        Arc::new(Self {
            id: id.to_owned(),
            name: kept.record.text("name").unwrap_or_default().to_owned(),
            plan: Arc::new(Plan::of(&said::Plan(said), &pools, around)),
            rules: Rules::of(said),
            others: ArcSwap::default(),
            retries: before.map_or_else(|| Arc::new(RetryBudget::new()), |before| before.retries.clone()),
            counts: before.map(|before| before.counts.clone()).unwrap_or_default(),
            said: said.clone(),
            pools,
            around: around.clone(),
            revision: kept.revision,
        })
    }

    /// Its host name, as it is written.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The pools that it names anywhere, by their names.
    pub(crate) fn pools(&self) -> Vec<&Arc<Pool>> {
        let mut pools: Vec<_> = self.pools.values().collect();
        pools.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
        pools
    }

    /// What becomes of a request.
    pub(crate) fn enter(&self, asked: &Asked<'_>) -> Entry<'_> {
        let plan = match self.look(asked) {
            Found::Fixed(fixed) => return Entry::IsAnswered(fixed),
            Found::Overrides(found) => self.plan(found),
        };
        let keys = self.around.keys.load();
        let who = session::Who::of(plan.affinity.as_ref(), (&self.id, keys.as_deref()), asked);
        let tour = if plan.is_geographic() { plan.tour_for(&(asked.place)()) } else { 0 };
        Entry::Goes(Visit { plan, tour, who })
    }

    /// What the rules say about a request.
    fn look(&self, asked: &Asked<'_>) -> Found<'_> {
        if self.rules.is_empty() {
            return Found::Overrides(0);
        }
        let host = asked.request.uri().authority().map(|authority| adit_address::host(authority.as_str()));
        let host = host.and_then(Result::ok).unwrap_or_default();
        self.rules.look(&asked.view(self, &host, &Fields(asked.request.headers())))
    }

    /// Takes note of a request that goes to its pools.
    pub(crate) fn begin(&self, now: Instant, shard: usize) {
        self.retries.request(now);
        self.counts.request(shard);
    }

    /// Takes note of one that a rule of it answers.
    pub(crate) fn answered(&self) {
        self.counts.rule();
    }

    pub(crate) fn counted(&self) -> Counted {
        self.counts.read()
    }

    /// The way of a request through the pools.
    pub(crate) fn way<'a>(&'a self, visit: &'a Visit, is_repeatable: bool) -> Way<'a> {
        Way::new(self, visit, is_repeatable)
    }

    /// What counts for a request that some rules have something to say about.
    fn plan(&self, found: u64) -> Arc<Plan> {
        if found == 0 {
            return self.plan.clone();
        }
        if let Some(plan) = self.others.load().get(&found) {
            return plan.clone();
        }
        let said = self.rules.merged(&self.said, found);
        let plan = Arc::new(Plan::of(&said::Plan(&said), &self.pools, &self.around));
        self.others.rcu(|others| {
            let mut others = HashMap::clone(others);
            if others.len() < MOST_PLANS {
                others.insert(found, plan.clone());
            }
            others
        });
        plan
    }
}

/// Who asks how an endpoint of this pool is: its monitor, or those of its group.
fn watches(
    snapshot: &Snapshot,
    pool: &Object,
    change: &mut Change<'_>,
    tunnel: &Arc<Tunnel>,
    host: Option<&Authority>,
    address: &str,
) -> Vec<Watch> {
    let own = |kind, id: &str| snapshot.objects.get(&pool.account, kind, id);
    let mut watch = |id: &str, standing| {
        let kept: &Kept<Object> = own(Kind::Monitor, id)?;
        let watched = change.watch((id, kept), tunnel, host, address)?;
        Some(Watch { watched, standing })
    };
    let named = |name| pool.text(name).filter(|id| !id.is_empty());
    let Some(group) = named("monitor_group").and_then(|id| own(Kind::MonitorGroup, id)) else {
        return named("monitor").and_then(|id| watch(id, Voice::ALONE)).into_iter().collect();
    };
    let members = group.record.said.get("members").and_then(Value::as_array).into_iter().flatten();
    let members = members.filter_map(|member| {
        let is = |name| member.get(name) == Some(&Value::Bool(true));
        let (is_enabled, must_be_healthy) = (is("enabled"), is("must_be_healthy"));
        let standing = Voice { is_enabled, must_be_healthy, monitoring_only: is("monitoring_only") };
        watch(member.get("monitor_id")?.as_str().filter(|_| is_enabled)?, standing)
    });
    members.collect()
}

fn are_same(before: &HashMap<String, Arc<Pool>>, after: &HashMap<String, Arc<Pool>>) -> bool {
    let known =
        |(id, pool): (&String, &Arc<Pool>)| before.get(id).is_some_and(|known| Arc::ptr_eq(known, pool));
    before.len() == after.len() && after.iter().all(known)
}

/// Combinations of rules of one load balancer that are kept ready; a further one is made ready for each request.
const MOST_PLANS: usize = 64;
