//! This edge, its state, the edges that it answers about, and who changed what.

use adit_pages::{Answer, Html};
use http::StatusCode;

use super::{MOST_ROWS, Visit, end, table, verdict};
use crate::admin::nodes::Nodes;
use crate::admin::view::{Ready, Status};

pub(super) async fn list(visit: &Visit<'_>) -> Answer {
    let admin = visit.admin;
    let Ready { status, connections, waits_for, store } = admin.ready();
    let Status { draining, servers, .. } =
        Status::of(&admin.registry, &admin.servers, admin.draining.is_fired());
    let mut content = Html::new();
    content
        .raw("<dl><dt>version</dt><dd>")
        .raw(env!("CARGO_PKG_VERSION"))
        .raw("</dd><dt>ready</dt><dd class=\"");
    content.raw(match (status, draining) {
        (200, _) => "good\">yes",
        (_, true) => "warn\">no: it leaves",
        (_, false) => "bad\">no",
    });
    content.raw("</dd><dt>connections</dt><dd>").show(connections).raw("</dd>");
    if waits_for > 0 {
        content.raw("<dt>hosts of before the start that are not back</dt><dd>").show(waits_for).raw("</dd>");
    }
    if let Some(state) = &admin.state {
        content.raw("<dt>serves the state of revision</dt><dd>").show(state.served().0).raw("</dd>");
        match (store, admin.figures.probed.revision(state).await) {
            (Some(stale), _) => content.raw("<dt>the state</dt><dd class=\"bad\">").text(stale),
            (None, Some(last)) => content.raw("<dt>its last revision</dt><dd>").show(last.0),
            (None, None) => content.raw("<dt>the state</dt><dd class=\"bad\">takes no changes"),
        };
        content.raw("</dd>");
    }
    content.raw("</dl><h2>Where hosts connect</h2>");
    table(&mut content, &["region", "server", "address"]);
    for server in &servers {
        content.raw("<tr>").cell(&server.region).cell(&server.name).cell(&server.address).raw("</tr>");
    }
    end(&mut content, servers.len());
    if let Some(state) = admin.state.as_ref().filter(|state| state.fleet().is_some()) {
        fleet(&mut content, &Nodes::of(state, admin.node.as_deref()));
    }
    if let Some((terms, nodes)) = &admin.pages.nodes {
        content.raw("<h2>Edges that names are answered with</h2>");
        table(&mut content, &["region", "addresses", "asked at", "state"]);
        for (node, is_up) in terms.nodes.iter().zip(nodes.are_up()) {
            let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
            content.raw("<tr>").cell(&node.region).cell(addresses.join(", "));
            content.cell(node.probe.as_deref().unwrap_or_default());
            verdict(&mut content, is_up, if is_up { "answered" } else { "left out" });
            content.raw("</tr>");
        }
        end(&mut content, terms.nodes.len());
    }
    visit.page(StatusCode::OK, "Edge", &content)
}

/// The nodes of its fleet, as the state has them.
fn fleet(content: &mut Html, nodes: &Nodes) {
    content.raw("<h2>Nodes of the fleet</h2>");
    table(content, &["name", "region", "wanted", "addresses", "joined", "state", "version", "since"]);
    for node in nodes.nodes.iter().take(MOST_ROWS) {
        content.raw("<tr><th scope=\"row\">").text(&node.name);
        if nodes.own.as_ref() == Some(&node.name) {
            content.raw(" <span class=\"quiet\">this one</span>");
        }
        content.raw("</th>").cell(&node.region).cell(node.wanted).cell(node.addresses.join(", "));
        content.cell(&node.joined_at);
        verdict(content, node.alive.is_some(), if node.alive.is_some() { "alive" } else { "not heard" });
        let alive = node.alive.as_ref();
        content.cell(alive.map(|alive| alive.version.as_str()).unwrap_or_default());
        content.cell(alive.map(|alive| alive.started_at.as_str()).unwrap_or_default()).raw("</tr>");
    }
    end(content, nodes.nodes.len());
}

/// The newest lines of the audit log.
pub(super) async fn audit(visit: &Visit<'_>) -> Answer {
    let mut content = Html::new();
    let Some(state) = &visit.admin.state else {
        content.raw("<p>This edge has no control API, and so keeps no state that could be changed.</p>");
        return visit.page(StatusCode::OK, "Audit", &content);
    };
    let lines = match state.audit(MOST_LINES).await {
        Ok(lines) => lines,
        Err(error) => {
            content
                .raw("<p class=\"note bad\" role=\"alert\">The log cannot be read: ")
                .show(error)
                .raw("</p>");
            return visit.page(StatusCode::SERVICE_UNAVAILABLE, "Audit", &content);
        }
    };
    content.raw("<p class=\"quiet\">The newest changes; <code>adit edge audit</code> prints more.</p>");
    table(&mut content, &["time", "who", "what", "of what"]);
    for line in &lines {
        content
            .raw("<tr>")
            .cell(&line.at)
            .cell(&line.actor)
            .cell(&line.action)
            .cell(&line.subject)
            .raw("</tr>");
    }
    end(&mut content, lines.len());
    visit.page(StatusCode::OK, "Audit", &content)
}

/// Lines of the audit log on one page.
const MOST_LINES: u32 = 500;
