//! What serves: connections, rules, plugins. As the API has it, in tables.

use adit_pages::{Answer, Html};
use http::StatusCode;

use super::Visit;
use crate::generation::Backend;

pub(super) fn rules(visit: &Visit<'_>) -> Answer {
    let admin = visit.admin;
    let (generation, shared) = (admin.current.load(), &admin.health.shared);
    let mut content = Html::new();
    if let Some(reason) = admin.reload.history().degraded() {
        content
            .raw("<p class=\"note bad\" role=\"alert\">An earlier generation serves: ")
            .text(reason)
            .raw("</p>");
    }
    content.raw("<dl><dt>tunnel</dt><dd class=\"code\">").show(shared.identity.credentials.tunnel_id);
    content.raw("</dd><dt>connector</dt><dd class=\"code\">").show(shared.identity.connector);
    content.raw("</dd><dt>version</dt><dd>").show(&shared.identity.version);
    content
        .raw("</dd><dt>generation</dt><dd>")
        .link(format_args!("/ui/revisions/{}", generation.number), generation.number);
    content.raw("</dd></dl>");

    content.raw("<h2>Connections</h2><div class=\"wide\"><table><thead><tr><th>slot</th><th>state</th><th>edge</th><th>address</th><th>over</th><th class=\"number\">round trip</th><th>last error</th></tr></thead><tbody>");
    for slot in shared.status.slots() {
        let is_good = slot.state == crate::tunnel::status::SERVING;
        content.raw("<tr>").cell(slot.index).raw(if is_good {
            "<td class=\"good\">"
        } else {
            "<td class=\"warn\">"
        });
        content.text(slot.state).raw("</td>").cell(slot.location.unwrap_or_default());
        content
            .cell(slot.edge.map(|edge| edge.to_string()).unwrap_or_default())
            .cell(slot.protocol.unwrap_or_default());
        content.raw("<td class=\"number\">");
        if let Some(path) = slot.path {
            content.show(format_args!("{:.1} ms", path.round_trip.as_secs_f64() * 1e3));
        }
        content.raw("</td>").cell(slot.last_error.unwrap_or_default()).raw("</tr>");
    }
    content.raw("</tbody></table></div><h2>Rules</h2><div class=\"wide\"><table><thead><tr><th>rule</th><th>leads to</th><th>plugins</th><th class=\"number\">requests</th><th class=\"number\">2xx, 3xx</th><th class=\"number\">4xx</th><th class=\"number\">5xx</th><th class=\"number\">no origin</th><th class=\"number\">broken off</th><th class=\"number\">mean</th></tr></thead><tbody>");
    for rule in generation.rules().iter().take(MOST_ROWS) {
        let totals = rule.metrics.totals();
        let all: u64 = totals.statuses.iter().sum();
        let leads_to = match &rule.backend {
            Backend::Origin(origin, _) => origin.name().into_owned(),
            Backend::Component(plugin) => format!("wasm:{}", plugin.name()),
        };
        content.raw("<tr><th scope=\"row\">").text(&rule.name).raw("</th>").cell(leads_to);
        content.cell(rule.chain.names().join(", "));
        let good = totals.statuses[2] + totals.statuses[3];
        for number in [all, good, totals.statuses[4], totals.statuses[5], totals.unreachable, totals.broken] {
            content.raw("<td class=\"number\">").show(number).raw("</td>");
        }
        let mean = totals.durations.microseconds.checked_div(all).unwrap_or_default();
        content.raw("<td class=\"number\">").text(adit_pages::time(mean)).raw("</td></tr>");
    }
    content.raw("</tbody></table></div>");
    more(&mut content, generation.rules().len());
    visit.page(StatusCode::OK, "Rules", &content)
}

pub(super) fn plugins(visit: &Visit<'_>) -> Answer {
    let generation = visit.admin.current.load();
    let mut content = Html::new();
    let all = generation.plugins().count();
    if all == 0 {
        content.raw("<p>No rule has a plugin.</p>");
        return visit.page(StatusCode::OK, "Plugins", &content);
    }
    content.raw("<div class=\"wide\"><table><thead><tr><th>plugin</th><th class=\"number\">calls</th><th class=\"number\">faults</th><th class=\"number\">traps</th><th class=\"number\">timeouts</th><th class=\"number\">busy</th><th class=\"number\">invalid</th><th class=\"number\">resting</th><th class=\"number\">away</th><th class=\"number\">denied</th><th class=\"number\">instances made</th></tr></thead><tbody>");
    for plugin in generation.plugins().take(MOST_ROWS) {
        let counts = plugin.counters();
        content.raw("<tr><th scope=\"row\">").text(plugin.name()).raw("</th>");
        for number in [
            counts.calls,
            counts.faults,
            counts.traps,
            counts.timeouts,
            counts.busy,
            counts.invalid,
            counts.resting,
            counts.away,
            counts.denied,
            counts.instantiations,
        ] {
            content.raw("<td class=\"number\">").show(number).raw("</td>");
        }
        content.raw("</tr>");
    }
    content.raw("</tbody></table></div>");
    more(&mut content, all);
    visit.page(StatusCode::OK, "Plugins", &content)
}

fn more(content: &mut Html, all: usize) {
    if all > MOST_ROWS {
        content.raw("<p class=\"quiet\">").show(all - MOST_ROWS).raw(" more are not shown.</p>");
    }
}

/// A page of more is read by nobody.
const MOST_ROWS: usize = 1_000;
