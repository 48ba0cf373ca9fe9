//! A collector of traces: takes OTLP over HTTP and reads what it gets, field by field, as the description of the
//! format has it (opentelemetry-proto, trace/v1) and by no code of the product's.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::DEADLINE;

pub struct Collector {
    address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    spans: Vec<Span>,
    heads: Vec<String>,
    /// Everything, as it came.
    bytes: Vec<u8>,
    /// What it answers instead of taking anything, as often as it is said.
    refusals: Vec<u16>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Span {
    pub service: String,
    pub trace: String,
    pub id: String,
    /// Empty: a root.
    pub parent: String,
    pub state: String,
    pub name: String,
    /// 1 internal, 2 server, 3 client.
    pub kind: u64,
    /// Nanoseconds since 1970.
    pub begun: u64,
    pub ended: u64,
    pub attributes: BTreeMap<String, String>,
    /// Trace and span.
    pub links: Vec<(String, String)>,
    pub is_error: bool,
}

impl Collector {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let heard = Arc::<Mutex<Heard>>::default();
        let hears = heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let hears = hears.clone();
                std::thread::spawn(move || serve(stream, &hears));
            }
        });
        Self { address, heard }
    }

    /// `[traces]` of a document that tells this one, with these keys besides.
    pub fn section(&self, keys: &str) -> String {
        format!("[traces]\ncollector = \"http://{}\"\n{keys}\n", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next requests are answered with these.
    pub fn refuse(&self, statuses: &[u16]) {
        self.heard().refusals.extend(statuses.iter().rev());
    }

    pub fn spans(&self) -> Vec<Span> {
        self.heard().spans.clone()
    }

    pub fn heads(&self) -> Vec<String> {
        self.heard().heads.clone()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.heard().bytes.clone()
    }

    /// Waits until what was told is as wanted.
    pub async fn until(&self, what: &str, is_so: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let end = Instant::now() + DEADLINE;
        loop {
            let spans = self.spans();
            if is_so(&spans) {
                return spans;
            }
            assert!(Instant::now() < end, "{what}: {spans:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(mut stream: TcpStream, heard: &Mutex<Heard>) {
    let mut bytes = Vec::new();
    let mut piece = [0; 16 << 10];
    let (head, body) = loop {
        let Ok(count) = stream.read(&mut piece) else { return };
        if count == 0 {
            return;
        }
        bytes.extend_from_slice(&piece[..count]);
        let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let length: usize = length.expect("a length");
        if bytes.len() >= at + 4 + length {
            break (head, bytes[at + 4..at + 4 + length].to_vec());
        }
    };
    let status = {
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        let status = heard.refusals.pop().unwrap_or(200);
        if status == 200 {
            assert!(head.starts_with("post /v1/traces "), "{head}");
            assert!(head.contains("content-type: application/x-protobuf"), "{head}");
            let body = if head.contains("content-encoding: gzip") {
                let mut whole = Vec::new();
                flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut whole).expect("it is compressed");
                whole
            } else {
                body
            };
            heard.spans.extend(spans(&body));
            heard.bytes.extend_from_slice(&body);
        }
        heard.heads.push(head);
        status
    };
    let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

/// `ExportTraceServiceRequest`.
fn spans(request: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource_spans in all(request, 1) {
        let resource = attributes(all(resource_spans, 1).next().unwrap_or_default(), 1);
        let service = resource["service.name"].clone();
        for scope_spans in all(resource_spans, 2) {
            spans.extend(all(scope_spans, 2).map(|bytes| span(bytes, &service)));
        }
    }
    spans
}

fn span(bytes: &[u8], service: &str) -> Span {
    let hex = |field| {
        all(bytes, field).next().unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let text =
        |field| String::from_utf8(all(bytes, field).next().unwrap_or_default().to_vec()).expect("a text");
    let links = all(bytes, 13).map(|link| {
        let hex = |field| {
            all(link, field).next().unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect()
        };
        (hex(1), hex(2))
    });
    Span {
        service: service.to_owned(),
        trace: hex(1),
        id: hex(2),
        state: text(3),
        parent: hex(4),
        name: text(5),
        kind: number(bytes, 6),
        begun: number(bytes, 7),
        ended: number(bytes, 8),
        attributes: attributes(bytes, 9),
        links: links.collect(),
        is_error: all(bytes, 15).next().is_some_and(|status| number(status, 3) == 2),
    }
}

fn attributes(message: &[u8], field: u64) -> BTreeMap<String, String> {
    let pairs = all(message, field).map(|pair| {
        let key = String::from_utf8(all(pair, 1).next().expect("a key").to_vec()).expect("a text");
        let value = all(pair, 2).next().expect("a value");
        let value = match all(value, 1).next() {
            Some(text) => String::from_utf8(text.to_vec()).expect("a text"),
            None => number(value, 3).to_string(),
        };
        (key, value)
    });
    pairs.collect()
}

enum Value<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

fn fields(mut message: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut message)),
            1 => {
                let (number, rest) = message.split_at(8);
                message = rest;
                Value::Number(u64::from_le_bytes(number.try_into().expect("eight bytes")))
            }
            5 => {
                let (number, rest) = message.split_at(4);
                message = rest;
                Value::Number(u32::from_le_bytes(number.try_into().expect("four bytes")).into())
            }
            2 => {
                let length = usize::try_from(varint(&mut message)).expect("a length");
                let (bytes, rest) = message.split_at(length);
                message = rest;
                Value::Bytes(bytes)
            }
            wire => panic!("no field has the wire type {wire}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

fn all(message: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    fields(message).into_iter().filter_map(move |(field, value)| match value {
        Value::Bytes(bytes) if field == wanted => Some(bytes),
        Value::Bytes(_) | Value::Number(_) => None,
    })
}

fn number(message: &[u8], wanted: u64) -> u64 {
    let found = fields(message).into_iter().find_map(|(field, value)| match value {
        Value::Number(number) if field == wanted => Some(number),
        Value::Bytes(_) | Value::Number(_) => None,
    });
    found.unwrap_or_default()
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = message.split_first().expect("the end of a number");
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("a number without an end")
}
