//! Every revision with its verdict, what differs, and the way back.

use adit_pages::{Answer, Form, Html, redirect};
use http::StatusCode;
use similar::{ChangeTag, TextDiff};

use super::Visit;
use crate::revision::history::{Outcome, Source};
use crate::revision::{Put, Verdict};

pub(super) fn list(visit: &Visit<'_>) -> Answer {
    let history = visit.admin.reload.history();
    let serving = history.serving().map(|serving| serving.generation);
    let mut content = Html::new();
    if let Some(reason) = history.degraded() {
        content
            .raw("<p class=\"note bad\" role=\"alert\">An earlier generation serves: ")
            .text(reason)
            .raw("</p>");
    }
    if let Some(session) = &visit.session {
        content.raw("<form class=\"row\" method=\"post\" action=\"/ui/reload\">").add(&session.hidden());
        content.raw("<button>Read the document again</button></form>");
    }
    content.raw("<div class=\"wide\"><table><thead><tr><th>generation</th><th>time</th><th>verdict</th><th>by</th><th>reasons and warnings</th></tr></thead><tbody>");
    for entry in history.entries().iter().rev() {
        let is_applied = entry.verdict == Outcome::Applied;
        content.raw("<tr><td>");
        if is_applied {
            content.link(format_args!("/ui/revisions/{}", entry.generation), entry.generation);
            if Some(entry.generation) == serving {
                content.raw(" <span class=\"good\">serves</span>");
            }
        } else {
            content.raw("–");
        }
        content.raw("</td>").cell(&entry.time);
        content.raw(if is_applied {
            "<td class=\"good\">applied</td>"
        } else {
            "<td class=\"bad\">refused</td>"
        });
        content.cell(serde_json::json!(entry.source).as_str().unwrap_or_default()).raw("<td>");
        for line in entry.reasons.iter().chain(&entry.warnings) {
            content.raw("<div>").text(line).raw("</div>");
        }
        content.raw("</td></tr>");
    }
    content.raw("</tbody></table></div>");
    visit.page(StatusCode::OK, "Revisions", &content)
}

/// The document of a generation, and what became other by it.
pub(super) fn one(visit: &Visit<'_>, number: u64) -> Answer {
    let history = visit.admin.reload.history();
    let Some(new) = history.text(number) else { return visit.missing() };
    let applied = history.entries().into_iter().filter(|entry| entry.verdict == Outcome::Applied);
    let before = applied.map(|entry| entry.generation).filter(|known| *known < number).max();
    let old = before.and_then(|before| history.text(before));
    let is_serving = history.serving().is_some_and(|serving| serving.generation == number);
    let mut content = Html::new();
    if let (Some(session), false) = (&visit.session, is_serving) {
        content.raw("<form class=\"row\" method=\"post\" action=\"/ui/rollback\">").add(&session.hidden());
        content.raw("<input type=\"hidden\" name=\"to\" value=\"").show(number);
        content.raw("\"><button class=\"main\">Serve this generation again</button></form>");
    }
    match (&old, before) {
        (Some(old), Some(before)) if old.len() + new.len() <= MOST_COMPARED => {
            content.raw("<p>What differs from generation ").show(before).raw(":</p><pre>");
            let diff = TextDiff::from_lines(old.as_ref(), new.as_ref());
            for change in diff.iter_all_changes() {
                content.raw(match change.tag() {
                    ChangeTag::Insert => "<ins>+ ",
                    ChangeTag::Delete => "<del>- ",
                    ChangeTag::Equal => "<span class=\"same\">  ",
                });
                content.text(change.value().trim_end_matches(['\r', '\n']));
                content.raw(match change.tag() {
                    ChangeTag::Insert => "</ins>",
                    ChangeTag::Delete => "</del>",
                    ChangeTag::Equal => "</span>",
                });
            }
            content.raw("</pre>");
        }
        _ => {
            content.raw("<pre>").text(new.as_ref()).raw("</pre>");
        }
    }
    visit.page(StatusCode::OK, &format!("Generation {number}"), &content)
}

pub(super) async fn reload(visit: &Visit<'_>) -> Answer {
    told(visit, &visit.admin.reload.reread(Source::Api).await)
}

pub(super) async fn rollback(visit: &Visit<'_>, form: &Form) -> Answer {
    let Some(to) = form.get("to").and_then(|to| to.parse().ok()) else { return visit.missing() };
    let reload = &visit.admin.reload;
    let Some(revision) = reload.history().revive(to) else { return visit.missing() };
    let put = Put {
        text: revision.text.as_ref().to_owned(),
        copies: revision.copies,
        expected: None,
        save: true,
        source: Source::Rollback,
    };
    told(visit, &reload.put(put).await)
}

fn told(visit: &Visit<'_>, verdict: &Verdict) -> Answer {
    let mut content = Html::new();
    match verdict {
        Verdict::Applied { .. } => return redirect("/ui/revisions"),
        Verdict::Refused { serving, reasons } => {
            content.raw("<p class=\"note bad\" role=\"alert\">It was refused; generation ").show(serving);
            content.raw(" serves on.</p><pre>").text(reasons.join("\n")).raw("</pre>");
        }
        Verdict::Stale { .. } | Verdict::Busy { .. } => {
            content.raw("<p class=\"note bad\" role=\"alert\">Nothing was changed: too much at once, or the host is stopping.</p>");
        }
    }
    visit.page(StatusCode::UNPROCESSABLE_ENTITY, "Not applied", &content)
}

/// Both documents together, bytes; what is longer is shown without a comparison.
const MOST_COMPARED: usize = 1 << 20;
