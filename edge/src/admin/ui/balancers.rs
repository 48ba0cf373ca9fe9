//! Load balancers, their pools as they stand, and what each endpoint gets.

use std::sync::Arc;
use std::time::Instant;

use adit_balance::health::{PoolHealth, State};
use adit_pages::{Answer, Html};
use http::StatusCode;

use super::{MOST_ROWS, Visit, end, number, table, verdict};
use crate::steering::{Balancer, Pool};

pub(super) fn list(visit: &Visit<'_>) -> Answer {
    let mut content = Html::new();
    let Some(known) = &visit.admin.figures.balancers else {
        content.raw("<p>Load balancers are made by the control API, which this edge does not have: <code>[api]</code> in its document.</p>");
        return visit.page(StatusCode::OK, "Load balancers", &content);
    };
    let mut balancers: Vec<Arc<Balancer>> = known.balancers().into_values().collect();
    balancers.sort_by(|one, other| one.name().cmp(other.name()));
    table(
        &mut content,
        &["name", "pools", "#requests", "#by a rule", "#tried again", "#in another pool", "#in the fallback"],
    );
    for balancer in balancers.iter().take(MOST_ROWS) {
        let counted = balancer.counted();
        content.raw("<tr><th scope=\"row\">").text(balancer.name()).raw("</th><td>");
        for pool in balancer.pools() {
            content.raw("<div>").text(pool.name()).raw("</div>");
        }
        content.raw("</td>");
        for count in [counted.requests, counted.rules, counted.retries, counted.failovers, counted.fallbacks]
        {
            number(&mut content, count);
        }
        content.raw("</tr>");
    }
    end(&mut content, balancers.len());
    let mut pools: Vec<Arc<Pool>> = known.pools().into_values().collect();
    pools.sort_by(|one, other| (one.name(), &one.id).cmp(&(other.name(), &other.id)));
    let now = Instant::now();
    for pool in pools.iter().take(MOST_POOLS) {
        one(&mut content, pool, now);
    }
    if pools.len() > MOST_POOLS {
        content
            .raw("<p class=\"quiet\">")
            .show(pools.len() - MOST_POOLS)
            .raw(" more pools are not shown.</p>");
    }
    visit.page(StatusCode::OK, "Load balancers", &content)
}

fn one(content: &mut Html, pool: &Pool, now: Instant) {
    let health = pool.health();
    content.raw("<h2>Pool ").text(pool.name()).raw(" <span class=\"");
    content.raw(match health {
        PoolHealth::Healthy => "good",
        PoolHealth::Degraded | PoolHealth::Unknown => "warn",
        PoolHealth::Critical | PoolHealth::Disabled => "bad",
    });
    content.raw("\">").text(health.word()).raw("</span></h2>");
    table(
        content,
        &["endpoint", "state", "why", "#weight", "#of the last minute", "#share", "#under way", "#attempts"],
    );
    let lately: Vec<u64> =
        pool.endpoints.iter().map(|endpoint| endpoint.condition.last_minute(now)).collect();
    let all: u64 = lately.iter().sum();
    for (endpoint, lately) in pool.endpoints.iter().zip(lately).take(MOST_ROWS) {
        let state = endpoint.state();
        content.raw("<tr><th scope=\"row\">").text(&endpoint.address).raw("</th>");
        verdict(content, matches!(state, State::Up | State::Unknown), state.word());
        content.cell(if state == State::Up { String::new() } else { endpoint.why(state) });
        number(content, format_args!("{:.2}", f64::from(endpoint.weight) / 100.0));
        number(content, lately);
        match all {
            0 => number(content, ""),
            _ => number(content, format_args!("{} %", 100 * lately / all)),
        }
        number(content, endpoint.condition.requests());
        number(content, endpoint.condition.total());
        content.raw("</tr>");
    }
    end(content, pool.endpoints.len());
}

/// Pools of one page.
const MOST_POOLS: usize = 200;
