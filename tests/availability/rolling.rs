//! Replicas that are restarted one after the other, with requests and lasting streams on them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::document::{self, HostDocument};
use e2e::fleet::{Fleet, Replica};
use e2e::load::Load;
use e2e::origin::Origin;
use e2e::visitor::{Speaks, Visitor, get};
use e2e::within;
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::alone;

/// Two servers in each of two regions.
const REGIONS: [&str; 4] = ["west", "east", "west", "east"];
/// The grace period of these hosts.
const GRACE: Duration = Duration::from_secs(4);
/// How much sooner than that a stream may be found cut, for what the clocks of three processes are worth.
const SLACK: Duration = Duration::from_millis(300);
/// Enough that each replica has some.
const STREAMS: usize = 6;

/// Streams of visitors that last for as long as they are let.
struct Streams {
    events: JoinSet<Instant>,
    sockets: JoinSet<Instant>,
    leave: CancellationToken,
}

impl Streams {
    /// Opens as many of each kind and waits until each has said something.
    async fn open(fleet: &Fleet) -> Self {
        let leave = CancellationToken::new();
        let (mut events, mut sockets) = (JoinSet::new(), JoinSet::new());
        for number in 0..STREAMS {
            let address = fleet.edges[number % fleet.edges.len()].http();
            let visitor = Visitor::new(address, Speaks::Http1, None).connect().await;
            let response = visitor.send(get("/events")).await;
            assert_eq!(response.status(), 200);
            let left = leave.clone();
            events.spawn(async move {
                let _visitor = visitor;
                let (mut body, mut seen) = (response.into_body(), Seen::default());
                loop {
                    let frame = tokio::select! {
                        frame = body.frame() => frame,
                        () = left.cancelled() => return Instant::now(),
                    };
                    match frame {
                        Some(Ok(frame)) => seen.take(&frame.into_data().unwrap_or_default()),
                        Some(Err(_)) | None => return Instant::now(),
                    }
                }
            });
            let tcp = TcpStream::connect(address).await.unwrap();
            let url = format!("ws://{}/websocket", document::HOST);
            let (mut socket, _) =
                within("a WebSocket", tokio_tungstenite::client_async(url, tcp)).await.unwrap();
            let left = leave.clone();
            sockets.spawn(async move {
                let mut ticks = tokio::time::interval(Duration::from_millis(50));
                for number in 0.. {
                    tokio::select! {
                        _ = ticks.tick() => {}
                        () = left.cancelled() => {
                            let _ = socket.close(None).await;
                            return Instant::now();
                        }
                    }
                    let said = Message::text(format!("message {number}"));
                    if socket.send(said.clone()).await.is_err() {
                        return Instant::now();
                    }
                    match socket.next().await {
                        Some(Ok(message)) if message == said => {}
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return Instant::now(),
                        Some(Ok(other)) => panic!("{other:?} and not {said:?}"),
                    }
                }
                unreachable!("numbers do not end")
            });
        }
        Self { events, sockets, leave }
    }

    /// Lets all go, and hands back when each ended.
    async fn ends(self) -> Vec<Instant> {
        self.leave.cancel();
        let Self { events, sockets, .. } = self;
        let mut ends = within("the end of the event streams", events.join_all()).await;
        ends.extend(within("the end of the WebSockets", sockets.join_all()).await);
        ends
    }
}

/// The numbers of events so far: none is missing.
#[derive(Default)]
struct Seen {
    rest: String,
    next: u64,
}

impl Seen {
    fn take(&mut self, data: &Bytes) {
        self.rest.push_str(std::str::from_utf8(data).unwrap());
        while let Some((event, rest)) = self.rest.split_once("\n\n") {
            assert_eq!(event, format!("data: {}", self.next), "an event is missing");
            self.next += 1;
            self.rest = rest.to_owned();
        }
    }
}

/// Stops and starts a host; says when it was asked and when it was gone.
async fn restart(host: &mut Replica) -> [Instant; 2] {
    let asked = Instant::now();
    host.stop().await;
    let gone = Instant::now();
    eprintln!("{} stopped within {:.3?}", host.name, gone - asked);
    host.start().await;
    [asked, gone]
}

