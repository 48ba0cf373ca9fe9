//! The inspector's pages: a list that goes on while it is looked at, one exchange with its waterfall, exports, and
//! the switch. For who is signed in.

use std::time::{Duration, Instant, UNIX_EPOCH};

use adit_inspector::{Body, Exchange, Filter, Message, Setting, Stage, Standing, curl, plugin_case};
use adit_pages::{Answer, Bar, Form, Html, download, forbidden, redirect, time, waterfall};
use http::StatusCode;
use serde_json::json;

use super::Visit;
use crate::admin::inspector;

pub(super) fn list(visit: &Visit<'_>) -> Answer {
    let inspector = &visit.admin.inspector;
    let standing = inspector.standing(Instant::now());
    let wanted = visit.query("q").unwrap_or_default();
    let (filter, wrong) = match Filter::read(&wanted) {
        Ok(filter) => (filter, None),
        Err(error) => (Filter::default(), Some(error.to_string())),
    };
    let all = inspector.all();
    let mut content = Html::new();
    switches(&mut content, visit, &standing);
    content.raw("<form class=\"row\" method=\"get\" action=\"/ui/requests\" role=\"search\"><label>Filter <input type=\"text\" name=\"q\" placeholder=\"status:5xx rule:api dur:&gt;1s\" value=\"");
    content.text(&wanted).raw("\"></label><button>Show</button></form>");
    if let Some(wrong) = wrong {
        content.raw("<p class=\"note bad\" role=\"alert\">").text(wrong).raw("</p>");
    }
    content.raw("<p class=\"quiet\" data-said aria-live=\"off\">").text(said(&standing)).raw("</p>");
    content.raw("<div class=\"wide\"><table><thead><tr><th>time</th><th>status</th><th>method</th><th>what</th><th class=\"narrow-out\">rule</th><th class=\"number\">took</th></tr></thead><tbody data-live=\"/ui/requests.json?q=");
    content.show(percent_encoding::utf8_percent_encode(&wanted, percent_encoding::NON_ALPHANUMERIC));
    content.raw("\" data-on=\"").show(standing.on).raw("\" data-last=\"");
    content.show(all.first().map_or(0, |exchange| exchange.number)).raw("\">");
    for exchange in all.iter().filter(|exchange| filter.holds(exchange)).take(MOST_ROWS) {
        content
            .raw("<tr><td class=\"cells\">")
            .link(format_args!("/ui/requests/{}", exchange.number), clock(exchange));
        content
            .raw("</td><td class=\"")
            .raw(kind(exchange.status))
            .raw("\">")
            .text(status(exchange))
            .raw("</td>");
        content
            .cell(&exchange.method)
            .cell(place(exchange))
            .raw("<td class=\"narrow-out\">")
            .text(&exchange.rule);
        content.raw("</td><td class=\"number\">").text(time(exchange.total)).raw("</td></tr>");
    }
    content.raw("</tbody></table></div>");
    visit.page(StatusCode::OK, "Requests", &content)
}

fn switches(content: &mut Html, visit: &Visit<'_>, standing: &Standing) {
    let Some(session) = &visit.session else { return };
    content.raw("<form class=\"row\" method=\"post\" action=\"/ui/inspector\">").add(&session.hidden());
    content
        .raw("<label>Keep <select name=\"bodies\"><option value=\"0\">heads</option><option value=\"65536\"");
    content.raw(if standing.bodies > 0 { " selected" } else { "" });
    content.raw(">heads and 64 KiB of bodies</option></select></label><label>for <select name=\"for\"><option value=\"10m\">10 minutes</option><option value=\"1h\">an hour</option><option value=\"24h\">a day</option></select></label><label>of rule <input type=\"text\" name=\"rule\" placeholder=\"all\"></label><button class=\"main\" name=\"what\" value=\"start\">Watch</button>");
    if standing.on {
        content.raw("<button name=\"what\" value=\"stop\">Stop and forget</button>");
    }
    content.raw("</form>");
}

/// What has come since, for the script of the page.
pub(super) fn live(visit: &Visit<'_>) -> Answer {
    let inspector = &visit.admin.inspector;
    let since = visit.query("since").and_then(|since| since.parse().ok()).unwrap_or(0_u64);
    let filter = Filter::read(&visit.query("q").unwrap_or_default()).unwrap_or_default();
    let mut new: Vec<_> = inspector.all();
    new.retain(|exchange| exchange.number > since && filter.holds(exchange));
    new.truncate(MOST_NEW);
    let exchanges = new.iter().rev().map(|exchange| {
        json!({
            "number": exchange.number,
            "time": clock(exchange),
            "status": status(exchange),
            "kind": kind(exchange.status),
            "method": exchange.method,
            "place": place(exchange),
            "rule": exchange.rule,
            "took": time(exchange.total),
        })
    });
    let standing = inspector.standing(Instant::now());
    let page = json!({
        "on": standing.on,
        "said": said(&standing),
        "exchanges": exchanges.collect::<Vec<_>>(),
    });
    crate::admin::json(StatusCode::OK, &page)
}

/// `NUMBER`, `NUMBER/curl` or `NUMBER/case`.
pub(super) fn one(visit: &Visit<'_>, rest: &str) -> Answer {
    let (number, form) = rest.split_once('/').unwrap_or((rest, ""));
    let Some(exchange) = number.parse().ok().and_then(|number| visit.admin.inspector.find(number)) else {
        return visit.missing();
    };
    match form {
        "" => detail(visit, &exchange),
        "curl" => download("request.sh", curl(&exchange)),
        "case" => download("tests.toml", plugin_case(&exchange)),
        _ => visit.missing(),
    }
}

