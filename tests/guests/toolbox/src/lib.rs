//! A plugin that exports every phase and uses every service of the host.
//!
//! The request header `x-do` holds one command, whose outcome becomes the reply; see [`obey`]. What
//! the access log and the ticker see is left in the bucket `seen`. With `{"probe": "fail"}` in its
//! configuration the plugin fails its probe. Of `leave WORD` the first of two in a chain leaves the word for the
//! second, which answers with it if it is `reply`; where something was left an answer says in `x-exchange` what is known.

use std::sync::OnceLock;

use bindings::adit::plugin::crypto::{Algorithm, Hash, PublicKey};
use bindings::adit::plugin::types::{Fault, HeaderOp, Reply, RequestHead, ResponseEdits, ResponseHead};
use bindings::adit::plugin::{clock, crypto, exchange, http_client, key_value, keyed, metrics, secret};
use bindings::exports::adit::plugin::access_log::{Entry, Guest as AccessLog};
use bindings::exports::adit::plugin::lifecycle::{Guest as Lifecycle, Manifest};
use bindings::exports::adit::plugin::probe::Guest as Probe;
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};
use bindings::exports::adit::plugin::response_filter::{Guest as ResponseFilter, ResponseAction};
use bindings::exports::adit::plugin::schema::Guest as Schema;
use bindings::exports::adit::plugin::ticker::Guest as Ticker;
use bindings::wasi::keyvalue::atomics::{self, Cas, CasError};
use bindings::wasi::keyvalue::{batch, store};

#[allow(unsafe_code)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package test:toolbox;
            world toolbox {
                include adit:plugin/services@0.1.0;
                import wasi:keyvalue/atomics@0.2.0-draft2;
                import wasi:keyvalue/batch@0.2.0-draft2;
                export adit:plugin/lifecycle@0.1.0;
                export adit:plugin/schema@0.1.0;
                export adit:plugin/probe@0.1.0;
                export adit:plugin/request-filter@0.1.0;
                export adit:plugin/response-filter@0.1.0;
                export adit:plugin/access-log@0.1.0;
                export adit:plugin/ticker@0.1.0;
            }
            package wasi:keyvalue@0.2.0-draft2 {
                interface store {
                    variant error { no-such-store, access-denied, other(string) }
                    record key-response { keys: list<string>, cursor: option<string> }
                    open: func(identifier: string) -> result<bucket, error>;
                    resource bucket {
                        get: func(key: string) -> result<option<list<u8>>, error>;
                        list-keys: func(cursor: option<string>) -> result<key-response, error>;
                    }
                }
                interface atomics {
                    use store.{bucket, error};
                    variant cas-error { store-error(error), cas-failed(cas) }
                    resource cas {
                        new: static func(bucket: borrow<bucket>, key: string) -> result<cas, error>;
                        current: func() -> result<option<list<u8>>, error>;
                    }
                    swap: func(cas: cas, value: list<u8>) -> result<_, cas-error>;
                }
                interface batch {
                    use store.{bucket, error};
                    get-many: func(bucket: borrow<bucket>, keys: list<string>)
                        -> result<list<tuple<string, option<list<u8>>>>, error>;
                    set-many: func(bucket: borrow<bucket>, key-values: list<tuple<string, list<u8>>>)
                        -> result<_, error>;
                    delete-many: func(bucket: borrow<bucket>, keys: list<string>) -> result<_, error>;
                }
            }
        ",
        world: "test:toolbox/toolbox",
        generate_all,
    });

    #[cfg(target_arch = "wasm32")]
    use super::Toolbox;
    #[cfg(target_arch = "wasm32")]
    export!(Toolbox with_types_in self);
}

/// The component's exports.
pub struct Toolbox;

static FAILS: OnceLock<bool> = OnceLock::new();

/// Where the phases without an answer leave what they saw.
const SEEN: &str = "seen";

impl Lifecycle for Toolbox {
    fn describe() -> Manifest {
        Manifest {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            request_headers: vec!["x-do".to_owned()],
            response_headers: Vec::new(),
        }
    }

    fn configure(config: String) -> Result<(), Vec<Fault>> {
        let _ = FAILS.set(config.contains("fail"));
        Ok(())
    }
}

impl Schema for Toolbox {
    fn config_schema() -> String {
        r#"{"type":"object","properties":{"probe":{"enum":["fail"]}}}"#.to_owned()
    }
}

impl Probe for Toolbox {
    fn probe() -> Result<(), Fault> {
        if FAILS.get() == Some(&true) {
            return Err(Fault { code: "probe".to_owned(), message: "told to fail".to_owned() });
        }
        Ok(())
    }
}

impl RequestFilter for Toolbox {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        let Some((_, command)) = head.headers.first() else { return Ok(RequestAction::Next) };
        let words: Vec<&str> = command.split(' ').collect();
        if let ["leave", word] = words[..] {
            return leave(word);
        }
        let body = obey(&words).unwrap_or_else(|| format!("unknown command: {command}"));
        Ok(RequestAction::Respond(Reply { status: 200, headers: Vec::new(), body: body.into_bytes() }))
    }
}

