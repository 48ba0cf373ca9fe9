//! The plugin as the host sees it: WIT on the outside, [`Plan`] inside.

use bindings::adit::plugin::types::{
    Fault, HeaderOp, Reply, RequestEdits, RequestHead, ResponseEdits, ResponseHead,
};
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};
use bindings::exports::adit::plugin::response_filter::{Guest as ResponseFilter, ResponseAction};

use crate::plan::{Headers, Plan, Told, asked};

settings::component! {
    Cors: "package adit:shelf; world it { include adit:plugin/filter@0.1.0; export adit:plugin/schema@0.1.0; }",
    headers: ["access-control-request-headers", "access-control-request-method", "origin"],
    state: Plan = Plan::read,
}

impl RequestFilter for Cors {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        configured(|plan| ask(plan, &head))
    }
}

impl ResponseFilter for Cors {
    fn on_response(head: ResponseHead) -> Result<ResponseAction, Fault> {
        configured(|plan| tell(plan, std::str::from_utf8(&head.carry).unwrap_or_default()))
    }
}

fn ask(plan: &Plan, head: &RequestHead) -> RequestAction {
    let value =
        |name: &str| head.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let Some(origin) = value("origin") else { return RequestAction::Next };
    if head.method == "OPTIONS" && value("access-control-request-method").is_some() {
        return RequestAction::Respond(preflight(plan, origin, value("access-control-request-headers")));
    }
    // Who is not admitted is told so by silence, which its browser understands; others are never asked to.
    RequestAction::Edit(RequestEdits {
        method: None,
        authority: None,
        path_with_query: None,
        headers: Vec::new(),
        carry: origin.as_bytes().to_vec(),
    })
}

/// What a browser asks before it sends what a page without a script could not.
fn preflight(plan: &Plan, origin: &str, wanted: Option<&str>) -> Reply {
    let mut headers = Vec::new();
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() {
            headers.push((name.to_owned(), value.to_owned()));
        }
    };
    if let Some(told) = plan.admits(origin) {
        add(ORIGIN, text(told));
        if plan.credentials {
            add(CREDENTIALS, "true");
        }
        add("access-control-allow-methods", &plan.methods);
        match &plan.headers {
            Headers::These(these) => add("access-control-allow-headers", these),
            Headers::Any => add("access-control-allow-headers", wanted.and_then(asked).unwrap_or_default()),
        }
        add("access-control-max-age", &plan.max_age.as_secs().to_string());
    }
    add("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
    Reply { status: 204, headers, body: Vec::new() }
}

/// Puts what this plugin says in place of whatever the service said. The origin is empty where there was none.
fn tell(plan: &Plan, origin: &str) -> ResponseAction {
    let mut headers = Vec::new();
    let mut set = |name: &str, value: Option<&str>| {
        headers.push(match value.filter(|value| !value.is_empty()) {
            Some(value) => HeaderOp::Set((name.to_owned(), value.to_owned())),
            None => HeaderOp::Remove(name.to_owned()),
        });
    };
    let told = if origin.is_empty() { None } else { plan.admits(origin) };
    set(ORIGIN, told.map(text));
    set(CREDENTIALS, told.filter(|_| plan.credentials).map(|_| "true"));
    set("access-control-expose-headers", told.map(|_| plan.expose.as_str()));
    if plan.varies() {
        headers.push(HeaderOp::Append(("vary".to_owned(), "Origin".to_owned())));
    }
    ResponseAction::Edit(ResponseEdits { status: None, headers })
}

fn text<'a>(told: Told<'a>) -> &'a str {
    match told {
        Told::Any => "*",
        Told::This(origin) => origin,
    }
}

const ORIGIN: &str = "access-control-allow-origin";
const CREDENTIALS: &str = "access-control-allow-credentials";

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, headers: &[(&str, &str)]) -> RequestHead {
        RequestHead {
            id: "1".to_owned(),
            method: method.to_owned(),
            scheme: "https".to_owned(),
            authority: "api.example.com".to_owned(),
            path_with_query: "/".to_owned(),
            client_ip: "192.0.2.1".to_owned(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    fn plan(more: &str) -> Plan {
        Plan::read(&format!(r#"{{"origins": ["https://app.example.com"]{more}}}"#)).unwrap()
    }

    #[test]
    fn a_preflight_is_answered_and_never_reaches_the_service() {
        let plan = plan(
            r#", "methods": ["GET", "PUT"], "headers": ["X-One"], "credentials": true, "max-age": "1m""#,
        );
        let asked = |origin| {
            let head = head("OPTIONS", &[("origin", origin), ("access-control-request-method", "PUT")]);
            let RequestAction::Respond(reply) = ask(&plan, &head) else { panic!("it went on") };
            assert_eq!(reply.status, 204);
            reply.headers
        };
        let headers = asked("https://app.example.com");
        for (name, value) in [
            (ORIGIN, "https://app.example.com"),
            (CREDENTIALS, "true"),
            ("access-control-allow-methods", "GET, PUT"),
            ("access-control-allow-headers", "x-one"),
            ("access-control-max-age", "60"),
        ] {
            assert!(headers.contains(&(name.to_owned(), value.to_owned())), "{name}: {headers:?}");
        }
        let refused = asked("https://evil.example");
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert_eq!(refused[0].0, "vary");
        let plain = head("OPTIONS", &[("origin", "https://app.example.com")]);
        assert!(matches!(ask(&plan, &plain), RequestAction::Edit(_)), "no preflight");
        assert!(matches!(ask(&plan, &head("GET", &[])), RequestAction::Next));
    }

    #[test]
    fn what_is_allowed_is_said_by_the_plugin_alone() {
        let plan = plan(r#", "expose": ["X-Total"]"#);
        let told = |origin: &str| {
            let ResponseAction::Edit(edits) = tell(&plan, origin) else { panic!("no edits") };
            edits.headers.iter().map(|op| format!("{op:?}")).collect::<Vec<_>>().join(" ")
        };
        let admitted = told("https://app.example.com");
        assert!(
            admitted.contains("\"https://app.example.com\"") && admitted.contains("x-total"),
            "{admitted}"
        );
        assert!(admitted.contains("\"vary\""), "{admitted}");
        for origin in ["", "https://evil.example"] {
            let silent = told(origin);
            assert!(!silent.contains("evil") && silent.matches("Remove").count() == 3, "{silent}");
            assert!(silent.contains("\"vary\""), "caches must not mix them up: {silent}");
        }
    }

    #[test]
    fn headers_are_given_back_as_they_were_asked_for_where_any_is_good() {
        let plan = plan(r#", "headers": "*""#);
        let reply = preflight(&plan, "https://app.example.com", Some("x-a,x-b"));
        assert!(reply.headers.contains(&("access-control-allow-headers".to_owned(), "x-a,x-b".to_owned())));
        let reply = preflight(&plan, "https://app.example.com", Some("x-a\u{1}"));
        assert!(!reply.headers.iter().any(|(name, _)| name == "access-control-allow-headers"));
    }
}
