//! One circuit: bytes both ways between a visitor's stream and a service. The direction to the visitor is a body,
//! which whoever sends it asks for; the other is a task that this body owns.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_protocol::websocket::{self, Piece};
use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::counts::{CircuitEnd, Seat};
use super::frames::{Buffers, Framing};
use super::incoming::{Deaf, Incoming};
use super::shared::{Shared, Visitor};
use crate::origin::BoxError;

/// A visitor that says nothing is asked so often whether it is there.
const PING_EVERY: Duration = Duration::from_secs(54);
/// One that is not heard of for so long is gone.
const SILENCE: Duration = Duration::from_secs(3 * 54);
/// How long nothing may move in one direction after the other is over.
const HALF_CLOSED: Duration = Duration::from_secs(60);

/// The direction to the visitor; dropping it ends both, as broken off where neither side had its end.
pub(super) struct Circuit {
    stream: Rc<TcpStream>,
    shared: Rc<Shared>,
    framing: Framing,
    buffers: Buffers,
    idle: Option<Duration>,
    state: State,
    timer: Pin<Box<Sleep>>,
    pinged: Instant,
    _feeding: AbortOnDropHandle<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The service has said all, and the visitor was told.
    Said,
    Over,
}

impl Circuit {
    pub(super) fn begin(
        stream: TcpStream,
        incoming: Incoming,
        framing: Framing,
        seat: Seat,
        idle: Option<Duration>,
    ) -> Self {
        let (stream, shared) = (Rc::new(stream), Rc::new(Shared::new(seat)));
        let feeding = feed(incoming, stream.clone(), shared.clone(), framing);
        let now = Instant::now();
        let mut circuit = Self {
            stream,
            shared,
            framing,
            buffers: Buffers::new(framing),
            idle,
            state: State::Open,
            timer: Box::pin(sleep_until(now)),
            pinged: now,
            _feeding: AbortOnDropHandle::new(tokio::task::spawn_local(feeding)),
        };
        circuit.set_timer();
        circuit
    }

    /// Until when nothing has to be looked at.
    fn set_timer(&mut self) {
        let mut due = self.pinged.max(self.shared.heard()) + PING_EVERY;
        if let Some(idle) = self.idle {
            due = due.min(self.shared.moved() + idle);
        }
        if self.is_half_closed() {
            due = due.min(self.shared.moved() + HALF_CLOSED);
        }
        self.timer.as_mut().reset(due);
    }

    fn is_half_closed(&self) -> bool {
        self.state == State::Said || self.shared.visitor() == Visitor::Said
    }

    /// What is to be sent because of the time, if anything.
    fn on_time(&mut self) -> Option<Step> {
        let now = Instant::now();
        let still = now - self.shared.moved();
        let step = if self.idle.is_some_and(|idle| still >= idle) {
            Some(Step::End(CircuitEnd::Idle, websocket::GOING_AWAY))
        } else if self.is_half_closed() && still >= HALF_CLOSED {
            Some(Step::End(CircuitEnd::HalfClosed, websocket::GOING_AWAY))
        } else if self.framing == Framing::Raw
            || self.state != State::Open
            || self.shared.visitor() != Visitor::Speaks
        {
            None
        } else if now - self.shared.heard() >= SILENCE {
            Some(Step::Break(CircuitEnd::Silent))
        } else if now - self.pinged.max(self.shared.heard()) >= PING_EVERY {
            self.pinged = now;
            Some(Step::Send(websocket::ping(None)))
        } else {
            None
        };
        self.set_timer();
        step
    }

