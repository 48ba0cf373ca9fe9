//! Pages for a browser, below `/ui/`: what the admin API tells, as tables. Each works without a script. Whoever gets
//! here may read what the API would tell them; the audit log and every change want a session, which wants the token.
//!
//! Pages are answered on addresses of this machine alone: there is no TLS here, and a session would travel in clear.

mod balancers;
mod certificates;
mod names;
mod nodes;
mod tunnels;

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::admission::Guest;
use adit_net::guard::{Asks, Guard};
use adit_pages::{
    Answer, Door, Form, Host, Html, Session, asset, forbidden, page, redirect, signed_in, signed_out, value,
};
use http::{Method, Request, StatusCode, request};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::timeout;

use super::Admin;
use crate::dns;
use crate::visitor::HostTable;

/// What pages know besides what the API does.
pub(crate) struct Pages {
    pub(crate) door: Door,
    /// Where the admin API listens.
    pub(crate) port: u16,
    pub(crate) names: Arc<HostTable>,
    /// The edges that the name server answers with.
    pub(crate) nodes: Option<(Arc<dns::Terms>, dns::nodes::Nodes)>,
}

/// Whether this module answers it.
pub(super) fn is_about(path: &str) -> bool {
    path == "/ui" || path.starts_with("/ui/")
}

