//! One exchange for other tools. What was taken out stands there as its mark, so whoever sends it again has to put
//! a value in its place.

use std::fmt::Write as _;

use crate::exchange::{Body, Exchange, Message};

/// A command line for a POSIX shell that sends the request to where the visitor sent it. Only text that was
/// quoted gets there: what a visitor wrote is never a word of the shell's, nor an option of curl's.
#[must_use]
pub fn curl(exchange: &Exchange) -> String {
    let mut line = String::from("curl --globoff --path-as-is");
    if exchange.method == "HEAD" {
        line.push_str(" --head");
    } else {
        let _ = write!(line, " --request {}", quoted(&exchange.method));
    }
    for (name, value) in sent(&exchange.request) {
        let _ = write!(line, " \\\n  --header {}", quoted(&format!("{name}: {value}")));
    }
    if let Body::Text { text, .. } = &exchange.request.body {
        let _ = write!(line, " \\\n  --data-raw {}", quoted(text));
    }
    let url = format!("{}://{}{}", exchange.scheme, exchange.host, exchange.target);
    let _ = writeln!(line, " \\\n  --url {}", quoted(&url));
    line
}

/// A case for `adit plugin test`: the request, what the visitor was answered, and what is to be decided, as far
/// as that is known.
#[must_use]
pub fn plugin_case(exchange: &Exchange) -> String {
    let is_answered = exchange.plugins.starts_with("answered");
    let name = format!("{} {} is answered with {}", exchange.method, exchange.target, exchange.status);
    let mut request = format!(
        "method = {}, scheme = {}, authority = {}, path = {}",
        toml(&exchange.method),
        toml(&exchange.scheme),
        toml(&exchange.host),
        toml(&exchange.target)
    );
    if !exchange.visitor.is_empty() {
        let _ = write!(request, ", client-ip = {}", toml(&exchange.visitor));
    }
    let _ = write!(request, ", headers = {}", headers(&exchange.request));
    if let Body::Text { text, .. } = &exchange.request.body {
        let _ = write!(request, ", body = {}", toml(text));
    }
    let mut case = format!("[[case]]\nname = {}\nrequest = {{ {request} }}\n", toml(&name));
    if is_answered {
        let _ = writeln!(case, "expect = {{ decision = \"respond\", status = {} }}", exchange.status);
        return case;
    }
    case.push_str("# \"edit\" where the plugin changes something.\nexpect = { decision = \"next\" }\n");
    if exchange.status >= 200 {
        let mut answer = format!("status = {}, headers = {}", exchange.status, headers(&exchange.answer));
        if let Body::Text { text, .. } = &exchange.answer.body {
            let _ = write!(answer, ", body = {}", toml(text));
        }
        let _ = writeln!(case, "response = {{ {answer} }}");
    }
    case
}

/// Headers of whoever has asked; what edges and connections have added is of their own making.
fn sent(message: &Message) -> impl Iterator<Item = (&str, &str)> {
    let headers = message.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    headers.filter(|(name, _)| !ADDED.contains(name) && !name.starts_with("cf-"))
}

fn headers(message: &Message) -> String {
    let mut all: Vec<(&str, Vec<String>)> = Vec::new();
    for (name, value) in sent(message) {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(toml(value)),
            None => all.push((name, vec![toml(value)])),
        }
    }
    let written = all.iter().map(|(name, values)| match values.as_slice() {
        [value] => format!("{} = {value}", toml(name)),
        values => format!("{} = [{}]", toml(name), values.join(", ")),
    });
    let written: Vec<String> = written.collect();
    if written.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", written.join(", ")) }
}

/// A basic string of TOML, on one line.
fn toml(text: &str) -> String {
    // JSON escapes what TOML wants to be escaped, but for one letter.
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// One word of a POSIX shell. What a terminal would obey is written as an escape, which needs a shell that knows
/// `$'…'`.
fn quoted(text: &str) -> String {
    let obeyed = |letter: char| letter.is_control() && letter != '\n' && letter != '\t';
    if !text.contains(obeyed) {
        return format!("'{}'", text.replace('\'', "'\\''"));
    }
    let mut word = String::from("$'");
    for letter in text.chars() {
        match letter {
            '\'' => word.push_str("\\'"),
            '\\' => word.push_str("\\\\"),
            letter if letter.is_control() => {
                for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(word, "\\x{byte:02x}");
                }
            }
            letter => word.push(letter),
        }
    }
    word.push('\'');
    word
}

/// By edges, connections and curl itself.
const ADDED: [&str; 7] = [
    "host",
    "content-length",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "cdn-loop",
    "accept-encoding",
];

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::exchange::Stage;

    pub(crate) fn exchange() -> Exchange {
        Exchange {
            number: 7,
            id: "8d2f1c7e9a0b1c2d".to_owned(),
            started: 0,
            generation: 3,
            rule: "api".to_owned(),
            method: "POST".to_owned(),
            scheme: "https".to_owned(),
            host: "shop.example.com".to_owned(),
            target: "/orders?note=it's".to_owned(),
            visitor: "192.0.2.7".to_owned(),
            status: 503,
            outcome: "whole".to_owned(),
            plugins: "passed".to_owned(),
            total: 1_500_000,
            stages: vec![Stage { name: "origin".to_owned(), at: 100, took: 1_499_000 }],
            request: Message {
                headers: vec![
                    ("host".to_owned(), "shop.example.com".to_owned()),
                    ("x-note".to_owned(), "a'b $(reboot) `x` \\ \"q\"".to_owned()),
                    ("x-two".to_owned(), "1".to_owned()),
                    ("x-two".to_owned(), "2".to_owned()),
                    ("authorization".to_owned(), "Bearer ‹redacted 9 bytes, 01020304›".to_owned()),
                    ("cf-ray".to_owned(), "8d2f1c7e9a0b1c2d".to_owned()),
                ],
                left_out: 0,
                body: Body::Text { text: "{\"a\":\"\u{1b}[2J\"}\n".to_owned(), bytes: 12, is_whole: true },
                redacted: 1,
            },
            answer: Message::default(),
        }
    }

    #[test]
    fn a_shell_reads_back_exactly_what_was_sent() {
        let line = curl(&exchange());
        assert!(!line.contains('\u{1b}'), "{line}");
        // bash is what knows `$'…'`; what it makes of the words is compared.
        let script = line.replacen("curl", "printf '%s\\0'", 1);
        let read = std::process::Command::new("bash").arg("-c").arg(script).output().unwrap();
        let words = String::from_utf8(read.stdout).unwrap();
        let words: Vec<&str> = words.split('\0').collect();
        assert_eq!(
            words,
            [
                "--globoff",
                "--path-as-is",
                "--request",
                "POST",
                "--header",
                "x-note: a'b $(reboot) `x` \\ \"q\"",
                "--header",
                "x-two: 1",
                "--header",
                "x-two: 2",
                "--header",
                "authorization: Bearer ‹redacted 9 bytes, 01020304›",
                "--data-raw",
                "{\"a\":\"\u{1b}[2J\"}\n",
                "--url",
                "https://shop.example.com/orders?note=it's",
                "",
            ]
        );
    }
}
