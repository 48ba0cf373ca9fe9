//! Sending a request once more: only as it was, with values for what was taken out, and only because somebody says
//! so on its page.

use adit_inspector::{Exchange, repeat, wanted};
use adit_pages::{Answer, Form, Html};
use http::StatusCode;

use super::Visit;

/// What the page of an exchange offers.
pub(super) fn form(content: &mut Html, visit: &Visit<'_>, exchange: &Exchange) {
    let Some(session) = &visit.session else { return };
    content.raw("<h2>Send it again</h2>");
    if let Err(why) = repeat(exchange, |_| None) {
        content
            .raw("<p class=\"quiet\">This request cannot be sent again as it was: ")
            .show(why)
            .raw(".</p>");
        return;
    }
    content.raw("<p class=\"quiet\">Through the rules and plugins as they are now, to where they lead, with a header <code>adit-replay: 1</code> and an id of its own.</p><form class=\"row\" method=\"post\" action=\"/ui/requests/");
    content.show(exchange.number).raw("/again\">").add(&session.hidden());
    for name in wanted(exchange) {
        content
            .raw("<label>")
            .text(name)
            .raw(" <input type=\"text\" autocomplete=\"off\" spellcheck=\"false\" name=\"header-");
        content.text(name).raw("\" placeholder=\"left out\"></label>");
    }
    if !is_harmless(exchange) {
        content.raw("<label><input type=\"checkbox\" name=\"sure\" value=\"yes\" required> it may change something, and may do so twice</label>");
    }
    content.raw("<button>Send</button></form>");
}

/// Sends it, and says what came of it.
pub(super) async fn send(visit: &Visit<'_>, number: &str, form: &Form) -> Answer {
    let inspector = &visit.admin.inspector;
    let Some(exchange) = number.parse().ok().and_then(|number| inspector.find(number)) else {
        return visit.missing();
    };
    let mut content = Html::new();
    if !is_harmless(&exchange) && form.get("sure").as_deref() != Some("yes") {
        content.raw("<p class=\"note bad\" role=\"alert\">It was not sent: it may change something, and nobody has said that this is meant.</p>");
        return visit.page(StatusCode::BAD_REQUEST, "Not sent", &content);
    }
    let (head, body) = match repeat(&exchange, |name| form.get(&format!("header-{name}"))) {
        Ok(request) => request,
        Err(why) => {
            content.raw("<p class=\"note bad\" role=\"alert\">It was not sent: ").show(why).raw(".</p>");
            return visit.page(StatusCode::BAD_REQUEST, "Not sent", &content);
        }
    };
    match visit.admin.replays.send(head, body).await {
        Err(why) => {
            content.raw("<p class=\"note bad\" role=\"alert\">").show(why).raw("</p>");
            visit.page(StatusCode::SERVICE_UNAVAILABLE, "Not sent", &content)
        }
        Ok(outcome) => {
            let again = inspector.all().into_iter().find(|kept| kept.id == outcome.id);
            compared(&mut content, &exchange, again.as_deref(), outcome.status);
            visit.page(StatusCode::OK, "Sent again", &content)
        }
    }
}

fn compared(content: &mut Html, then: &Exchange, now: Option<&Exchange>, status: u16) {
    content.raw("<div class=\"wide\"><table><thead><tr><th></th><th>then</th><th>now</th></tr></thead><tbody><tr><th scope=\"row\">request</th><td>");
    content.link(format_args!("/ui/requests/{}", then.number), then.number).raw("</td><td>");
    match now {
        Some(now) => content.link(format_args!("/ui/requests/{}", now.number), now.number),
        None => content.text("not kept"),
    };
    content.raw("</td></tr><tr><th scope=\"row\">status</th>").cell(then.status).cell(status).raw("</tr>");
    if let Some(now) = now {
        content.raw("<tr><th scope=\"row\">took</th>").cell(adit_pages::time(then.total));
        content.cell(adit_pages::time(now.total)).raw("</tr><tr><th scope=\"row\">generation</th>");
        content
            .cell(then.generation)
            .cell(now.generation)
            .raw("</tr><tr><th scope=\"row\">body of the answer</th>");
        let is_same = then.answer.body == now.answer.body;
        content.cell("").cell(if is_same { "the same" } else { "another" }).raw("</tr>");
        let names = then.answer.headers.iter().chain(&now.answer.headers).map(|(name, _)| name.as_str());
        let names: std::collections::BTreeSet<&str> = names.collect();
        for name in names {
            let (before, after) = (then.answer.header(name), now.answer.header(name));
            if before != after {
                content.raw("<tr><th scope=\"row\">").text(name).raw("</th>");
                content.cell(before.unwrap_or("none")).cell(after.unwrap_or("none")).raw("</tr>");
            }
        }
    }
    content.raw("</tbody></table></div>");
}

/// Whether whoever sends it twice does no harm (RFC 9110, 9.2.1).
fn is_harmless(exchange: &Exchange) -> bool {
    ["GET", "HEAD", "OPTIONS"].contains(&exchange.method.as_str())
}
