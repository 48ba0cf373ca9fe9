//! The plugin as the host sees it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bindings::adit::plugin::log::{Level, write};
use bindings::adit::plugin::types::{
    Fault, Header, HeaderOp, Reply, RequestEdits, RequestHead, ResponseEdits, ResponseHead,
};
use bindings::exports::adit::plugin::lifecycle::{Guest as Lifecycle, Manifest};
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};
use bindings::exports::adit::plugin::response_filter::{Guest as ResponseFilter, ResponseAction};

use crate::act::Act;

#[allow(unsafe_code)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "filter" });

    #[cfg(target_arch = "wasm32")]
    use super::Misbehave;
    #[cfg(target_arch = "wasm32")]
    export!(Misbehave with_types_in self);
}

/// The component's exports.
pub struct Misbehave;

static PLAN: OnceLock<Plan> = OnceLock::new();
static CALLS: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Configure,
    Request,
    Response,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    on: Phase,
    act: Act,
}

impl Plan {
    fn read(config: &str) -> Result<Self, Vec<settings::Fault>> {
        settings::read(config, |place, faults| {
            let object = place.object(&["on", "do"], faults)?;
            let mut on = Phase::Request;
            if let Some(place) = object.optional("on") {
                on = match place.text(faults)? {
                    "configure" => Phase::Configure,
                    "request" => Phase::Request,
                    "response" => Phase::Response,
                    _ => {
                        place.fault(faults, "must be \"configure\", \"request\" or \"response\"");
                        return None;
                    }
                };
            }
            let mut act = Act::Ok;
            if let Some(place) = object.optional("do") {
                let Some(named) = Act::named(place.text(faults)?) else {
                    place.fault(faults, format!("must be one of {:?}", Act::NAMES.map(|(name, _)| name)));
                    return None;
                };
                act = named;
            }
            Some(Self { on, act })
        })
    }

    fn act_in(self, phase: Phase) -> Act {
        if self.on == phase { self.act } else { Act::Ok }
    }
}

impl Lifecycle for Misbehave {
    fn describe() -> Manifest {
        Manifest {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            request_headers: [IN_REQUEST, IN_RESPONSE, CARRY].map(str::to_owned).to_vec(),
            response_headers: Vec::new(),
        }
    }

    fn configure(config: String) -> Result<(), Vec<Fault>> {
        let plan = Plan::read(&config).map_err(|faults| {
            faults
                .into_iter()
                .map(|fault| Fault { code: fault.pointer, message: fault.message })
                .collect::<Vec<_>>()
        })?;
        let act = plan.act_in(Phase::Configure);
        act.break_down();
        if act == Act::Fault {
            return Err(["/on", "/do"]
                .map(|pointer| Fault { code: pointer.to_owned(), message: FAULT.to_owned() })
                .to_vec());
        }
        PLAN.set(plan).map_err(|_| {
            vec![Fault { code: String::new(), message: "this instance is configured already".to_owned() }]
        })
    }
}

impl RequestFilter for Misbehave {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        CALLS.fetch_add(1, Ordering::Relaxed);
        let plan = plan()?;
        let act = match asked(&head.headers, IN_REQUEST)? {
            Some(act) => act,
            None => plan.act_in(Phase::Request),
        };
        announce(act);
        act.break_down();

        let mut edits = RequestEdits {
            method: None,
            authority: None,
            path_with_query: None,
            headers: Vec::new(),
            carry: Luggage::pack(&head.headers, act == Act::Carry || plan.act == Act::Carry)?,
        };
        match act {
            Act::Fault => return Err(fault()),
            Act::InvalidHeader => edits.headers.push(invalid_header()),
            Act::InvalidEdit => edits.path_with_query = Some("no-slash".to_owned()),
            Act::InvalidReply => return Ok(RequestAction::Respond(reply(99, Vec::new()))),
            Act::BigReply => return Ok(RequestAction::Respond(reply(200, vec![b'x'; BIG]))),
            Act::Respond => return Ok(RequestAction::Respond(reply(418, b"short and stout\n".to_vec()))),
            Act::ManyHeaders => edits.headers = vec![HeaderOp::Remove("x-none".to_owned()); MANY],
            Act::LongHeader => edits.headers.push(HeaderOp::Set(("x-long".to_owned(), "x".repeat(LONG)))),
            Act::Inject => edits.headers.push(injected()),
            Act::FloodLog => flood(),
            Act::LongLog => write(Level::Info, &"x".repeat(BIG)),
            Act::Ok
            | Act::Trap
            | Act::Panic
            | Act::Loop
            | Act::EatMemory
            | Act::Sleep
            | Act::Recurse
            | Act::Count
            | Act::Carry => {}
        }
        Ok(if edits.headers.is_empty() && edits.path_with_query.is_none() && edits.carry.is_empty() {
            RequestAction::Next
        } else {
            RequestAction::Edit(edits)
        })
    }
}

