//! A line between a connector and the edge that can go dead: nothing passes any more, and nobody is told.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;

/// Dropping it leaves the line as it is.
pub(crate) struct Relay {
    /// Where to dial instead of the server.
    pub(crate) address: SocketAddr,
    is_dead: watch::Sender<bool>,
}

impl Relay {
    /// Carries the datagrams of one connector.
    pub(crate) async fn udp(server: SocketAddr) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        back.connect(server).await.unwrap();
        let address = front.local_addr().unwrap();
        let (is_dead, dead) = watch::channel(false);
        let (client, mut known) = watch::channel(None);
        tokio::spawn({
            let (front, back, dead) = (front.clone(), back.clone(), dead.clone());
            async move {
                let mut buffer = vec![0; 65536];
                loop {
                    let (length, from) = front.recv_from(&mut buffer).await.unwrap();
                    client.send_if_modified(|client| client.replace(from) != Some(from));
                    if !*dead.borrow() {
                        let _ = back.send(&buffer[..length]).await;
                    }
                }
            }
        });
        tokio::spawn(async move {
            let client = known.wait_for(Option::is_some).await.unwrap().unwrap();
            let mut buffer = vec![0; 65536];
            while let Ok(length) = back.recv(&mut buffer).await {
                if !*dead.borrow() {
                    let _ = front.send_to(&buffer[..length], client).await;
                }
            }
        });
        Self { address, is_dead }
    }

    /// Carries one connection.
    pub(crate) async fn tcp(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_dead, dead) = watch::channel(false);
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.unwrap();
            let server = tokio::net::TcpStream::connect(server).await.unwrap();
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::join!(
                carry(from_client, to_server, dead.clone()),
                carry(from_server, to_client, dead.clone())
            );
        });
        Self { address, is_dead }
    }

    pub(crate) fn kill(&self) {
        self.is_dead.send_replace(true);
    }

    pub(crate) fn revive(&self) {
        self.is_dead.send_replace(false);
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut dead: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 65536];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if dead.wait_for(|is_dead| !is_dead).await.is_err() || to.write_all(&buffer[..length]).await.is_err()
        {
            return;
        }
    }
}
