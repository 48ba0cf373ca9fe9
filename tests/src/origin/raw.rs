//! An origin that is not one: takes a request and sends whatever bytes the test chose.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Answers every connection with the same bytes, then closes it.
pub struct RawOrigin {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl RawOrigin {
    /// Sends `answer` when a head has arrived. Its thread ends with the test process.
    pub fn start(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut head = Vec::new();
                let mut chunk = [0; 1024];
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut chunk) {
                        Ok(0) | Err(_) => break,
                        Ok(length) => head.extend_from_slice(&chunk[..length]),
                    }
                }
                // A probe of the host says nothing.
                if !head.is_empty() {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                let _ = stream.write_all(answer);
            }
        });
        Self { address, asked }
    }

    /// Requests so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// As a rule's service.
    pub fn service(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// An address where nothing listens: a port that was free a moment ago.
pub fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}