fn detail(visit: &Visit<'_>, exchange: &Exchange) -> Answer {
    let mut content = Html::new();
    content
        .raw("<dl><dt>status</dt><dd class=\"")
        .raw(kind(exchange.status))
        .raw("\">")
        .text(status(exchange));
    content
        .raw("</dd><dt>began</dt><dd>")
        .text(clock(exchange))
        .raw("</dd><dt>took</dt><dd>")
        .text(time(exchange.total));
    content
        .raw("</dd><dt>ended</dt><dd>")
        .text(&exchange.outcome)
        .raw("</dd><dt>rule</dt><dd>")
        .text(&exchange.rule);
    content
        .raw("</dd><dt>generation</dt><dd>")
        .link(format_args!("/ui/revisions/{}", exchange.generation), exchange.generation);
    content
        .raw("</dd><dt>plugins</dt><dd>")
        .text(&exchange.plugins)
        .raw("</dd><dt>visitor</dt><dd>")
        .text(&exchange.visitor);
    content.raw("</dd><dt>id</dt><dd class=\"code\">").text(&exchange.id).raw("</dd></dl>");

    content.raw("<h2>Where the time went</h2>");
    let bar = |stage: &Stage| Bar { name: stage.name.clone(), at: stage.at, took: stage.took };
    let bars: Vec<Bar> = exchange.stages.iter().map(bar).collect();
    content.add(&waterfall(&bars, exchange.total));
    content.raw("<p class=\"quiet\">").text(time(exchange.rest())).raw(" of ").text(time(exchange.total));
    content.raw(" are of none of these.");
    if exchange.stages.iter().any(|stage| stage.at < 0) {
        content.raw(" What was before this host had the request is not in them: the edge says itself how long it was there, and the tunnel is half of the connection’s last round trip.");
    }
    content.raw("</p>");

    content
        .raw("<p class=\"row\">")
        .link(format_args!("/ui/requests/{}/curl", exchange.number), "as a command of curl");
    content
        .raw(" ")
        .link(format_args!("/ui/requests/{}/case", exchange.number), "as a case of adit plugin test")
        .raw("</p>");
    super::replay::form(&mut content, visit, exchange);
    message(&mut content, "Request", &exchange.request);
    message(&mut content, "Answer", &exchange.answer);
    visit.page(StatusCode::OK, &format!("{} {}", exchange.method, place(exchange)), &content)
}

fn message(content: &mut Html, what: &'static str, message: &Message) {
    content.raw("<h2>").raw(what).raw("</h2><div class=\"wide\"><table><tbody>");
    for (name, value) in &message.headers {
        content
            .raw("<tr><th scope=\"row\">")
            .text(name)
            .raw("</th><td class=\"code\">")
            .text(value)
            .raw("</td></tr>");
    }
    content.raw("</tbody></table></div>");
    if message.left_out > 0 {
        content.raw("<p class=\"quiet\">").show(message.left_out).raw(" bytes of headers were left out.</p>");
    }
    match &message.body {
        Body::Empty => {}
        Body::LeftOut { bytes, why } => {
            content
                .raw("<p class=\"quiet\">A body of ")
                .show(bytes)
                .raw(" bytes was not kept: ")
                .text(why)
                .raw(".</p>");
        }
        Body::Text { text, bytes, is_whole } => {
            if !is_whole {
                content.raw("<p class=\"quiet\">The beginning of ").show(bytes).raw(" bytes:</p>");
            }
            content.raw("<pre>").text(text).raw("</pre>");
        }
    }
}

/// Watches from now on, or stops.
pub(super) fn switch(visit: &Visit<'_>, form: &Form) -> Answer {
    let inspector = &visit.admin.inspector;
    if form.get("what").as_deref() == Some("stop") {
        inspector.stop();
        return redirect("/ui/requests");
    }
    match setting(form) {
        Ok(setting) => {
            inspector.start(setting, Instant::now());
            redirect("/ui/requests")
        }
        Err(why) => forbidden(StatusCode::BAD_REQUEST, &why),
    }
}

fn setting(form: &Form) -> Result<Setting, String> {
    let period = form.get("for").unwrap_or_default();
    let bodies = form.get("bodies").unwrap_or_else(|| "0".to_owned());
    let bodies = bodies.parse().map_err(|_| format!("bodies {bodies:?}: write a number of bytes"))?;
    inspector::read(&period, bodies, form.get("rule"))
}

fn said(standing: &Standing) -> String {
    let Standing { on, left, kept, bytes, seen, pushed_out, rule, .. } = standing;
    let of = rule.as_ref().map(|rule| format!(" of rule {rule}")).unwrap_or_default();
    let state = match (on, left) {
        (false, _) => "off".to_owned(),
        (true, None) => format!("watching{of}"),
        (true, Some(left)) => {
            format!("watching{of} for {}", humantime::format_duration(Duration::from_secs(*left)))
        }
    };
    format!("{state}: {kept} of {seen} are here, {} KiB; {pushed_out} had to make room", bytes.div_ceil(1024))
}

/// When it began, UTC.
fn clock(exchange: &Exchange) -> String {
    let began = UNIX_EPOCH + Duration::from_millis(exchange.started);
    let text = humantime::format_rfc3339_millis(began).to_string();
    text.get(11..23).unwrap_or(&text).to_owned()
}

fn status(exchange: &Exchange) -> String {
    if exchange.status == 0 { "–".to_owned() } else { exchange.status.to_string() }
}

fn place(exchange: &Exchange) -> String {
    [exchange.host.as_str(), &exchange.target].concat()
}

fn kind(status: u16) -> &'static str {
    match status {
        500.. => "bad",
        400..500 => "warn",
        0 => "quiet",
        1..400 => "good",
    }
}

const MOST_ROWS: usize = 500;
/// At one go.
const MOST_NEW: usize = 100;