    /// What comes next; pending while there is nothing.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if self.shared.seat.place().is_lost(cx) {
            return Poll::Ready(Step::End(CircuitEnd::Displaced, websocket::GOING_AWAY));
        }
        let visitor = self.shared.visitor();
        match (visitor, self.state) {
            (Visitor::Closed, _) => return Poll::Ready(Step::End(CircuitEnd::Visitor, websocket::NORMAL)),
            (Visitor::Lost, _) => return Poll::Ready(Step::Break(CircuitEnd::VisitorLost)),
            (Visitor::Unreadable, _) => {
                return Poll::Ready(Step::End(CircuitEnd::Protocol, websocket::PROTOCOL_ERROR));
            }
            (Visitor::Said, State::Said) => {
                return Poll::Ready(Step::End(CircuitEnd::Service, websocket::NORMAL));
            }
            (Visitor::Speaks | Visitor::Said, _) => {}
        }
        self.shared.wait(cx);
        if self.state == State::Open {
            if let Some(pong) = self.shared.take_pong() {
                return Poll::Ready(Step::Send(pong));
            }
            if let Poll::Ready(step) = self.poll_service(cx) {
                return Poll::Ready(step);
            }
        }
        self.set_timer_if_half_closed();
        while self.timer.as_mut().poll(cx).is_ready() {
            if let Some(step) = self.on_time() {
                return Poll::Ready(step);
            }
        }
        Poll::Pending
    }

    /// A direction may have ended since the timer was set.
    fn set_timer_if_half_closed(&mut self) {
        if self.is_half_closed() && self.timer.deadline() > self.shared.moved() + HALF_CLOSED {
            self.set_timer();
        }
    }

    fn poll_service(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            match self.stream.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Step::Break(CircuitEnd::ServiceLost)),
                Poll::Pending => return Poll::Pending,
            }
            // Only now, since most circuits wait most of the time.
            let mut buffer = self.buffers.fresh();
            match self.stream.try_read_buf(&mut buffer) {
                Ok(0) => return Poll::Ready(self.service_said()),
                Ok(_) => {
                    let (data, length) = self.buffers.filled(buffer);
                    self.shared.seat.sent(length);
                    self.shared.moves();
                    return Poll::Ready(Step::Send(data));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(Step::Break(CircuitEnd::ServiceLost)),
            }
        }
    }

    /// The service has ended its direction.
    fn service_said(&mut self) -> Step {
        match self.framing {
            Framing::WebSocket { half_close: true } if self.shared.visitor() == Visitor::Speaks => {
                self.state = State::Said;
                self.shared.moves();
                Step::Send(websocket::close(websocket::END_OF_DIRECTION, None))
            }
            Framing::WebSocket { .. } | Framing::Raw => Step::End(CircuitEnd::Service, websocket::NORMAL),
        }
    }

    /// The service is to hear that something is missing, and not take it for an end.
    fn reset_service(&self) {
        let _ = SockRef::from(&*self.stream).set_linger(Some(Duration::ZERO));
    }
}

/// What a circuit does next.
enum Step {
    Send(Bytes),
    /// It is over, and the visitor is told with this code.
    End(CircuitEnd, u16),
    /// It broke off.
    Break(CircuitEnd),
}

/// The stream of a circuit was cut at this end.
#[derive(Debug, thiserror::Error)]
#[error("the circuit broke off: {}", .0.word())]
struct Broken(CircuitEnd);

impl HttpBody for Circuit {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.state == State::Over {
            return Poll::Ready(None);
        }
        let step = std::task::ready!(this.poll_step(cx));
        Poll::Ready(match step {
            Step::Send(data) => Some(Ok(Frame::data(data))),
            Step::End(end, code) => {
                this.shared.seat.end(end);
                if !matches!(end, CircuitEnd::Visitor | CircuitEnd::Service) {
                    this.reset_service();
                }
                // Its own end was said before, and nothing may follow that.
                let is_said = this.state == State::Said;
                this.state = State::Over;
                let farewell = if is_said { None } else { this.framing.farewell(code) };
                farewell.map(|frame| Ok(Frame::data(frame)))
            }
            Step::Break(end) => {
                this.shared.seat.end(end);
                this.reset_service();
                this.state = State::Over;
                Some(Err(Broken(end).into()))
            }
        })
    }
}

impl Drop for Circuit {
    fn drop(&mut self) {
        if self.state != State::Over {
            self.reset_service();
        }
    }
}

/// Carries what the visitor sends, until it has said all or the service takes no more.
async fn feed(mut incoming: Incoming, stream: Rc<TcpStream>, shared: Rc<Shared>, framing: Framing) {
    loop {
        match incoming.next(|| shared.hear()).await {
            Ok(Some(Piece::Data(data))) => {
                let length = data.len();
                if write(&stream, data).await.is_err() {
                    // What it has still to say may be here already.
                    return shared.become_of(Visitor::Said);
                }
                shared.seat.received(length);
                shared.moves();
            }
            Ok(Some(Piece::Ping(payload))) => shared.answer(websocket::pong(&payload, None)),
            Ok(Some(Piece::Pong)) => {}
            Ok(Some(Piece::Close(code))) => {
                let is_half = framing == Framing::WebSocket { half_close: true }
                    && code == Some(websocket::END_OF_DIRECTION);
                end(&stream);
                shared.moves();
                return shared.become_of(if is_half { Visitor::Said } else { Visitor::Closed });
            }
            Ok(None) => break,
            Err(Deaf::Lost) => return shared.become_of(Visitor::Lost),
            Err(Deaf::Unreadable) => return shared.become_of(Visitor::Unreadable),
        }
    }
    end(&stream);
    shared.moves();
    shared.become_of(Visitor::Said);
}

/// Tells the service that nothing follows.
fn end(stream: &TcpStream) {
    // It may have gone already.
    let _ = SockRef::from(stream).shutdown(Shutdown::Write);
}

async fn write(stream: &TcpStream, mut data: Bytes) -> io::Result<()> {
    while data.has_remaining() {
        match stream.try_write(&data) {
            Ok(written) => data.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