/// Does what the words say and tells the outcome. Errors are told by their name in WIT.
fn obey(words: &[&str]) -> Option<String> {
    Some(match *words {
        ["secret", name] => secret::read(name).map_or_else(|| "none".to_owned(), |bytes| text(&bytes)),
        ["digest", data] => hex(&crypto::digest(Hash::Sha256, data.as_bytes())),
        ["hmac", key, data] => hex(&crypto::hmac(Hash::Sha256, key.as_bytes(), data.as_bytes())),
        ["keyed", secret, data] => match keyed::hmac(Hash::Sha256, secret, data.as_bytes()) {
            Ok(tag) => {
                let holds = |tag: &[u8]| keyed::verify_hmac(Hash::Sha256, secret, data.as_bytes(), tag);
                format!("{} {:?} {:?}", hex(&tag), holds(&tag), holds(&tag[1..]))
            }
            Err(error) => error.name().to_owned(),
        },
        ["is-secret", secret, value] => format!("{:?}", keyed::is_secret(secret, value.as_bytes())),
        ["verify", jwk, data, signature] => {
            let key = PublicKey::Jwk(jwk.to_owned());
            format!("{:?}", crypto::verify(Algorithm::Ed25519, &key, data.as_bytes(), &unhex(signature)?))
        }
        ["equal", one, other] => crypto::equal(one.as_bytes(), other.as_bytes()).to_string(),
        ["random", count] => match crypto::random_bytes(count.parse().ok()?) {
            Ok(bytes) => hex(&bytes),
            Err(error) => error.name().to_owned(),
        },
        ["get", bucket, key] => match key_value::get(bucket, key) {
            Ok(value) => value.map_or_else(|| "none".to_owned(), |bytes| text(&bytes)),
            Err(error) => error.name().to_owned(),
        },
        ["set", bucket, key, value] => outcome(key_value::set(bucket, key, value.as_bytes(), None)),
        ["set", bucket, key, value, ttl] => {
            outcome(key_value::set(bucket, key, value.as_bytes(), Some(ttl.parse().ok()?)))
        }
        ["keys", bucket] => {
            let listed = store::open(bucket).and_then(|opened| opened.list_keys(None));
            let mut keys = listed.map(|listed| listed.keys).unwrap_or_default();
            keys.sort();
            keys.join(" ")
        }
        ["fill", bucket, bytes] => {
            outcome(key_value::set(bucket, "filled", &vec![0; bytes.parse().ok()?], None))
        }
        ["delete", bucket, key] => outcome(key_value::delete(bucket, key)),
        ["add", bucket, key, by] => match key_value::increment(bucket, key, by.parse().ok()?, None) {
            Ok(sum) => sum.to_string(),
            Err(error) => error.name().to_owned(),
        },
        ["add", bucket, key, by, ttl] => {
            match key_value::increment(bucket, key, by.parse().ok()?, Some(ttl.parse().ok()?)) {
                Ok(sum) => sum.to_string(),
                Err(error) => error.name().to_owned(),
            }
        }
        ["swap", bucket, key, between, value] => swap(bucket, key, between, value.as_bytes()),
        ["open", ref bucket @ ..] => match store::open(bucket.first().unwrap_or(&"")) {
            Ok(opened) => {
                opened.get("name").ok().flatten().map_or_else(|| "none".to_owned(), |name| text(&name))
            }
            Err(error) => format!("{error:?}"),
        },
        ["batch", bucket, value, ref keys @ ..] => {
            many(bucket, value, keys).unwrap_or_else(|error| format!("{error:?}"))
        }
        ["read", bucket, key, times] => match store::open(bucket)
            .and_then(|opened| batch::get_many(&opened, &vec![key.to_owned(); times.parse().unwrap_or(0)]))
        {
            Ok(read) => read.len().to_string(),
            Err(error) => format!("{error:?}"),
        },
        ["count", name, by] => {
            metrics::add(name, by.parse().ok()?);
            "done".to_owned()
        }
        ["gauge", name, value] => {
            metrics::set(name, value.parse().ok()?);
            "done".to_owned()
        }
        ["clock"] => {
            let first = clock::monotonic();
            format!("{} {}", clock::now(), clock::monotonic() >= first)
        }
        ["fetch", url, redirects] => fetch(url, redirects.parse().ok()?, None),
        ["wait", url, timeout] => fetch(url, 0, Some(timeout.parse().ok()?)),
        _ => return None,
    })
}

