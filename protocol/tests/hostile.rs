//! Bytes from strangers end in an error or a value within limits: never in a panic, and never in waiting for
//! more than we would take.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::path::Path;

use adit_protocol::credentials::{Credentials, OriginCert};
use adit_protocol::framing::{FramingError, MAX_MESSAGE, MAX_SEGMENTS, rpc_reader_options};
use adit_protocol::headers::{MAX_HEADERS, serialized};
use adit_protocol::rpc::{Configuration, ConfigurationAnswer, Registration, RegistrationAnswer};
use adit_protocol::stream::{Answer, Connect, DATA_SIGNATURE, DecodeError, Opening};
use bytes::BytesMut;
use proptest::prelude::*;

fn head(words: &[u64]) -> BytesMut {
    let mut bytes = BytesMut::from(&DATA_SIGNATURE[..]);
    bytes.extend_from_slice(b"01");
    for word in words {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// A message of one segment.
fn segment(words: &[u64]) -> BytesMut {
    head(&[&[(words.len() as u64) << 32], words].concat())
}

fn struct_pointer(offset: i32, data: u64, pointers: u64) -> u64 {
    u64::from((offset as u32) << 2) | data << 32 | pointers << 48
}

fn list_pointer(offset: i32, element: u64, count: u64) -> u64 {
    u64::from((offset as u32) << 2) | 1 | element << 32 | count << 35
}

fn far_pointer(double: bool, offset: u64, segment: u64) -> u64 {
    2 | u64::from(double) << 2 | offset << 3 | segment << 32
}

const BYTE: u64 = 2;
const INLINE: u64 = 7;

fn refused_as_message(mut bytes: BytesMut) {
    let opening = Opening::decode(&mut bytes.clone());
    assert!(matches!(opening, Err(DecodeError::Message(_))), "{opening:?}");
    let answer = Answer::decode(&mut bytes);
    assert!(matches!(answer, Err(DecodeError::Message(_))), "{answer:?}");
}

#[test]
fn a_wrong_signature_is_called_one() {
    let refused = Opening::decode(&mut BytesMut::from("GET / HTTP/1.1\r\n"));
    assert!(matches!(refused, Err(DecodeError::Signature { found }) if &found == b"GET / "), "{refused:?}");
}

#[test]
fn a_message_that_would_be_too_long_is_refused_before_it_arrives() {
    let one = Opening::decode(&mut head(&[(MAX_MESSAGE as u64 / 8) << 32]));
    assert!(
        matches!(one, Err(DecodeError::Framing(FramingError::TooLong { bytes })) if bytes == MAX_MESSAGE as u64 + 8),
        "{one:?}"
    );
    let largest = Opening::decode(&mut head(&[u64::from(u32::MAX) << 32]));
    assert!(matches!(largest, Err(DecodeError::Framing(FramingError::TooLong { .. }))), "{largest:?}");
    let segments = Answer::decode(&mut head(&[u64::from(u32::MAX)]));
    assert!(
        matches!(segments, Err(DecodeError::Framing(FramingError::TooManySegments { count: 0x1_0000_0000 }))),
        "{segments:?}"
    );
}

#[test]
fn a_message_of_the_most_segments_is_read() {
    let count = MAX_SEGMENTS as u64;
    // The root in segment 0 leads over a landing pad in the last segment to an empty answer.
    let mut sizes = vec![0_u32; MAX_SEGMENTS + 2];
    sizes[0] = count as u32 - 1;
    sizes[1] = 1;
    sizes[MAX_SEGMENTS] = 3;
    let table: Vec<u64> = sizes.chunks(2).map(|pair| u64::from(pair[0]) | u64::from(pair[1]) << 32).collect();
    let content = [far_pointer(false, 0, count - 1), struct_pointer(0, 0, 2), 0, 0];
    let answer = Answer::decode(&mut head(&[&table[..], &content].concat()));
    assert!(matches!(answer, Ok(Some(Answer::Accepted))), "{answer:?}");
}

#[test]
fn pointers_that_lead_nowhere_are_refused() {
    for root in [
        struct_pointer(1000, 1, 2),
        struct_pointer(-2, 1, 2),
        struct_pointer(0, 0xffff, 0xffff),
        far_pointer(false, 0, 0),
        far_pointer(true, 0, 0),
        far_pointer(false, 0, 7),
        far_pointer(false, 1000, 0),
        list_pointer(0, BYTE, 1),
        3,
        u64::MAX,
    ] {
        refused_as_message(segment(&[root]));
        refused_as_message(segment(&[root, root, root, root]));
    }
    refused_as_message(head(&[0]));
}

#[test]
fn a_list_of_nothing_a_billion_times_is_refused() {
    let most = (1 << 29) - 1;
    // An answer whose metadata is an inline list of empty structs, or of voids.
    let inline = [struct_pointer(0, 0, 2), 0, list_pointer(0, INLINE, 0), most << 2];
    let void = [struct_pointer(0, 0, 2), 0, list_pointer(0, 0, most), 0];
    for words in [inline, void] {
        let answer = Answer::decode(&mut segment(&words));
        assert!(answer.is_err(), "{answer:?}");
    }
}

#[test]
fn a_small_message_does_not_become_large_by_sharing() {
    // 1000 headers whose names are one text and whose values are one text of 32 KiB.
    const COUNT: usize = 1000;
    const VALUE: usize = 4096;
    let key = b"HttpHeader:x-a\0\0";
    let (key_at, value_at) = (4 + 2 * COUNT, 6 + 2 * COUNT);
    let mut words = vec![struct_pointer(0, 0, 2), 0, list_pointer(0, INLINE, 2 * COUNT as u64)];
    words.push(struct_pointer(COUNT as i32, 0, 2));
    for entry in 0..COUNT {
        let at = 4 + 2 * entry;
        words.push(list_pointer((key_at - at - 1) as i32, BYTE, 15));
        words.push(list_pointer((value_at - at - 2) as i32, BYTE, VALUE as u64 * 8));
    }
    words.extend(key.chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap())));
    words.extend([u64::from_le_bytes([b'v'; 8]); VALUE - 1]);
    words.push(u64::from_le_bytes(*b"vvvvvvv\0"));
    let answer = Answer::decode(&mut segment(&words));
    let Err(DecodeError::Message(error)) = &answer else { panic!("{answer:?}") };
    assert_eq!(error.kind, capnp::ErrorKind::ReadLimitExceeded);
}

