//! Configurations and plugins change ten times a second under every kind of load, and nothing is lost or
//! mixed. `cargo xtask swaps` swaps a thousand times and is strict about time and memory.

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::bulk::Digest;
use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::origin::Origin;
use e2e::process::component;
use e2e::product::{Host, Product, Site};
use e2e::visitor::{Answer, Connection, Speaks, Visitor, get, to, with_body, with_text};
use e2e::within;
use futures_util::{SinkExt, Stream, StreamExt};
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

/// Swaps of the normal run, and of the strict one unless it says otherwise.
const SWAPS: usize = 100;
const EVERY: Duration = Duration::from_millis(100);

/// What a generation leaves on a request: by its rule, its plugin's configuration and its component.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Marks {
    rule: usize,
    config: usize,
    component: usize,
}

impl Marks {
    /// One more change: of the rules, of the plugin's configuration, of its component.
    fn next(&self, number: usize) -> Self {
        let mut next = self.clone();
        match number % 3 {
            0 => next.rule = number,
            1 => next.config = number,
            _ => next.component = number,
        }
        next
    }

    /// Every phase says what it is of: the rule by the Host that the origin sees, the plugin's phases by a header each.
    fn document(&self, origin: &Origin, components: &[PathBuf; 2]) -> HostDocument {
        let Self { rule, config, component } = self;
        let value = format!("{{ x-config = \"{config}\", x-component = \"{component}\" }}");
        let config = format!("[plugin.config]\nrequest.set = {value}\nresponse.set = {value}");
        HostDocument::new()
            .connections(2)
            .plugin("marks", &components[component % 2], &config)
            .rule(&format!(
                "name = \"rule\"\nservice = \"{}\"\nplugins = [\"marks\"]\n[ingress.origin]\nhost-header = \"rule-{rule}\"",
                origin.service()
            ))
    }

    fn of_response(answer: &Answer) -> (usize, usize) {
        let number = |name: &str| answer.header(name).parse().expect("a mark");
        (number("x-config"), number("x-component"))
    }

    /// What the origin saw, as `/echo` tells it.
    fn of_request(answer: &Answer) -> Self {
        let seen = answer.json();
        let headers = seen["headers"].as_array().expect("headers").clone();
        let value = |name: &str| {
            let header = headers.iter().find(|header| header[0] == name).expect("a marked request");
            header[1].as_str().expect("text").to_owned()
        };
        let number = |name: &str| value(name).parse().expect("a mark");
        let rule = value("host").strip_prefix("rule-").and_then(|rule| rule.parse().ok()).expect("a rule");
        Self { rule, config: number("x-config"), component: number("x-component") }
    }
}

/// What all visitors share.
struct Load {
    stop: AtomicBool,
    served: AtomicUsize,
    /// Every generation that was ever asked for.
    generations: Mutex<HashSet<Marks>>,
    latencies: Mutex<Vec<Duration>>,
}

impl Load {
    fn new(first: Marks) -> Arc<Self> {
        Arc::new(Self {
            stop: AtomicBool::new(false),
            served: AtomicUsize::new(0),
            generations: Mutex::new(HashSet::from([first])),
            latencies: Mutex::default(),
        })
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn took(&self, begun: Instant) {
        self.served.fetch_add(1, Ordering::Relaxed);
        self.latencies.lock().unwrap().push(begun.elapsed());
    }

    /// All three marks of one answer are those of one generation.
    fn check(&self, answer: &Answer) {
        assert_eq!(answer.status, 200, "{answer:?}");
        let asked = Marks::of_request(answer);
        assert_eq!(Marks::of_response(answer), (asked.config, asked.component), "two generations in one");
        assert!(self.generations.lock().unwrap().contains(&asked), "no generation was {asked:?}");
    }

    /// How long requests took since the last time.
    fn take(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.latencies.lock().unwrap())
    }
}

/// The 99.9th percentile.
fn slowest(mut latencies: Vec<Duration>) -> Duration {
    latencies.sort_unstable();
    latencies.get(latencies.len() * 999 / 1000).copied().unwrap_or_default()
}

async fn asks(load: Arc<Load>, visitor: Visitor, kept_alive: bool, posts: bool) {
    let mut connection: Option<Connection> = None;
    while load.goes_on() {
        let open = match connection.take().filter(|_| kept_alive) {
            Some(connection) => connection,
            None => visitor.connect().await,
        };
        let request = if posts { with_text(to("POST", "/echo"), "a body") } else { get("/echo") };
        let begun = Instant::now();
        let answer = open.ask(request).await;
        load.took(begun);
        load.check(&answer);
        connection = Some(open);
    }
}

/// Bodies that last longer than a generation, in both directions.
async fn carries(load: Arc<Load>, visitor: Visitor, uploads: bool) {
    const SIZE: u64 = 2 * 1024 * 1024;
    while load.goes_on() {
        if uploads {
            let (bytes, body) = trickle();
            let answer = visitor.send(with_body(to("POST", "/sink"), StreamBody::new(body))).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.json()["bytes"], bytes);
        } else {
            let answer = visitor.send(get(&format!("/chunks/{SIZE}"))).await;
            let mut digest = Digest::new();
            digest.add(&answer.body);
            assert_eq!(digest, Digest::of_bulk(SIZE));
        }
        load.served.fetch_add(1, Ordering::Relaxed);
    }
}

