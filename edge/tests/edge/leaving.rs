//! An edge that stops under load: nobody's request is lost, whichever way it came.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::connector::{Connector, Habits, dial};
use crate::harness::{AnyBody, Fixture, HOST, LocalSet, empty, full, get, start_with};
use crate::http2::Connector as Http2Connector;

const WEBSOCKET: &[u8] = b"GET /ws HTTP/1.1\r\nHost: demo.localhost\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2V5\r\n\r\n";

/// A host that serves every request after a moment, each in its own time.
struct Host {
    connector: Rc<Connector>,
    /// Requests that have arrived.
    asked: Rc<Cell<usize>>,
    _serving: AbortOnDrop,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn host(edge: &Fixture, server: usize) -> Host {
    let connector = Rc::new(Connector::registered(edge, server, Uuid::new_v4(), 0).await);
    let asked = Rc::new(Cell::new(0));
    let (one, count) = (connector.clone(), asked.clone());
    let serving = tokio::task::spawn_local(async move {
        loop {
            let mut opened = tokio::select! {
                _ = one.connection.closed() => return,
                opened = one.accept() => opened,
            };
            count.set(count.get() + 1);
            tokio::task::spawn_local(async move {
                let body = opened.read().await;
                sleep(Duration::from_millis(3)).await;
                opened.ok(&body).await;
            });
        }
    });
    Host { connector, asked, _serving: AbortOnDrop(serving) }
}

fn request(method: &Method, body: &'static str) -> Request<AnyBody> {
    let body = if *method == Method::POST { full(body) } else { empty() };
    Request::builder().method(method).uri(format!("http://{HOST}/")).header("host", HOST).body(body).unwrap()
}

/// What became of the requests of one visitor.
#[derive(Default, Debug)]
struct Tally {
    answered: usize,
    /// Those among them that were sent when the edge was stopping.
    late: usize,
    failed: Vec<String>,
}

/// How a visitor behaves.
#[derive(Clone, Copy, Debug)]
enum Habit {
    KeepAlive,
    /// A connection for each request.
    Fresh,
    Http2,
}

/// Asks, GET and POST in turn, until nobody lets it in any more.
async fn visit(edge: SocketAddr, habit: Habit, pause: Duration, is_stopping: &dyn Fn() -> bool) -> Tally {
    let mut tally = Tally::default();
    loop {
        let Ok(stream) = TcpStream::connect(edge).await else { return tally };
        stream.set_nodelay(true).unwrap();
        let stream = TokioIo::new(stream);
        match habit {
            Habit::KeepAlive | Habit::Fresh => {
                let (mut sender, connection) = http1::handshake(stream).await.unwrap();
                tokio::task::spawn_local(connection);
                for method in [Method::GET, Method::POST].iter().cycle() {
                    // It was closed while nothing was asked for, which costs nobody anything.
                    if sender.ready().await.is_err() {
                        break;
                    }
                    let late = is_stopping();
                    let outcome = sender.send_request(request(method, "body")).await;
                    let is_last = note(&mut tally, outcome, late, method).await;
                    if is_last || matches!(habit, Habit::Fresh) {
                        break;
                    }
                    sleep(pause).await;
                }
            }
            Habit::Http2 => {
                let Ok((mut sender, connection)) = http2::handshake(TokioExecutor::new(), stream).await
                else {
                    continue;
                };
                tokio::task::spawn_local(connection);
                for method in [Method::GET, Method::POST].iter().cycle() {
                    if sender.ready().await.is_err() {
                        break;
                    }
                    let late = is_stopping();
                    match sender.try_send_request(request(method, "body")).await {
                        Ok(response) => {
                            note(&mut tally, Ok(response), late, method).await;
                        }
                        Err(mut error) => {
                            // It was not sent, or the goodbye says that it does not count (RFC 9113 6.8): every
                            // visitor asks again then. Hosts count what did arrive.
                            if error.take_message().is_some() || is_goodbye(error.error()) {
                                break;
                            }
                            note(&mut tally, Err(error.into_error()), late, method).await;
                        }
                    }
                    sleep(pause).await;
                }
            }
        }
    }
}

fn is_goodbye(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_go_away() && cause.reason() == Some(h2::Reason::NO_ERROR))
}

