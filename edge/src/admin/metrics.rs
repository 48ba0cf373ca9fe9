//! `/metrics`: what was counted, and what can be seen at this moment. Reads; changes nothing. docs/metrics.md lists
//! every name, and a test holds the two against each other.

mod balancers;
mod peers;
mod pools;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_metrics::{Kind, Page, number, process};
use adit_net::admission::Admission;
use adit_pace::Account;
use adit_traces::Tracer;
use tokio::time::timeout;
use uuid::Uuid;

use super::{Admin, Ready};
use crate::balancer::retry_budget::Reason;
use crate::certificates::Certificates;
use crate::certificates::place::{Place, Use};
use crate::issuance::keeper::Counts;
use crate::metrics::{
    Counters, Door, Handshake, Listener, NoHold, PAGES, Registration, Speaks, TRANSPORTS, Totals,
};
use crate::peers::Peers;
use crate::registry::Tunnel;
use crate::state::State;
use crate::steering::Balancers;
use crate::store::StoreRevision;
use crate::store::timestamp::Timestamp;
use crate::tunnel::session::Unregistered;

/// What the page shows besides the registry and the state.
pub(crate) struct Figures {
    pub(crate) counters: Arc<Counters>,
    /// What slow peers make the edge hold.
    pub(crate) account: Arc<Account>,
    pub(crate) strangers: Unregistered,
    /// Who is at the small listeners, by the listener's name.
    pub(crate) rooms: Vec<(&'static str, Arc<Admission>)>,
    pub(crate) certificates: Arc<Certificates>,
    /// Until when the edge's own authority holds, in seconds since 1970.
    pub(crate) authority: Option<i64>,
    /// What became of orders at an authority.
    pub(crate) orders: Arc<Counts>,
    pub(crate) probed: Probed,
    /// Of an edge with a control API.
    pub(crate) balancers: Option<Arc<Balancers>>,
    /// Where traces are on.
    pub(crate) tracer: Option<Tracer>,
    /// Of a node of a fleet.
    pub(crate) peers: Option<Arc<Peers>>,
}

/// What the store said last, and when: it is asked again after a while, however many ask for the page.
#[derive(Default)]
pub(crate) struct Probed(Mutex<Option<(Instant, Option<StoreRevision>)>>);

impl Probed {
    /// The revision of the last change, if one more would be taken.
    pub(super) async fn revision(&self, state: &State) -> Option<StoreRevision> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, revision)) = last
            && at.elapsed() < FRESH
        {
            return revision;
        }
        let revision = timeout(STORE, state.probe()).await.ok().and_then(Result::ok);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), revision));
        revision
    }
}

/// A tunnel, or several, under the name that they have in labels.
struct Row {
    name: String,
    totals: Totals,
    connections: usize,
    open: usize,
    waiting: usize,
}