/// A body that takes its time, and its length. What arrives faster than it is read leaves memory with quinn,
/// which keeps the buffers of the last 1,024 streams of a connection: another matter, and a longer test.
fn trickle() -> (usize, impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send) {
    const PIECE: usize = 8 * 1024;
    const PIECES: usize = 16;
    let pieces = futures_util::stream::iter(0..PIECES).then(|_| async {
        tokio::time::sleep(EVERY / 8).await;
        Ok(Frame::data(Bytes::from_static(&[b'x'; PIECE])))
    });
    (PIECE * PIECES, pieces)
}

async fn listens(load: Arc<Load>, visitor: Visitor, mut watched: e2e::origin::Watched) {
    let connection = visitor.connect().await;
    let answering = async {
        watched.arrived().await;
        let head = Response::builder().header("content-type", "text/event-stream");
        watched.answer(head.body(()).unwrap());
    };
    let (response, ()) = tokio::join!(connection.send(get("/events")), answering);
    let mut body = response.into_body();
    let mut number = 0;
    while load.goes_on() {
        let event = format!("data: {number}\n\n");
        watched.say(event.clone());
        let frame = within("an event", body.frame()).await.expect("the stream goes on").expect("an event");
        assert_eq!(frame.into_data().unwrap(), event);
        number += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn chats(load: Arc<Load>, visitor: Visitor) {
    let tcp = visitor.dial().await;
    let (mut socket, _) = client_async(format!("ws://{HOST}/websocket"), tcp).await.unwrap();
    let mut number = 0;
    while load.goes_on() {
        let message = Message::text(format!("message {number}"));
        socket.send(message.clone()).await.unwrap();
        assert_eq!(within("a message", socket.next()).await.unwrap().unwrap(), message);
        number += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The memory that a host has under the load that it is under: the median of some looks.
async fn settled(host: &Host) -> u64 {
    let mut looks = Vec::new();
    for _ in 0..LOOKS {
        tokio::time::sleep(EVERY).await;
        looks.push(host.process.memory());
    }
    looks.sort_unstable();
    looks[LOOKS / 2]
}

const LOOKS: usize = 21;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_every_tenth_of_a_second_loses_and_mixes_nothing() {
    let strict: Option<usize> = std::env::var("ADIT_SWAPS").ok().map(|swaps| swaps.parse().unwrap());
    let swaps = strict.unwrap_or(SWAPS);
    let origin = Origin::start();
    let site = Site::new();
    let wasm = std::fs::read(component("headers")).unwrap();
    // A custom section makes it another component that does the same.
    let other = [&wasm[..], &[0, 2, 1, b'x']].concat();
    let components = [site.write("a.wasm", wasm), site.write("b.wasm", other)];
    let mut marks = Marks { rule: 0, config: 0, component: 0 };
    let first = marks.document(&origin, &components);
    let product = Product::start_at(site, EdgeDocument::new(&["west"], 2), first).await;
    let load = Load::new(marks.clone());
    let visitor = || product.visitor(Speaks::Http1);
    let mut visitors = tokio::task::JoinSet::new();
    for (kept_alive, posts) in [(true, false), (true, true), (false, false), (false, true)] {
        visitors.spawn(asks(load.clone(), visitor(), kept_alive, posts));
    }
    visitors.spawn(carries(load.clone(), visitor(), true));
    visitors.spawn(carries(load.clone(), visitor(), false));
    visitors.spawn(listens(load.clone(), visitor(), origin.watch("/events")));
    visitors.spawn(chats(load.clone(), visitor()));

    let admin = Visitor::new(product.host.admin, Speaks::Http1, None);
    let mut tag = "*".to_owned();
    let swap = async |marks: &Marks, tag: &str| {
        load.generations.lock().unwrap().insert(marks.clone());
        let text = marks.document(&origin, &components).to_toml(&product.edge.servers);
        let request = to("PUT", "/config?save=false").header("host", "localhost").header("if-match", tag);
        let answer = admin.send(with_text(request, &text)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("etag").to_owned()
    };
    // Both components are compiled, every buffer has its size, and the engine has as many warm places for
    // instances as it keeps.
    let mut number = 1;
    let warm_up = if strict.is_some() { 150 } else { 30 };
    while number <= warm_up {
        marks = marks.next(number);
        tag = swap(&marks, &tag).await;
        number += 1;
    }
    load.take();
    tokio::time::sleep(EVERY * u32::try_from(swaps).unwrap()).await;
    let before = settled(&product.host).await;
    let calm = slowest(load.take());
    let served = load.served.load(Ordering::Relaxed);
    let (begun, mut course) = (Instant::now(), Vec::new());
    let mut ticks = tokio::time::interval(EVERY);
    while number <= warm_up + swaps {
        ticks.tick().await;
        marks = marks.next(number);
        tag = swap(&marks, &tag).await;
        number += 1;
        if (number - warm_up).is_multiple_of(swaps.div_ceil(4)) {
            course.push(product.host.process.memory() / 1024);
        }
        while let Some(ended) = visitors.try_join_next() {
            ended.expect("no visitor fails");
        }
    }
    let took = begun.elapsed();
    let busy = slowest(load.take());
    let served = load.served.load(Ordering::Relaxed) - served;
    let after = settled(&product.host).await;
    load.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = visitors.join_next().await {
        ended.expect("no visitor fails");
    }
    eprintln!(
        "{swaps} swaps in {took:?}, {served} requests, none failed, none mixed; \
         p99.9 {busy:?}, without swaps {calm:?}; memory {} to {} KiB, on the way {course:?}",
        before / 1024,
        after / 1024
    );
    let status = product.host.admin("/status").await.json();
    assert_eq!(status["generation"], number, "{status}");
    // The last answers of those before end a moment after their visitors have them.
    let let_go = async {
        loop {
            let status = product.host.admin("/status").await.json();
            if status["retired"].as_array().unwrap().iter().all(|old| old["open"] == 0) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    within("no old generation is held", let_go).await;
    if strict.is_some() {
        assert!(busy <= calm.mul_f64(1.5), "p99.9 was {busy:?} and {calm:?} without swaps");
        assert!(after <= before + before / 20, "memory went from {before} to {after} bytes");
    }
}

/// Bytes of a component that nobody has compiled before, in the strict run and in the normal one.
const LARGE: usize = 1 << 20;
const LARGER: usize = 1 << 18;

/// The same component with its largest module in it so often that it has `size` bytes. Nobody uses the
/// copies, and all of them are compiled.
fn enlarged(wasm: &[u8], size: usize) -> Vec<u8> {
    const HEADER: usize = 8;
    const MODULE: u8 = 1;
    let (mut at, mut module) = (HEADER, 0..0);
    while at < wasm.len() {
        let begin = at;
        let kind = wasm[at];
        at += 1;
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = wasm[at];
            at += 1;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        at += length;
        if kind == MODULE && at - begin > module.len() {
            module = begin..at;
        }
    }
    let mut large = wasm.to_vec();
    while large.len() < size {
        large.extend_from_slice(&wasm[module.clone()]);
    }
    large
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_served_while_a_large_component_is_compiled_does_not_wait_for_it() {
    let strict: Option<usize> = std::env::var("ADIT_COMPILES").ok().map(|count| count.parse().unwrap());
    let compiles = strict.unwrap_or(1);
    let origin = Origin::start();
    let site = Site::new();
    let wasm = std::fs::read(component("headers")).unwrap();
    let large = enlarged(&wasm, if strict.is_some() { LARGE } else { LARGER });
    let components = [site.write("a.wasm", &wasm), site.write("b.wasm", &wasm)];
    let first = Marks { rule: 0, config: 0, component: 0 };
    // Only who puts a document means it.
    let document = |marks: &Marks| marks.document(&origin, &components).keys("watch = false");
    let product = Product::start_at(site, EdgeDocument::new(&["west"], 2), document(&first)).await;
    let load = Load::new(first.clone());
    let mut visitors = tokio::task::JoinSet::new();
    for posts in [false, true] {
        visitors.spawn(asks(load.clone(), product.visitor(Speaks::Http1), true, posts));
    }
    let swap = async |number: usize| {
        let marks = Marks { component: 2 * number, ..first.clone() };
        load.generations.lock().unwrap().insert(marks.clone());
        // Another one each time: a custom section with the number.
        let name = number.to_string();
        let length = u8::try_from(name.len()).unwrap();
        let section = [&[0, length + 1, length][..], name.as_bytes()].concat();
        std::fs::write(&components[0], [&large[..], &section].concat()).unwrap();
        let text = document(&marks).to_toml(&product.edge.servers);
        let request = to("PUT", "/config?save=false").header("host", "localhost").header("if-match", "*");
        let admin = Visitor::new(product.host.admin, Speaks::Http1, None);
        let begun = Instant::now();
        let answer = admin.send(with_text(request, &text)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        begun.elapsed()
    };
    let mut course = vec![swap(1).await];
    // Turns of both kinds alternate, so that what else the machine does counts for both.
    let (mut busy, mut calm) = (Vec::new(), Vec::new());
    for number in 2..compiles + 2 {
        load.take();
        let took = swap(number).await;
        busy.extend(load.take());
        tokio::time::sleep(took).await;
        calm.extend(load.take());
        course.push(took);
    }
    load.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = visitors.join_next().await {
        ended.expect("no visitor fails");
    }
    let (requests, without) = (busy.len(), calm.len());
    let (busy, calm) = (slowest(busy), slowest(calm));
    eprintln!(
        "{} bytes compiled in {course:?} under load; {requests} requests meanwhile with p99.9 {busy:?}, \
         {without} without with {calm:?}",
        large.len()
    );
    if strict.is_some() {
        assert!(busy <= calm.mul_f64(1.5), "p99.9 was {busy:?} and {calm:?} without compiling");
    }
}
