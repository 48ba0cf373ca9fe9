//! TCP connections to services that may have several addresses, of both families.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// How long the first family has before the other is tried beside it (RFC 6555, 5.5).
const HEAD_START: Duration = Duration::from_millis(300);
/// Bytes that the system keeps of what an origin does not take, besides what is under way.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 << 10;
/// Addresses of one name that are tried.
pub(super) const MOST_ADDRESSES: usize = 32;

/// How connections over TCP are opened, and what the system does with them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dial {
    /// How long a connection is silent before the other side is asked.
    pub(super) keep_alive: Option<Duration>,
    /// Whether both families are tried side by side.
    pub(super) side_by_side: bool,
}

impl Dial {
    pub(super) async fn open(self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.take(MOST_ADDRESSES).collect();
        self.connect(&addresses).await
    }

    /// To one of these addresses, and no other.
    pub(super) async fn connect(self, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
        let stream = if self.side_by_side {
            race(addresses, TcpStream::connect).await?
        } else {
            in_turn(addresses, &TcpStream::connect).await?
        };
        stream.set_nodelay(true)?;
        // What an origin does not take is seen sooner, and costs less. A refusal costs only that.
        #[cfg(target_os = "linux")]
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        if let Some(time) = self.keep_alive {
            let keep_alive = TcpKeepalive::new().with_time(time).with_interval(time);
            SockRef::from(&stream).set_tcp_keepalive(&keep_alive)?;
        }
        Ok(stream)
    }
}

/// The family of the first address, and after a while, or as soon as that has failed, the other.
async fn race<T, F>(addresses: &[SocketAddr], connect: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let is_first = |address: &&SocketAddr| address.is_ipv4() == addresses[0].is_ipv4();
    let (first, second): (Vec<_>, Vec<_>) = addresses.iter().partition(is_first);
    if second.is_empty() {
        return in_turn(addresses, &connect).await;
    }
    let mut first = pin!(in_turn(&first, &connect));
    let second = pin!(in_turn(&second, &connect));
    tokio::select! {
        biased;
        outcome = &mut first => match outcome {
            Ok(opened) => return Ok(opened),
            Err(error) => return second.await.map_err(|_| error),
        },
        () = sleep(HEAD_START) => {}
    }
    match select(first, second).await {
        Either::Left((Ok(opened), _)) | Either::Right((Ok(opened), _)) => Ok(opened),
        Either::Left((Err(error), other)) => other.await.map_err(|_| error),
        Either::Right((Err(_), other)) => other.await,
    }
}

async fn in_turn<T, F>(addresses: &[SocketAddr], connect: &impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match connect(*address).await {
            Ok(opened) => return Ok(opened),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;

    use super::*;

    /// What becomes of a connection to an address of each port: 1 nothing, 2 refused, else its address.
    async fn dialled(addresses: &[&str]) -> (io::Result<SocketAddr>, Vec<SocketAddr>) {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let tried = RefCell::new(Vec::new());
        let connect = async |address: SocketAddr| {
            tried.borrow_mut().push(address);
            match address.port() {
                1 => pending().await,
                2 => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
                _ => Ok(address),
            }
        };
        let outcome = race(&addresses, connect).await;
        (outcome, tried.into_inner())
    }

    #[tokio::test]
    async fn a_family_that_leads_nowhere_costs_a_moment_and_no_connection() {
        for (addresses, opened, tried) in [
            (vec!["[::1]:9", "127.0.0.1:9"], "[::1]:9", 1),
            (vec!["127.0.0.1:9", "[::1]:9"], "127.0.0.1:9", 1),
            (vec!["[::1]:1", "127.0.0.1:9"], "127.0.0.1:9", 2),
            (vec!["[::1]:2", "127.0.0.1:9"], "127.0.0.1:9", 2),
            (vec!["[::1]:1", "[::2]:9", "127.0.0.1:2", "127.0.0.2:9"], "127.0.0.2:9", 3),
            (vec!["127.0.0.1:2", "127.0.0.2:9"], "127.0.0.2:9", 2),
        ] {
            let (outcome, all) = dialled(&addresses).await;
            assert_eq!((outcome.unwrap().to_string().as_str(), all.len()), (opened, tried), "{addresses:?}");
        }
        for addresses in [vec!["[::1]:2", "127.0.0.1:2"], vec!["[::1]:2"]] {
            assert_eq!(dialled(&addresses).await.0.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        }
        assert_eq!(dialled(&[]).await.0.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
