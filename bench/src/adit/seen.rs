//! What it costs to be looked at: one host and one edge each, of which nothing, every hundredth or every request is
//! traced, or the inspector keeps heads or bodies of all. Knows documents and the admin API; asks for nothing else.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result, ensure};
use e2e::document::{EdgeDocument, HostDocument};
use e2e::product::{Edge, Host, Site};
use e2e::visitor::{Speaks, Visitor, to, with_text};

/// How it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Not at all: what the others are compared with.
    Not,
    /// Every hundredth trace.
    Traces,
    AllTraces,
    Heads,
    /// 64 KiB of each body.
    Bodies,
}

impl Seen {
    pub(crate) const ALL: [Self; 5] = [Self::Not, Self::Traces, Self::AllTraces, Self::Heads, Self::Bodies];
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Not => "nothing",
            Self::Traces => "1 % traced",
            Self::AllTraces => "all traced",
            Self::Heads => "all heads kept",
            Self::Bodies => "all bodies kept",
        })
    }
}

/// Starts both ends so that they are looked at.
pub(crate) async fn start(seen: Seen, document: HostDocument) -> Result<(Site, Edge, Host)> {
    let (mut of_edge, mut of_host) = (EdgeDocument::new(&["north", "south"], 2), document);
    let share = match seen {
        Seen::Traces => Some(0.01),
        Seen::AllTraces => Some(1.0),
        Seen::Not | Seen::Heads | Seen::Bodies => None,
    };
    if let Some(share) = share {
        let section = format!("[traces]\ncollector = \"http://{}\"\nshare = {share:?}\n", collector()?);
        of_edge.more.push_str(&section);
        of_host.rules.push_str(&section);
    }
    let site = Site::new();
    site.write("admin-token", format!("{TOKEN}\n"));
    of_host.admin_keys = "token-file = \"admin-token\"".to_owned();
    let edge = site.edge(&of_edge).await;
    let host = site.host_at(&edge.servers, &of_host).await;
    let bodies = match seen {
        Seen::Heads => Some(0),
        Seen::Bodies => Some(64 << 10),
        Seen::Not | Seen::Traces | Seen::AllTraces => None,
    };
    if let Some(bodies) = bodies {
        let request = to("PUT", "/inspector").header("host", "localhost");
        let request = request.header("authorization", format!("Bearer {TOKEN}"));
        let wanted = format!("{{\"for\": \"24h\", \"bodies\": {bodies}}}");
        let answer = Visitor::new(host.admin, Speaks::Http1, None).send(with_text(request, &wanted)).await;
        ensure!(answer.json()["on"] == true, "the inspector does not watch: {}", answer.text());
    }
    Ok((site, edge, host))
}

/// Takes whatever it is told, and keeps nothing of it.
fn collector() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("a collector")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || take(stream));
        }
    });
    Ok(address)
}

/// One request after the other, until there is none.
fn take(mut stream: TcpStream) -> Option<()> {
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let whole = end.and_then(|at| {
            let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let whole: usize = at + 4 + length.unwrap_or(0);
            (bytes.len() >= whole).then_some(whole)
        });
        match whole {
            Some(whole) => {
                bytes.drain(..whole);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
            }
            None => match stream.read(&mut piece).ok()? {
                0 => return None,
                count => bytes.extend_from_slice(&piece[..count]),
            },
        }
    }
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
