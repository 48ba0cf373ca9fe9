//! SOCKS5 within a circuit (RFC 1928), as far as `CONNECT` without a password. Reads what a visitor asks for; does
//! not know where it may lead.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use adit_protocol::websocket::Piece;
use bytes::{Buf, Bytes, BytesMut};

use super::destination::Unreached;
use super::incoming::{Deaf, Incoming};

const VERSION: u8 = 5;
const NO_PASSWORD: u8 = 0;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
/// Longest greeting and longest request, bytes.
const LONGEST: usize = 4 + 1 + 255 + 2;

/// What is answered to a request (RFC 1928, 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Succeeded = 0,
    Failed = 1,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    Refused = 5,
    NoSuchCommand = 7,
    NoSuchAddress = 8,
}

/// Where a visitor wants to go.
pub(super) type Destination = (String, u16);

/// Why a visitor is led nowhere.
#[derive(Debug)]
pub(super) enum Wrong {
    /// It is told so, and its circuit ends.
    Answer(Bytes),
    /// What it says is not SOCKS5.
    Unreadable,
    /// It has ended, or its stream broke off.
    Gone,
}

/// What it has said and what is not looked at yet.
pub(super) struct Talk<'i> {
    incoming: &'i mut Incoming,
    said: BytesMut,
}

impl<'i> Talk<'i> {
    pub(super) fn new(incoming: &'i mut Incoming) -> Self {
        Self { incoming, said: BytesMut::new() }
    }

    /// The greeting; what answers it is `Ok`.
    pub(super) async fn greeting(&mut self) -> Result<Bytes, Wrong> {
        self.wait_for(2).await?;
        if self.said[0] != VERSION {
            return Err(Wrong::Unreadable);
        }
        let count = usize::from(self.said[1]);
        self.wait_for(2 + count).await?;
        let methods = self.said.split_to(2 + count);
        if methods[2..].contains(&NO_PASSWORD) {
            Ok(Bytes::from_static(&[VERSION, NO_PASSWORD]))
        } else {
            Err(Wrong::Answer(Bytes::from_static(&[VERSION, NO_METHOD])))
        }
    }

    /// The request.
    pub(super) async fn request(&mut self) -> Result<Destination, Wrong> {
        self.wait_for(5).await?;
        let [version, command, _, kind, first] = [0, 1, 2, 3, 4].map(|at| self.said[at]);
        if version != VERSION {
            return Err(Wrong::Unreadable);
        }
        let length = match kind {
            IPV4 => 4,
            IPV6 => 16,
            NAME => 1 + usize::from(first),
            _ => return Err(Wrong::Answer(reply(Reply::NoSuchAddress))),
        };
        self.wait_for(4 + length + 2).await?;
        let mut request = self.said.split_to(4 + length + 2);
        if command != CONNECT {
            return Err(Wrong::Answer(reply(Reply::NoSuchCommand)));
        }
        request.advance(4);
        let host = match kind {
            IPV4 => Ipv4Addr::from_bits(request.get_u32()).to_string(),
            IPV6 => Ipv6Addr::from_bits(request.get_u128()).to_string(),
            _ => {
                let length = usize::from(request.get_u8());
                let name = request.split_to(length);
                // What is no text is no name, and one with a zero in it is not what others read.
                match std::str::from_utf8(&name) {
                    Ok(name) if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()) => {
                        name.to_owned()
                    }
                    Ok(_) | Err(_) => return Err(Wrong::Answer(reply(Reply::HostUnreachable))),
                }
            }
        };
        match request.get_u16() {
            0 => Err(Wrong::Answer(reply(Reply::Refused))),
            port => Ok((host, port)),
        }
    }

    /// What has come behind the request is for the destination.
    pub(super) fn end(self) {
        self.incoming.unread(self.said.freeze());
    }

    async fn wait_for(&mut self, length: usize) -> Result<(), Wrong> {
        while self.said.len() < length {
            match self.incoming.next(|| ()).await {
                Ok(Some(Piece::Data(data))) => {
                    // Who says more before it is answered says it to whoever is not there yet.
                    if self.said.len() + data.len() > LONGEST.max(length) + MOST_AHEAD {
                        return Err(Wrong::Unreadable);
                    }
                    self.said.extend_from_slice(&data);
                }
                // Nothing can have gone missing so early.
                Ok(Some(Piece::Ping(_) | Piece::Pong)) => {}
                Ok(Some(Piece::Close(_)) | None) | Err(Deaf::Lost) => return Err(Wrong::Gone),
                Err(Deaf::Unreadable) => return Err(Wrong::Unreadable),
            }
        }
        Ok(())
    }
}

