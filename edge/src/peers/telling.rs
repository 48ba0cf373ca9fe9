//! What this node says of itself to one other one, as long as that listens: first what it has missed, then each change,
//! and a heartbeat where there is none. What a slow listener does not take is not gathered for it: it is told later how
//! things are then. Knows frames; does not know sockets.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::HeaderValue;
use http_body::Frame as BodyFrame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::watch;
use tokio::time::{Duration, sleep};

use super::Peers;
use super::frames::{Frame, PAGE, VERDICTS};
use super::presence::{Cursor, HEARTBEAT};
use crate::transport::peer::FORMAT;

/// From where on a node wants to hear: after this change of that epoch, if it has heard anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listening(Option<(u64, u64)>);

impl Listening {
    /// `None` of anything else.
    pub(super) fn of(value: &HeaderValue) -> Option<Self> {
        let mut words = value.to_str().ok()?.split(' ');
        let mut next = || words.next();
        if next()?.parse() != Ok(FORMAT) || next()? != "presence" {
            return None;
        }
        let heard = (next()?.parse().ok()?, next()?.parse().ok()?);
        next().is_none().then_some(Self(Some(heard).filter(|heard| *heard != (0, 0))))
    }
}

struct Telling {
    peers: Arc<Peers>,
    news: watch::Receiver<()>,
    listening: Listening,
    cursor: Option<Cursor>,
    /// What monitors have found, and up to where it was said.
    found: watch::Receiver<u64>,
    said: u64,
    is_over: bool,
}

/// All that a listener is told, until this node ends.
pub(super) fn tell(peers: Arc<Peers>, listening: Listening) -> UnsyncBoxBody<Bytes, Infallible> {
    let news = peers.news.subscribe();
    let found = peers.sharing.news();
    let telling = Telling { peers, news, listening, cursor: None, found, said: 0, is_over: false };
    let words = stream::unfold(telling, |mut telling| async move {
        let words = telling.next().await?;
        Some((Ok(BodyFrame::data(Bytes::from(words))), telling))
    });
    StreamBody::new(words).boxed_unsync()
}

impl Telling {
    async fn next(&mut self) -> Option<Vec<u8>> {
        if self.is_over {
            return None;
        }
        let mut words = Vec::new();
        if self.cursor.is_some() {
            let is_new = tokio::select! {
                biased;
                () = self.peers.stop.connections.wait() => {
                    self.is_over = true;
                    Frame::Goodbye.write(&mut words);
                    return Some(words);
                }
                _ = self.news.changed() => true,
                _ = self.found.changed() => true,
                () = sleep(HEARTBEAT) => false,
            };
            if is_new {
                // What comes with it goes with it.
                sleep(GATHER).await;
            }
        }
        self.news.borrow_and_update();
        let state = self.peers.state();
        let own = self.peers.own();
        let cursor = match &mut self.cursor {
            Some(cursor) => cursor,
            none => {
                let (hello, cursor) = own.begin(self.listening.0);
                hello.write(&mut words);
                none.insert(cursor)
            }
        };
        while let Some(page) = own.page(cursor) {
            page.write(&mut words);
            self.peers.connections_of(&page).for_each(|frame| frame.write(&mut words));
            if words.len() >= PAGE {
                self.news.mark_changed();
                return Some(words);
            }
        }
        own.heartbeat(state).write(&mut words);
        drop(own);
        // Behind what they are about.
        self.found.borrow_and_update();
        let (said, verdicts) = self.peers.sharing.since(self.said);
        self.said = said;
        for part in verdicts.chunks(VERDICTS) {
            Frame::Verdicts(part.to_vec()).write(&mut words);
        }
        Some(words)
    }
}

/// From one change to the word of it.
const GATHER: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_says_from_where_on_and_nothing_else_is_understood() {
        let of = |text: &'static str| Listening::of(&HeaderValue::from_static(text));
        assert_eq!(of("1 presence 0 0"), Some(Listening(None)));
        assert_eq!(of("1 presence 7 9"), Some(Listening(Some((7, 9)))));
        for other in
            ["", "2 presence 0 0", "1 request 0 0", "1 presence 0", "1 presence 0 0 0", "1 presence -1 0"]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