/// Looks at a value, has another one put there in between unless it is `-`, and swaps what it saw; where that fails,
/// it says what is there instead and swaps that.
fn swap(bucket: &str, key: &str, between: &str, value: &[u8]) -> String {
    let seen = store::open(bucket).and_then(|opened| Cas::new(&opened, key));
    let Ok(seen) = seen else { return "no bucket".to_owned() };
    if between != "-" && key_value::set(bucket, key, between.as_bytes(), None).is_err() {
        return "not set".to_owned();
    }
    match atomics::swap(seen, value) {
        Ok(()) => "swapped".to_owned(),
        Err(CasError::StoreError(error)) => format!("{error:?}"),
        Err(CasError::CasFailed(now)) => {
            let current = now.current().ok().flatten().unwrap_or_default();
            let again = atomics::swap(now, value).is_ok();
            format!("{} was there, swapped: {again}", text(&current))
        }
    }
}

/// Puts a value under each of these keys but the last, reads all of them, and takes the first away again.
fn many(bucket: &str, value: &str, keys: &[&str]) -> Result<String, store::Error> {
    let opened = store::open(bucket)?;
    let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    let pairs: Vec<_> = keys.iter().map(|key| (key.clone(), value.as_bytes().to_vec())).collect();
    batch::set_many(&opened, &pairs[..pairs.len() - 1])?;
    let read = batch::get_many(&opened, &keys)?;
    batch::delete_many(&opened, &keys[..1])?;
    let told = read.into_iter().map(|(key, value)| match value {
        Some(value) => format!("{key}={}", text(&value)),
        None => format!("{key} is not there"),
    });
    Ok(told.collect::<Vec<_>>().join(", "))
}

fn fetch(url: &str, redirects: u8, timeout_ms: Option<u32>) -> String {
    let request = http_client::Request {
        method: "GET".to_owned(),
        url: url.to_owned(),
        headers: vec![("x-toolbox".to_owned(), "1".to_owned())],
        body: Vec::new(),
        timeout_ms,
        redirects,
    };
    match http_client::send(&request) {
        Ok(answer) => format!("{} {}", answer.status, text(&answer.body)),
        Err(error) => format!("{error:?}"),
    }
}

fn outcome(result: Result<(), key_value::Error>) -> String {
    result.map_or_else(|error| error.name().to_owned(), |()| "done".to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl ResponseFilter for Toolbox {
    fn on_response(_head: ResponseHead) -> Result<ResponseAction, Fault> {
        let Some(left) = exchange::get(LEFT) else { return Ok(ResponseAction::Next) };
        let headers =
            vec![HeaderOp::Append(("x-exchange".to_owned(), format!("{}; {}", known(), text(&left))))];
        Ok(ResponseAction::Edit(ResponseEdits { status: None, headers }))
    }
}

/// Where one leaves something for the next.
const LEFT: &str = "toolbox/left";

fn leave(word: &str) -> Result<RequestAction, Fault> {
    let Some(left) = exchange::get(LEFT) else {
        let left = exchange::set(LEFT, word.as_bytes());
        left.map_err(|error| Fault { code: "exchange".to_owned(), message: format!("{error:?}") })?;
        return Ok(RequestAction::Next);
    };
    if left != b"reply" {
        return Ok(RequestAction::Next);
    }
    // Not before there is an answer.
    let body = format!("{}; {}", known(), text(&left));
    Ok(RequestAction::Respond(Reply { status: 200, headers: Vec::new(), body: body.into_bytes() }))
}

/// What is known of the exchange.
fn known() -> String {
    let or_none = |fact: Option<String>| fact.unwrap_or_else(|| "none".to_owned());
    let request = exchange::request()
        .map(|line| format!("{} {}://{}{}", line.method, line.scheme, line.authority, line.path_with_query));
    let by = or_none(exchange::answered_by());
    let facts = [
        exchange::rule(),
        exchange::service(),
        or_none(exchange::country()),
        or_none(exchange::client_port().map(|port| port.to_string())),
        or_none(exchange::http_version()),
        or_none(exchange::tls_version()),
        or_none(exchange::attempt().map(|attempt| attempt.to_string())),
        or_none(request),
        exchange::request_header("x-do").join(","),
        by,
    ];
    facts.join("; ")
}

impl AccessLog for Toolbox {
    fn on_log(entries: Vec<Entry>, dropped: u64) {
        let count = i64::try_from(entries.len()).unwrap_or(i64::MAX);
        let _ = key_value::increment(SEEN, "entries", count, None);
        let _ = key_value::increment(SEEN, "batches", 1, None);
        let _ = key_value::increment(SEEN, "dropped", i64::try_from(dropped).unwrap_or(i64::MAX), None);
        if let Some(last) = entries.last() {
            let Entry { rule, method, path_with_query, status, sent, complete, .. } = last;
            let line = format!("{rule} {method} {path_with_query} {status} {sent} {complete}");
            let _ = key_value::set(SEEN, "last", line.as_bytes(), None);
        }
    }
}

impl Ticker for Toolbox {
    fn on_tick() {
        let _ = key_value::increment(SEEN, "ticks", 1, None);
    }
}
