//! Pages for a browser, below `/ui/`: what others know, as tables. Each works without a script. Whoever gets here
//! may read what the API would tell them; exchanges and changes want a session, which wants the token.
//!
//! Pages are answered on addresses of this machine alone: there is no TLS here, and a session would travel in clear.

mod overview;
mod replay;
mod requests;
mod revisions;

use std::time::{Duration, Instant};

use adit_net::admission::Guest;
use adit_net::guard::{Asks, Guard};
use adit_pages::{
    Answer, Form, Host, Html, Session, asset, forbidden, page, redirect, signed_in, signed_out, value,
};
use http::{Method, Request, StatusCode, request};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::timeout;

use super::Admin;

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
            "pages are shown on an address of this machine alone; from elsewhere: ssh -L 20241:127.0.0.1:20241",
        );
    }
    if request.uri().path() == "/ui/code" {
        return code(admin, &request, guard);
    }
    let host = match admin.door.judge(&request) {
        Ok(host) => host,
        Err(refusal) => return forbidden(StatusCode::FORBIDDEN, &refusal.to_string()),
    };
    let (head, body) = request.into_parts();
    let session = (host == Host::Own).then(|| admin.door.session(&head.headers, Instant::now())).flatten();
    let visit = Visit { admin, host, may_read: session.is_some() || !guard.wants_token(), session, head };
    match visit.head.method {
        Method::GET | Method::HEAD => {
            let _busy = guest.busy();
            visit.shown()
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
    match admin.door.code(Instant::now()) {
        Ok(code) => super::json(
            StatusCode::OK,
            &json!({ "url": format!("http://{}:{}/ui/enter", admin.door.name(), admin.port), "code": code }),
        ),
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
    fn shown(&self) -> Answer {
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
        let number = |prefix: &str| path.strip_prefix(prefix)?.parse().ok();
        match path {
            "/ui" => redirect("/ui/"),
            "/ui/" => overview::rules(self),
            "/ui/plugins" => overview::plugins(self),
            "/ui/revisions" => revisions::list(self),
            _ if path.starts_with("/ui/revisions/") => match number("/ui/revisions/") {
                Some(number) => revisions::one(self, number),
                None => self.missing(),
            },
            "/ui/requests" | "/ui/requests.json" if self.session.is_none() => {
                self.enter(StatusCode::UNAUTHORIZED, None)
            }
            "/ui/requests" => requests::list(self),
            "/ui/requests.json" => requests::live(self),
            _ => match (path.strip_prefix("/ui/requests/"), &self.session) {
                (Some(_), None) => self.enter(StatusCode::UNAUTHORIZED, None),
                (Some(rest), Some(_)) => requests::one(self, rest),
                (None, _) => self.missing(),
            },
        }
    }

    /// What forms ask for. All but signing in is for who is signed in, on a page of ours.
    async fn sent(&self, form: &Form) -> Answer {
        let (path, admin) = (self.head.uri.path(), self.admin);
        if path == "/ui/enter" {
            let code = form.get("code").unwrap_or_default();
            // Under another name a cookie would reach others.
            return match (self.host == Host::Own).then(|| admin.door.enter(&code, Instant::now())) {
                Some(Ok(Some(cookie))) => signed_in("/ui/requests", &cookie),
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
        match path {
            "/ui/leave" => {
                admin.door.leave(&self.head.headers);
                signed_out("/ui/enter")
            }
            "/ui/inspector" => requests::switch(self, form),
            "/ui/reload" => revisions::reload(self).await,
            "/ui/rollback" => revisions::rollback(self, form).await,
            _ => match path.strip_prefix("/ui/requests/").and_then(|rest| rest.strip_suffix("/again")) {
                Some(number) => replay::send(self, number, form).await,
                None => self.missing(),
            },
        }
    }

    /// Where a code is written down.
    fn enter(&self, status: StatusCode, why: Option<&str>) -> Answer {
        let mut content = Html::new();
        if let Some(why) = why {
            content.raw("<p class=\"note bad\" role=\"alert\">").text(why).raw("</p>");
        }
        if self.host == Host::Own {
            content.raw("<p>Requests and changes are shown to whoever has the token of this host. <code>adit dashboard</code> asks for a code with it; each is good once, for ten minutes.</p><form class=\"row\" method=\"post\" action=\"/ui/enter\" data-enter><label>Code <input type=\"text\" name=\"code\" autocomplete=\"off\" spellcheck=\"false\" required autofocus></label><button class=\"main\">Sign in</button></form>");
        } else {
            content.raw("<p>Requests and changes are shown under a name that only this host's token brings up, since a cookie for this name would reach every service of this machine. Run <code>adit dashboard</code>; it says where to go, and a code. A host whose <code>[admin]</code> has no <code>token-file</code> gives none out.</p>");
        }
        self.page(status, "Sign in", &content)
    }

    fn missing(&self) -> Answer {
        let mut content = Html::new();
        content.raw("<p>There is no such page, or what it was about is not kept any more.</p>");
        self.page(StatusCode::NOT_FOUND, "Not here", &content)
    }

    fn page(&self, status: StatusCode, title: &str, content: &Html) -> Answer {
        let path = self.head.uri.path();
        let here =
            PLACES.iter().rev().find(|(place, _)| path.starts_with(place)).map_or("", |(place, _)| place);
        page(
            status,
            title,
            &PLACES,
            here,
            self.session.as_ref().map(|session| session.sign.as_str()),
            content,
        )
    }

    /// A value of the address.
    fn query(&self, name: &str) -> Option<String> {
        value(self.head.uri.query()?, name)
    }
}

const PLACES: [(&str, &str); 4] = [
    ("/ui/", "rules"),
    ("/ui/plugins", "plugins"),
    ("/ui/revisions", "revisions"),
    ("/ui/requests", "requests"),
];
/// What a form may have, bytes, and how long it may take.
const LARGEST: usize = 64 << 10;
const BODY_LIMIT: Duration = Duration::from_secs(10);
