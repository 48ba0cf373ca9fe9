//! Numbers of load balancers, as many as a scrape can bear: room is shared by account. Reads; changes nothing.

use std::sync::Arc;

use adit_metrics::{Kind, Page, number};

use super::pools::by_turns;
use crate::state::State;
use crate::steering::{Balancer, Balancers, Counted, Stay};
use crate::store::records::objects;

/// A load balancer that is shown by itself.
struct Shown {
    id: String,
    name: String,
    account: String,
    balancer: Arc<Balancer>,
}

pub(super) fn write(page: &mut Page, state: &State, balancers: &Balancers) {
    let known = balancers.balancers();
    let shown: Vec<Shown> = state.read(|snapshot| {
        let all = by_turns(snapshot, objects::Kind::Balancer).into_iter().take(MOST_BALANCERS);
        let shown = all.filter_map(|(id, kept)| {
            let name = kept.record.text("name").unwrap_or_default().to_owned();
            let (account, balancer) = (kept.record.account.clone(), known.get(id)?.clone());
            Some(Shown { id: id.clone(), name, account, balancer })
        });
        shown.collect()
    });
    let name = "adit_edge_balancer_info";
    page.family(
        name,
        Kind::Gauge,
        "The host name and the account of each load balancer that is shown by itself",
    );
    for Shown { id, name: called, account, .. } in &shown {
        page.sample(name, &[("balancer", id), ("name", called), ("account", account)], 1.0);
    }
    let counted: Vec<(&str, Counted)> =
        shown.iter().map(|shown| (shown.id.as_str(), shown.balancer.counted())).collect();
    let name = "adit_edge_balancer_requests_total";
    page.family(name, Kind::Counter, "Requests of a load balancer, by who was to answer");
    for (id, counted) in &counted {
        for (by, count) in [("pools", counted.requests), ("rule", counted.rules)] {
            page.sample(name, &[("balancer", *id), ("by", by)], number(count));
        }
    }
    let mut count = |name: &str, help: &str, of: fn(&Counted) -> u64| {
        page.family(name, Kind::Counter, help);
        for (id, counted) in &counted {
            page.sample(name, &[("balancer", *id)], number(of(counted)));
        }
    };
    count("adit_edge_balancer_retries_total", "Further attempts of its requests", |counted| counted.retries);
    count("adit_edge_balancer_failovers_total", "Of these, those in another pool", |counted| {
        counted.failovers
    });
    count(
        "adit_edge_balancer_fallbacks_total",
        "Attempts in the fallback pool because no other may serve",
        |counted| counted.fallbacks,
    );
    let name = "adit_edge_balancer_sessions_total";
    page.family(name, Kind::Counter, "Answers to sessions by cookie: which began, were kept, or moved");
    for (id, counted) in &counted {
        for (kept, count) in Stay::ALL.iter().zip(counted.sessions) {
            page.sample(name, &[("balancer", *id), ("session", kept.word())], number(count));
        }
    }
}

/// Load balancers that are shown by themselves.
const MOST_BALANCERS: usize = 100;
