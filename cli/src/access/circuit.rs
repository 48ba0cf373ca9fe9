//! A visitor's end of one circuit: what a program says goes in frames, and what comes in them goes to the program.
//! Knows frames; does not know how the circuit was opened.

use std::pin::pin;
use std::time::Duration;

use adit_protocol::websocket::{
    self, END_OF_DIRECTION, LONGEST_HEAD, NORMAL, PROTOCOL_ERROR, Piece, Reader, Side, data_head, mask,
};
use anyhow::{Context, anyhow, bail};
use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// What the other end knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode {
    /// That a direction may end for itself.
    pub(super) half_close: bool,
}

/// Carries bytes until the circuit is over.
///
/// # Errors
/// It broke off, so that what came may not be all.
pub(super) async fn carry(
    program: impl AsyncRead + Unpin,
    to_program: impl AsyncWrite + Unpin,
    circuit: impl AsyncRead + AsyncWrite + Unpin,
    mode: Mode,
) -> anyhow::Result<()> {
    let (from_host, to_host) = tokio::io::split(circuit);
    // One answer to a ping waits; a further one finds it still there.
    let (tell, told) = mpsc::channel(1);
    let mut up = pin!(upwards(program, to_host, told, mode));
    let mut down = pin!(downwards(from_host, to_program, tell, mode));
    tokio::select! {
        said = &mut up => match said {
            // The other side may still have something to say.
            Ok(Said::Half) => down.await.map(drop),
            // It knows no such thing; what it says after this is lost there too.
            Ok(Said::All) => timeout(FAREWELL, down).await.unwrap_or(Ok(Said::All)).map(drop),
            // Whoever takes no more may have said why, and all that there was to say.
            Err(error) => match timeout(FAREWELL, down).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(reason)) => Err(reason),
                Err(_) => Err(error),
            },
        },
        heard = &mut down => match heard? {
            Said::Half => up.await.map(drop),
            Said::All => Ok(()),
        },
    }
}

/// How a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// The other one goes on.
    Half,
    All,
}

async fn upwards(
    mut program: impl AsyncRead + Unpin,
    mut host: impl AsyncWrite + Unpin,
    mut told: mpsc::Receiver<Bytes>,
    mode: Mode,
) -> anyhow::Result<Said> {
    let most = if mode.half_close { MOST } else { MOST_ELSEWHERE };
    loop {
        let mut buffer = BytesMut::with_capacity(LONGEST_HEAD + most);
        buffer.resize(LONGEST_HEAD, 0);
        let mut room = (&mut buffer).limit(most);
        let length = tokio::select! {
            read = program.read_buf(&mut room) => read.context("reading what the program says")?,
            Some(frame) = told.recv() => {
                host.write_all(&frame).await.context("the circuit")?;
                host.flush().await?;
                continue;
            }
        };
        let key = key()?;
        if length == 0 {
            let code = if mode.half_close { END_OF_DIRECTION } else { NORMAL };
            host.write_all(&websocket::close(code, Some(key))).await.context("the circuit")?;
            host.flush().await?;
            return Ok(if mode.half_close { Said::Half } else { Said::All });
        }
        let (head, begin) = data_head(length, Some(key));
        mask(&mut buffer[LONGEST_HEAD..], key);
        buffer[begin..LONGEST_HEAD].copy_from_slice(&head[begin..]);
        host.write_all(&buffer[begin..]).await.context("the circuit")?;
        host.flush().await?;
    }
}

async fn downwards(
    mut host: impl AsyncRead + Unpin,
    mut program: impl AsyncWrite + Unpin,
    tell: mpsc::Sender<Bytes>,
    mode: Mode,
) -> anyhow::Result<Said> {
    let mut reader = Reader::new(Side::Server);
    loop {
        let mut buffer = BytesMut::with_capacity(MOST);
        let read = host.read_buf(&mut buffer).await.context("the circuit broke off")?;
        if read == 0 {
            // Not every end says it in a frame.
            let _ = program.shutdown().await;
            return Ok(Said::All);
        }
        let mut input = buffer.freeze();
        while let Some(piece) = reader.next(&mut input)? {
            match piece {
                Piece::Data(data) => {
                    program.write_all(&data).await.context("the program takes no more")?;
                    program.flush().await.context("the program takes no more")?;
                }
                Piece::Ping(payload) => drop(tell.try_send(websocket::pong(&payload, Some(key()?)))),
                Piece::Pong => {}
                Piece::Close(code) => {
                    let _ = program.shutdown().await;
                    return match code {
                        Some(END_OF_DIRECTION) if mode.half_close => Ok(Said::Half),
                        None | Some(NORMAL) => Ok(Said::All),
                        Some(PROTOCOL_ERROR) => bail!("the host could not read what it was sent"),
                        Some(code) => Err(anyhow!("the host ended the circuit ({code})")),
                    };
                }
            }
        }
    }
}

