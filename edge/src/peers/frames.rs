//! What a node says of itself to another one, in bytes: frames of a kind, a length and a content. Of a neighbour that
//! knows more, kinds that are not known here are passed over. Knows bytes; does not know what follows from them.

use std::time::Duration;

use thiserror::Error;
use uuid::Uuid;

use crate::monitors::{Outcome, SharedVerdict};
use crate::registry::{RemoteConnection, RemoteReplica};

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// The first of a stream. What follows comes after this change of that epoch; after 0 follows everything.
    Hello { epoch: u64, after: u64 },
    /// The tunnels of which something has changed, all of them up to this change.
    Entries { upto: u64, entries: Vec<Entry> },
    /// It is there. Everything up to this change was said, and comes to this digest.
    Heartbeat { sequence: u64, digest: u64, state: NodeState },
    /// It ends now.
    Goodbye,
    /// Some of the connections of the tunnels that were just said, so that who has an older one of the same kind lets
    /// it go.
    Connections(Vec<RemoteConnection>),
    /// What its monitors have found.
    Verdicts(Vec<SharedVerdict>),
}

/// How a node is, besides what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct NodeState {
    /// It is about to end.
    pub(super) is_leaving: bool,
    /// Up to where it serves by the fleet's records.
    pub(super) revision: u64,
    /// Seconds in which it has heard nothing of their store.
    pub(super) store_silent: u32,
}

/// What a node has of one tunnel; without replicas nothing any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) tunnel: Uuid,
    pub(super) replicas: Vec<RemoteReplica>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum FrameError {
    #[error("a frame of {0} bytes")]
    TooLong(usize),
    #[error("a frame that ends too early, or too late")]
    Length,
}

impl Frame {
    pub(super) fn write(&self, into: &mut Vec<u8>) {
        let (kind, at) = (self.kind(), into.len());
        into.push(kind);
        into.extend_from_slice(&[0; 4]);
        match self {
            Self::Hello { epoch, after } => {
                into.extend_from_slice(&epoch.to_be_bytes());
                into.extend_from_slice(&after.to_be_bytes());
            }
            Self::Entries { upto, entries } => {
                into.extend_from_slice(&upto.to_be_bytes());
                for entry in entries {
                    entry.write(into);
                }
            }
            Self::Heartbeat { sequence, digest, state } => {
                into.extend_from_slice(&sequence.to_be_bytes());
                into.extend_from_slice(&digest.to_be_bytes());
                into.push(u8::from(state.is_leaving));
                into.extend_from_slice(&state.revision.to_be_bytes());
                into.extend_from_slice(&state.store_silent.to_be_bytes());
            }
            Self::Goodbye => {}
            Self::Connections(connections) => {
                for RemoteConnection { tunnel, connector, index, id } in connections {
                    into.extend_from_slice(tunnel.as_bytes());
                    into.extend_from_slice(connector.as_bytes());
                    into.push(*index);
                    into.extend_from_slice(id.as_bytes());
                }
            }
            Self::Verdicts(verdicts) => {
                for SharedVerdict { subject, connector, is_up, outcome } in verdicts {
                    let Outcome { fault, status, took } = outcome;
                    let took = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
                    let fault = fault
                        .as_ref()
                        .map(|text| &text.as_bytes()[..text.floor_char_boundary(LONGEST_FAULT)]);
                    into.extend_from_slice(&subject.to_be_bytes());
                    into.extend_from_slice(connector.as_bytes());
                    into.push(u8::from(*is_up) | u8::from(fault.is_some()) << 1);
                    into.extend_from_slice(&status.unwrap_or_default().to_be_bytes());
                    into.extend_from_slice(&took.to_be_bytes());
                    let fault = fault.unwrap_or_default();
                    into.extend_from_slice(&(fault.len() as u16).to_be_bytes());
                    into.extend_from_slice(fault);
                }
            }
        }
        let length = u32::try_from(into.len() - at - HEAD).unwrap_or(u32::MAX);
        into[at + 1..at + HEAD].copy_from_slice(&length.to_be_bytes());
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Hello { .. } => 1,
            Self::Entries { .. } => 2,
            Self::Heartbeat { .. } => 3,
            Self::Goodbye => 4,
            Self::Connections(_) => 5,
            Self::Verdicts(_) => 6,
        }
    }

    /// Takes the next frame off `bytes`; `None` if it is not whole yet.
    pub(super) fn read(bytes: &mut bytes::BytesMut) -> Result<Option<Self>, FrameError> {
        loop {
            let Some((head, _)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
            let [kind, length @ ..] = *head;
            let length = u32::from_be_bytes(length) as usize;
            if length > LONGEST {
                return Err(FrameError::TooLong(length));
            }
            if bytes.len() < HEAD + length {
                return Ok(None);
            }
            let frame = bytes.split_to(HEAD + length);
            let mut rest = Reader(&frame[HEAD..]);
            let frame = match kind {
                1 => Self::Hello { epoch: rest.u64()?, after: rest.u64()? },
                2 => {
                    let (upto, mut entries) = (rest.u64()?, Vec::new());
                    while !rest.0.is_empty() {
                        entries.push(Entry::read(&mut rest)?);
                    }
                    Self::Entries { upto, entries }
                }
                3 => Self::Heartbeat {
                    sequence: rest.u64()?,
                    digest: rest.u64()?,
                    state: NodeState {
                        is_leaving: rest.u8()? & 1 != 0,
                        revision: rest.u64()?,
                        store_silent: rest.u32()?,
                    },
                },
                4 => Self::Goodbye,
                5 => {
                    let mut connections = Vec::new();
                    while !rest.0.is_empty() {
                        let (tunnel, connector) = (rest.uuid()?, rest.uuid()?);
                        let (index, id) = (rest.u8()?, rest.uuid()?);
                        connections.push(RemoteConnection { tunnel, connector, index, id });
                    }
                    Self::Connections(connections)
                }
                6 => {
                    let mut verdicts = Vec::new();
                    while !rest.0.is_empty() {
                        verdicts.push(verdict(&mut rest)?);
                    }
                    Self::Verdicts(verdicts)
                }
                _ => continue,
            };
            // A later format may say more behind what is known.
            return Ok(Some(frame));
        }
    }
}

