//! Lines between the nodes of a fleet that are long, lose what they carry, or are cut: a way to each node through this
//! process, which knows by the port of whoever comes which node that is. Chance has a seed. Knows processes and bytes;
//! does not know what they mean.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

/// All lines. They are gone when dropped.
pub struct Lines {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
    _stop: DropGuard,
}

struct Shared {
    /// Whose process is where.
    places: Mutex<HashMap<u32, String>>,
    weather: watch::Sender<Weather>,
    chance: Mutex<u64>,
}

/// How it is between two places.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    /// One way, between different places.
    pub delay: Duration,
    /// Of a thousand pieces so many come a fifth of a second late, as what is sent once more.
    pub lost: u32,
    /// Nothing passes between different places, and nobody is told.
    pub is_cut: bool,
}

impl Lines {
    pub fn new(seed: u64) -> Self {
        let shared =
            Shared { places: Mutex::default(), weather: watch::Sender::default(), chance: Mutex::new(seed) };
        let (stop, (give, take)) = (CancellationToken::new(), std::sync::mpsc::channel());
        let stopped = stop.clone();
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            give.send(runtime.handle().clone()).expect("somebody waits for it");
            runtime.block_on(stopped.cancelled());
        });
        let runtime = take.recv().expect("a runtime");
        Self { shared: Arc::new(shared), runtime, _stop: stop.drop_guard() }
    }

    /// A process of a node, and the place that it is at.
    pub fn place(&self, process: u32, place: &str) {
        let mut places = self.shared.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.insert(process, place.to_owned());
    }

    pub fn weather(&self, change: impl FnOnce(&mut Weather)) {
        self.shared.weather.send_modify(change);
    }

    /// A way to what listens at `server`, at a place.
    pub fn to(&self, server: SocketAddr, place: &str) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let address = listener.local_addr().expect("an address");
        let (shared, place) = (self.shared.clone(), place.to_owned());
        self.runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((client, from)) = listener.accept().await {
                // Whoever it is may not have been placed yet.
                let way = Way { process: owner(from.port()), place: place.clone(), shared: shared.clone() };
                tokio::spawn(carry(client, server, way));
            }
        });
        address
    }
}

/// Of one connection: who made it, and where it leads.
#[derive(Clone)]
struct Way {
    process: Option<u32>,
    place: String,
    shared: Arc<Shared>,
}

impl Way {
    /// Whether it is between different places, as far as is known.
    fn is_far(&self) -> bool {
        let places = self.shared.places.lock().unwrap_or_else(PoisonError::into_inner);
        self.process.and_then(|process| places.get(&process)).is_some_and(|other| *other != self.place)
    }

    /// Waits for as long as nothing passes. False when all lines are gone.
    async fn passes(&self, weather: &mut watch::Receiver<Weather>) -> bool {
        !self.is_far() || weather.wait_for(|weather| !weather.is_cut).await.is_ok()
    }
}

/// The process that has this local port.
fn owner(port: u16) -> Option<u32> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let inode = table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (own, inode) = (words.get(1)?.rsplit_once(':')?.1, words.get(9)?);
        (u16::from_str_radix(own, 16) == Ok(port) && *inode != "0").then(|| (*inode).to_owned())
    })?;
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    processes.find(|process| {
        let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|link| link.to_string_lossy() == wanted)
    })
}

impl Shared {
    /// One of a thousand.
    fn chance(&self) -> u32 {
        let mut state = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as u32 % 1_000
    }
}

async fn carry(client: TcpStream, server: SocketAddr, way: Way) {
    let mut weather = way.shared.weather.subscribe();
    if !way.passes(&mut weather).await {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // Either end of it is the end of both.
    tokio::select! {
        () = one_way(from_client, to_server, &way) => {}
        () = one_way(from_server, to_client, &way) => {}
    }
}

/// To the end of one direction. What comes late holds back what comes behind it.
async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: &Way) {
    let (send, mut sent) = mpsc::channel::<(Instant, Vec<u8>)>(QUEUE);
    let mut weather = way.shared.weather.subscribe();
    let read = async {
        let mut buffer = vec![0; PIECE];
        while let Ok(length) = from.read(&mut buffer).await {
            let mut delay = Duration::ZERO;
            if way.is_far() {
                let now = way.shared.weather.borrow().clone();
                let late = if way.shared.chance() < now.lost { LATE } else { Duration::ZERO };
                delay = now.delay + late;
            }
            if length == 0 || send.send((Instant::now() + delay, buffer[..length].to_vec())).await.is_err() {
                break;
            }
        }
        drop(send);
    };
    let write = async {
        while let Some((at, bytes)) = sent.recv().await {
            sleep_until(at).await;
            if !way.passes(&mut weather).await || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::select! {
        () = write => {}
        () = async { read.await; std::future::pending().await } => {}
    }
}

const PIECE: usize = 16 << 10;
/// Pieces under way.
const QUEUE: usize = 256;
/// Until what was lost has been sent once more.
const LATE: Duration = Duration::from_millis(200);
