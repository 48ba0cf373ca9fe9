//! Bytes of the other side of a tunnel, and of the files and tokens that say who we are.

#![no_main]

use adit_protocol::credentials::{Credentials, OriginCert};
use adit_protocol::extensions::FrameReader;
use adit_protocol::framing::rpc_reader_options;
use adit_protocol::headers::serialized;
use adit_protocol::rpc::{Configuration, ConfigurationAnswer, Registration, RegistrationAnswer};
use adit_protocol::stream::{Answer, DATA_SIGNATURE, Opening};
use adit_protocol::websocket::{self, FrameError, Reader, Side};
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 8 {
        0 => streams(bytes),
        1 => streams(&[&DATA_SIGNATURE[..], b"01", bytes].concat()),
        2 => messages(bytes),
        3 => frames(bytes),
        4 => {
            let _ = serialized::deserialize(bytes);
            let _ = Credentials::from_json(bytes);
        }
        5 => {
            let text = String::from_utf8_lossy(bytes);
            let _ = Credentials::from_token(&text);
            let _ = OriginCert::from_pem(&text);
        }
        6 => websockets(Side::Client, bytes),
        _ => websockets(Side::Server, bytes),
    }
});

fn streams(bytes: &[u8]) {
    let _ = Opening::decode(&mut BytesMut::from(bytes));
    let _ = Answer::decode(&mut BytesMut::from(bytes));
}

fn messages(bytes: &[u8]) {
    let Ok(message) = capnp::serialize::read_message(bytes, rpc_reader_options()) else { return };
    let _ = message.get_root().map(Registration::read);
    let _ = message.get_root().map(RegistrationAnswer::read);
    let _ = message.get_root().map(Configuration::read);
    let _ = message.get_root().map(ConfigurationAnswer::read);
}

/// The same in one piece and byte by byte: the same frames, or the same end.
fn frames(bytes: &[u8]) {
    let read = |pieces: &mut dyn Iterator<Item = Bytes>| {
        let (mut reader, mut data, mut trailers) = (FrameReader::default(), 0, 0);
        for mut piece in pieces {
            loop {
                match reader.next(&mut piece) {
                    Ok(Some(adit_protocol::extensions::Piece::Data(bytes))) => data += bytes.len(),
                    Ok(Some(adit_protocol::extensions::Piece::Trailers(map))) => trailers += 1 + map.len(),
                    Ok(None) => break,
                    Err(_) => return None,
                }
            }
        }
        Some((data, trailers, reader.is_whole()))
    };
    let whole = read(&mut std::iter::once(Bytes::copy_from_slice(bytes)));
    let apart = read(&mut bytes.iter().map(|byte| Bytes::copy_from_slice(&[*byte])));
    assert_eq!(whole, apart);
}

/// The same in one piece and byte by byte: the same stream and the same words, or the same mistake.
fn websockets(of: Side, bytes: &[u8]) {
    let read =
        |pieces: &mut dyn Iterator<Item = Bytes>| -> (Vec<u8>, Vec<websocket::Piece>, Option<FrameError>) {
            let (mut reader, mut stream, mut words) = (Reader::new(of), Vec::new(), Vec::new());
            for mut piece in pieces {
                loop {
                    match reader.next(&mut piece) {
                        Ok(Some(websocket::Piece::Data(data))) => stream.extend_from_slice(&data),
                        Ok(Some(word)) => words.push(word),
                        Ok(None) => break,
                        Err(error) => return (stream, words, Some(error)),
                    }
                }
            }
            (stream, words, None)
        };
    let whole = read(&mut std::iter::once(Bytes::copy_from_slice(bytes)));
    let apart = read(&mut bytes.iter().map(|byte| Bytes::copy_from_slice(&[*byte])));
    assert_eq!(whole, apart);
}