/// What is known at this moment.
pub(super) async fn page(admin: &Admin) -> String {
    let mut page = Page::with_capacity(USUAL);
    page.family("adit_edge_build_info", Kind::Gauge, "Version of this program");
    page.sample("adit_edge_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let Ready { status, .. } = admin.ready();
    page.single("adit_edge_ready", Kind::Gauge, "1 while /ready says so", flag(status == 200));
    let is_draining = admin.draining.is_fired();
    page.single("adit_edge_draining", Kind::Gauge, "1 from the moment of a stop on", flag(is_draining));
    tunnels(&mut page, admin);
    connections(&mut page, admin);
    let figures = &admin.figures;
    if let (Some(state), Some(balancers)) = (&admin.state, &figures.balancers) {
        balancers::write(&mut page, state, balancers);
        pools::write(&mut page, state, balancers);
    }
    peers::write(&mut page, &figures.peers.as_ref().map(|peers| peers.figures()).unwrap_or_default());
    listeners(&mut page, figures);
    held(&mut page, &figures.account);
    certificates(&mut page, figures);
    issued(&mut page, admin);
    store(&mut page, admin).await;
    let name = "adit_edge_api_requests_total";
    page.family(name, Kind::Counter, "Answers of the control API, by status");
    for (status, count) in figures.counters.api_statuses() {
        page.sample(name, &[("code", &status.to_string())], number(count));
    }
    let name = "adit_edge_trace_spans_total";
    page.family(
        name,
        Kind::Counter,
        "Spans that the collector of [traces] has taken, and those that were dropped",
    );
    let told = figures.tracer.as_ref().map(Tracer::told).unwrap_or_default();
    page.sample(name, &[("outcome", "sent")], number(told.sent));
    page.sample(name, &[("outcome", "dropped")], number(told.dropped));
    process::write(&mut page);
    page.finish()
}

fn tunnels(page: &mut Page, admin: &Admin) {
    let series = &admin.figures.counters.series;
    let tunnels = admin.registry.tunnels();
    let mut own: HashMap<Uuid, Totals> = series.own();
    let mut others =
        Row { name: OTHERS.to_owned(), totals: series.others(), connections: 0, open: 0, waiting: 0 };
    let (mut rows, mut shown, mut connected) = (Vec::new(), Vec::new(), 0);
    for (id, tunnel) in tunnels.iter() {
        let (count, open) = serving(tunnel);
        connected += usize::from(count > 0);
        let Some(totals) = own.remove(id) else {
            others.connections += count;
            others.open += open;
            others.waiting += tunnel.holds.held();
            // It is shown by itself from the next time on.
            series.promote(&tunnel.place, *id, || tunnel.account());
            continue;
        };
        let name = id.to_string();
        rows.push(Row { name: name.clone(), totals, connections: count, open, waiting: tunnel.holds.held() });
        shown.push((name, tunnel));
    }
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    rows.push(others);
    let none = series.none().read();

    let name = "adit_edge_tunnels";
    page.family(name, Kind::Gauge, "Tunnels that this edge knows, by whether a host is connected");
    page.sample(name, &[("state", "connected")], number(connected as u64));
    page.sample(name, &[("state", "disconnected")], number((tunnels.len() - connected) as u64));
    let name = "adit_edge_tunnel_info";
    page.family(name, Kind::Gauge, "The name and the account of each tunnel that is shown by itself");
    shown.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (id, tunnel) in shown {
        let labels = [("tunnel", id.as_str()), ("name", &tunnel.name()), ("account", &tunnel.account())];
        page.sample(name, &labels, 1.0);
    }
    gauge(page, &rows, "adit_edge_tunnel_connections", "Connections of hosts that serve", |row| {
        row.connections
    });
    gauge(page, &rows, "adit_edge_requests_open", "Requests under way on connections of hosts", |row| {
        row.open
    });
    gauge(page, &rows, "adit_edge_requests_waiting", "Requests that wait for a host to come back", |row| {
        row.waiting
    });
    let all = || rows.iter().map(|row| (row.name.as_str(), &row.totals)).chain([(NONE, &none)]);
    requests(page, all);
    let of_tunnels = || rows.iter().map(|row| (row.name.as_str(), &row.totals));
    attempts(page, of_tunnels);
}

/// Connections that serve, and requests under way on any.
fn serving(tunnel: &Tunnel) -> (usize, usize) {
    let connections = tunnel.connections();
    let count = connections.iter().filter(|live| live.is_serving()).count();
    (count, connections.iter().map(|live| live.requests()).sum())
}

fn gauge(page: &mut Page, rows: &[Row], name: &str, help: &str, of: fn(&Row) -> usize) {
    page.family(name, Kind::Gauge, help);
    for row in rows {
        page.sample(name, &[("tunnel", &row.name)], number(of(row) as u64));
    }
}

fn requests<'a, I: Iterator<Item = (&'a str, &'a Totals)>>(page: &mut Page, all: impl Fn() -> I) {
    let name = "adit_edge_requests_total";
    page.family(name, Kind::Counter, "Requests of visitors by first digit of the status, none if they left");
    for (tunnel, totals) in all() {
        for (speaks, answers) in Speaks::ALL.iter().zip(&totals.answers) {
            for (class, count) in answers.iter().enumerate().filter(|(_, count)| **count > 0) {
                let class = STATUSES.get(class).copied().unwrap_or("none");
                let labels = [("tunnel", tunnel), ("protocol", speaks.word()), ("status", class)];
                page.sample(name, &labels, number(*count));
            }
        }
    }
    let name = "adit_edge_errors_total";
    page.family(name, Kind::Counter, "Answers that the edge made itself in place of an origin, by page");
    for (tunnel, totals) in all() {
        for (word, count) in PAGES.iter().zip(&totals.pages).filter(|(_, count)| **count > 0) {
            page.sample(name, &[("tunnel", tunnel), ("page", word)], number(*count));
        }
    }
    let name = "adit_edge_head_duration_seconds";
    page.family(name, Kind::Histogram, "Time from the head of a request to the head of its answer");
    for (tunnel, totals) in all() {
        page.histogram(name, &[("tunnel", tunnel)], &totals.head);
    }
}

