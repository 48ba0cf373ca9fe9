//! What a visitor says, taken out of what it travels in.

use adit_protocol::websocket::{Piece, Reader, Side};
use bytes::Bytes;
use http_body_util::BodyExt;

use super::frames::Framing;
use crate::origin::Body;

/// The direction from the visitor.
pub(super) struct Incoming {
    body: Body,
    /// Absent where bytes travel as they are.
    reader: Option<Reader>,
    /// Arrived, and not looked at yet.
    input: Bytes,
    /// Looked at, and given back.
    ahead: Option<Bytes>,
}

/// Why there is nothing more to hear.
#[derive(Debug)]
pub(super) enum Deaf {
    /// The stream broke off.
    Lost,
    /// It was no row of frames.
    Unreadable,
}

impl Incoming {
    pub(super) fn new(body: Body, framing: Framing) -> Self {
        let reader = match framing {
            Framing::WebSocket { .. } => Some(Reader::new(Side::Client)),
            Framing::Raw => None,
        };
        Self { body, reader, input: Bytes::new(), ahead: None }
    }

    /// What comes next; `None` at the end. `heard` is called whenever something has arrived.
    pub(super) async fn next(&mut self, heard: impl Fn()) -> Result<Option<Piece>, Deaf> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(Some(Piece::Data(ahead)));
        }
        loop {
            let piece = match &mut self.reader {
                Some(reader) => reader.next(&mut self.input).map_err(|_| Deaf::Unreadable)?,
                None if self.input.is_empty() => None,
                None => Some(Piece::Data(std::mem::take(&mut self.input))),
            };
            if piece.is_some() {
                return Ok(piece);
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(_)) => return Err(Deaf::Lost),
                Some(Ok(frame)) => {
                    heard();
                    self.input = frame.into_data().unwrap_or_default();
                }
            }
        }
    }

    /// Gives back what was read too far; it comes next.
    pub(super) fn unread(&mut self, data: Bytes) {
        self.ahead = Some(data).filter(|data| !data.is_empty());
    }
}