#[test]
fn more_headers_than_anyone_needs_are_refused() {
    let count = 2 * MAX_HEADERS as u64;
    let mut words = vec![struct_pointer(0, 0, 2), 0, list_pointer(0, INLINE, 2 * count)];
    words.push(struct_pointer(count as i32, 0, 2));
    words.extend(vec![0; 2 * count as usize]);
    let answer = Answer::decode(&mut segment(&words));
    assert!(matches!(answer, Err(DecodeError::TooManyHeaders { count: 2048 })), "{answer:?}");
}

#[test]
fn an_unknown_connection_type_is_an_error_and_no_panic() {
    let opening = Opening::decode(&mut segment(&[struct_pointer(0, 1, 2), 9, 0, 0]));
    assert!(matches!(opening, Err(DecodeError::ConnectionType(9))), "{opening:?}");
}

fn vectors() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// Decodes in every way, checks the limits of what comes out.
fn swallow(bytes: &[u8]) {
    let within = |headers: &http::HeaderMap| {
        // The sixteen entries beside the headers may be used for headers too.
        assert!(headers.len() <= MAX_HEADERS + 17);
        assert!(headers.values().map(http::HeaderValue::len).sum::<usize>() <= 2 * bytes.len());
    };
    let mut buffered = BytesMut::from(bytes);
    match Opening::decode(&mut buffered) {
        Ok(Some(Opening::Data(Connect::Http(request) | Connect::WebSocket(request)))) => {
            assert!(request.headers().contains_key("host"));
            within(request.headers());
        }
        Ok(None) => assert_eq!(buffered, bytes),
        Ok(Some(Opening::Data(Connect::Tcp { .. }) | Opening::Rpc)) | Err(_) => {}
    }
    if let Ok(Some(Answer::Http(response))) = Answer::decode(&mut BytesMut::from(bytes)) {
        within(response.headers());
    }
}

/// Reads the root of a message as everything that RPC brings.
fn swallow_rpc(bytes: &[u8]) {
    let Ok(message) = capnp::serialize::read_message(bytes, rpc_reader_options()) else { return };
    let _ = message.get_root().map(Registration::read);
    let _ = message.get_root().map(RegistrationAnswer::read);
    let _ = message.get_root().map(Configuration::read);
    let _ = message.get_root().map(ConfigurationAnswer::read);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        swallow(&bytes);
        let mut behind_a_signature = head(&[]);
        behind_a_signature.extend_from_slice(&bytes);
        swallow(&behind_a_signature);
        let mut behind_a_table = head(&[(bytes.len() as u64 / 8) << 32]);
        behind_a_table.extend_from_slice(&bytes);
        swallow(&behind_a_table);
        swallow_rpc(&behind_a_table[8..]);
        let _ = serialized::deserialize(&bytes);
        let _ = Credentials::from_json(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _ = Credentials::from_token(&text);
        let _ = OriginCert::from_pem(&text);
    }

    #[test]
    fn pointers_in_any_direction_do_no_harm(
        words in prop::collection::vec(
            prop_oneof![
                (-4_i32..12, 0_u64..3, 0_u64..4).prop_map(|(o, d, p)| struct_pointer(o, d, p)),
                (-4_i32..12, 0_u64..8, 0_u64..40).prop_map(|(o, e, c)| list_pointer(o, e, c)),
                (any::<bool>(), 0_u64..12, 0_u64..3).prop_map(|(d, o, s)| far_pointer(d, o, s)),
                Just(0), any::<u64>(),
            ],
            1..40,
        ),
    ) {
        swallow(&segment(&words));
        swallow_rpc(&segment(&words)[8..]);
    }

    #[test]
    fn damaged_messages_do_no_harm(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut vectors = vectors();
        let mut bytes = vectors.swap_remove(which.index(vectors.len()));
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        swallow(&bytes);
        swallow_rpc(&bytes);
        if let Some(rpc) = bytes.get(48..) {
            swallow_rpc(rpc);
        }
    }

    #[test]
    fn a_decoder_says_the_same_however_the_bytes_come(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut vectors = vectors();
        let mut bytes = vectors.swap_remove(which.index(vectors.len()));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let mut whole = BytesMut::from(&bytes[..]);
        let whole = Answer::decode(&mut whole);
        let mut buffered = BytesMut::new();
        let mut pieces = Ok(None);
        for byte in &bytes {
            buffered.extend_from_slice(&[*byte]);
            pieces = Answer::decode(&mut buffered);
            if !matches!(pieces, Ok(None)) {
                break;
            }
        }
        prop_assert_eq!(format!("{:?}", whole), format!("{:?}", pieces));
    }
}
