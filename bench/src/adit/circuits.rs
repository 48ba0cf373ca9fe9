//! Bytes both ways through a client at the visitor's side, our edge and a host, ours or the reference's at both ends,
//! to a service that speaks no HTTP. Knows what is asked of the service; does not know what is measured.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream as Blocking};
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use e2e::document::{EdgeDocument, HostDocument};
use e2e::process::Process;
use e2e::product::{Edge, Host, Site};
use e2e::reference;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::visitor::{Door, dial};

/// Everything between a visitor and the service.
pub(crate) struct Ends {
    pub(crate) client: Process,
    pub(crate) edge: Edge,
    pub(crate) host: Host,
    _site: Site,
}

/// Starts them, by the reference's `program` or ours; where the client listens.
pub(crate) async fn start(protocol: &'static str, program: Option<&Path>) -> Result<(SocketAddr, Ends)> {
    let service = service()?;
    let document = HostDocument::new().connections(4).over(protocol).otherwise(&format!("tcp://{service}"));
    let mut edge = EdgeDocument::new(&["north", "south"], 2).with_https();
    edge.hostnames.push("localhost".to_owned());
    let site = Site::new();
    let edge = site.edge(&edge).await;
    let name = format!("localhost:{}", edge.https.context("the edge speaks TLS")?.port());
    let (address, host, client) = match program {
        Some(program) => {
            let host = reference::host(program.to_owned(), &site, &edge.servers, &document).await;
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            let mut command = Command::new(program);
            command.current_dir(site.folder()).env("SSL_CERT_FILE", "edge-data/ca.pem");
            command.args(["access", "tcp", "--hostname", &name, "--url", &address.to_string()]);
            let client = Process::start("the reference's access", command);
            client.said("its listener", |line| line.contains("Start Websocket listener")).await;
            (address, host, client)
        }
        None => {
            let host = site.host_at(&edge.servers, &document).await;
            let arguments = [
                "access",
                "tcp",
                "--hostname",
                &name,
                "--cacert",
                "edge-data/ca.pem",
                "--url",
                "127.0.0.1:0",
            ];
            let client = Process::adit("access", &arguments, site.folder());
            let event = client.event("listening", |event| event["kind"] == "access").await;
            (event["address"].as_str().context("access has an address")?.parse()?, host, client)
        }
    };
    Ok((address, Ends { client, edge, host, _site: site }))
}

/// Asks the service for so many bytes, or brings it some.
pub(crate) async fn exchange(word: u8, bytes: u64, door: Door) -> Result<u64> {
    let mut stream = dial(door).await?;
    stream.write_u8(word).await?;
    stream.write_u64(bytes).await?;
    let mut chunk = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let length = CHUNK.min(usize::try_from(left)?);
        let moved = match word {
            UP => stream.write(&chunk[..length]).await?,
            _ => stream.read(&mut chunk[..length]).await?,
        };
        ensure!(moved > 0, "the circuit ended before {left} of {bytes} bytes");
        left -= moved as u64;
    }
    ensure!(stream.read_u8().await? == DONE, "the service says that it has all");
    Ok(bytes)
}

/// Does what the first byte says with as many bytes as the eight behind it do.
fn service() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}

fn serve(mut stream: Blocking) -> std::io::Result<()> {
    let mut order = [0; 9];
    stream.read_exact(&mut order)?;
    let [word, count @ ..] = order;
    let mut left = u64::from_be_bytes(count);
    let mut chunk = vec![0; CHUNK];
    while left > 0 {
        let length = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
        let moved = match word {
            UP => stream.read(&mut chunk[..length])?,
            _ => stream.write(&chunk[..length])?,
        };
        if moved == 0 {
            return Ok(());
        }
        left -= moved as u64;
    }
    stream.write_all(&[DONE])
}

pub(crate) const DOWN: u8 = b'd';
pub(crate) const UP: u8 = b'u';
const DONE: u8 = b'!';
const CHUNK: usize = 256 << 10;