fn attempts<'a, I: Iterator<Item = (&'a str, &'a Totals)>>(page: &mut Page, all: impl Fn() -> I) {
    let name = "adit_edge_retries_total";
    page.family(name, Kind::Counter, "Further attempts of requests, by why the one before gave no answer");
    for (tunnel, totals) in all() {
        for (reason, count) in Reason::ALL.iter().zip(&totals.retries) {
            page.sample(name, &[("tunnel", tunnel), ("reason", reason.word())], number(*count));
        }
    }
    let name = "adit_edge_retries_denied_total";
    page.family(name, Kind::Counter, "Further attempts that the budget of the tunnel did not allow");
    for (tunnel, totals) in all() {
        page.sample(name, &[("tunnel", tunnel)], number(totals.denied));
    }
    let name = "adit_edge_holds_total";
    page.family(name, Kind::Counter, "Requests that waited for a host to come back");
    for (tunnel, totals) in all() {
        page.sample(name, &[("tunnel", tunnel)], number(totals.holds));
    }
    let name = "adit_edge_holds_failed_total";
    page.family(name, Kind::Counter, "Requests that waited in vain, or found too many waiting");
    for (tunnel, totals) in all() {
        for (why, count) in NoHold::ALL.iter().zip(&totals.no_holds) {
            page.sample(name, &[("tunnel", tunnel), ("reason", why.word())], number(*count));
        }
    }
}

/// Of hosts, and how they came by them.
fn connections(page: &mut Page, admin: &Admin) {
    let mut counts = vec![[0_u64; TRANSPORTS.len()]; admin.servers.len()];
    for tunnel in admin.registry.tunnels().values() {
        for live in tunnel.connections().iter().filter(|live| live.is_serving()) {
            let server = admin.servers.iter().position(|server| Arc::ptr_eq(server, &live.server));
            let transport = TRANSPORTS.iter().position(|known| *known == live.link.protocol());
            if let (Some(server), Some(transport)) = (server, transport) {
                counts[server][transport] += 1;
            }
        }
    }
    let name = "adit_edge_connections";
    page.family(name, Kind::Gauge, "Connections of hosts that serve, by where they came in");
    for (server, counts) in admin.servers.iter().zip(counts) {
        for (protocol, count) in TRANSPORTS.iter().zip(counts) {
            let labels = [("protocol", *protocol), ("region", &server.region), ("server", &server.name)];
            page.sample(name, &labels, number(count));
        }
    }
    let name = "adit_edge_registrations_total";
    page.family(name, Kind::Counter, "Registrations of connections of hosts, by what came of them");
    for (at, protocol) in TRANSPORTS.iter().enumerate() {
        for outcome in Registration::ALL {
            let count = admin.figures.counters.registrations(at, outcome);
            page.sample(name, &[("protocol", protocol), ("outcome", outcome.word())], number(count));
        }
    }
}

fn listeners(page: &mut Page, figures: &Figures) {
    let counters = &figures.counters;
    let visits = Door::ALL.map(|door| (door.word(), counters.visits(door)));
    let name = "adit_edge_visitor_connections";
    page.family(name, Kind::Gauge, "Connections of visitors");
    for (listener, visits) in &visits {
        page.sample(name, &[("listener", listener)], number(visits.open));
    }
    let name = "adit_edge_visitor_connections_total";
    page.family(name, Kind::Counter, "Connections of visitors so far");
    for (listener, visits) in &visits {
        page.sample(name, &[("listener", listener)], number(visits.total));
    }
    let name = "adit_edge_turned_away_total";
    page.family(name, Kind::Counter, "Connections that were not let in, or had to make room for others");
    for (listener, visits) in &visits {
        page.sample(name, &[("listener", listener)], number(visits.turned_away));
    }
    for (listener, count) in figures.strangers.turned_away() {
        page.sample(name, &[("listener", listener.word())], number(count));
    }
    for (listener, room) in &figures.rooms {
        page.sample(name, &[("listener", listener)], number(room.turned_away()));
    }
    let name = "adit_edge_handshakes_total";
    page.family(name, Kind::Counter, "Handshakes of TLS, by how they ended");
    for listener in Listener::ALL {
        for outcome in Handshake::ALL {
            let labels = [("listener", listener.word()), ("outcome", outcome.word())];
            page.sample(name, &labels, number(counters.handshakes(listener, outcome)));
        }
    }
}

fn held(page: &mut Page, account: &Account) {
    let (held, too_slow, shed) = account.totals();
    page.single(
        "adit_edge_held_bytes",
        Kind::Gauge,
        "Bytes held for peers that do not take them",
        number(held),
    );
    let limit = number(account.limits().held);
    page.single("adit_edge_held_limit_bytes", Kind::Gauge, "The most of them, [bodies] held", limit);
    let name = "adit_edge_flows_cut_total";
    page.family(
        name,
        Kind::Counter,
        "Bodies that were cut off because their peers took too little, by reason",
    );
    page.sample(name, &[("reason", "too-slow")], number(too_slow));
    page.sample(name, &[("reason", "shed")], number(shed));
}

