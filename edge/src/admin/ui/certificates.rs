//! What is shown over TLS and until when, and what is ordered.

use adit_pages::{Answer, Html};
use http::StatusCode;

use super::{Visit, end, number, table};
use crate::admin::certificates::Shown;

pub(super) fn list(visit: &Visit<'_>) -> Answer {
    let admin = visit.admin;
    let Shown { certificates, issued, orders, more } =
        Shown::of(&admin.figures.certificates, admin.state.as_ref());
    let mut content = Html::new();
    table(&mut content, &["for", "names", "from", "ends", "#exchanged", "why not what is there"]);
    for one in &certificates {
        content.raw("<tr>").cell(one.usage).cell(one.names.join(", "));
        content.cell(one.file.as_deref().unwrap_or(one.source)).cell(one.not_after);
        number(&mut content, one.exchanged);
        content.raw("<td class=\"bad\">").text(one.error.as_deref().unwrap_or_default()).raw("</td></tr>");
    }
    end(&mut content, certificates.len());
    content.raw("<h2>Issued by an authority</h2>");
    table(&mut content, &["name", "ends", "renewed from", "by"]);
    for one in &issued {
        content.raw("<tr><th scope=\"row\">").text(&one.name).raw("</th>");
        content.cell(one.not_after).cell(one.renew_at).cell(&one.directory).raw("</tr>");
    }
    end(&mut content, issued.len());
    content.raw("<h2>Ordered</h2>");
    table(&mut content, &["name", "", "#failed", "tried again from", "why"]);
    for one in &orders {
        content.raw("<tr><th scope=\"row\">").text(&one.name).raw("</th>");
        content.cell(if one.is_under_way { "under way" } else { "waits" });
        number(&mut content, one.failures);
        content.cell(one.next).cell(one.error.as_deref().unwrap_or_default()).raw("</tr>");
    }
    end(&mut content, orders.len());
    if more > 0 {
        content.raw("<p class=\"quiet\">").show(more).raw(" more are not shown.</p>");
    }
    visit.page(StatusCode::OK, "Certificates", &content)
}
