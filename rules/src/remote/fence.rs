//! What pushed rules may not do by themselves: the host's own document says what of its machine they may use, and how
//! far their circuits lead. Knows the reference's `ipRules`.

use serde_json::{Map, Value};

use super::value::{self, Reasons};
use crate::grants::Network;
use crate::reach::{IpRule, MOST_PORTS, MOST_RULES, port_of};

/// What is said of a rule that would use what it may not.
pub(super) fn doubt(word: &str) -> String {
    format!(
        "this host's own document does not let a pushed configuration use {word} ([pushed] may-use), and 501 is \
         answered in its place"
    )
}

/// The rules of `ipRules`, which count for the rule that they stand in alone. `None` if there are none, or they are
/// wrong and there is a reason that says why.
pub(super) fn ip_rules(at: &str, one: &Map<String, Value>, said: &mut Reasons) -> Option<Vec<IpRule>> {
    let at = format!("{at}.ipRules");
    let written = match one.get("ipRules") {
        None | Some(Value::Null) => return None,
        Some(Value::Array(written)) => written,
        Some(other) => return said.wrong(&at, &value::expected("an array", other)),
    };
    if written.len() > MOST_RULES {
        return said.wrong(&at, &format!("more than {MOST_RULES} rules"));
    }
    let rules =
        written.iter().enumerate().map(|(index, written)| rule(&format!("{at}[{index}]"), written, said));
    // One that is left out may be what closes something.
    rules.collect::<Vec<_>>().into_iter().collect()
}