/// Counts one outcome; true if the connection is not to be used again.
async fn note(
    tally: &mut Tally,
    outcome: hyper::Result<http::Response<hyper::body::Incoming>>,
    late: bool,
    method: &Method,
) -> bool {
    let outcome = async {
        let response = outcome?;
        let is_last = response.headers().get("connection").is_some_and(|value| value == "close");
        let status = response.status();
        Ok::<_, hyper::Error>((status, is_last, response.into_body().collect().await?.to_bytes()))
    };
    let wanted = if *method == Method::POST { "body" } else { "" };
    match outcome.await {
        Ok((status, is_last, body)) if status.is_success() && body == wanted => {
            tally.answered += 1;
            tally.late += usize::from(late);
            is_last
        }
        Ok((status, ..)) => {
            tally.failed.push(format!("{method}: {status}"));
            true
        }
        Err(error) => {
            tally.failed.push(format!("{method}: {error:?}"));
            true
        }
    }
}

async fn no_request_is_lost(habits: &[(Habit, u64)]) {
    let mut edge = start_with("[drain]\nlinger = \"700ms\"");
    let hosts = [host(&edge, 0).await, host(&edge, 1).await];
    let visitors: Vec<_> = habits
        .iter()
        .map(|(habit, pause)| {
            let (habit, pause, http, stop) =
                (*habit, Duration::from_millis(*pause), edge.http, edge.stop.clone());
            tokio::task::spawn_local(async move { visit(http, habit, pause, &|| stop.is_cancelled()).await })
        })
        .collect();
    // Once everybody was likely to be served.
    while hosts.iter().map(|host| host.asked.get()).sum::<usize>() < 4 * habits.len() {
        tokio::task::yield_now().await;
    }
    edge.stop.cancel();
    let (mut answered, mut late, mut failed) = (0, 0, Vec::new());
    for visitor in visitors {
        let tally = visitor.await.unwrap();
        answered += tally.answered;
        late += tally.late;
        failed.extend(tally.failed);
    }
    println!(
        "{answered} requests answered, {late} of them while the edge was stopping, {} failed",
        failed.len()
    );
    assert!(failed.is_empty(), "{failed:?}");
    assert!(late > 0);
    assert_eq!(hosts.iter().map(|host| host.asked.get()).sum::<usize>(), answered);
    timeout(Duration::from_secs(20), &mut edge.running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn no_request_of_a_kept_connection_is_lost_when_the_edge_stops() {
    let habits = [0, 0, 1, 5, 20, 60, 110, 230].map(|pause| (Habit::KeepAlive, pause));
    LocalSet::new().run_until(no_request_is_lost(&habits)).await;
}

#[tokio::test]
async fn no_request_of_a_new_connection_is_lost_when_the_edge_stops() {
    LocalSet::new().run_until(no_request_is_lost(&[(Habit::Fresh, 0); 8])).await;
}

#[tokio::test]
async fn no_request_over_http2_is_lost_when_the_edge_stops() {
    let habits = [0, 0, 1, 5, 20, 60].map(|pause| (Habit::Http2, pause));
    LocalSet::new().run_until(no_request_is_lost(&habits)).await;
}

#[tokio::test]
async fn an_idle_connection_may_ask_once_more_when_the_edge_stops() {
    LocalSet::new()
        .run_until(async {
            let edge = start_with("[drain]\nlinger = \"30s\"");
            let _host = host(&edge, 0).await;
            let stream = TokioIo::new(TcpStream::connect(edge.http).await.unwrap());
            let (mut sender, connection) = http1::handshake(stream).await.unwrap();
            let connection = tokio::task::spawn_local(connection);
            let response = sender.send_request(get("/")).await.unwrap();
            assert!(!response.headers().contains_key("connection"));
            response.into_body().collect().await.unwrap();

            edge.stop.cancel();
            while edge.admin("/ready").await.0.as_u16() != 503 {}
            sender.ready().await.unwrap();
            let response = sender.send_request(get("/")).await.unwrap();
            assert_eq!(
                (response.status().as_u16(), &response.headers()["connection"]),
                (200, &"close".parse().unwrap())
            );
            response.into_body().collect().await.unwrap();
            connection.await.unwrap().unwrap();
        })
        .await;
}

#[tokio::test]
async fn hosts_find_no_way_in_when_the_edge_stops() {
    LocalSet::new()
        .run_until(async {
            let edge = start_with("[drain]\nlinger = \"30s\"");
            let host = host(&edge, 0).await;
            let early = Connector::connect(&edge.ca, edge.servers[0], Habits::default()).await;
            edge.stop.cancel();
            while edge.admin("/ready").await.0.as_u16() != 503 {}
            assert!(dial(&edge.ca, edge.servers[0], Habits::default()).await.is_err());
            // The listener is closed right behind the moment.
            while TcpStream::connect(edge.servers[1]).await.is_ok() {}
            let registration = crate::connector::registration(&edge.credentials, Uuid::new_v4(), 0);
            let error = early.expect_refusal(&registration).await;
            assert!(error.cause.contains("about to stop") && error.should_retry, "{error:?}");
            // Those who are there serve on.
            assert_eq!(edge.page(get("/")).await.status.as_u16(), 200);
            assert!(host.connector.connection.close_reason().is_none());
        })
        .await;
}

#[tokio::test]
async fn a_connector_over_http2_hears_a_goodbye_when_the_edge_stops() {
    LocalSet::new()
        .run_until(async {
            let mut edge = start_with("[drain]\nlinger = \"0s\"");
            // Its control stream stays open all the time.
            let connector = Http2Connector::registered(&edge, 100).await;
            edge.stop.cancel();
            assert!(connector.closed.await.unwrap(), "the connection ended without GOAWAY");
            (&mut edge.running).await.unwrap().unwrap();
        })
        .await;
}

#[tokio::test]
async fn an_edge_with_hosts_alone_lingers_and_one_with_nobody_does_not() {
    LocalSet::new()
        .run_until(async {
            let mut edge = start_with("[drain]\nlinger = \"30s\"");
            let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
            edge.stop.cancel();
            while edge.admin("/ready").await.0.as_u16() != 503 {}
            let (page, ()) =
                tokio::join!(edge.page(get("/")), async { connector.accept().await.ok(b"").await });
            assert_eq!(page.status.as_u16(), 200);
            connector.unregister().await.unwrap();
            timeout(Duration::from_secs(15), &mut edge.running).await.unwrap().unwrap().unwrap();
        })
        .await;
}

#[tokio::test]
async fn visitors_are_cut_when_the_grace_period_is_over() {
    LocalSet::new()
        .run_until(async {
            let mut edge = start_with("[drain]\nlinger = \"0s\"\ngrace-period = \"300ms\"");
            let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
            let (response, opened) = tokio::join!(edge.send(get("/")), async {
                let mut opened = connector.accept().await;
                opened.head(http::Response::builder()).await;
                opened
            });
            // Nobody ends this one either.
            let mut socket = TcpStream::connect(edge.http).await.unwrap();
            socket.write_all(WEBSOCKET).await.unwrap();
            let mut other = connector.accept().await;
            other.head(http::Response::builder().status(101)).await;
            socket.read_exact(&mut [0; 12]).await.unwrap();
            edge.stop.cancel();
            assert!(response.into_body().collect().await.is_err());
            assert_eq!(connector.closed().await, Some(0));
            timeout(Duration::from_secs(15), &mut edge.running).await.unwrap().unwrap().unwrap();
            drop((opened, other, socket));
        })
        .await;
}

#[tokio::test]
async fn an_edge_that_nobody_uses_stops_at_once() {
    let mut edge: Fixture = start_with("[drain]\nlinger = \"1m\"");
    edge.stop.cancel();
    timeout(Duration::from_secs(20), &mut edge.running).await.unwrap().unwrap().unwrap();
}
