//! Pushed rules beside local ones: what becomes of both, and everything that refuses them.

use super::*;
use crate::plan::{PathHeaders, Paths};
use crate::testing::plan;

const LOCAL: &str = "[[plugin]]\nname = \"auth\"\ncomponent = \"a.wasm\"\n\
    [[ingress]]\nname = \"mine\"\nhostname = \"mine.example.com\"\nservice = \"hello_world\"\nplugins = [\"auth\"]\n\
    [[ingress]]\nname = \"last\"\nservice = \"http_status:404\"\n";

fn laid(policy: ConfigSource, json: &str) -> Result<Plan, Vec<String>> {
    let mut plan = plan(LOCAL);
    overlay(&mut plan, policy, json.as_bytes(), Path::new("/etc/adit")).map(|()| plan)
}

const PUSHED: &str = r#"{"ingress":[
    {"hostname":"*.Example.com","path":"^/x","service":"https://127.0.0.1:1",
     "originRequest":{"noTLSVerify":true,"connectTimeout":3,"httpHostHeader":"a.internal","http2Origin":true,
        "matchSNItoHost":true,"disableChunkedEncoding":true,"noHappyEyeballs":true,"tcpKeepAlive":7},"plugins":["auth"]},
    {"hostname":"","service":"ws://127.0.0.1:2","unknown":1}],
    "originRequest":{"connectTimeout":5,"keepAliveConnections":7,"tlsTimeout":0,"tcpKeepAlive":0},"warp-routing":{"enabled":true}}"#;

#[test]
fn pushed_rules_take_the_place_of_local_ones() {
    let plan = laid(ConfigSource::Remote, PUSHED).unwrap();
    assert_eq!(plan.rules.len(), 2);
    let first = &plan.rules[0];
    assert_eq!(first.hostname, HostPattern::Wildcard(".example.com".into()));
    assert_eq!((first.origin.tls_verify, first.origin.connect_timeout.as_secs()), (false, 3));
    assert_eq!(first.origin.keep_alive_connections, 7);
    assert_eq!(first.origin.host_header.as_deref(), Some("a.internal"));
    assert_eq!((first.origin.http2, first.origin.server_name_from_host), (Http2::IfOffered, true));
    assert_eq!((first.origin.chunked, first.origin.happy_eyeballs), (false, false));
    assert_eq!(first.origin.tcp_keep_alive, Some(Duration::from_secs(7)));
    assert_eq!(first.plugins, [0]);
    let second = &plan.rules[1].origin;
    assert_eq!((second.http2, second.chunked, second.happy_eyeballs), (Http2::Never, true, true));
    assert_eq!((second.tls_timeout.as_secs(), second.tcp_keep_alive), (3600, Some(GO_KEEP_ALIVE)));
    assert_eq!(plan.rules[1].origin.connect_timeout.as_secs(), 5);
    assert_eq!(plan.rules[1].service, Service::parse("http://127.0.0.1:2", Path::new("")).unwrap());
}

