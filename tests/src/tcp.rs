//! A service of bytes, and a visitor's end of a circuit in raw frames. Knows no promise.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream as Blocking};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use adit_protocol::websocket::{self, Piece, Reader, Side, data_head, mask};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::within;

/// How a service of bytes behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// Sends back what it gets, as it comes.
    Echo,
    /// Says what it got once the other side has said all.
    WaitsForAll,
    /// Greets and ends its direction, and reads on.
    Greets,
    /// Greets and is gone.
    Leaves,
}

/// How a connection to a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The other side said that nothing follows, after so many bytes.
    Well(usize),
    /// It was reset.
    Reset,
}

/// One of them.
pub struct TcpService {
    pub address: SocketAddr,
    ended: Arc<Mutex<Receiver<Ended>>>,
}

pub const GREETING: &[u8] = b"SSH-2.0-greeting\r\n";

impl TcpService {
    /// Its threads end with the test process.
    pub fn start(habit: Habit) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (tell, ended) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), tell) = (stream, tell.clone()) else { return };
                thread::spawn(move || serve(stream, habit, &tell));
            }
        });
        Self { address, ended: Arc::new(Mutex::new(ended)) }
    }

    /// How the next of its connections ends.
    pub async fn ended(&self) -> Ended {
        let ended = self.ended.clone();
        let wait = tokio::task::spawn_blocking(move || ended.lock().expect("one waits at a time").recv());
        within("the end of a connection", wait).await.expect("no panic").expect("the service runs")
    }
}

fn serve(mut stream: Blocking, habit: Habit, tell: &Sender<Ended>) {
    if matches!(habit, Habit::Greets | Habit::Leaves) {
        let _ = stream.write_all(GREETING);
        if habit == Habit::Leaves {
            return;
        }
        let _ = stream.shutdown(Shutdown::Write);
    }
    let (mut all, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    let ended = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break Ended::Well(all.len()),
            Ok(length) => {
                all.extend_from_slice(&buffer[..length]);
                if habit == Habit::Echo && stream.write_all(&buffer[..length]).is_err() {
                    break Ended::Reset;
                }
            }
            Err(_) => break Ended::Reset,
        }
    };
    if habit == Habit::WaitsForAll && ended != Ended::Reset {
        let _ = stream.write_all(&all);
    }
    // A probe of the host says nothing, and is nobody's circuit.
    if ended != Ended::Well(0) {
        let _ = tell.send(ended);
    }
}

/// A visitor's end of a circuit.
pub struct Frames<S> {
    stream: S,
    reader: Reader,
    input: Bytes,
    /// The head of the answer.
    pub head: String,
}

const KEY: [u8; 4] = [1, 2, 3, 4];

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Asks for a WebSocket; `more` are further lines of the head. The answer may be another one than 101.
    pub async fn ask(mut stream: S, host: &str, more: &str) -> Self {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("the edge reads");
        let (mut head, mut byte) = (Vec::new(), [0]);
        let read = async {
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read(&mut byte).await {
                    Ok(1) => head.push(byte[0]),
                    _ => panic!("no whole head: {}", String::from_utf8_lossy(&head)),
                }
            }
        };
        within("the head of an answer", read).await;
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        Self { stream, reader: Reader::new(Side::Server), input: Bytes::new(), head }
    }

    pub fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// These bytes as one frame.
    pub async fn send(&mut self, data: &[u8]) {
        let (head, begin) = data_head(data.len(), Some(KEY));
        let mut frame = BytesMut::from(&head[begin..]);
        let length = frame.len();
        frame.extend_from_slice(data);
        mask(&mut frame[length..], KEY);
        self.raw(&frame).await;
    }

    /// These bytes as they are.
    pub async fn raw(&mut self, bytes: &[u8]) {
        within("sending", self.stream.write_all(bytes)).await.expect("the edge reads");
    }

    pub async fn close(&mut self, code: u16) {
        self.raw(&websocket::close(code, Some(KEY))).await;
    }

    /// The end of this side's direction, without a word of it.
    pub async fn shutdown(&mut self) {
        self.stream.shutdown().await.expect("the edge is there");
    }

    /// What comes next; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Piece> {
        let next = async {
            loop {
                if let Some(piece) = self.reader.next(&mut self.input).expect("frames") {
                    return Some(piece);
                }
                let mut buffer = BytesMut::with_capacity(64 * 1024);
                match self.stream.read_buf(&mut buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => self.input = buffer.freeze(),
                }
            }
        };
        within("a frame", next).await
    }

    /// So many bytes of the stream.
    pub async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut all = Vec::with_capacity(length);
        while all.len() < length {
            match self.next().await {
                Some(Piece::Data(data)) => all.extend_from_slice(&data),
                other => panic!("{other:?} after {} of {length} bytes", all.len()),
            }
        }
        all
    }

    /// Whether bytes come back as they were sent.
    pub async fn echoes(&mut self, data: &[u8]) -> bool {
        self.send(data).await;
        self.read(data.len()).await == data
    }
}
