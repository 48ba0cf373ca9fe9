//! A way to an edge server that a test can block: TCP and UDP on one port, passed on to the same port's
//! worth of server behind it. Knows bytes and datagrams; does not know what they mean.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A running gate. It is gone when dropped.
pub struct Gate {
    pub address: SocketAddr,
    open: watch::Sender<Open>,
    _stop: DropGuard,
}

/// What passes; the rest is swallowed without a word, as a bad firewall does.
#[derive(Clone, Copy)]
struct Open {
    tcp: bool,
    udp: bool,
}

impl Gate {
    /// A gate in front of `server` through which only TCP passes.
    pub fn without_udp(server: SocketAddr) -> Self {
        Self::start(server, Open { tcp: true, udp: false })
    }

    /// A gate that is open.
    pub fn open(server: SocketAddr) -> Self {
        Self::start(server, Open { tcp: true, udp: true })
    }

    pub fn let_udp_pass(&self, passes: bool) {
        self.open.send_modify(|open| open.udp = passes);
    }

    /// Connections stay open either way.
    pub fn let_tcp_pass(&self, passes: bool) {
        self.open.send_modify(|open| open.tcp = passes);
    }

    fn start(server: SocketAddr, open: Open) -> Self {
        let (open, watched) = watch::channel(open);
        let stop = CancellationToken::new();
        let (tcp, udp) = bind();
        let address = tcp.local_addr().expect("an address");
        let stopped = stop.clone();
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(stopped.run_until_cancelled(async {
                let tcp = TcpListener::from_std(tcp).expect("a listener");
                let udp = Arc::new(UdpSocket::from_std(udp).expect("a socket"));
                tokio::join!(streams(tcp, server, watched.clone()), datagrams(udp, server, watched));
            }));
        });
        Self { address, open, _stop: stop.drop_guard() }
    }
}

/// Both kinds of sockets on one free port.
fn bind() -> (std::net::TcpListener, std::net::UdpSocket) {
    for _ in 0..32 {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = tcp.local_addr().expect("an address");
        if let Ok(udp) = std::net::UdpSocket::bind(address) {
            tcp.set_nonblocking(true).expect("a socket that does not block");
            udp.set_nonblocking(true).expect("a socket that does not block");
            return (tcp, udp);
        }
    }
    panic!("no port is free over TCP and UDP");
}

async fn streams(listener: TcpListener, server: SocketAddr, open: watch::Receiver<Open>) {
    while let Ok((outer, _)) = listener.accept().await {
        let open = open.clone();
        tokio::spawn(async move {
            let Ok(inner) = TcpStream::connect(server).await else { return };
            let ((outer_read, outer_write), (inner_read, inner_write)) =
                (outer.into_split(), inner.into_split());
            tokio::select! {
                () = pass(outer_read, inner_write, open.clone()) => {}
                () = pass(inner_read, outer_write, open) => {}
            }
        });
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut open: watch::Receiver<Open>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 || open.wait_for(|open| open.tcp).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn datagrams(outer: Arc<UdpSocket>, server: SocketAddr, open: watch::Receiver<Open>) {
    let mut ways: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok((length, from)) = outer.recv_from(&mut buffer).await {
        if !open.borrow().udp {
            continue;
        }
        let inner = match ways.get(&from) {
            Some(inner) => inner.clone(),
            None => {
                let inner = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a free port"));
                inner.connect(server).await.expect("an address of this machine");
                tokio::spawn(back(inner.clone(), outer.clone(), from, open.clone()));
                ways.insert(from, inner.clone());
                inner
            }
        };
        let _ = inner.send(&buffer[..length]).await;
    }
}

async fn back(inner: Arc<UdpSocket>, outer: Arc<UdpSocket>, to: SocketAddr, open: watch::Receiver<Open>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        // An error says that the server was away for a moment.
        let Ok(length) = inner.recv(&mut buffer).await else { continue };
        if open.borrow().udp {
            let _ = outer.send_to(&buffer[..length], to).await;
        }
    }
}
