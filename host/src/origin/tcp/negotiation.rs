//! A circuit within which the visitor first says where it wants to go: SOCKS5 until that is settled, and then what
//! every circuit is. Knows the order of words; does not know what they look like.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_net::places::Place;
use adit_protocol::websocket::{NORMAL, PROTOCOL_ERROR};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::TcpOrigin;
use super::circuit::Circuit;
use super::counts::{CircuitEnd, Seat};
use super::destination::Outlet;
use super::frames::Framing;
use super::incoming::Incoming;
use super::socks::{self, Reply, Talk, Wrong};
use crate::origin::BoxError;

/// From the acceptance of a circuit to the visitor's word where it leads.
const PATIENCE: Duration = Duration::from_secs(10);
/// Words of this side that wait to be sent: greeting, reply, farewell, and the circuit.
const WORDS: usize = 4;

/// The direction to the visitor; dropping it ends what it has begun.
pub(super) struct Negotiation {
    words: mpsc::Receiver<Word>,
    circuit: Option<Circuit>,
    place: Arc<Place>,
    _talking: AbortOnDropHandle<()>,
}

enum Word {
    Said(Bytes),
    /// It is settled.
    Opened(Box<Circuit>),
}

impl Negotiation {
    pub(super) fn begin(origin: Rc<TcpOrigin>, incoming: Incoming, framing: Framing, seat: Seat) -> Self {
        let (tell, words) = mpsc::channel(WORDS);
        let place = seat.place().clone();
        let talking = tokio::task::spawn_local(talk(origin, incoming, framing, seat, tell));
        Self { words, circuit: None, place, _talking: AbortOnDropHandle::new(talking) }
    }
}

async fn talk(
    origin: Rc<TcpOrigin>,
    mut incoming: Incoming,
    framing: Framing,
    seat: Seat,
    tell: mpsc::Sender<Word>,
) {
    // Whoever takes no words has left, and this task is gone with it.
    let say = async |words: &[u8]| drop(tell.send(Word::Said(framing.wrap(words))).await);
    let bye = async |code: u16| {
        if let Some(frame) = framing.farewell(code) {
            let _ = tell.send(Word::Said(frame)).await;
        }
    };
    let asked = timeout(PATIENCE, async {
        let mut talk = Talk::new(&mut incoming);
        let answer = talk.greeting().await?;
        say(&answer).await;
        let destination = talk.request().await?;
        talk.end();
        Ok::<_, Wrong>(destination)
    });
    let (host, port) = match asked.await {
        Ok(Ok(destination)) => destination,
        Ok(Err(Wrong::Answer(answer))) => {
            seat.end(CircuitEnd::Service);
            say(&answer).await;
            return bye(NORMAL).await;
        }
        Ok(Err(Wrong::Unreadable)) => {
            seat.end(CircuitEnd::Protocol);
            return bye(PROTOCOL_ERROR).await;
        }
        Ok(Err(Wrong::Gone)) => return seat.end(CircuitEnd::Visitor),
        Err(_) => {
            seat.end(CircuitEnd::Silent);
            return bye(PROTOCOL_ERROR).await;
        }
    };
    let outlet = Outlet { reach: &origin.reach, dial: origin.dial, patience: origin.connect_timeout };
    match outlet.open(&host, port).await {
        Ok(stream) => {
            say(&socks::reply(Reply::Succeeded)).await;
            let circuit = Circuit::begin(stream, incoming, framing, seat, origin.idle_timeout);
            let _ = tell.send(Word::Opened(Box::new(circuit))).await;
        }
        Err(unreached) => {
            seat.end(CircuitEnd::Service);
            say(&socks::reply(socks::of(&unreached))).await;
            bye(NORMAL).await;
        }
    }
}

impl HttpBody for Negotiation {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            if let Some(circuit) = &mut this.circuit {
                return Pin::new(circuit).poll_frame(cx);
            }
            if this.place.is_lost(cx) {
                return Poll::Ready(None);
            }
            match ready!(this.words.poll_recv(cx)) {
                Some(Word::Said(words)) => return Poll::Ready(Some(Ok(Frame::data(words)))),
                Some(Word::Opened(circuit)) => this.circuit = Some(*circuit),
                None => return Poll::Ready(None),
            }
        }
    }
}