impl ResponseFilter for Misbehave {
    fn on_response(head: ResponseHead) -> Result<ResponseAction, Fault> {
        let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        let plan = plan()?;
        let luggage = Luggage::unpack(&head.carry);
        let act = luggage.act.unwrap_or_else(|| plan.act_in(Phase::Response));
        announce(act);
        act.break_down();

        let mut edits = ResponseEdits { status: None, headers: Vec::new() };
        match act {
            Act::Fault => return Err(fault()),
            Act::InvalidHeader => edits.headers.push(invalid_header()),
            Act::InvalidEdit => edits.status = Some(1000),
            Act::InvalidReply => return Ok(ResponseAction::Respond(reply(99, Vec::new()))),
            Act::BigReply => return Ok(ResponseAction::Respond(reply(200, vec![b'x'; BIG]))),
            Act::Respond => return Ok(ResponseAction::Respond(reply(418, b"short and stout\n".to_vec()))),
            Act::ManyHeaders => edits.headers = vec![HeaderOp::Remove("x-none".to_owned()); MANY],
            Act::LongHeader => edits.headers.push(HeaderOp::Set(("x-long".to_owned(), "x".repeat(LONG)))),
            Act::Inject => edits.headers.push(injected()),
            Act::FloodLog => flood(),
            Act::LongLog => write(Level::Info, &"x".repeat(BIG)),
            Act::Ok
            | Act::Trap
            | Act::Panic
            | Act::Loop
            | Act::EatMemory
            | Act::Sleep
            | Act::Recurse
            | Act::Count
            | Act::Carry => {}
        }
        if act == Act::Count || plan.act == Act::Count {
            edits.headers.push(HeaderOp::Set(("x-count".to_owned(), calls.to_string())));
        }
        if let Some(carried) = luggage.carried {
            edits.headers.push(HeaderOp::Set((CARRY.to_owned(), carried)));
        }
        Ok(if edits.headers.is_empty() && edits.status.is_none() {
            ResponseAction::Next
        } else {
            ResponseAction::Edit(edits)
        })
    }
}

/// What the request phase leaves for the response phase: the act asked for, a line break, and the
/// value to echo.
#[derive(Debug, Default, PartialEq, Eq)]
struct Luggage {
    act: Option<Act>,
    carried: Option<String>,
}

impl Luggage {
    fn pack(headers: &[Header], with_value: bool) -> Result<Vec<u8>, Fault> {
        let act = asked(headers, IN_RESPONSE)?;
        let carried = find(headers, CARRY).filter(|_| with_value);
        if act.is_none() && carried.is_none() {
            return Ok(Vec::new());
        }
        let act = act.map_or("", Act::name);
        Ok(carried.map_or_else(|| act.to_owned(), |value| format!("{act}\n{value}")).into_bytes())
    }

    fn unpack(carry: &[u8]) -> Self {
        let text = String::from_utf8_lossy(carry);
        let (act, carried) = match text.split_once('\n') {
            Some((act, carried)) => (act, Some(carried.to_owned())),
            None => (text.as_ref(), None),
        };
        Self { act: Act::named(act), carried }
    }
}

fn plan() -> Result<Plan, Fault> {
    PLAN.get().copied().ok_or_else(|| Fault {
        code: "not-configured".to_owned(),
        message: "a request came before the configuration".to_owned(),
    })
}

/// The act that a request asks for in this header.
fn asked(headers: &[Header], name: &str) -> Result<Option<Act>, Fault> {
    let Some(value) = find(headers, name) else { return Ok(None) };
    match Act::named(value) {
        Some(act) => Ok(Some(act)),
        None => Err(Fault { code: "unknown-act".to_owned(), message: format!("{name}: {value}") }),
    }
}

fn find<'a>(headers: &'a [Header], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn announce(act: Act) {
    if act != Act::Ok {
        write(Level::Info, &format!("misbehaving: {}", act.name()));
    }
}

fn fault() -> Fault {
    Fault { code: "asked".to_owned(), message: FAULT.to_owned() }
}

fn invalid_header() -> HeaderOp {
    HeaderOp::Set(("x bad".to_owned(), "one\r\nx-smuggled: two".to_owned()))
}

fn injected() -> HeaderOp {
    HeaderOp::Set(("x-good".to_owned(), "one\r\nx-smuggled: two".to_owned()))
}

fn flood() {
    for number in 0..MANY {
        write(Level::Info, &format!("flood {number}"));
    }
}

fn reply(status: u16, body: Vec<u8>) -> Reply {
    Reply { status, headers: vec![("content-type".to_owned(), "text/plain".to_owned())], body }
}

/// Request headers that this plugin obeys.
const IN_REQUEST: &str = "x-misbehave";
const IN_RESPONSE: &str = "x-misbehave-response";
const CARRY: &str = "x-carry";

/// No visitor may ever see this text.
const FAULT: &str = "asked to fail; for the log only";

const BIG: usize = 16 << 20;
const LONG: usize = 512 << 10;
const MANY: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_chooses_phase_and_act() {
        let plan = Plan::read(r#"{"on": "response", "do": "loop"}"#).unwrap();
        assert_eq!(plan, Plan { on: Phase::Response, act: Act::Loop });
        assert_eq!(plan.act_in(Phase::Request), Act::Ok);
        assert_eq!(Plan::read("{}").unwrap(), Plan { on: Phase::Request, act: Act::Ok });
        assert_eq!(Plan::read(r#"{"do": "dance"}"#).unwrap_err()[0].pointer, "/do");
    }

    #[test]
    fn luggage_survives_the_journey() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers = [header(IN_RESPONSE, "trap"), header(CARRY, "a b")];
        assert_eq!(
            Luggage::unpack(&Luggage::pack(&headers, true).unwrap()),
            Luggage { act: Some(Act::Trap), carried: Some("a b".to_owned()) }
        );
        assert_eq!(
            Luggage::unpack(&Luggage::pack(&headers[1..], true).unwrap()),
            Luggage { act: None, carried: Some("a b".to_owned()) }
        );
        assert_eq!(Luggage::pack(&headers[1..], false).unwrap(), Vec::<u8>::new());
    }
}