impl Entry {
    /// How long it is, at most.
    pub(super) fn length(&self) -> usize {
        16 + 1 + 18 * self.replicas.len()
    }

    fn write(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(self.tunnel.as_bytes());
        let replicas = &self.replicas[..self.replicas.len().min(u8::MAX.into())];
        into.push(replicas.len() as u8);
        for RemoteReplica { connector, connections, is_silent } in replicas {
            into.extend_from_slice(connector.as_bytes());
            into.push(*connections);
            // With bits for what is to be said of a replica later.
            into.push(u8::from(*is_silent));
        }
    }

    fn read(rest: &mut Reader<'_>) -> Result<Self, FrameError> {
        let tunnel = rest.uuid()?;
        let count = rest.u8()?;
        let mut replicas = Vec::with_capacity(count.into());
        for _ in 0..count {
            let (connector, connections) = (rest.uuid()?, rest.u8()?);
            replicas.push(RemoteReplica { connector, connections, is_silent: rest.u8()? & 1 != 0 });
        }
        Ok(Self { tunnel, replicas })
    }

    /// What it adds to the digest of all entries, whatever their order.
    pub(super) fn digest(&self) -> u64 {
        if self.replicas.is_empty() {
            return 0;
        }
        let mut bytes = Vec::with_capacity(self.length());
        self.write(&mut bytes);
        adit_balance::Key::of(&bytes).0
    }
}

fn verdict(rest: &mut Reader<'_>) -> Result<SharedVerdict, FrameError> {
    let (subject, connector, flags) = (rest.u64()?, rest.uuid()?, rest.u8()?);
    let (status, took, length) = (rest.u16()?, rest.u32()?, rest.u16()?);
    let fault = String::from_utf8_lossy(rest.bytes(length.into())?).into_owned();
    let outcome = Outcome {
        fault: (flags & 2 != 0).then_some(fault),
        status: Some(status).filter(|status| *status > 0),
        took: Duration::from_millis(took.into()),
    };
    Ok(SharedVerdict { subject, connector, is_up: flags & 1 != 0, outcome })
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(FrameError::Length)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, FrameError> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn bytes(&mut self, count: usize) -> Result<&[u8], FrameError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(FrameError::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.take().map(u64::from_be_bytes)
    }

    fn uuid(&mut self) -> Result<Uuid, FrameError> {
        self.take().map(Uuid::from_bytes)
    }
}