#[test]
fn what_a_pushed_rule_says_of_paths_is_what_a_local_one_says() {
    let rules = |more: &str| {
        let json = format!(
            r#"{{"ingress":[{{"hostname":"a.test","path":"^/private","service":"hello_world"{more}}},
                {{"hostname":"a.test","service":"http://127.0.0.1:1"}},{{"service":"hello_world"}}]}}"#
        );
        laid(ConfigSource::Remote, &json).map(|plan| plan.rules)
    };
    let checked = rules("").unwrap();
    assert_eq!((checked[0].paths, checked[0].path_headers), (Paths::Checked, PathHeaders::Cut));
    let as_sent = rules(r#","paths":"as-sent","pathHeaders":"as-sent""#).unwrap();
    assert_eq!((as_sent[0].paths, as_sent[0].path_headers), (Paths::AsSent, PathHeaders::AsSent));
    let local = plan(
        "[[ingress]]\nhostname = \"a.test\"\npath = \"^/private\"\nservice = \"hello_world\"\npaths = \"as-sent\"\n\
         path-headers = \"as-sent\"\n[[ingress]]\nservice = \"hello_world\"\n",
    );
    assert_eq!((local.rules[0].paths, local.rules[0].path_headers), (Paths::AsSent, PathHeaders::AsSent));
    assert!(rules(r#","paths":"raw""#).is_err());
}

#[test]
fn what_is_said_of_paths_for_all_rules_holds_where_a_rule_does_not_say_otherwise() {
    let wanted = [(Paths::Checked, PathHeaders::AsSent), (Paths::AsSent, PathHeaders::AsSent)];
    let said =
        |plan: &Plan| plan.rules.iter().map(|rule| (rule.paths, rule.path_headers)).collect::<Vec<_>>();
    let pushed = r#"{"paths":"as-sent","pathHeaders":"as-sent","ingress":[
        {"hostname":"a.test","service":"http://127.0.0.1:1","paths":"checked"},{"service":"hello_world"}]}"#;
    assert_eq!(said(&laid(ConfigSource::Remote, pushed).unwrap()), wanted);
    let local = "paths = \"as-sent\"\npath-headers = \"as-sent\"\n[[ingress]]\nhostname = \"a.test\"\n\
                 service = \"hello_world\"\npaths = \"checked\"\n[[ingress]]\nservice = \"hello_world\"\n";
    assert_eq!(said(&plan(local)), wanted);
    // Whoever pushes speaks for what is pushed, and nobody else does.
    let mut mixed = plan(local);
    overlay(&mut mixed, ConfigSource::Remote, br#"{"ingress":[{"service":"hello_world"}]}"#, Path::new("/"))
        .unwrap();
    assert_eq!(said(&mixed), [(Paths::Checked, PathHeaders::Cut)]);
    let wrong = laid(ConfigSource::Remote, r#"{"paths":"raw","ingress":[{"service":"hello_world"}]}"#);
    assert!(wrong.unwrap_err()[0].starts_with("paths"));
}

#[test]
fn layered_rules_come_behind_the_local_ones_but_for_the_last() {
    let plan = laid(ConfigSource::Layered, PUSHED).unwrap();
    let names: Vec<&str> = plan.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["mine", "*.example.com ^/x", "*"]);
    assert_eq!(plan.rules[0].plugins, [0]);
}

#[test]
fn everything_wrong_is_said_with_its_place() {
    let reasons = laid(
        ConfigSource::Remote,
        r#"{"ingress":[
            {"service":"hello_world"},
            {"hostname":"a b","path":"(","service":"http://x:1/y","plugins":["nobody"],
             "originRequest":{"connectTimeout":-1,"noTLSVerify":"yes","keepAliveConnections":1.5}},
            {"hostname":"c","service":"http://x","originRequest":{"access":{"required":"true"}}}]}"#,
    )
    .unwrap_err();
    for place in [
        "ingress[0]: this rule matches every",
        "ingress[1].hostname",
        "ingress[1].path",
        "ingress[1].service",
        "ingress[1].plugins",
        "ingress[1].originRequest.connectTimeout: expected a number of seconds that is not negative, found -1",
        "ingress[1].originRequest.noTLSVerify: expected true or false, found a string",
        "ingress[1].originRequest.keepAliveConnections: expected a whole number",
        "ingress[2].originRequest.access",
    ] {
        assert!(reasons.iter().any(|reason| reason.starts_with(place)), "{place} is not in {reasons:?}");
    }
    for json in ["", "{", "[]", r#"{"ingress":1}"#] {
        assert_eq!(laid(ConfigSource::Remote, json).unwrap_err().len(), 1, "{json}");
    }
    assert!(laid(ConfigSource::Local, PUSHED).is_err());
}

#[test]
fn a_negative_number_of_connections_keeps_none() {
    let json = r#"{"ingress":[{"service":"http://x"}],"originRequest":{"keepAliveConnections":-1}}"#;
    assert_eq!(laid(ConfigSource::Remote, json).unwrap().rules[0].origin.keep_alive_connections, 0);
}

#[test]
fn a_service_of_a_kind_that_is_not_known_costs_its_own_rule_and_is_said() {
    let json = r#"{"ingress":[{"hostname":"a","service":"ftp://x"},{"hostname":"b","service":"from-tomorrow"},
        {"hostname":"c","service":"http://x"},{"service":"unix:/run/a"}]}"#;
    let plan = laid(ConfigSource::Remote, json).unwrap();
    let unknown = Service::Status(http::StatusCode::NOT_IMPLEMENTED);
    let is_unknown: Vec<bool> = plan.rules.iter().map(|rule| rule.service == unknown).collect();
    assert_eq!(is_unknown, [true, true, false, true]);
    for (index, warning) in [0, 1, 3].into_iter().zip(&plan.warnings) {
        assert!(
            warning.starts_with(&format!("{}ingress[{index}].service: this host", super::PUSHED)),
            "{warning}"
        );
    }
}

