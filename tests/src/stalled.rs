//! Peers who take nothing: visitors who never read, over HTTP/1.1 and HTTP/2, visitors who send without an
//! end, an origin that never reads, and one whose answers come in crumbs. Knows bytes and frames; does not know what is promised about them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::document::HOST;

/// A visitor over HTTP/1.1 who has asked and never reads.
pub struct Http1 {
    stream: TcpStream,
    /// The system says it once.
    is_over: AtomicBool,
}

/// A visitor over HTTP/2 who has asked for many things, with a window of nothing for each.
pub struct Http2 {
    ended: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

/// A visitor over HTTP/1.1 who sends as long as it is taken, and reads whatever comes.
pub struct Upload {
    ended: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

impl Http1 {
    pub async fn get(edge: SocketAddr, path: &str) -> std::io::Result<Self> {
        Self::get_from(edge, HOST, path).await
    }

    /// The same from another host.
    pub async fn get_from(edge: SocketAddr, host: &str, path: &str) -> std::io::Result<Self> {
        let mut stream = dial(edge).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await?;
        Ok(Self { stream, is_over: AtomicBool::new(false) })
    }

    /// Whether the edge has given this visitor up. What has arrived stays unread.
    pub fn is_over(&self) -> bool {
        if !matches!(self.stream.take_error(), Ok(None)) {
            self.is_over.store(true, Ordering::Relaxed);
        }
        self.is_over.load(Ordering::Relaxed)
    }

    /// The same to another host, with a body that is at hand, as it stands there.
    pub async fn post_chunks(edge: SocketAddr, host: &str, chunks: &[u8]) -> std::io::Result<Self> {
        let mut stream = dial(edge).await?;
        let head = format!("POST / HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(chunks).await?;
        Ok(Self { stream, is_over: AtomicBool::new(false) })
    }

    /// Begins to read: the next bytes of the answer, none at its end.
    pub async fn read(&mut self, most: usize) -> std::io::Result<Vec<u8>> {
        let mut buffer = vec![0; most];
        let count = self.stream.read(&mut buffer).await?;
        buffer.truncate(count);
        Ok(buffer)
    }
}

impl Http2 {
    pub async fn get(edge: SocketAddr, path: &str, streams: usize) -> std::io::Result<Self> {
        let mut stream = dial(edge).await?;
        let mut said = PREFACE.to_vec();
        // SETTINGS_INITIAL_WINDOW_SIZE
        frame(&mut said, SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        for number in 0..streams {
            let id = 1 + 2 * u32::try_from(number).expect("a stream has a number");
            frame(&mut said, HEADERS, END_STREAM | END_HEADERS, id, &head(path));
        }
        stream.write_all(&said).await?;
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let task = tokio::spawn(async move {
            let _guard = guard;
            // The edge asks whether this visitor lives.
            while let Ok((kind, flags, payload)) = next(&mut stream).await {
                if kind == PING && flags & ACK == 0 {
                    let mut answer = Vec::new();
                    frame(&mut answer, PING, ACK, 0, &payload);
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Self { ended, _task: AbortOnDropHandle::new(task) })
    }

    /// Waits until the edge has ended the connection.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Upload {
    pub async fn post(edge: SocketAddr, host: &str, path: &str, length: u64) -> std::io::Result<Self> {
        let stream = dial(edge).await?;
        let (mut read, mut write) = stream.into_split();
        let head = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n");
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let task = tokio::spawn(async move {
            let _guard = guard;
            let send = async {
                let _ = write.write_all(head.as_bytes()).await;
                let block = vec![7; 64 << 10];
                while write.write_all(&block).await.is_ok() {}
                std::future::pending::<()>().await;
            };
            let receive = async { read.read_to_end(&mut Vec::new()).await };
            tokio::select! {
                () = send => {}
                _ = receive => {}
            }
        });
        Ok(Self { ended, _task: AbortOnDropHandle::new(task) })
    }

    /// Waits until the edge has ended the connection.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// An origin that takes connections and reads nothing of them.
pub struct DeafOrigin {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl DeafOrigin {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                open.extend(stream);
            }
        });
        Self { address, is_over }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As a rule's service.
    pub fn service(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for DeafOrigin {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = std::net::TcpStream::connect(self.address);
    }
}

/// An origin whose answers to GET come in pieces of one byte, and which reads a POST only when it is told.
pub struct CrumbOrigin {
    address: SocketAddr,
    reads: Arc<(Mutex<bool>, Condvar)>,
    is_over: Arc<AtomicBool>,
}

impl CrumbOrigin {
    /// So many pieces in each answer.
    pub fn start(crumbs: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (reads, is_over) = (Arc::<(Mutex<bool>, Condvar)>::default(), Arc::<AtomicBool>::default());
        let (told, over) = (reads.clone(), is_over.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), told) = (stream, told.clone()) else { continue };
                // Whoever leaves is no fault of this origin.
                thread::spawn(move || drop(serve_crumbs(stream, crumbs, &told)));
            }
        });
        Self { address, reads, is_over }
    }

    /// From now on it reads, and answers what it was asked for `/later`.
    pub fn read(&self) {
        *self.reads.0.lock().expect("no thread panics") = true;
        self.reads.1.notify_all();
    }

    /// As a rule's service.
    pub fn service(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for CrumbOrigin {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.read();
        let _ = std::net::TcpStream::connect(self.address);
    }
}

/// A body of so many pieces of one byte.
pub fn crumbs(count: usize) -> Vec<u8> {
    [b"1\r\nx\r\n".repeat(count), b"0\r\n\r\n".to_vec()].concat()
}

fn serve_crumbs(
    stream: std::net::TcpStream,
    count: usize,
    told: &(Mutex<bool>, Condvar),
) -> std::io::Result<()> {
    let mut read = BufReader::new(stream.try_clone()?);
    let mut write = stream;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if read.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    if head.starts_with("GET") {
        write.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        if head.starts_with("GET /later ") {
            drop(told.1.wait_while(told.0.lock().expect("no thread panics"), |reads| !*reads));
        }
        return write.write_all(&crumbs(count));
    }
    drop(told.1.wait_while(told.0.lock().expect("no thread panics"), |reads| !*reads));
    let (mut bytes, mut line) = (0, String::new());
    loop {
        line.clear();
        read.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
        let mut piece = vec![0; length + 2];
        read.read_exact(&mut piece)?;
        bytes += length;
        if length == 0 {
            let text = bytes.to_string();
            return write!(write, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
        }
    }
}

/// With little room at this end, so that it fills soon.
async fn dial(edge: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.connect(edge).await
}

fn frame(into: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    into.extend_from_slice(&length[1..]);
    into.extend_from_slice(&[kind, flags]);
    into.extend_from_slice(&stream.to_be_bytes());
    into.extend_from_slice(payload);
}

async fn next(stream: &mut TcpStream) -> std::io::Result<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await?;
    Ok((head[3], head[4], payload))
}

/// GET, in the clear, without a dynamic table (RFC 7541, 6.2.2).
fn head(path: &str) -> Vec<u8> {
    // :method GET and :scheme http stand in the static table.
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(":path", path), (":authority", HOST)] {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("a short text"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const RECEIVE_BUFFER: u32 = 16 << 10;