async fn rolling_restart(protocol: &'static str) {
    let _turn = alone().await;
    let origin = Origin::start();
    let document = HostDocument { grace: "4s", ..HostDocument::new() };
    let document = document.connections(4).over(protocol).otherwise(&origin.service());
    let mut fleet = Fleet::start(&REGIONS, 2, &document).await;
    let mut load = Load::steady(&fleet.visitors()).await;

    // Streams that nobody ends live for as long as the grace period.
    let streams = Streams::open(&fleet).await;
    let mut restarts = Vec::new();
    for host in &mut fleet.hosts {
        restarts.push(restart(host).await);
        load.passes(100).await;
    }
    let all_gone = Instant::now();
    let ends = streams.ends().await;
    let mut cut = [0, 0];
    for end in ends.iter().filter(|end| **end < all_gone) {
        let of =
            restarts.iter().rposition(|[asked, _]| asked < end).expect("nothing ends before the first stop");
        cut[of] += 1;
        let lived = *end - restarts[of][0];
        assert!(lived + SLACK > GRACE, "a stream was cut {lived:?} after the stop of host {of}");
    }
    eprintln!("streams cut at the end of the grace period: {cut:?} of {}", ends.len());

    // Once more, with streams that end soon: the host does not wait for longer than they last.
    let streams = Streams::open(&fleet).await;
    let began = Instant::now();
    let (first, second) = fleet.hosts.split_at_mut(1);
    tokio::join!(restart(&mut first[0]), async {
        load.passes(100).await;
        streams.ends().await;
    });
    load.passes(100).await;
    restart(&mut second[0]).await;
    eprintln!("two restarts with streams that end took {:.3?}", began.elapsed());
    load.passes(100).await;
    let report = load.finish(&format!("rolling restarts of two replicas, twice, {protocol}")).await;
    report.assert_spotless();
    assert_eq!(origin.repeated(), [""; 0], "{report}");
}

#[tokio::test]
async fn two_replicas_are_restarted_in_turn_twice_and_streams_last_for_the_grace_period_over_quic() {
    rolling_restart("quic").await;
}

#[tokio::test]
async fn two_replicas_are_restarted_in_turn_twice_and_streams_last_for_the_grace_period_over_http2() {
    rolling_restart("http2").await;
}

/// As a cluster updates: a new replica is ready, then an old one is asked to stop, until none of the old is left.
async fn update(protocol: &'static str) {
    let _turn = alone().await;
    let origin = Origin::start();
    let document = HostDocument::new().connections(4).over(protocol).otherwise(&origin.service());
    let mut fleet = Fleet::start(&REGIONS, 2, &document).await;
    let (wanted, mut load) = updated_under(&fleet).await;
    let (mut updates, mut answered) = (0, 0);
    while updates < 2 || answered < wanted {
        fleet.replicas(1, &document).await;
        fleet.hosts.remove(0).stop().await;
        load.passes(100).await;
        updates += 1;
        answered = load.answered();
    }
    let report = load.finish(&format!("{updates} replicas replaced by new ones, {protocol}")).await;
    report.assert_spotless();
    assert_eq!(origin.repeated(), [""; 0], "{report}");
}

/// How many answers an update has to outlive, and the load: `ADIT_UPDATED_UNDER` makes it long and heavy.
pub(crate) async fn updated_under(fleet: &Fleet) -> (u64, Load) {
    match std::env::var("ADIT_UPDATED_UNDER") {
        Ok(wanted) => {
            let mut load = Load::start(&fleet.visitors(), 96, Duration::from_millis(120));
            load.passes(96).await;
            (wanted.parse().expect("a number"), load)
        }
        Err(_) => (0, Load::steady(&fleet.visitors()).await),
    }
}

#[tokio::test]
async fn replicas_are_replaced_by_new_ones_and_no_request_fails_over_quic() {
    update("quic").await;
}

#[tokio::test]
async fn replicas_are_replaced_by_new_ones_and_no_request_fails_over_http2() {
    update("http2").await;
}
