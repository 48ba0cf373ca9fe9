//! What others notice of a thousand who take nothing, and the memory that these cost.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::bulk::Bulk;
use e2e::stalled::{Http1, Http2, Upload};
use e2e::visitor::{Connection, Speaks, Visitor, get, to, with_body};
use http_body_util::BodyExt;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Options;
use super::setup::{DEAF, ENDLESS, Setup};

pub(crate) async fn measure(options: &Options, text: &mut String) -> Result<()> {
    let _ = writeln!(
        text,
        "## {} who take nothing, grace {} s\n\nOthers: {OTHERS} visitors with a connection each, one request after \
         the other for 10 KiB; they come while those arrive, too, which costs the same two cores as everything \
         else. The yardstick is as many who come in the same way, read as much as those who stall make move \
         ({} down, {} up, MiB each), and stay. Memory is resident, MiB.\n\n| | quiet p50, p99 | with them p50, p99 \
         | p99 | of the first {} s | of those after | slowest | yardstick: p99 of its first {} s \
         | theirs beside it | edge before, most, after | host before, most, after \
         |\n|---|---|---|---|---|---|---|---|---|---|---|",
        options.visitors,
        options.grace.as_secs(),
        MOVED_DOWN >> 20,
        MOVED_UP >> 20,
        ARRIVAL.as_secs(),
        ARRIVAL.as_secs(),
    );
    for protocol in ["quic", "http2"] {
        for direction in ["down", "up"] {
            let name = format!("{direction},{protocol}");
            if options.only.as_ref().is_some_and(|only| *only != name) {
                continue;
            }
            eprintln!("{direction} over {protocol}");
            let row = one(options, protocol, direction).await?;
            let _ = writeln!(text, "| {direction}, {protocol} | {row} |");
        }
    }
    text.push('\n');
    Ok(())
}

async fn one(options: &Options, protocol: &'static str, direction: &str) -> Result<String> {
    let keys = if options.grace.is_zero() {
        String::new()
    } else {
        format!("grace = \"{}s\"", options.grace.as_secs())
    };
    let setup = Setup::start(&options.after, protocol, &keys, Duration::ZERO).await?;
    let yardstick = {
        let crowd = crowd(setup.http, options.visitors, direction, Takes::Everything);
        let times = others(setup.http, ARRIVAL).await?;
        crowd.leave()?;
        times
    };
    sleep(SETTLED).await;
    let quiet = others(setup.http, WATCHED).await?;
    let before = [setup.edge.memory(), setup.host.memory()];
    let watches = [setup.edge.watch_memory(), setup.host.watch_memory()];
    let crowd = crowd(setup.http, options.visitors, direction, Takes::Nothing);
    let loaded = others(setup.http, WATCHED.max(options.grace)).await?;
    // The grace of those who came last, and the time in which the allocator gives back what is free.
    sleep(GIVEN_BACK).await;
    let after = [setup.edge.memory(), setup.host.memory()];
    crowd.leave()?;
    let mib = |bytes: u64| bytes >> 20;
    let memory = |at: usize| {
        let most = before[at] + watches[at].growth();
        format!("{}, {}, {}", mib(before[at]), mib(most), mib(after[at]))
    };
    eprintln!("p99 second by second: {:.1?}", loaded.by_second(0.99));
    eprintln!("of the yardstick: {:.1?}", yardstick.by_second(0.99));
    let ratio = |times: &Times| times.at(0.99).as_secs_f64() / quiet.at(0.99).as_secs_f64();
    let (first, rest) = (loaded.part(..ARRIVAL), loaded.part(ARRIVAL..));
    Ok(format!(
        "{:.1?}, {:.1?} | {:.1?}, {:.1?} | x {:.2} | x {:.2} | x {:.2} | {:.1?} | {:.1?} | x {:.2} | {} | {}",
        quiet.at(0.5),
        quiet.at(0.99),
        loaded.at(0.5),
        loaded.at(0.99),
        ratio(&loaded),
        ratio(&first),
        ratio(&rest),
        loaded.at(1.0),
        yardstick.at(0.99),
        first.at(0.99).as_secs_f64() / yardstick.at(0.99).as_secs_f64(),
        memory(0),
        memory(1),
    ))
}

#[derive(Clone, Copy, PartialEq)]
enum Takes {
    Nothing,
    Everything,
}

/// Visitors on a thread of their own, until they are told to leave.
struct Crowd {
    is_over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<()>>,
}

impl Crowd {
    fn leave(self) -> Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the crowd failed"))?
    }
}

fn crowd(edge: SocketAddr, visitors: usize, direction: &str, takes: Takes) -> Crowd {
    let is_over = Arc::new(AtomicBool::new(false));
    let (told, is_down) = (is_over.clone(), direction == "down");
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match (takes, is_down) {
                (Takes::Everything, is_down) => readers(edge, visitors, is_down, &told).await,
                (Takes::Nothing, true) => down(edge, visitors, &told).await,
                (Takes::Nothing, false) => up(edge, visitors, &told).await,
            }
        })
    });
    Crowd { is_over, thread }
}

/// When each request began, after the beginning of all, and how long it took; the fastest first.
struct Times(Vec<(Duration, Duration)>);

impl Times {
    fn at(&self, share: f64) -> Duration {
        let Some(last) = self.0.len().checked_sub(1) else { return Duration::ZERO };
        self.0[(last as f64 * share).round() as usize].1
    }