#[test]
fn a_time_beyond_the_longest_counts_as_that_and_is_said() {
    let json =
        r#"{"ingress":[{"service":"http://x","originRequest":{"connectTimeout":7200,"tlsTimeout":1.5}}]}"#;
    let plan = laid(ConfigSource::Remote, json).unwrap();
    let origin = &plan.rules[0].origin;
    assert_eq!((origin.connect_timeout.as_secs(), origin.tls_timeout.as_millis()), (3600, 1500));
    assert!(plan.warnings[0].starts_with(
        "the pushed configuration: ingress[0].originRequest.connectTimeout: 7200 s is more than 3600 s"
    ));
}

#[test]
fn no_rules_are_nothing_to_serve_and_take_nothing_local_away() {
    for json in ["{}", r#"{"ingress":[]}"#] {
        let plan = laid(ConfigSource::Remote, json).unwrap();
        assert!(plan.is_unconfigured);
        assert_eq!(plan.rules[0].service, Service::Status(http::StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(check(json.as_bytes()), Ok(()));
        let plan = laid(ConfigSource::Layered, json).unwrap();
        assert_eq!((plan.rules.len(), plan.is_unconfigured), (2, false));
    }
}

#[test]
fn an_edge_takes_what_some_host_could_serve_and_nothing_else() {
    for json in [
        PUSHED,
        r#"{"ingress":[{"hostname":"a","service":"ssh://x"},{"service":"bastion"}]}"#,
        r#"{"ingress":[{"service":"http://x","plugins":["theirs"],"originRequest":{"access":{"required":true}}}]}"#,
        r#"{"ingress":[{"hostname":"bücher.example","service":"http://x"},{"hostname":"*","service":"http_status:404"}]}"#,
    ] {
        assert_eq!(check(json.as_bytes()), Ok(()), "{json}");
    }
    for (json, wanted) in [
        (r#"{"ingress":[{"service":"ftp://x"}]}"#, "ingress[0].service: no host knows"),
        (
            r#"{"ingress":[{"hostname":"a","path":"(","service":"http://x"},{"service":"http://x"}]}"#,
            "ingress[0].path",
        ),
        (
            r#"{"ingress":[{"service":"http://x","originRequest":{"connectTimeout":-1}}]}"#,
            "ingress[0].originRequest.connectTimeout",
        ),
        (
            r#"{"originRequest":{"tlsTimeout":"1s"},"ingress":[{"service":"http://x"}]}"#,
            "ingress[0].originRequest.tlsTimeout",
        ),
        (
            r#"{"ingress":[{"service":"http://x","path":"(((a{1000}){1000}){1000})"}]}"#,
            "ingress[0].path: this regular expression is too large",
        ),
        (r#"{"ingress":[{"hostname":"a","service":"http://x"}]}"#, "ingress[0]: the last rule"),
        (r#"{"ingress":[{}]}"#, "ingress[0].service"),
        (r#"{"ingress":[7]}"#, "ingress[0]: expected an object"),
        (r#"{"ingress":[{"service":"http://x"}],"warp-routing":1}"#, "warp-routing"),
        ("[]", "the pushed configuration"),
    ] {
        let reasons = check(json.as_bytes()).unwrap_err();
        assert!(reasons.iter().any(|reason| reason.starts_with(wanted)), "{json}: {reasons:?}");
    }
}

#[test]
fn a_rule_that_asks_for_an_access_token_is_closed_and_said_wherever_it_is_asked_for() {
    let unknown = Service::Status(http::StatusCode::NOT_IMPLEMENTED);
    for (of_all, of_one, closed) in [
        ("", r#"{"access":{"required":true,"teamName":"t"}}"#, [true, false]),
        (r#","originRequest":{"access":{"required":true}}"#, "{}", [true, true]),
        (
            r#","originRequest":{"access":{"required":true}}"#,
            r#"{"access":{"required":false}}"#,
            [false, true],
        ),
        (r#","originRequest":{"access":{"required":false}}"#, "{}", [false, false]),
    ] {
        let json = format!(
            r#"{{"ingress":[{{"hostname":"a","service":"http://x","plugins":["auth"],"originRequest":{of_one}}},
                {{"service":"hello_world"}}]{of_all}}}"#
        );
        let plan = laid(ConfigSource::Remote, &json).unwrap();
        let is_closed: Vec<bool> = plan.rules.iter().map(|rule| rule.service == unknown).collect();
        assert_eq!(is_closed, closed, "{json}");
        let said = plan.warnings.iter().filter(|warning| warning.contains("originRequest.access: this host"));
        assert_eq!(said.count(), closed.iter().filter(|closed| **closed).count(), "{:?}", plan.warnings);
    }
}
