//! What host names lead to.

use adit_pages::{Answer, Html};
use http::StatusCode;

use super::{MOST_ROWS, Visit, end, search, table, verdict};
use crate::visitor::Destination;

pub(super) fn list(visit: &Visit<'_>) -> Answer {
    let wanted = visit.wanted();
    let (mut all, domain) = visit.admin.pages.names.all();
    all.retain(|(name, _)| name.contains(&wanted));
    let mut content = Html::new();
    if let Some(domain) = domain {
        content.raw("<p>Every tunnel is also <code>ID").text(domain).raw("</code>.</p>");
    }
    search(&mut content, "/ui/names", &wanted);
    table(&mut content, &["name", "leads to", "", "state"]);
    for (name, leads) in all.iter().take(MOST_ROWS) {
        content.raw("<tr><th scope=\"row\">").text(name).raw("</th><td>");
        let is_up = match leads {
            Destination::Tunnel(tunnel) => {
                content
                    .link(format_args!("/ui/tunnels/{}", tunnel.id), tunnel.name())
                    .raw("</td><td>tunnel</td>");
                tunnel.is_connected()
            }
            Destination::Balancer(balancer) => {
                content.link("/ui/balancers", balancer.name()).raw("</td><td>load balancer</td>");
                balancer.pools().iter().any(|pool| pool.health().standing().is_some())
            }
        };
        verdict(&mut content, is_up, if is_up { "up" } else { "down" });
        content.raw("</tr>");
    }
    end(&mut content, all.len());
    visit.page(StatusCode::OK, "Names", &content)
}
