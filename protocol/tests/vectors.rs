//! What other implementations wrote is read as they meant it, wherever the network cuts it.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::path::Path;

use adit_protocol::stream::{Answer, Connect, DecodeError, Opening, RPC_SIGNATURE};
use bytes::{Buf, BytesMut};
use http::{HeaderMap, HeaderName, Method, Request};
use serde_json::Value;

struct Vector {
    name: String,
    bytes: Vec<u8>,
    expect: Value,
}

/// Vectors of data streams whose name contains `part`; at least `least` of them, so that none gets lost.
fn vectors(part: &str, least: usize) -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let index: Vec<Value> =
        serde_json::from_slice(&std::fs::read(folder.join("index.json")).unwrap()).unwrap();
    let vectors: Vec<_> = index
        .into_iter()
        .filter_map(|entry| {
            let name = entry["name"].as_str().unwrap().to_owned();
            if !name.contains(part) || !(name.starts_with("live-q-") || name.starts_with("go-connect")) {
                return None;
            }
            let bytes = std::fs::read(folder.join(&name).with_extension("bin")).unwrap();
            Some(Vector { name, bytes, expect: entry["expect"].clone() })
        })
        .collect();
    assert!(vectors.len() >= least, "only {} vectors are called {part}", vectors.len());
    vectors
}

impl Vector {
    fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        let entries = self.expect["metadata"].as_array().unwrap();
        entries.iter().map(|entry| (entry[0].as_str().unwrap(), entry[1].as_str().unwrap()))
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.metadata().find_map(|(found, value)| (found == key).then_some(value))
    }

    /// The headers that the metadata speaks of, in their order.
    fn headers(&self) -> HeaderMap {
        let headers =
            self.metadata().filter_map(|(key, value)| Some((key.strip_prefix("HttpHeader:")?, value)));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        map
    }

    fn check_request(&self, request: &Request<()>) {
        let name = &self.name;
        assert_eq!(request.uri().to_string(), self.expect["dest"], "{name}");
        assert_eq!(request.method().as_str(), self.value("HttpMethod").unwrap(), "{name}");
        let mut headers = request.headers().clone();
        let host = headers.remove("host").unwrap();
        assert_eq!(host, self.value("HttpHost").unwrap(), "{name}");
        assert_eq!(headers, self.headers(), "{name}");
    }

    fn check_connect(&self, opening: &Result<Opening, DecodeError>) {
        let name = &self.name;
        if name.contains("badheader") {
            let Err(DecodeError::HeaderKey { key }) = opening else { panic!("{name}: {opening:?}") };
            assert_eq!(key, "HttpHeader:Bad:Name");
            return;
        }
        if name.contains("baddest") {
            assert!(matches!(opening, Err(DecodeError::SocketAddress)), "{name}: {opening:?}");
            return;
        }
        match (opening, self.expect["type"].as_str().unwrap()) {
            (Ok(Opening::Data(Connect::Http(request))), "http") => self.check_request(request),
            (Ok(Opening::Data(Connect::WebSocket(request))), "websocket") => self.check_request(request),
            (Ok(Opening::Data(Connect::Tcp { destination })), "tcp") => {
                assert_eq!(destination.to_string(), self.expect["dest"], "{name}");
            }
            (other, wanted) => panic!("{name} is {other:?} instead of {wanted}"),
        }
    }

    fn check_answer(&self, answer: &Answer) {
        let name = &self.name;
        match answer {
            Answer::Http(response) => {
                assert_eq!(self.expect["error"], "", "{name}");
                assert_eq!(response.status().as_str(), self.value("HttpStatus").unwrap(), "{name}");
                assert_eq!(*response.headers(), self.headers(), "{name}");
            }
            Answer::Accepted => {
                assert_eq!(self.expect["error"], "", "{name}");
                assert_eq!(self.metadata().count(), 0, "{name}");
            }
            Answer::Refused { reason, flow_rate_limited } => {
                assert_eq!(*reason, self.expect["error"], "{name}");
                let limited = self.value("FlowConnectRateLimited") == Some("true");
                assert_eq!(*flow_rate_limited, limited, "{name}");
            }
        }
    }

    fn check_body(&self, left: &BytesMut) {
        assert_eq!(&left[..], self.expect["body"].as_str().unwrap().as_bytes(), "{}", self.name);
    }
}

/// Feeds byte after byte until there is an answer; gives back how many bytes that took.
fn feed<T>(
    bytes: &[u8],
    mut decode: impl FnMut(&mut BytesMut) -> Result<Option<T>, DecodeError>,
) -> (usize, Result<T, DecodeError>) {
    let mut buffered = BytesMut::new();
    for (index, byte) in bytes.iter().enumerate() {
        buffered.extend_from_slice(&[*byte]);
        if let Some(decoded) = decode(&mut buffered).transpose() {
            return (index + 1, decoded);
        }
    }
    panic!("{} bytes were not enough", bytes.len())
}

