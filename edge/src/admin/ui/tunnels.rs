//! Tunnels, and one of them with its replicas and their connections.

use std::sync::Arc;

use adit_balance::MOST_WEIGHT;
use adit_pages::{Answer, Form, Html, redirect, time};
use http::StatusCode;
use uuid::Uuid;

use super::{MOST_ROWS, Visit, end, number, search, table, verdict};
use crate::admin::view::{self, ConnectionView, ReplicaView, Replicas, TunnelView};
use crate::metrics::{PAGES, Totals};
use crate::registry::{Tunnel, UnknownReplica};

pub(super) fn list(visit: &Visit<'_>) -> Answer {
    let (admin, wanted) = (visit.admin, visit.wanted());
    let totals = admin.figures.counters.series.own();
    let mut content = Html::new();
    search(&mut content, "/ui/", &wanted);
    table(&mut content, &COLUMNS);
    let mut all = view::by_name(&admin.registry);
    all.retain(|(id, tunnel)| {
        tunnel.name().to_lowercase().contains(&wanted) || id.to_string().contains(&wanted)
    });
    for (id, tunnel) in all.iter().take(MOST_ROWS) {
        let shown = TunnelView::of(id, tunnel);
        content
            .raw("<tr><th scope=\"row\">")
            .link(format_args!("/ui/tunnels/{id}"), &shown.name)
            .raw("</th>");
        verdict(
            &mut content,
            shown.connections > 0,
            if shown.connections > 0 { "connected" } else { "down" },
        );
        number(&mut content, shown.replicas);
        number(&mut content, shown.connections);
        number(&mut content, shown.requests);
        number(&mut content, shown.held);
        match totals.get(id) {
            Some(totals) => {
                let [good, wrong, failed] = classes(totals);
                for count in [good, wrong, failed, totals.retries.iter().sum()] {
                    number(&mut content, count);
                }
                content.raw("<td class=\"number\">").text(mean(totals)).raw("</td>");
            }
            None => {
                content.raw("<td colspan=\"5\"></td>");
            }
        }
        content.raw("</tr>");
    }
    end(&mut content, all.len());
    visit.page(StatusCode::OK, "Tunnels", &content)
}

pub(super) fn one(visit: &Visit<'_>, id: &str) -> Answer {
    let Some((id, tunnel)) = found(visit, id) else { return visit.missing() };
    let Replicas { stickiness, replicas, absent, .. } = Replicas::of(&id, &tunnel);
    let mut content = Html::new();
    content
        .raw("<dl><dt>tunnel</dt><dd class=\"code\">")
        .show(id)
        .raw("</dd><dt>account</dt><dd class=\"code\">");
    content
        .text(tunnel.account())
        .raw("</dd><dt>visitors stay by</dt><dd>")
        .text(&stickiness)
        .raw("</dd></dl>");
    content.raw("<h2>Replicas</h2>");
    table(&mut content, &["replica", "version", "weight", "#under way", "#requests", "#connections", ""]);
    for replica in &replicas {
        row(&mut content, visit, id, replica);
    }
    end(&mut content, replicas.len());
    content.raw("<h2>Connections</h2>");
    table(
        &mut content,
        &[
            "replica",
            "#slot",
            "server",
            "region",
            "over",
            "from",
            "since",
            "state",
            "#under way",
            "#requests",
        ],
    );
    for replica in &replicas {
        for connection in &replica.connections {
            content.raw("<tr><td class=\"code\">").show(short(replica.connector)).raw("</td>");
            number(&mut content, connection.index);
            content.cell(&connection.server).cell(&connection.region).cell(connection.protocol);
            content.cell(&connection.address).cell(&connection.since);
            let state = state(connection);
            verdict(&mut content, state == "serving", state);
            number(&mut content, connection.requests);
            number(&mut content, connection.requests_total);
            content.raw("</tr>");
        }
    }
    end(&mut content, replicas.iter().map(|replica| replica.connections.len()).sum());
    if !absent.is_empty() {
        content.raw("<h2>Kept for replicas that are not there</h2>");
        table(&mut content, &["replica", "#weight", ""]);
        for one in &absent {
            content.raw("<tr><td class=\"code\">").show(one.connector).raw("</td>");
            number(&mut content, one.weight);
            content.cell(if one.draining { "draining" } else { "" }).raw("</tr>");
        }
        end(&mut content, absent.len());
    }
    if let Some(totals) = visit.admin.figures.counters.series.own().get(&id) {
        figures(&mut content, totals);
    }
    visit.page(StatusCode::OK, &tunnel.name(), &content)
}