const KINDS: [(io::ErrorKind, Reply); 4] = [
    (io::ErrorKind::ConnectionRefused, Reply::Refused),
    (io::ErrorKind::NetworkUnreachable, Reply::NetworkUnreachable),
    (io::ErrorKind::HostUnreachable, Reply::HostUnreachable),
    (io::ErrorKind::TimedOut, Reply::HostUnreachable),
];
/// Bytes behind a request that may be there before it is answered.
const MOST_AHEAD: usize = 64 * 1024;

/// The answer to a request. It has no address: the circuit is the connection.
pub(super) fn reply(reply: Reply) -> Bytes {
    Bytes::copy_from_slice(&[VERSION, reply as u8, 0, IPV4, 0, 0, 0, 0, 0, 0])
}

/// What a visitor is told of a destination that was not reached.
pub(super) fn of(unreached: &Unreached) -> Reply {
    match unreached {
        Unreached::NotAllowed => Reply::NotAllowed,
        Unreached::NoAddress(_) | Unreached::Timeout(_) => Reply::HostUnreachable,
        Unreached::Connect(error) => {
            let known = KINDS.iter().find(|(kind, _)| *kind == error.kind());
            known.map_or(Reply::Failed, |(_, reply)| *reply)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::Framing;
    use super::*;
    use crate::origin::full;

    async fn asked(bytes: &[u8]) -> (Result<Destination, Wrong>, Option<Piece>) {
        let mut incoming = Incoming::new(full(Bytes::copy_from_slice(bytes)), Framing::Raw);
        let mut talk = Talk::new(&mut incoming);
        let destination = match talk.greeting().await {
            Ok(answer) => {
                assert_eq!(answer[..], [5, 0]);
                talk.request().await
            }
            Err(wrong) => Err(wrong),
        };
        talk.end();
        (destination, incoming.next(|| ()).await.unwrap())
    }

    #[tokio::test]
    async fn a_destination_is_an_address_of_either_family_or_a_name() {
        let greeting = [5, 2, 2, 0];
        let mut name = vec![5, 1, 0, 3, 11];
        name.extend_from_slice(b"db.internal\x15\x38");
        let mut ipv6 = vec![5, 1, 0, 4];
        ipv6.extend_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        ipv6.extend_from_slice(&[0, 22]);
        for (request, wanted) in [
            (vec![5, 1, 0, 1, 10, 0, 0, 7, 0, 22], ("10.0.0.7", 22)),
            (ipv6, ("2001:db8::7", 22)),
            (name, ("db.internal", 5432)),
        ] {
            let (destination, ahead) = asked(&[&greeting, &request[..], b"early"].concat()).await;
            assert_eq!(destination.unwrap(), (wanted.0.to_owned(), wanted.1));
            assert_eq!(ahead, Some(Piece::Data(Bytes::from_static(b"early"))));
        }
    }

    #[tokio::test]
    async fn whatever_else_is_asked_for_is_refused_by_its_reply() {
        for (request, wanted) in [
            // Bind, and UDP.
            (vec![5, 2, 0, 1, 10, 0, 0, 7, 0, 22], Reply::NoSuchCommand),
            (vec![5, 3, 0, 1, 10, 0, 0, 7, 0, 22], Reply::NoSuchCommand),
            (vec![5, 1, 0, 2, 0], Reply::NoSuchAddress),
            (vec![5, 1, 0, 1, 10, 0, 0, 7, 0, 0], Reply::Refused),
            (vec![5, 1, 0, 3, 0, 0, 22], Reply::HostUnreachable),
            (vec![5, 1, 0, 3, 2, b'a', 0, 0, 22], Reply::HostUnreachable),
        ] {
            let (destination, _) = asked(&[&[5, 1, 0], &request[..]].concat()).await;
            match destination {
                Err(Wrong::Answer(answer)) => assert_eq!(answer, reply(wanted), "{request:?}"),
                other => panic!("{request:?}: {other:?}"),
            }
        }
        for (bytes, is_unreadable) in
            [(&[4, 1, 0][..], true), (b"GET / HTTP/1.1\r\n", true), (&[5, 1], false)]
        {
            match asked(bytes).await.0 {
                Err(Wrong::Unreadable) => assert!(is_unreadable, "{bytes:?}"),
                Err(Wrong::Gone) => assert!(!is_unreadable, "{bytes:?}"),
                other => panic!("{bytes:?}: {other:?}"),
            }
        }
        match asked(&[5, 1, 2]).await.0 {
            Err(Wrong::Answer(answer)) => assert_eq!(answer[..], [5, 0xff]),
            other => panic!("a password: {other:?}"),
        }
    }
}