pub(super) async fn answer(
    admin: &Admin,
    request: Request<Incoming>,
    guard: &Guard,
    guest: &Guest,
) -> Answer {
    if !guard.is_of_this_machine() {
        return forbidden(
            StatusCode::FORBIDDEN,
            "pages are shown on an address of this machine alone; from elsewhere: ssh -L, with the port of [admin] listen",
        );
    }
    if request.uri().path() == "/ui/code" {
        return code(admin, &request, guard);
    }
    let door = &admin.pages.door;
    let host = match door.judge(&request) {
        Ok(host) => host,
        Err(refusal) => return forbidden(StatusCode::FORBIDDEN, &refusal.to_string()),
    };
    let (head, body) = request.into_parts();
    let session = (host == Host::Own).then(|| door.session(&head.headers, Instant::now())).flatten();
    let visit = Visit { admin, host, may_read: session.is_some() || !guard.wants_token(), session, head };
    match visit.head.method {
        Method::GET | Method::HEAD => {
            let _busy = guest.busy();
            visit.shown().await
        }
        Method::POST => {
            let body = timeout(BODY_LIMIT, Limited::new(body, LARGEST).collect()).await;
            let _busy = guest.busy();
            let Ok(Ok(form)) = body.map(|body| body.map(|body| body.to_bytes())) else {
                return forbidden(StatusCode::BAD_REQUEST, "the form did not arrive whole");
            };
            visit.sent(&Form(form)).await
        }
        _ => forbidden(StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and POST are served here"),
    }
}

/// A code for one sign-in, for whoever has the token.
fn code<B>(admin: &Admin, request: &Request<B>, guard: &Guard) -> Answer {
    if let Err(refusal) = guard.judge(request, Asks::Captures) {
        return refusal.answer();
    }
    if request.method() != Method::POST {
        return super::problem(StatusCode::METHOD_NOT_ALLOWED, "POST it: a code is made");
    }
    let Pages { door, port, .. } = &*admin.pages;
    match door.code(Instant::now()) {
        Ok(code) => {
            super::shown(&json!({ "url": format!("http://{}:{port}/ui/enter", door.name()), "code": code }))
        }
        Err(error) => super::problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

/// One request for a page.
struct Visit<'a> {
    admin: &'a Admin,
    host: Host,
    may_read: bool,
    session: Option<Session>,
    head: request::Parts,
}

impl Visit<'_> {
    async fn shown(&self) -> Answer {
        let path = self.head.uri.path();
        if let Some(asset) = asset(path) {
            return asset;
        }
        if path == "/ui/enter" {
            return self.enter(StatusCode::OK, None);
        }
        if !self.may_read {
            return self.enter(StatusCode::UNAUTHORIZED, None);
        }
        match path {
            "/ui" => redirect("/ui/"),
            "/ui/" => tunnels::list(self),
            "/ui/names" => names::list(self),
            "/ui/balancers" => balancers::list(self),
            "/ui/certificates" => certificates::list(self),
            "/ui/nodes" => nodes::list(self).await,
            "/ui/audit" if self.session.is_none() => self.enter(StatusCode::UNAUTHORIZED, None),
            "/ui/audit" => nodes::audit(self).await,
            _ => match path.strip_prefix("/ui/tunnels/") {
                Some(id) => tunnels::one(self, id),
                None => self.missing(),
            },
        }
    }

    /// What forms ask for. All but signing in is for who is signed in, on a page of ours.
    async fn sent(&self, form: &Form) -> Answer {
        let (path, door) = (self.head.uri.path(), &self.admin.pages.door);
        if path == "/ui/enter" {
            let code = form.get("code").unwrap_or_default();
            // Under another name a cookie would reach others.
            return match (self.host == Host::Own).then(|| door.enter(&code, Instant::now())) {
                Some(Ok(Some(cookie))) => signed_in("/ui/", &cookie),
                Some(_) => self.enter(StatusCode::FORBIDDEN, Some("This code is not good, or not any more.")),
                None => self.enter(StatusCode::FORBIDDEN, None),
            };
        }
        let Some(session) = &self.session else { return self.enter(StatusCode::UNAUTHORIZED, None) };
        if !session.has_sent(form.get("sign").as_deref()) {
            return forbidden(
                StatusCode::FORBIDDEN,
                "this form is not of a page of yours; go back and reload it",
            );
        }
        if path == "/ui/leave" {
            door.leave(&self.head.headers);
            return signed_out("/ui/enter");
        }
        let replica = path.strip_prefix("/ui/tunnels/").and_then(|rest| rest.split_once("/replicas/"));
        match replica {
            Some((tunnel, connector)) => tunnels::change(self, tunnel, connector, form).await,
            None => self.missing(),
        }
    }

    /// Where a code is written down.
    fn enter(&self, status: StatusCode, why: Option<&str>) -> Answer {
        let mut content = Html::new();
        if let Some(why) = why {
            content.raw("<p class=\"note bad\" role=\"alert\">").text(why).raw("</p>");
        }
        if self.host == Host::Own {
            content.raw("<p>The audit log and changes are for whoever has the token of this edge. <code>adit dashboard --edge</code> asks for a code with it; each is good once, for ten minutes.</p><form class=\"row\" method=\"post\" action=\"/ui/enter\" data-enter><label>Code <input type=\"text\" name=\"code\" autocomplete=\"off\" spellcheck=\"false\" required autofocus></label><button class=\"main\">Sign in</button></form>");
        } else {
            content.raw("<p>The audit log and changes are under a name that only this edge's token brings up, since a cookie for this name would reach every service of this machine. Run <code>adit dashboard --edge</code>; it says where to go, and a code. An edge whose <code>[admin]</code> has no <code>token-file</code> gives none out.</p>");
        }
        self.page(status, "Sign in", &content)
    }

    fn missing(&self) -> Answer {
        let mut content = Html::new();
        content.raw("<p>There is no such page, or what it was about is not here any more.</p>");
        self.page(StatusCode::NOT_FOUND, "Not here", &content)
    }

    fn page(&self, status: StatusCode, title: &str, content: &Html) -> Answer {
        let path = self.head.uri.path();
        let here = if path.starts_with("/ui/tunnels/") { "/ui/" } else { path };
        page(
            status,
            title,
            &PLACES,
            here,
            self.session.as_ref().map(|session| session.sign.as_str()),
            content,
        )
    }

    /// What the page is to be about, in small letters.
    fn wanted(&self) -> String {
        let wanted = self.head.uri.query().and_then(|query| value(query, "q")).unwrap_or_default();
        wanted.trim().to_lowercase()
    }
}

/// A search among the rows of a page.
fn search(content: &mut Html, action: &'static str, wanted: &str) {
    content.raw("<form class=\"row\" method=\"get\" role=\"search\" action=\"").raw(action);
    content.raw("\"><label>Filter <input type=\"text\" name=\"q\" value=\"").text(wanted);
    content.raw("\"></label><button>Show</button></form>");
}

/// The beginning of a table. What begins with `#` is a number.
fn table(content: &mut Html, columns: &[&'static str]) {
    content.raw("<div class=\"wide\"><table><thead><tr>");
    for column in columns {
        match column.strip_prefix('#') {
            Some(number) => content.raw("<th class=\"number\">").raw(number).raw("</th>"),
            None => content.raw("<th>").raw(column).raw("</th>"),
        };
    }
    content.raw("</tr></thead><tbody>");
}

/// Its end; `all` are as many as there would be rows.
fn end(content: &mut Html, all: usize) {
    content.raw("</tbody></table></div>");
    if all == 0 {
        content.raw("<p class=\"quiet\">None.</p>");
    } else if all > MOST_ROWS {
        content.raw("<p class=\"quiet\">").show(all - MOST_ROWS).raw(" more are not shown.</p>");
    }
}

fn number(content: &mut Html, count: impl Display) {
    content.raw("<td class=\"number\">").show(count).raw("</td>");
}

/// A word that is good news, or not.
fn verdict(content: &mut Html, is_good: bool, word: impl Display) {
    content.raw(if is_good { "<td class=\"good\">" } else { "<td class=\"bad\">" }).show(word).raw("</td>");
}

const PLACES: [(&str, &str); 6] = [
    ("/ui/", "tunnels"),
    ("/ui/names", "names"),
    ("/ui/balancers", "load balancers"),
    ("/ui/certificates", "certificates"),
    ("/ui/nodes", "edge"),
    ("/ui/audit", "audit"),
];
/// A page of more is read by nobody.
const MOST_ROWS: usize = 1_000;
/// What a form may have, bytes, and how long it may take.
const LARGEST: usize = 4 << 10;
const BODY_LIMIT: Duration = Duration::from_secs(10);
