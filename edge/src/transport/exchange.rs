//! A request of the edge's own on a connection, and its answer in memory. Knows streams; does not know what is
//! asked, and no visitor.

use adit_protocol::stream::{Answer, Connect, DecodeError, EncodeError};
use bytes::{Bytes, BytesMut};
use http::Response;
use thiserror::Error;

use super::connection::{Lost, StreamPermit, Transport};
use super::http2;

/// What came back.
pub(crate) struct Reply {
    pub(crate) head: Response<()>,
    pub(crate) body: Bytes,
    /// There was more than was to be read.
    pub(crate) is_cut: bool,
}

/// Why a host did not answer.
#[derive(Debug, Error)]
pub(crate) enum ExchangeError {
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("the request cannot be written: {0}")]
    Encode(#[from] EncodeError),
    #[error("the host took nothing: {0}")]
    Write(#[from] quinn::WriteError),
    #[error("the host broke off: {0}")]
    Read(#[from] quinn::ReadError),
    #[error("the host broke off: {0}")]
    Body(#[from] std::io::Error),
    #[error("no answer: {0}")]
    NoAnswer(#[from] http2::NoAnswer),
    #[error("the host ended the stream without an answer")]
    Ended,
    #[error("the answer is not readable: {0}")]
    Decode(#[from] DecodeError),
    #[error("the host refused: {0}")]
    Refused(String),
}

/// Asks once, without a body, and reads at most so many bytes of the answer's. Dropped midway it cancels.
pub(crate) async fn exchange(
    link: &Transport,
    connect: &Connect,
    most: usize,
) -> Result<Reply, ExchangeError> {
    match link.channel(0).await? {
        StreamPermit::Quic(mut send, mut recv) => {
            send.write_chunk(connect.encode()?).await?;
            let _ = send.finish();
            let mut buffered = BytesMut::new();
            let answer = loop {
                let chunk = recv.read_chunk(LARGEST_CHUNK, true).await?.ok_or(ExchangeError::Ended)?;
                buffered.extend_from_slice(&chunk.bytes);
                // The decoder refuses a head that is longer than the protocol allows.
                if let Some(answer) = Answer::decode(&mut buffered)? {
                    break answer;
                }
            };
            let head = head(answer)?;
            while buffered.len() <= most
                && let Some(chunk) = recv.read_chunk(LARGEST_CHUNK, true).await?
            {
                buffered.extend_from_slice(&chunk.bytes);
            }
            Ok(Reply::new(head, buffered, most))
        }
        StreamPermit::Http2(channel) => {
            let (_up, mut down) = channel.send(connect, true)?;
            let head = head(down.answer().await?)?;
            let mut body = BytesMut::new();
            while body.len() <= most
                && let Some(data) = std::future::poll_fn(|cx| down.poll_read(cx)).await?
            {
                body.extend_from_slice(&data);
            }
            Ok(Reply::new(head, body, most))
        }
    }
}

impl Reply {
    fn new(head: Response<()>, mut body: BytesMut, most: usize) -> Self {
        let is_cut = body.len() > most;
        body.truncate(most);
        Self { head, body: body.freeze(), is_cut }
    }
}

fn head(answer: Answer) -> Result<Response<()>, ExchangeError> {
    match answer {
        Answer::Http(response) => Ok(response),
        Answer::Accepted => Err(ExchangeError::Ended),
        Answer::Refused { reason, .. } => Err(ExchangeError::Refused(reason)),
    }
}

const LARGEST_CHUNK: usize = 64 << 10;