#[test]
fn requests_of_other_edges_are_read_as_they_meant_them() {
    for vector in vectors("request", 16) {
        let mut buffered = BytesMut::from(&vector.bytes[..]);
        let opening = Opening::decode(&mut buffered).transpose().unwrap();
        vector.check_connect(&opening);
        vector.check_body(&buffered);

        let (taken, opening) = feed(&vector.bytes, Opening::decode);
        vector.check_connect(&opening);
        assert_eq!(
            taken,
            vector.bytes.len(),
            "{}: a request head is complete with its last byte",
            vector.name
        );
    }
}

#[test]
fn answers_of_other_connectors_are_read_as_they_meant_them() {
    for vector in vectors("response", 16) {
        let mut buffered = BytesMut::from(&vector.bytes[..]);
        vector.check_answer(&Answer::decode(&mut buffered).unwrap().unwrap());
        vector.check_body(&buffered);

        let (taken, answer) = feed(&vector.bytes, Answer::decode);
        vector.check_answer(&answer.unwrap());
        let body = vector.expect["body"].as_str().unwrap();
        assert_eq!(taken + body.len(), vector.bytes.len(), "{}: the body is not waited for", vector.name);
    }
}

#[test]
fn a_head_may_be_cut_anywhere() {
    for vector in vectors("", 32) {
        let request = vector.name.contains("request");
        for cut in 0..vector.bytes.len() {
            let mut buffered = BytesMut::from(&vector.bytes[..cut]);
            let head = vector.bytes.len() - vector.expect["body"].as_str().unwrap().len();
            if cut < head {
                let early = if request {
                    Opening::decode(&mut buffered).map(|opening| opening.is_some())
                } else {
                    Answer::decode(&mut buffered).map(|answer| answer.is_some())
                };
                assert!(!early.unwrap(), "{} is not complete at {cut}", vector.name);
                assert_eq!(buffered.len(), cut, "{}: nothing is taken before all is there", vector.name);
                buffered.extend_from_slice(&vector.bytes[cut..]);
                if request {
                    vector.check_connect(&Opening::decode(&mut buffered).transpose().unwrap());
                } else {
                    vector.check_answer(&Answer::decode(&mut buffered).unwrap().unwrap());
                }
                vector.check_body(&buffered);
            }
        }
    }
}

#[test]
fn a_head_is_read_at_any_alignment_and_its_body_stays_in_place() {
    for vector in vectors("live-q-get-response", 1) {
        for offset in 0..8 {
            let mut buffered = BytesMut::zeroed(offset);
            buffered.extend_from_slice(&vector.bytes);
            buffered.advance(offset);
            let body = vector.expect["body"].as_str().unwrap().len();
            let place = buffered[buffered.len() - body..].as_ptr();
            vector.check_answer(&Answer::decode(&mut buffered).unwrap().unwrap());
            assert_eq!(buffered.as_ptr(), place, "the body was not moved");
        }
    }
}

#[test]
fn what_we_read_from_others_is_the_same_after_writing_it_ourselves() {
    for vector in vectors("request", 16) {
        let Ok(Some(Opening::Data(connect))) = Opening::decode(&mut BytesMut::from(&vector.bytes[..])) else {
            continue;
        };
        let ours = connect.encode().unwrap();
        vector.check_connect(&Opening::decode(&mut BytesMut::from(ours)).transpose().unwrap());
    }
    for vector in vectors("response", 16) {
        let answer = Answer::decode(&mut BytesMut::from(&vector.bytes[..])).unwrap().unwrap();
        let ours = answer.encode().unwrap();
        vector.check_answer(&Answer::decode(&mut BytesMut::from(ours)).unwrap().unwrap());
    }
}

#[test]
fn a_tcp_answer_is_the_forty_bytes_of_the_reference() {
    let vector = &vectors("go-connectresponse-empty", 1)[0];
    assert_eq!(Answer::Accepted.encode().unwrap(), vector.bytes);
}

#[test]
fn an_rpc_stream_gives_up_its_signature_and_nothing_else() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let bytes = std::fs::read(folder.join("go-rpcstream-edge.bin")).unwrap();
    assert!(bytes.starts_with(&RPC_SIGNATURE));
    let mut buffered = BytesMut::from(&bytes[..]);
    assert!(matches!(Opening::decode(&mut buffered), Ok(Some(Opening::Rpc))));
    assert_eq!(&buffered[..], &bytes[6..]);
    assert!(matches!(feed(&bytes, Opening::decode), (6, Ok(Opening::Rpc))));
    assert!(
        matches!(Answer::decode(&mut BytesMut::from(&bytes[..])), Err(DecodeError::Signature { .. })),
        "a host does not answer with RPC"
    );
}

#[test]
fn a_websocket_request_keeps_its_url_and_its_host_apart() {
    let vector = &vectors("live-q-ws-request", 1)[0];
    let opening = Opening::decode(&mut BytesMut::from(&vector.bytes[..])).unwrap();
    let Some(Opening::Data(Connect::WebSocket(request))) = opening else { panic!("{opening:?}") };
    assert_eq!(request.method(), Method::GET);
    assert_eq!(request.uri().host(), Some("ws.example.test"));
    assert_eq!(request.headers()["host"], "app.example.test");
}