    /// Those that began in this period.
    fn part(&self, period: impl RangeBounds<Duration>) -> Self {
        Self(self.0.iter().filter(|(began, _)| period.contains(began)).copied().collect())
    }

    fn by_second(&self, share: f64) -> Vec<Duration> {
        let seconds = self.0.iter().map(|(began, _)| began.as_secs()).max().unwrap_or(0);
        let second = |at| self.part(Duration::from_secs(at)..Duration::from_secs(at + 1)).at(share);
        (0..=seconds).map(second).collect()
    }
}

/// Visitors who read what they ask for, for so long.
async fn others(edge: SocketAddr, period: Duration) -> Result<Times> {
    let visitor = Visitor::new(edge, Speaks::Http1, None);
    let start = Instant::now();
    let until = start + period;
    let mut tasks = JoinSet::new();
    for _ in 0..OTHERS {
        let visitor = visitor.clone();
        tasks.spawn(async move {
            let (mut connection, mut times): (Option<Connection>, _) = (None, Vec::new());
            while Instant::now() < until {
                let begun = Instant::now();
                let connection = match &connection {
                    Some(connection) => connection,
                    None => connection.insert(visitor.connect().await),
                };
                let answer = timeout(SLOWEST, connection.ask(get("/bytes/10240"))).await;
                times.push((begun - start, begun.elapsed()));
                if answer.is_err() {
                    break;
                }
                sleep(EVERY).await;
            }
            times
        });
    }
    let mut times = Vec::new();
    while let Some(one) = tasks.join_next().await {
        times.extend(one?);
    }
    times.sort_by_key(|(_, took)| *took);
    anyhow::ensure!(!times.is_empty(), "no visitor was answered");
    Ok(Times(times))
}

/// Those who take all that the others leave lying: half of them over HTTP/2.
async fn readers(edge: SocketAddr, visitors: usize, is_down: bool, is_over: &AtomicBool) -> Result<()> {
    let request = move || {
        if is_down {
            get(&format!("/bytes/{MOVED_DOWN}"))
        } else {
            with_body(to("POST", "/sink"), Bulk::new(MOVED_UP))
        }
    };
    let (mut tasks, mut connections) = (JoinSet::new(), Vec::new());
    for at in 0..visitors {
        let is_shared = at < visitors / 2 && at % STREAMS > 0;
        if !is_shared {
            let speaks = if at < visitors / 2 { Speaks::Http2 } else { Speaks::Http1 };
            connections.push(Arc::new(Visitor::new(edge, speaks, None).connect().await));
        }
        let connection = connections.last().context("the first makes one")?.clone();
        // Who leaves before everything came has not failed.
        tasks.spawn(async move {
            if let Ok(answer) = connection.try_send(request()).await {
                let _ = answer.into_body().collect().await;
            }
        });
    }
    while !is_over.load(Ordering::Relaxed) {
        sleep(EVERY).await;
    }
    Ok(())
}

async fn down(edge: SocketAddr, visitors: usize, is_over: &AtomicBool) -> Result<()> {
    let half = visitors / 2;
    let mut over_http2 = Vec::new();
    for at in (0..half).step_by(STREAMS) {
        let streams = STREAMS.min(half - at);
        over_http2.push(Http2::get(edge, ENDLESS, streams).await.context("a visitor over HTTP/2")?);
    }
    let mut over_http1 = Vec::new();
    for _ in half..visitors {
        over_http1.push(Http1::get(edge, ENDLESS).await.context("a visitor over HTTP/1.1")?);
    }
    while !is_over.load(Ordering::Relaxed) {
        sleep(EVERY).await;
    }
    Ok(())
}

async fn up(edge: SocketAddr, visitors: usize, is_over: &AtomicBool) -> Result<()> {
    let half = visitors / 2;
    let mut tasks = JoinSet::new();
    for at in (0..half).step_by(STREAMS / 2) {
        let connection = Arc::new(Visitor::new(edge, Speaks::Http2, None).connect().await);
        for _ in 0..(STREAMS / 2).min(half - at) {
            let connection = connection.clone();
            tasks.spawn(async move {
                let request = to("POST", "/").uri(format!("http://{DEAF}/"));
                let _ = connection.try_send(with_body(request, Bulk::new(LONG))).await;
                std::future::pending::<()>().await;
            });
        }
    }
    let mut over_http1 = Vec::new();
    for _ in half..visitors {
        over_http1.push(Upload::post(edge, DEAF, "/", LONG).await.context("an upload over HTTP/1.1")?);
    }
    while !is_over.load(Ordering::Relaxed) {
        sleep(EVERY).await;
    }
    Ok(())
}

const LONG: u64 = 1 << 30;
/// What each of those who take nothing has under way before it stalls, bytes: the windows of its stream and sockets.
const MOVED_DOWN: u64 = 1 << 20;
const MOVED_UP: u64 = 4 << 20;
/// Of one visitor over HTTP/2.
const STREAMS: usize = 200;
const OTHERS: usize = 8;
const EVERY: Duration = Duration::from_millis(10);
/// In which the last of them has come.
const ARRIVAL: Duration = Duration::from_secs(5);
/// After those who read have left.
const SETTLED: Duration = Duration::from_secs(3);
const WATCHED: Duration = Duration::from_secs(20);
const SLOWEST: Duration = Duration::from_secs(60);
/// Ten seconds by themselves, of the allocator of `adit`.
const GIVEN_BACK: Duration = Duration::from_secs(15);
