//! A way to an edge server that takes time: TCP and UDP on one port, passed on to a server's after a delay in
//! each direction. For machines whose kernel has no such queue. Knows bytes; does not know what they mean.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// A thread of its own that ends with the process.
pub(crate) fn start(server: SocketAddr, delay: Duration) -> Result<SocketAddr> {
    let (tcp, udp) = bind()?;
    let address = tcp.local_addr()?;
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let tcp = TcpListener::from_std(tcp).expect("a listener");
            let udp = Arc::new(UdpSocket::from_std(udp).expect("a socket"));
            tokio::join!(streams(tcp, server, delay), datagrams(udp, server, delay));
        });
    });
    Ok(address)
}

fn bind() -> Result<(std::net::TcpListener, std::net::UdpSocket)> {
    for _ in 0..32 {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0")?;
        if let Ok(udp) = std::net::UdpSocket::bind(tcp.local_addr()?) {
            tcp.set_nonblocking(true)?;
            udp.set_nonblocking(true)?;
            let socket = socket2::SockRef::from(&udp);
            let _ = (socket.set_recv_buffer_size(BUFFER), socket.set_send_buffer_size(BUFFER));
            return Ok((tcp, udp));
        }
    }
    anyhow::bail!("no port is free over TCP and UDP")
}

async fn streams(listener: TcpListener, server: SocketAddr, delay: Duration) {
    while let Ok((outer, _)) = listener.accept().await {
        tokio::spawn(async move {
            let inner = TcpStream::connect(server).await?;
            let _ = (outer.set_nodelay(true), inner.set_nodelay(true));
            let ((outer_read, outer_write), (inner_read, inner_write)) =
                (outer.into_split(), inner.into_split());
            tokio::select! {
                ended = pass(outer_read, inner_write, delay) => ended,
                ended = pass(inner_read, outer_write, delay) => ended,
            }
        });
    }
}

async fn pass(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    delay: Duration,
) -> std::io::Result<()> {
    // As much may be under way as a fast line holds.
    let (send, mut receive) = mpsc::channel::<(Instant, Bytes)>(UNDER_WAY);
    let reading = async {
        loop {
            let mut buffer = bytes::BytesMut::with_capacity(PIECE);
            if from.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            if send.send((Instant::now() + delay, buffer.freeze())).await.is_err() {
                return Ok(());
            }
        }
    };
    let writing = async {
        while let Some((due, bytes)) = receive.recv().await {
            sleep_until(due).await;
            to.write_all(&bytes).await?;
        }
        Ok(())
    };
    tokio::select! { ended = reading => ended, ended = writing => ended }
}

async fn datagrams(outer: Arc<UdpSocket>, server: SocketAddr, delay: Duration) {
    let mut ways: HashMap<SocketAddr, mpsc::UnboundedSender<(Instant, Bytes)>> = HashMap::new();
    let mut buffer = vec![0; PIECE];
    while let Ok((length, from)) = outer.recv_from(&mut buffer).await {
        let datagram = (Instant::now() + delay, Bytes::copy_from_slice(&buffer[..length]));
        if let Some(way) = ways.get(&from) {
            let _ = way.send(datagram);
            continue;
        }
        let Ok(inner) = way(server).await else { continue };
        let there = queue(inner.clone(), None);
        let back = queue(outer.clone(), Some(from));
        tokio::spawn(async move {
            let mut buffer = vec![0; PIECE];
            loop {
                let Ok(length) = inner.recv(&mut buffer).await else { continue };
                let _ = back.send((Instant::now() + delay, Bytes::copy_from_slice(&buffer[..length])));
            }
        });
        let _ = there.send(datagram);
        ways.insert(from, there);
    }
}

async fn way(server: SocketAddr) -> Result<Arc<UdpSocket>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.context("a free port")?;
    let options = socket2::SockRef::from(&socket);
    let _ = (options.set_recv_buffer_size(BUFFER), options.set_send_buffer_size(BUFFER));
    socket.connect(server).await?;
    Ok(Arc::new(socket))
}

/// Sends each datagram when it is due. How many are under way is decided by the senders.
fn queue(socket: Arc<UdpSocket>, to: Option<SocketAddr>) -> mpsc::UnboundedSender<(Instant, Bytes)> {
    let (send, mut receive) = mpsc::unbounded_channel::<(Instant, Bytes)>();
    tokio::spawn(async move {
        while let Some((due, datagram)) = receive.recv().await {
            sleep_until(due).await;
            let _ = match to {
                Some(to) => socket.send_to(&datagram, to).await,
                None => socket.send(&datagram).await,
            };
        }
    });
    send
}

const PIECE: usize = 64 << 10;
const UNDER_WAY: usize = 1024;
const BUFFER: usize = 4 << 20;