/// What other nodes say, read however it comes, one byte after the other and all of it at once, and written again; `None`
/// if they say what nobody does. For the search for bytes that break it.
#[must_use]
pub fn again(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut coming, mut written) = (bytes::BytesMut::new(), Vec::new());
    for byte in bytes {
        coming.extend_from_slice(&[*byte]);
        while let Some(frame) = Frame::read(&mut coming).ok()? {
            frame.write(&mut written);
        }
    }
    let (mut whole, mut same) = (bytes::BytesMut::from(bytes), Vec::new());
    while let Some(frame) = Frame::read(&mut whole).ok()? {
        frame.write(&mut same);
    }
    assert_eq!(written, same, "however they come");
    Some(written)
}

/// Kind and length.
const HEAD: usize = 5;
/// Bytes of the content of a frame.
const LONGEST: usize = 64 << 10;
/// Bytes of what a monitor has found wrong.
const LONGEST_FAULT: usize = 1024;
/// Verdicts in one frame.
pub(super) const VERDICTS: usize = 32;
/// Connections in one frame.
pub(super) const CONNECTIONS: usize = 256;
/// Bytes of entries in one frame.
pub(super) const PAGE: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn all() -> Vec<Frame> {
        let connector = Uuid::from_u128(0xc0);
        let replicas = vec![RemoteReplica { connector, connections: 4, is_silent: false }];
        let entries = vec![
            Entry { tunnel: Uuid::from_u128(0xad17), replicas },
            Entry { tunnel: Uuid::from_u128(2), replicas: Vec::new() },
        ];
        vec![
            Frame::Hello { epoch: 7, after: 0 },
            Frame::Entries { upto: 9, entries },
            Frame::Heartbeat {
                sequence: 9,
                digest: 0x1234,
                state: NodeState { is_leaving: true, revision: 0x55, store_silent: 3 },
            },
            Frame::Goodbye,
            Frame::Connections(vec![RemoteConnection {
                tunnel: Uuid::from_u128(0xad17),
                connector,
                index: 3,
                id: Uuid::from_u128(0x1d),
            }]),
            Frame::Verdicts(vec![SharedVerdict {
                subject: 0x5b,
                connector,
                is_up: true,
                outcome: Outcome {
                    fault: Some("late".to_owned()),
                    status: Some(0x1f7),
                    took: Duration::from_millis(9),
                },
            }]),
        ]
    }

    /// As neighbours of format 1 say it. It never changes.
    const RECORDED: &str = "0100000010000000000000000700000000000000000200000\
        03c00000000000000090000000000000000000000000000ad1701000000000000000000000000000000c0\
        040000000000000000000000000000000002000300\
        00001d0000000000000009000000000000123401000000000000005500000003040000000005000000310000000000000000000\
        000000000ad17000000000000000000000000000000c0030000000000000000000000000000001d\
        0600000025000000000000005b000000000000000000000000000000c00301f70000000900046c617465";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn neighbours_of_this_format_understand_each_other_whatever_their_version() {
        let mut bytes = Vec::new();
        all().iter().for_each(|frame| frame.write(&mut bytes));
        assert_eq!(hex(&bytes), RECORDED);
    }

    #[test]
    fn frames_are_read_however_they_come_and_those_that_are_not_known_are_passed_over() {
        let mut bytes = Vec::new();
        for frame in all() {
            bytes.extend_from_slice(&[200, 0, 0, 0, 2, 1, 2]);
            frame.write(&mut bytes);
        }
        let (mut coming, mut read) = (BytesMut::new(), Vec::new());
        for byte in bytes {
            coming.extend_from_slice(&[byte]);
            read.extend(Frame::read(&mut coming).unwrap());
        }
        assert_eq!(read, all());
        assert!(coming.is_empty());
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_refused_and_nothing_is_kept_for_it() {
        let mut long = BytesMut::from(&[2, 0xff, 0xff, 0xff, 0xff][..]);
        assert_eq!(Frame::read(&mut long), Err(FrameError::TooLong(u32::MAX as usize)));
        for length in 0..60 {
            let mut bytes = Vec::new();
            all()[1].write(&mut bytes);
            let content = bytes[HEAD..HEAD + length].to_vec();
            let mut cut = BytesMut::from(&[2, 0, 0, 0, length as u8][..]);
            cut.extend_from_slice(&content);
            let is_whole = [8, 8 + 35, 8 + 35 + 17].contains(&length);
            assert_eq!(Frame::read(&mut cut).is_ok(), is_whole, "{length}");
        }
    }
}