fn certificates(page: &mut Page, figures: &Figures) {
    let name = "adit_edge_certificate_expiry_timestamp_seconds";
    page.family(name, Kind::Gauge, "Until when a certificate holds, with its chain, seconds since 1970");
    let seconds = |until: i64| number(u64::try_from(until).unwrap_or_default());
    let places = figures.certificates.places();
    for place in places {
        with_labels(place, |labels| page.sample(name, labels, seconds(place.shown().not_after)));
    }
    if let Some(until) = figures.authority {
        page.sample(name, &[("use", "authority")], seconds(until));
    }
    let name = "adit_edge_certificate_refused";
    page.family(name, Kind::Gauge, "1 while what is in a certificate's files is not what is shown");
    for place in places.iter().filter(|place| place.files().is_some()) {
        with_labels(place, |labels| page.sample(name, labels, flag(place.trouble().is_some())));
    }
    let name = "adit_edge_certificate_exchanges_total";
    page.family(name, Kind::Counter, "How often a certificate was exchanged for a new one");
    for place in places.iter().filter(|place| place.files().is_some()) {
        with_labels(place, |labels| page.sample(name, labels, number(place.exchanged())));
    }
}

/// What an authority has issued, all names together: a name each would be as many series as accounts please.
fn issued(page: &mut Page, admin: &Admin) {
    let counts = &admin.figures.orders;
    let name = "adit_edge_orders_total";
    page.family(name, Kind::Counter, "Orders of this edge at an authority, by how they ended");
    for (outcome, count) in [("issued", &counts.issued), ("failed", &counts.failed)] {
        page.sample(name, &[("outcome", outcome)], number(count.load(Ordering::Relaxed)));
    }
    let names = ["adit_edge_issued_certificates", "adit_edge_failing_orders"];
    let now = Timestamp::now();
    let seen = admin.state.as_ref().map(|state| {
        state.read(|snapshot| {
            let failing = snapshot.orders.values().filter(|kept| kept.record.failures > 0).count();
            let all = snapshot.certificates.values().map(|kept| kept.record.not_after);
            (snapshot.certificates.len(), failing, all.filter(|end| *end > now).min())
        })
    });
    page.family(names[0], Kind::Gauge, "Certificates that an authority has issued");
    if let Some((issued, ..)) = seen {
        page.sample(names[0], &[], number(issued as u64));
    }
    page.family(names[1], Kind::Gauge, "Names whose last order failed");
    if let Some((_, failing, _)) = seen {
        page.sample(names[1], &[], number(failing as u64));
    }
    let name = "adit_edge_issued_certificate_expiry_timestamp_seconds";
    page.family(name, Kind::Gauge, "Until when the first of them holds, seconds since 1970");
    if let Some((_, _, Some(first))) = seen {
        let since = SystemTime::from(first).duration_since(UNIX_EPOCH).unwrap_or_default();
        page.sample(name, &[], number(since.as_secs()));
    }
}

/// Those of `[[certificate]]` are told apart by their first name.
fn with_labels(place: &Place, sample: impl FnOnce(&[(&str, &str)])) {
    let (usage, shown) = (place.usage().word(), place.shown());
    match shown.leaf.names.first().filter(|_| place.usage() == Use::Name) {
        Some(first) => sample(&[("use", usage), ("name", first)]),
        None => sample(&[("use", usage)]),
    }
}

/// Of an edge with a control API.
async fn store(page: &mut Page, admin: &Admin) {
    let probed = match &admin.state {
        Some(state) => Some((state.served(), admin.figures.probed.revision(state).await)),
        None => None,
    };
    let name = "adit_edge_store_writable";
    page.family(name, Kind::Gauge, "1 while changes of the state are taken");
    if let Some((_, kept)) = probed {
        page.sample(name, &[], flag(kept.is_some()));
    }
    let name = "adit_edge_store_revision";
    page.family(name, Kind::Gauge, "Revision of the state as it is kept");
    if let Some((_, Some(kept))) = probed {
        page.sample(name, &[], number(kept.0));
    }
    let name = "adit_edge_served_revision";
    page.family(name, Kind::Gauge, "Revision of the state that this edge serves by");
    if let Some((served, _)) = probed {
        page.sample(name, &[], number(served.0));
    }
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// In the place of a tunnel's id: all tunnels that are not shown by themselves.
const OTHERS: &str = "(others)";
/// Requests that lead to no tunnel.
const NONE: &str = "(none)";
const STATUSES: [&str; 10] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx", "6xx", "7xx", "8xx", "9xx"];
/// Bytes of a page, about.
const USUAL: usize = 64 * 1024;
/// For so long it is believed.
const FRESH: Duration = Duration::from_secs(1);
/// How long the store may take to say how it is.
const STORE: Duration = Duration::from_secs(1);
