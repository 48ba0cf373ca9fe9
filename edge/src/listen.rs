//! Sockets that several threads share: one per shard on the same address. Knows SO_REUSEPORT and
//! buffer sizes; does not know what is spoken over them.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Listeners on one address, one per shard; with port 0 all share the port that the first one got.
pub(crate) fn tcp_listeners(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let sockets = bind(address, count, Type::STREAM)?;
    sockets
        .into_iter()
        .map(|socket| {
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

/// The system keeps no more than this of what a peer does not take, besides what is under way to it: a slow
/// peer is seen sooner, and costs less. Where the system has no word for it, it keeps more.
pub(crate) fn keep_little_unsent(stream: &tokio::net::TcpStream) {
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT);
    #[cfg(not(target_os = "linux"))]
    let _ = stream;
}

/// UDP sockets on one address, one per shard, with large buffers where the system allows them.
pub(crate) fn udp_sockets(address: SocketAddr, count: usize) -> io::Result<Vec<UdpSocket>> {
    let sockets = bind(address, count, Type::DGRAM)?;
    for socket in &sockets {
        // A smaller buffer only loses datagrams under load, so a refusal is no reason not to start.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER);
        let _ = socket.set_send_buffer_size(UDP_BUFFER);
    }
    Ok(sockets.into_iter().map(UdpSocket::from).collect())
}

/// Lets nobody else wait at this listener, as far as the system can: whoever waits already can still be
/// accepted. listen(2) again only changes the length of the queue.
pub(crate) fn close_door(listener: &tokio::net::TcpListener) {
    if cfg!(target_os = "linux") {
        let _ = SockRef::from(listener).listen(0);
    }
}

/// Both kinds on the same port, for a server that connectors reach over UDP and over TCP.
pub(crate) fn both(address: SocketAddr, count: usize) -> io::Result<(Vec<UdpSocket>, Vec<TcpListener>)> {
    let mut tries = if address.port() == 0 { PORTS_TRIED } else { 1 };
    loop {
        let udp = udp_sockets(address, count)?;
        tries -= 1;
        match tcp_listeners(udp[0].local_addr()?, count) {
            // The system has given out a port that somebody uses over TCP.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            tcp => return Ok((udp, tcp?)),
        }
    }
}

fn bind(address: SocketAddr, count: usize, kind: Type) -> io::Result<Vec<Socket>> {
    let first = socket(address, kind)?;
    // Exclusively: with SO_REUSEPORT set before, a second edge on the same address would start and
    // quietly take half of the traffic, and port 0 could be given out twice.
    first.bind(&address.into())?;
    let mut sockets = vec![first];
    if count > 1 {
        share(&sockets[0])?;
        let bound = sockets[0].local_addr()?;
        for _ in 1..count {
            let next = socket(address, kind)?;
            share(&next)?;
            next.bind(&bound)?;
            sockets.push(next);
        }
    }
    Ok(sockets)
}

fn socket(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // `[::]` means IPv6 and IPv4 on every system, whatever the system's default is.
        let _ = socket.set_only_v6(false);
    }
    #[cfg(not(windows))]
    if kind == Type::STREAM {
        // A restart must not wait for the old connections' TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn share(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(target_os = "linux"))]
fn share(_: &Socket) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only one shard can listen on this system"))
}

#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 << 10;
const BACKLOG: i32 = 1024;
const UDP_BUFFER: usize = 4 << 20;
const PORTS_TRIED: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[cfg(target_os = "linux")]
    #[test]
    fn every_shard_shares_the_port_that_the_first_one_got() {
        let tcp = tcp_listeners(ANY, 3).unwrap();
        let udp = udp_sockets(ANY, 3).unwrap();
        let ports: Vec<_> = tcp.iter().map(|socket| socket.local_addr().unwrap()).collect();
        assert!(ports[0].port() != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
        let ports: Vec<_> = udp.iter().map(|socket| socket.local_addr().unwrap()).collect();
        assert!(ports[0].port() != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    }

    #[test]
    fn a_server_has_the_same_port_over_udp_and_tcp() {
        let shards = if cfg!(target_os = "linux") { 2 } else { 1 };
        let (udp, tcp) = both(ANY, shards).unwrap();
        let port = udp[0].local_addr().unwrap();
        assert!(udp.iter().all(|socket| socket.local_addr().unwrap() == port));
        assert!(tcp.iter().all(|socket| socket.local_addr().unwrap() == port));
        // A taken port is tried anew only where any port would do.
        let held = TcpListener::bind(ANY).unwrap();
        let error = both(held.local_addr().unwrap(), shards).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_second_edge_on_the_same_address_does_not_start() {
        let shards = if cfg!(target_os = "linux") { 2 } else { 1 };
        let tcp = tcp_listeners(ANY, shards).unwrap();
        let udp = udp_sockets(ANY, shards).unwrap();
        let tcp = tcp_listeners(tcp[0].local_addr().unwrap(), shards).unwrap_err();
        let udp = udp_sockets(udp[0].local_addr().unwrap(), shards).unwrap_err();
        assert_eq!(tcp.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(udp.kind(), io::ErrorKind::AddrInUse);
    }
}
