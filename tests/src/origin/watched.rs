//! One exchange at the origin that a test directs: it sees what arrives and says what is answered.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, request};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::{Body, Error};
use crate::within;

/// The test's end of an exchange.
pub struct Watched {
    notices: mpsc::UnboundedReceiver<Notice>,
    orders: mpsc::UnboundedSender<Order>,
}

/// How a request's body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upload {
    Complete { bytes: u64 },
    Broken { bytes: u64 },
}

#[derive(Debug)]
enum Notice {
    Arrived(Box<request::Parts>),
    /// Bytes of the body so far.
    Received(u64),
    Uploaded(Upload),
    Gone,
}

enum Order {
    Answer(Box<Response<()>>),
    Say(Bytes),
    /// The same piece again and again, as fast as it is taken.
    Flood(Bytes),
    End,
    Break,
}

/// The origin's end.
pub(super) struct Script {
    notices: mpsc::UnboundedSender<Notice>,
    orders: mpsc::UnboundedReceiver<Order>,
}

pub(super) fn pair() -> (Watched, Script) {
    let (notify, notices) = mpsc::unbounded_channel();
    let (order, orders) = mpsc::unbounded_channel();
    (Watched { notices, orders: order }, Script { notices: notify, orders })
}

impl Watched {
    /// The head of the request, once it is there.
    pub async fn arrived(&mut self) -> request::Parts {
        self.next("a request at the origin", |notice| match notice {
            Notice::Arrived(head) => Some(*head),
            Notice::Received(_) | Notice::Uploaded(_) | Notice::Gone => None,
        })
        .await
    }

    /// Waits until the origin has this many bytes of the request's body.
    pub async fn received(&mut self, least: u64) {
        self.next("bytes at the origin", |notice| match notice {
            Notice::Received(bytes) if bytes >= least => Some(()),
            Notice::Uploaded(upload) => panic!("the upload ended: {upload:?}"),
            Notice::Arrived(_) | Notice::Received(_) | Notice::Gone => None,
        })
        .await;
    }

    pub async fn uploaded(&mut self) -> Upload {
        self.next("the end of an upload", |notice| match notice {
            Notice::Uploaded(upload) => Some(upload),
            Notice::Arrived(_) | Notice::Received(_) | Notice::Gone => None,
        })
        .await
    }

    /// Whether a whole request has arrived by now. Use it when nothing more can arrive.
    pub fn is_uploaded(&mut self) -> bool {
        std::iter::from_fn(|| self.notices.try_recv().ok())
            .any(|notice| matches!(notice, Notice::Uploaded(Upload::Complete { .. })))
    }

    /// Waits until the origin has lost whoever asked.
    pub async fn gone(&mut self) {
        self.next("the end of a request at the origin", |notice| {
            matches!(notice, Notice::Gone).then_some(())
        })
        .await;
    }

    pub fn answer(&self, head: Response<()>) {
        self.order(Order::Answer(Box::new(head)));
    }

    pub fn say(&self, data: impl Into<Bytes>) {
        self.order(Order::Say(data.into()));
    }

    pub fn flood(&self, data: impl Into<Bytes>) {
        self.order(Order::Flood(data.into()));
    }

    /// Ends the answer as it should end.
    pub fn end(&self) {
        self.order(Order::End);
    }

    /// Drops the connection in the middle of the answer.
    pub fn break_off(&self) {
        self.order(Order::Break);
    }

    fn order(&self, order: Order) {
        // Whoever asked may be gone: the test learns that by what it waits for.
        let _ = self.orders.send(order);
    }

    async fn next<T>(&mut self, what: &str, pick: impl Fn(Notice) -> Option<T>) -> T {
        let found = async {
            loop {
                let notice =
                    self.notices.recv().await.unwrap_or_else(|| panic!("{what}: the exchange is over"));
                if let Some(found) = pick(notice) {
                    return found;
                }
            }
        };
        within(what, found).await
    }
}

impl Script {
    pub(super) async fn play(mut self, request: Request<Incoming>) -> Result<Response<Body>, Error> {
        let (head, body) = request.into_parts();
        let _ = self.notices.send(Notice::Arrived(Box::new(head)));
        tokio::spawn(receive(body, self.notices.clone()));
        let presence = Presence(Some(self.notices.clone()));
        match self.orders.recv().await {
            Some(Order::Answer(head)) => {
                let body = Directed { orders: self.orders, flood: None, presence };
                Ok(head.map(|()| body.boxed_unsync()))
            }
            Some(Order::Break) => Err("told to break off".into()),
            Some(Order::Say(_) | Order::Flood(_) | Order::End) => {
                Err("told to speak before the answer".into())
            }
            // The test no longer cares.
            None => std::future::pending().await,
        }
    }
}

async fn receive(mut body: Incoming, notices: mpsc::UnboundedSender<Notice>) {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            let _ = notices.send(Notice::Uploaded(Upload::Broken { bytes }));
            return;
        };
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        let _ = notices.send(Notice::Received(bytes));
    }
    let _ = notices.send(Notice::Uploaded(Upload::Complete { bytes }));
}

/// The body of an answer as the test directs it.
struct Directed {
    orders: mpsc::UnboundedReceiver<Order>,
    flood: Option<Bytes>,
    presence: Presence,
}

impl HttpBody for Directed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(data) = &self.flood {
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        match ready!(self.orders.poll_recv(cx)) {
            Some(Order::Say(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Order::Flood(data)) => {
                self.flood = Some(data.clone());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Order::Break) => Poll::Ready(Some(Err("told to break off".into()))),
            Some(Order::End | Order::Answer(_)) | None => {
                self.presence.0 = None;
                Poll::Ready(None)
            }
        }
    }
}

/// Says so when it is dropped before the exchange was over.
struct Presence(Option<mpsc::UnboundedSender<Notice>>);

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(notices) = &self.0 {
            let _ = notices.send(Notice::Gone);
        }
    }
}
