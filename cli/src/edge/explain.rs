//! `adit edge explain`: asks a running edge where a request would go, and prints why. The edge answers by what it
//! serves by; here is only its form for people.

use std::fmt::Write;
use std::net::IpAddr;

use anyhow::anyhow;
use clap::Args;
use http::StatusCode;
use serde_json::{Value, json};

use super::Ask;
use crate::Failure;
use crate::admin::header;
use crate::table::{Table, show};

/// A request as a visitor would send it.
#[derive(Args)]
pub(crate) struct Question {
    /// The whole address, such as `https://app.example.com/path`
    url: String,
    #[arg(long, default_value = "GET")]
    method: String,
    /// A header of the request: "name: value"; may be given several times. A cookie of a session is one, and so is
    /// what a proxy in front says
    #[arg(long = "header", short = 'H', value_name = "HEADER")]
    headers: Vec<String>,
    /// Who opens the connection: the visitor, or the proxy in front
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    from: IpAddr,
    #[command(flatten)]
    ask: Ask,
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn explain(question: Question) -> Result<(), Failure> {
    let Question { url, method, headers, from, ask } = question;
    let (admin, shown) = ask.edge();
    let headers = headers.iter().map(|line| header(line)).collect::<Result<Vec<_>, _>>()?;
    let body = json!({ "url": url, "method": method, "headers": headers, "from": from });
    let answer = admin.ask("POST", "/explain", None, body.to_string().into()).await?;
    if answer.status == StatusCode::BAD_REQUEST {
        return Err(Failure::Configuration(anyhow!("{}", answer.problem())));
    }
    let page = answer.page()?;
    show(shown.form, &page, || lines(&page));
    Ok(())
}

fn lines(page: &Value) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    if let Some(name) = page["name"].as_str() {
        line(match (&page["tunnel"], &page["balancer"]) {
            (Value::Object(tunnel), _) => {
                let sticky =
                    if tunnel["sticky"] == true { ", of which a visitor keeps its replica" } else { "" };
                format!("{name} leads to the tunnel {}{sticky}", word(&tunnel["name"]))
            }
            (_, Value::Object(_)) => format!("{name} is a load balancer"),
            _ => format!("{name} is known here"),
        });
    }
    if let Value::Object(visitor) = &page["visitor"] {
        let codes = ["pop", "country", "region"].into_iter().filter_map(|name| {
            let code = visitor.get(name)?.as_str()?;
            Some(format!(", {name} {code}"))
        });
        let tls = if visitor["secure"] == true { " over TLS" } else { "" };
        line(format!("from {}{tls}{}", word(&visitor["address"]), codes.collect::<String>()));
    }
    for rule in list(&page["rules"]) {
        line(format!("the rule {} has something to say", word(rule)));
    }
    if let Value::Object(_) = &page["balancer"] {
        text.push_str(&balancer(&page["balancer"]));
    }
    text.push_str(&outcome(page));
    text
}

fn balancer(balancer: &Value) -> String {
    let mut text = format!("pools of {} by {}\n", word(&balancer["list"]), word(&balancer["policy"]));
    if let Value::Object(session) = &balancer["session"] {
        let by = word(&session["by"]);
        let _ = match (session["known"] == true, session["serves"] == true, session.get("endpoint")) {
            (true, true, Some(endpoint)) => writeln!(text, "its session ({by}) is at {}", word(endpoint)),
            (true, false, Some(endpoint)) => {
                writeln!(text, "its session ({by}) was at {}, which does not take it", word(endpoint))
            }
            (true, true, None) => writeln!(text, "its values ({by}) decide"),
            (true, false, None) => writeln!(text, "its session ({by}) is at no endpoint that is there"),
            (false, ..) => writeln!(text, "it has no session ({by}) yet"),
        };
    }
    let headings = &["POOL", "ENDPOINT", "STATE", "WHY", "WEIGHT", "PART", "OPEN"];
    let mut table = Table::new(headings);
    let fallback = balancer.get("fallback").into_iter().map(|pool| (pool, " (fallback)"));
    for (pool, role) in list(&balancer["pools"]).map(|pool| (pool, "")).chain(fallback) {
        let mut why = Vec::new();
        why.extend(pool["place"].as_u64().map(|place| format!("number {place} in order")));
        why.extend((pool["may_serve"] != true).then(|| "may not serve".to_owned()));
        why.extend(pool["latency_ms"].as_f64().map(|ms| format!("{ms} ms")));
        why.push(format!("endpoints by {}", word(&pool["policy"])));
        table.row([
            format!("{}{role}", word(&pool["name"])),
            String::new(),
            word(&pool["health"]).to_owned(),
            why.join(", "),
            String::new(),
            percent(&pool["part"]),
            pool["requests"].to_string(),
        ]);
        for endpoint in list(&pool["endpoints"]) {
            let trial = if endpoint["trial"] == true { "; the next request finds out" } else { "" };
            table.row([
                String::new(),
                word(&endpoint["address"]).to_owned(),
                word(&endpoint["state"]).to_owned(),
                format!("{}{trial}", word(&endpoint["why"])),
                endpoint["weight"].to_string(),
                percent(&endpoint["part"]),
                endpoint["requests"].to_string(),
            ]);
        }
    }
    text.push_str(&table.text());
    text
}

fn outcome(page: &Value) -> String {
    let mut text = String::new();
    for (at, offer) in list(&page["offers"]).enumerate() {
        let verb = if at == 0 { "goes to" } else { "else to" };
        let at =
            ["host"].into_iter().filter_map(|name| Some(format!(", asked as {}", offer[name].as_str()?)));
        let session = if offer["session"] == true { ", where its session is" } else { "" };
        let silent = if offer["silent"] == true { ", which says nothing at the moment" } else { "" };
        let _ = writeln!(
            text,
            "{verb} tunnel {}, replica {}, connection {} over {} from {}{session}{silent}{}",
            word(&offer["tunnel_name"]),
            word(&offer["connector"]),
            offer["index"],
            word(&offer["protocol"]),
            word(&offer["address"]),
            at.collect::<String>(),
        );
    }
    if let Some(waits) = page["waits_ms"].as_u64() {
        let _ = writeln!(text, "waits up to {waits} ms for a host to come");
    }
    if let Value::Object(answer) = &page["answer"] {
        let _ = match (answer.get("error"), answer.get("message")) {
            (Some(error), Some(message)) => {
                writeln!(text, "the edge answers {} ({}): {}", answer["status"], word(error), word(message))
            }
            _ => writeln!(text, "the edge answers {}, as the rule says", answer["status"]),
        };
    }
    text
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn percent(part: &Value) -> String {
    part.as_f64().map_or_else(String::new, |part| format!("{:.1} %", part * 100.0))
}
