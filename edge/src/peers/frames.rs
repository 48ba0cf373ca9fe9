//! What a node says of itself to another one, in bytes: frames of a kind, a length and a content. Of a neighbour that
//! knows more, kinds that are not known here are passed over. Knows bytes; does not know what follows from them.

use thiserror::Error;
use uuid::Uuid;

use crate::registry::RemoteReplica;

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

/// Kind and length.
const HEAD: usize = 5;
/// Bytes of the content of a frame.
const LONGEST: usize = 64 << 10;
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
        ]
    }

    /// As neighbours of format 1 say it. It never changes.
    const RECORDED: &str = "0100000010000000000000000700000000000000000200000\
        03c00000000000000090000000000000000000000000000ad1701000000000000000000000000000000c0\
        040000000000000000000000000000000002000300\
        00001d00000000000000090000000000001234010000000000000055000000030400000000";

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
