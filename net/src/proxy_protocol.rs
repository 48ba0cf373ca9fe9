//! The PROXY protocol, versions 1 and 2: what a proxy in front says before the first byte of a connection
//! about who opened it. Only for connections of proxies that are trusted and known to speak it: there is
//! nothing to tell it from anything else. Knows its bytes; does not know who is trusted.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Takes the header off a stream, and not a byte more. The address of whoever opened the connection, or
/// `None` where it was the proxy itself, as for its health checks.
///
/// # Errors
/// If the stream ends, or begins with anything else.
pub async fn read<T: AsyncRead + Unpin>(stream: &mut T) -> io::Result<Option<SocketAddr>> {
    // The shortest line of version 1 is longer.
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == *SIGNATURE {
        let mut fixed = [0; 4];
        stream.read_exact(&mut fixed).await?;
        let length = u16::from_be_bytes([fixed[2], fixed[3]]).into();
        if length > LONGEST_REST {
            return Err(wrong("a header of the PROXY protocol is too long"));
        }
        let mut rest = vec![0; length];
        stream.read_exact(&mut rest).await?;
        return binary(fixed[0], fixed[1], &rest).map_err(wrong);
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if !line.starts_with(b"PROXY ") || line.len() >= LONGEST_LINE {
            return Err(wrong("no header of the PROXY protocol"));
        }
        line.push(stream.read_u8().await?);
    }
    text(&line).map_err(wrong)
}

fn wrong(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Version 1, such as `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443`.
fn text(line: &[u8]) -> Result<Option<SocketAddr>, &'static str> {
    let line = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
    let words: Vec<&str> = line.unwrap_or_default().split(' ').collect();
    let (is_v4, from, port) = match words[..] {
        // What may stand behind it means nothing.
        ["PROXY", "UNKNOWN", ..] => return Ok(None),
        ["PROXY", "TCP4", from, _, port, _] => (true, from, port),
        ["PROXY", "TCP6", from, _, port, _] => (false, from, port),
        _ => return Err("a header of the PROXY protocol is not what it should be"),
    };
    let from: IpAddr = from.parse().map_err(|_| "no address in a header of the PROXY protocol")?;
    let port: u16 = port.parse().map_err(|_| "no port in a header of the PROXY protocol")?;
    if from.is_ipv4() != is_v4 {
        return Err("an address of another family in a header of the PROXY protocol");
    }
    Ok(Some(SocketAddr::new(from, port)))
}

/// Version 2 behind its signature; what stands behind the addresses is not needed here.
fn binary(version: u8, family: u8, rest: &[u8]) -> Result<Option<SocketAddr>, &'static str> {
    const SHORT: &str = "a header of the PROXY protocol is too short for its addresses";
    match version {
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err("a header of the PROXY protocol has an unknown version or command"),
    }
    let (from, port): (IpAddr, [u8; 2]) = match family >> 4 {
        1 => {
            let addresses: &[u8; 12] = rest.first_chunk().ok_or(SHORT)?;
            let [a, b, c, d, .., high, low, _, _] = *addresses;
            (Ipv4Addr::new(a, b, c, d).into(), [high, low])
        }
        2 => {
            let addresses: &[u8; 36] = rest.first_chunk().ok_or(SHORT)?;
            let from: [u8; 16] = *addresses.first_chunk().ok_or(SHORT)?;
            (Ipv6Addr::from(from).into(), [addresses[32], addresses[33]])
        }
        // Sockets of UNIX, and what the proxy does not know.
        0 | 3 => return Ok(None),
        _ => return Err("a header of the PROXY protocol has an unknown family"),
    };
    Ok(Some(SocketAddr::new(from, u16::from_be_bytes(port))))
}

/// Version 2 begins so.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 1, its end included.
const LONGEST_LINE: usize = 107;
/// Addresses, and what proxies add to them, such as names of certificates.
const LONGEST_REST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    async fn taken(bytes: &[u8]) -> (Option<Option<String>>, Vec<u8>) {
        let mut stream = bytes;
        let said = read(&mut stream).await;
        (said.ok().map(|from| from.map(|from| from.to_string())), stream.to_vec())
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[tokio::test]
    async fn both_versions_say_who_opened_the_connection_and_what_follows_is_left() {
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];
        let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 28], &[7], &[0; 3]].concat();
        let and_more = [&four[..], &[4, 0, 3, 1, 2, 3]].concat();
        for (header, wanted) in [
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec(), Some("192.0.2.1:56324")),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n".to_vec(), Some("[2001:db8::1]:1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff:f...f:ffff 65535 65535\r\n".to_vec(), None),
            (v2(0x21, 0x11, &four), Some("192.0.2.1:56324")),
            (v2(0x21, 0x11, &and_more), Some("192.0.2.1:56324")),
            (v2(0x21, 0x21, &six), Some("[2001:db8::]:1792")),
            (v2(0x20, 0, &[]), None),
            (v2(0x21, 0, &[]), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ] {
            let (said, rest) = taken(&[&header, &b"GET /"[..]].concat()).await;
            assert_eq!(said, Some(wanted.map(str::to_owned)), "{header:?}");
            assert_eq!(rest, b"GET /", "{header:?}");
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_LINE));
        for bytes in [
            b"".to_vec(),
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n".to_vec(),
            b"PROXY TCP5 192.0.2.1 198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY  TCP4 192.0.2.1 198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 \xff\xff\xff\xff 198.51.100.1 1 2\r\n".to_vec(),
            long.into_bytes(),
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x41, &[0; 36]),
            v2(0x21, 0x11, &[0; LONGEST_REST + 1]),
            SIGNATURE.to_vec(),
        ] {
            assert_eq!(taken(&bytes).await.0, None, "{bytes:?}");
        }
    }
}