fn row(content: &mut Html, visit: &Visit<'_>, tunnel: Uuid, replica: &ReplicaView) {
    content.raw("<tr><td class=\"code\">").show(replica.connector).raw("</td>");
    content.cell(format_args!("{} {}", replica.version, replica.arch)).raw("<td>").show(replica.weight);
    if replica.draining {
        content.raw(" <span class=\"warn\">draining</span>");
    }
    content.raw("</td>");
    number(content, replica.requests);
    number(content, replica.requests_total);
    number(content, replica.connections.len());
    content.raw("<td>");
    if let Some(session) = &visit.session {
        content.raw("<form class=\"row\" method=\"post\" action=\"/ui/tunnels/").show(tunnel);
        content.raw("/replicas/").show(replica.connector).raw("\">").add(&session.hidden());
        content
            .raw("<label>weight <input type=\"number\" name=\"weight\" min=\"0\" max=\"")
            .show(MOST_WEIGHT);
        content.raw("\" value=\"").show(replica.weight);
        content.raw(
            "\"></label><button name=\"what\" value=\"weight\">Set</button><button name=\"what\" value=\"",
        );
        content.raw(if replica.draining { "undrain\">Undrain" } else { "drain\">Drain" });
        content.raw("</button></form>");
    }
    content.raw("</td></tr>");
}

/// What became of its requests, as visitors see it.
fn figures(content: &mut Html, totals: &Totals) {
    let [good, wrong, failed] = classes(totals);
    content.raw("<h2>Requests since this edge began</h2><dl><dt>1xx to 3xx</dt><dd>").show(good);
    content.raw("</dd><dt>4xx</dt><dd>").show(wrong).raw("</dd><dt>5xx</dt><dd>").show(failed);
    content.raw("</dd><dt>mean until the head</dt><dd>").text(mean(totals));
    content.raw("</dd><dt>tried again</dt><dd>").show(totals.retries.iter().sum::<u64>());
    content.raw("</dd><dt>waited for a host</dt><dd>").show(totals.holds).raw("</dd>");
    for (word, count) in PAGES.iter().zip(totals.pages).filter(|(_, count)| *count > 0) {
        content.raw("<dt>answered here: ").raw(word).raw("</dt><dd>").show(count).raw("</dd>");
    }
    content.raw("</dl>");
}

/// Changes what a replica gets, as its form says.
pub(super) async fn change(visit: &Visit<'_>, tunnel: &str, connector: &str, form: &Form) -> Answer {
    let Some((id, tunnel)) = found(visit, tunnel) else { return visit.missing() };
    let Ok(connector) = connector.parse::<Uuid>() else { return visit.missing() };
    let weight = form.get("weight").and_then(|weight| weight.parse::<u8>().ok());
    let weight = weight.filter(|weight| *weight <= MOST_WEIGHT);
    let mut content = Html::new();
    let outcome = match (form.get("what").as_deref(), weight) {
        (Some("drain"), _) => {
            visit.admin.share(id, &tunnel, connector, Box::new(|share| share.is_draining = true)).await
        }
        (Some("undrain"), _) => {
            visit.admin.share(id, &tunnel, connector, Box::new(|share| share.is_draining = false)).await
        }
        (Some("weight"), Some(weight)) => {
            visit.admin.share(id, &tunnel, connector, Box::new(move |share| share.weight = weight)).await
        }
        _ => {
            content.raw(
                "<p class=\"note bad\" role=\"alert\">Nothing was changed: a weight is a number from 0 to ",
            );
            content.show(MOST_WEIGHT).raw(".</p>");
            return visit.page(StatusCode::BAD_REQUEST, "Not changed", &content);
        }
    };
    match outcome {
        Ok(Ok(_)) => redirect(&format!("/ui/tunnels/{id}")),
        Ok(Err(UnknownReplica)) => visit.missing(),
        Err(error) => {
            content.raw("<p class=\"note bad\" role=\"alert\">Nothing was changed: ").show(error).raw("</p>");
            visit.page(StatusCode::INSUFFICIENT_STORAGE, "Not changed", &content)
        }
    }
}

fn found(visit: &Visit<'_>, id: &str) -> Option<(Uuid, Arc<Tunnel>)> {
    let id = id.parse().ok()?;
    Some((id, visit.admin.registry.tunnel(&id)?))
}

fn state(connection: &ConnectionView) -> &'static str {
    match connection {
        ConnectionView { leaving: true, .. } => "leaving",
        ConnectionView { silent: true, .. } => "silent",
        ConnectionView { suspect: true, .. } => "suspect",
        ConnectionView { .. } => "serving",
    }
}

/// By what an answer says of who is to blame.
fn classes(totals: &Totals) -> [u64; 3] {
    let of = |class: usize| totals.answers.iter().map(|answers| answers[class]).sum::<u64>();
    [of(1) + of(2) + of(3), of(4), of(5)]
}

fn mean(totals: &Totals) -> String {
    let all: u64 = totals.head.buckets.iter().sum();
    totals.head.microseconds.checked_div(all).map(time).unwrap_or_default()
}

/// Enough of an id to tell one replica from the others of a page.
fn short(id: Uuid) -> String {
    let mut text = id.to_string();
    text.truncate(8);
    text
}

const COLUMNS: [&str; 11] = [
    "tunnel",
    "state",
    "#replicas",
    "#connections",
    "#under way",
    "#held",
    "#1xx to 3xx",
    "#4xx",
    "#5xx",
    "#tried again",
    "#mean until the head",
];