fn rule(at: &str, written: &Value, said: &mut Reasons) -> Option<IpRule> {
    let Value::Object(rule) = written else {
        return said.wrong(at, &value::expected("an object", written));
    };
    let Some(prefix) = said.text(at, rule, "prefix")? else {
        return said.wrong(at, "say which network: prefix");
    };
    let network = said.take(&format!("{at}.prefix"), Network::parse(prefix))?;
    let at_ports = format!("{at}.ports");
    let mut ports = Vec::new();
    match rule.get("ports") {
        None | Some(Value::Null) => {}
        Some(Value::Array(written)) if written.len() <= MOST_PORTS => {
            for port in written {
                ports.push(said.take(&at_ports, port_of(port.as_i64().unwrap_or_default()))?);
            }
        }
        Some(Value::Array(_)) => return said.wrong(&at_ports, &format!("more than {MOST_PORTS} ports")),
        Some(other) => return said.wrong(&at_ports, &value::expected("an array", other)),
    }
    let allow = match rule.get("allow") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(allow)) => *allow,
        Some(other) => return said.wrong(&format!("{at}.allow"), &value::expected("true or false", other)),
    };
    Some(IpRule { network, ports, allow })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::document::ConfigSource;
    use crate::plan::{Plan, Service};
    use crate::remote::overlay;
    use crate::testing::plan;

    const LAST: &str = "[[ingress]]\nservice = \"http_status:404\"\n";

    fn laid(document: &str, rule: &str) -> Result<Plan, Vec<String>> {
        let mut plan = plan(&format!("{document}{LAST}"));
        let json =
            format!(r#"{{"ingress":[{{"hostname":"a.test",{rule}}},{{"service":"http_status:404"}}]}}"#);
        overlay(&mut plan, ConfigSource::Remote, json.as_bytes(), Path::new("/etc/adit")).map(|()| plan)
    }

    #[test]
    fn a_pushed_configuration_uses_of_this_machine_what_the_document_says_and_nothing_else() {
        let unknown = Service::Status(http::StatusCode::NOT_IMPLEMENTED);
        let plugin = "[[plugin]]\nname = \"mine\"\ncomponent = \"a.wasm\"\n";
        for (word, rule) in [
            ("unix", r#""service":"unix:/run/a.sock""#),
            ("unix", r#""service":"unix+tls:/run/a.sock""#),
            ("wasm", r#""service":"wasm:mine""#),
            ("files", r#""service":"https://a","originRequest":{"caPool":"/etc/shadow"}"#),
        ] {
            for allowed in ["unix", "wasm", "files"] {
                let document = format!("[pushed]\nmay-use = [{allowed:?}]\n{plugin}");
                let plan = laid(&document, rule).unwrap();
                assert_eq!(plan.rules[0].service == unknown, allowed != word, "{allowed}: {rule}");
                let said = format!("use {word} ([pushed]");
                let said = plan.warnings.iter().any(|warning| warning.contains(&said));
                assert_eq!(said, allowed != word, "{allowed}: {rule}: {:?}", plan.warnings);
            }
            let plan = laid(plugin, rule).unwrap();
            assert_eq!((&plan.rules[0].service, &plan.rules[0].origin.ca_file), (&unknown, &None), "{rule}");
        }
        assert!(laid(plugin, r#""service":"wasm:theirs""#).is_err());
    }

    #[test]
    fn a_pushed_bastion_leads_as_far_as_both_sides_allow() {
        let host = "[tcp]\nip-rules = [{ prefix = \"10.0.0.0/8\", ports = [22], allow = true }]\n";
        let wide = r#","originRequest":{"ipRules":[{"prefix":"0.0.0.0/0","allow":true},{"prefix":"10.1.0.0/16","allow":true}]}"#;
        for (document, more, wanted) in [
            ("", "", [false, false, false]),
            ("", wide, [false, false, false]),
            (host, "", [true, true, false]),
            (host, wide, [true, false, false]),
            (host, r#","originRequest":{"ipRules":[]}"#, [false, false, false]),
        ] {
            for service in ["bastion", "socks-proxy"] {
                let plan = laid(document, &format!(r#""service":"{service}"{more}"#)).unwrap();
                let reach = &plan.rules[0].origin.reach;
                let reached = ["10.1.0.1", "10.2.0.1", "198.51.100.1"].map(|address| {
                    let is_private = |address: std::net::IpAddr| address.to_string().starts_with("10.");
                    reach.allows(address.parse().unwrap(), 22, is_private)
                });
                assert_eq!(reached, wanted, "{document} {service}{more}");
                let is_said = plan.warnings.iter().any(|warning| warning.contains("leads nowhere"));
                assert_eq!(is_said, !wanted[0], "{:?}", plan.warnings);
            }
        }
    }

    #[test]
    fn bastion_mode_is_the_bastion_whatever_is_written_beside_it() {
        for (rule, is_bastion) in [
            (r#""originRequest":{"bastionMode":true}"#, true),
            (r#""service":"http://x","originRequest":{"bastionMode":true}"#, true),
            (r#""service":"hello_world","originRequest":{"bastionMode":true}"#, false),
            (r#""service":"http://x","originRequest":{"bastionMode":false}"#, false),
        ] {
            let plan = laid("", rule).unwrap();
            assert_eq!(plan.rules[0].service == Service::Bastion, is_bastion, "{rule}");
        }
    }

    #[test]
    fn wrong_rules_refuse_it_all_and_are_said_at_their_place() {
        for (rules, wanted) in [
            (r#"7"#, "ipRules: expected an array"),
            (r#"[{"allow":true}]"#, "ipRules[0]: say which network"),
            (r#"[{"prefix":"10.0.0.0/33"}]"#, "ipRules[0].prefix: this is not a network"),
            (r#"[{"prefix":"10.0.0.0/8","ports":[0]}]"#, "ipRules[0].ports: a port is"),
            (r#"[{"prefix":"10.0.0.0/8","allow":"yes"}]"#, "ipRules[0].allow: expected true or false"),
        ] {
            let rule = format!(r#""service":"bastion","originRequest":{{"ipRules":{rules}}}"#);
            let reasons = laid("", &rule).unwrap_err();
            assert!(reasons[0].contains(wanted), "{reasons:?}");
        }
    }

    #[test]
    fn a_pushed_limit_of_flows_lowers_that_of_the_document_and_never_raises_it() {
        for (pushed, wanted) in [("5", 5), ("500", 100), ("0", 100)] {
            let mut plan = plan(&format!("[tcp]\nmost-circuits = 100\n{LAST}"));
            let json = format!(
                r#"{{"ingress":[{{"service":"http_status:404"}}],"warp-routing":{{"maxActiveFlows":{pushed}}}}}"#
            );
            overlay(&mut plan, ConfigSource::Remote, json.as_bytes(), Path::new("/")).unwrap();
            assert_eq!(plan.tcp.most_circuits, wanted, "{pushed}");
        }
    }
}