/// What a frame is masked with: nobody may foresee it (RFC 6455, 10.3).
fn key() -> anyhow::Result<[u8; 4]> {
    let mut key = [0; 4];
    getrandom::fill(&mut key).context("random numbers")?;
    Ok(key)
}

/// Bytes of one frame.
const MOST: usize = 64 * 1024;
/// The same where the host is not known to be one of ours: the reference's loses what a frame has beyond that.
const MOST_ELSEWHERE: usize = 16 * 1024;
/// How long the last words of a host may take that does not know of half an end.
const FAREWELL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::io::{duplex, split};

    use super::*;

    /// What a host reads of a circuit that carries `said`, and what the program gets of what the host answers.
    async fn carried(
        said: &[u8],
        answer: Vec<u8>,
        half_close: bool,
    ) -> (anyhow::Result<()>, Vec<Piece>, Vec<u8>) {
        let (circuit, host) = duplex(1 << 20);
        let (mut heard, mut pieces) = (Vec::new(), Vec::new());
        let (mut from, mut to) = split(host);
        let host = async {
            let (mut reader, mut all) = (Reader::new(Side::Client), Vec::new());
            while !matches!(pieces.last(), Some(Piece::Close(_))) {
                all.clear();
                assert_ne!(from.read_buf(&mut all).await.unwrap(), 0);
                let mut input = Bytes::from(all.clone());
                while let Some(piece) = reader.next(&mut input).unwrap() {
                    pieces.push(piece);
                }
            }
            to.write_all(&answer).await.unwrap();
        };
        let (outcome, ()) = tokio::join!(carry(said, &mut heard, circuit, Mode { half_close }), host);
        (outcome, pieces, heard)
    }

    fn answer(code: u16) -> Vec<u8> {
        let (head, begin) = data_head(6, None);
        [&head[begin..], b"answer", &websocket::close(code, None)].concat()
    }

    #[tokio::test]
    async fn what_a_program_says_is_framed_and_its_end_is_said() {
        let (outcome, pieces, heard) = carried(b"question", answer(NORMAL), true).await;
        outcome.unwrap();
        assert_eq!(
            pieces,
            [Piece::Data(Bytes::from_static(b"question")), Piece::Close(Some(END_OF_DIRECTION))]
        );
        assert_eq!(heard, b"answer");
    }

    #[tokio::test]
    async fn a_host_that_knows_no_half_an_end_is_told_of_a_whole_one() {
        let (outcome, pieces, heard) = carried(b"question", answer(NORMAL), false).await;
        outcome.unwrap();
        assert_eq!(pieces.last(), Some(&Piece::Close(Some(NORMAL))));
        assert_eq!(heard, b"answer");
    }

    #[tokio::test]
    async fn a_host_that_may_be_the_references_gets_no_frame_that_it_would_cut() {
        for (half_close, most) in [(false, MOST_ELSEWHERE), (true, MOST)] {
            let (circuit, mut host) = duplex(1 << 20);
            let said = vec![7; 300_000];
            let program = async {
                let _ = carry(&said[..], Vec::new(), circuit, Mode { half_close }).await;
            };
            let frames = async {
                let (mut longest, mut all) = (0, 0);
                loop {
                    let [kind, length] =
                        [host.read_u8().await.unwrap(), host.read_u8().await.unwrap() & 0x7f];
                    let length = match length {
                        127 => usize::try_from(host.read_u64().await.unwrap()).unwrap(),
                        126 => host.read_u16().await.unwrap().into(),
                        length => length.into(),
                    };
                    host.read_exact(&mut vec![0; 4 + length]).await.unwrap();
                    if kind & 0x0f == 8 {
                        return (longest, all);
                    }
                    (longest, all) = (longest.max(length), all + length);
                }
            };
            tokio::select! {
                seen = frames => assert_eq!(seen, (most, said.len())),
                () = program => panic!("it ended before the host did"),
            }
        }
    }

    #[tokio::test]
    async fn a_circuit_that_a_host_ends_for_a_reason_is_an_error() {
        let (outcome, _, heard) = carried(b"", answer(websocket::GOING_AWAY), true).await;
        assert!(outcome.unwrap_err().to_string().contains("1001"));
        assert_eq!(heard, b"answer");
    }
}
