//! What nodes of a fleet say to each other with a request, and the connections to one of them. Knows headers and
//! links; does not know who the nodes are, nor what is forwarded.

pub(super) mod room;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::{HeaderName, HeaderValue};
use uuid::Uuid;

use super::connection::{Lost, StreamPermit};
use super::http2::{Channel, Link};
use super::signs::{Traffic, Volume};
use room::{Place, Room, Rooms};

/// What a request to another node is about: which replica of which tunnel it is for, and how many nodes it may
/// pass after that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errand {
    pub(crate) tunnel: Uuid,
    pub(crate) connector: Uuid,
    pub(crate) hops: u8,
}

impl Errand {
    pub(crate) fn header(&self) -> HeaderValue {
        let Self { tunnel, connector, hops } = self;
        let text = format!("{FORMAT} request {tunnel} {connector} {hops}");
        HeaderValue::try_from(text).expect("letters and digits are a header value")
    }

    /// `None` of anything else, and of what another format says.
    pub(crate) fn of(value: &HeaderValue) -> Option<Self> {
        let mut words = value.to_str().ok()?.split(' ');
        let mut next = || words.next();
        if next()?.parse() != Ok(FORMAT) || next()? != "request" {
            return None;
        }
        let errand = Self {
            tunnel: next()?.parse().ok()?,
            connector: next()?.parse().ok()?,
            hops: next()?.parse().ok()?,
        };
        next().is_none().then_some(errand)
    }
}

/// What became of the one attempt that another node has made, where it is no answer (docs/retries.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The node has no connection of that replica.
    Absent,
    NotSent,
    Refused,
    NotHere,
    Broken,
    Silent,
    /// An origin has begun an answer and broken off.
    BrokenOff,
    Late,
    Failed,
}

impl Outcome {
    pub(crate) const ALL: [Self; 9] = [
        Self::Absent,
        Self::NotSent,
        Self::Refused,
        Self::NotHere,
        Self::Broken,
        Self::Silent,
        Self::BrokenOff,
        Self::Late,
        Self::Failed,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::NotSent => "not-sent",
            Self::Refused => "refused",
            Self::NotHere => "not-here",
            Self::Broken => "broken",
            Self::Silent => "silent",
            Self::BrokenOff => "broken-off",
            Self::Late => "late",
            Self::Failed => "failed",
        }
    }

    /// A word that is not known here is a failure that is not repeated.
    pub(crate) fn of(value: &HeaderValue) -> Self {
        let known = Self::ALL.into_iter().find(|outcome| outcome.word().as_bytes() == value.as_bytes());
        known.unwrap_or(Self::Failed)
    }
}

/// What became of the requests that were handed to one node.
#[derive(Default)]
pub(crate) struct Tally {
    answered: AtomicU64,
    told: [AtomicU64; Outcome::ALL.len()],
    lost: AtomicU64,
}

impl Tally {
    /// An answer has come, or word of why there is none.
    pub(crate) fn told(&self, outcome: Option<Outcome>) {
        let count = match outcome {
            None => &self.answered,
            Some(outcome) => &self.told[outcome as usize],
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing has come, and nothing will.
    pub(crate) fn lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let told = Outcome::ALL.iter().map(|outcome| (outcome.word(), &self.told[*outcome as usize]));
        let all = [("answered", &self.answered)].into_iter().chain(told).chain([("lost", &self.lost)]);
        all.map(|(word, count)| (word, count.load(Ordering::Relaxed)))
    }
}

/// The connections to another node, one for each shard of this edge.
pub(crate) struct Peer {
    /// Whom they are to.
    pub(crate) name: String,
    links: Box<[ArcSwapOption<Link>]>,
    rooms: Rooms,
    /// Over which its presence comes.
    presence: ArcSwapOption<Link>,
    /// Requests that ever began, and what became of them.
    begun: AtomicU64,
    pub(crate) tally: Arc<Tally>,
    /// Over all connections to it.
    pub(crate) volume: Arc<Volume>,
    /// The node has not been heard for longer than it should take.
    is_suspect: AtomicBool,
    /// How far it is from here, 1 for the same region; a node that leaves is farther than any.
    distance: AtomicU8,
    /// Microseconds there and back, as the quickest connection took them.
    round_trip: AtomicU64,
}

impl Peer {
    pub(crate) fn new(name: String, shards: usize, distance: u8) -> Self {
        Self {
            name,
            links: (0..shards).map(|_| ArcSwapOption::empty()).collect(),
            rooms: Rooms::new(shards),
            presence: ArcSwapOption::empty(),
            begun: AtomicU64::new(0),
            tally: Arc::default(),
            volume: Arc::default(),
            is_suspect: AtomicBool::new(false),
            distance: AtomicU8::new(distance),
            round_trip: AtomicU64::new(u64::MAX),
        }
    }

    /// Takes the place of the connection of this shard.
    pub(crate) fn set_link(&self, shard: usize, link: Option<Link>) {
        if let Some(place) = self.links.get(shard) {
            place.store(link.map(Arc::new));
        }
    }

    /// The same for that of its presence.
    pub(crate) fn set_presence(&self, link: Option<Link>) {
        self.presence.store(link.map(Arc::new));
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.is_suspect.load(Ordering::Relaxed)
    }

    pub(crate) fn set_suspect(&self, is_suspect: bool) {
        self.is_suspect.store(is_suspect, Ordering::Relaxed);
    }

    pub(crate) fn distance(&self) -> u8 {
        self.distance.load(Ordering::Relaxed)
    }

    pub(crate) fn set_distance(&self, distance: u8) {
        self.distance.store(distance, Ordering::Relaxed);
    }

    pub(crate) fn round_trip(&self) -> Duration {
        let least = self.round_trip.load(Ordering::Relaxed);
        if least == u64::MAX { Duration::ZERO } else { Duration::from_micros(least) }
    }

    /// A connection took so long there and back; a busy machine only makes it longer.
    pub(crate) fn measured(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.round_trip.fetch_min(took, Ordering::Relaxed);
    }

    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether no request can be sent there now.
    pub(crate) fn is_closed(&self) -> bool {
        self.links.iter().all(|link| link.load().as_ref().is_none_or(|link| link.is_closed()))
    }

    /// What all connections together have sent and heard.
    pub(crate) fn signs(&self) -> Traffic {
        let none = Traffic {
            sent: 0,
            received: 0,
            sent_before: Some(0),
            is_asked: false,
            round_trip: self.round_trip(),
        };
        let links = self.links.iter().chain([&self.presence]);
        let links = links.filter_map(|link| link.load_full()).filter(|link| !link.is_closed());
        links.map(|link| link.signs()).fold(none, |all, one| Traffic {
            sent: all.sent + one.sent,
            received: all.received + one.received,
            sent_before: all.sent_before.zip(one.sent_before).map(|(all, one)| all + one),
            is_asked: all.is_asked || one.is_asked,
            round_trip: all.round_trip,
        })
    }

    /// Those that take requests, that of `shard` first.
    fn open_links(&self, shard: usize) -> impl Iterator<Item = Arc<Link>> {
        let others =
            self.links.iter().enumerate().filter(move |(other, _)| *other != shard).map(|(_, link)| link);
        let all = self.links.get(shard).into_iter().chain(others);
        all.filter_map(ArcSwapOption::load_full).filter(|link| !link.is_closed())
    }

    /// A place for a request that came in on `shard`, on whichever connection has one.
    async fn channel(&self, shard: usize) -> Result<Channel, Lost> {
        if let Some(channel) = self.open_links(shard).find_map(|link| link.try_channel().ok().flatten()) {
            return Ok(channel);
        }
        let Some(link) = self.open_links(shard).next() else {
            return Err(Lost { reason: format!("there is no connection to {}", self.name) });
        };
        link.channel().await
    }

    /// A connection for a question of this node itself.
    pub(crate) fn any_link(&self) -> Option<Arc<Link>> {
        let links = self.links.iter().chain([&self.presence]);
        links.filter_map(ArcSwapOption::load_full).find(|link| !link.is_closed())
    }
}

/// What a stream to another node is for, and what is counted of it.
pub(super) struct ToPeer {
    pub(super) errand: Errand,
    pub(super) place: Place,
    pub(super) tally: Arc<Tally>,
}

/// The way to one replica of a tunnel through another node.
pub(crate) struct PeerWay {
    pub(crate) peer: Arc<Peer>,
    errand: Errand,
    room: Arc<Room>,
    /// The node hears nothing of the replica.
    is_silent: AtomicBool,
}

impl PeerWay {
    pub(crate) fn new(peer: Arc<Peer>, errand: Errand) -> Self {
        let room = peer.rooms.of(errand.tunnel);
        Self { peer, errand, room, is_silent: AtomicBool::new(false) }
    }

    pub(crate) fn set_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// Whether nothing is heard of the node, or the node hears nothing of the replica.
    pub(crate) fn is_silent(&self) -> bool {
        self.peer.is_suspect() || self.is_silent.load(Ordering::Relaxed)
    }

    /// See [`super::connection::Transport::channel`].
    pub(super) async fn channel(&self, shard: usize) -> Result<StreamPermit, Lost> {
        let place = self.room.place().await;
        let channel = self.peer.channel(shard).await?;
        self.peer.begun.fetch_add(1, Ordering::Relaxed);
        let (errand, tally) = (self.errand, self.peer.tally.clone());
        Ok(StreamPermit::Http2(channel.for_peer(ToPeer { errand, place, tally })))
    }
}

/// What a request between nodes is about. Nobody else may say or hear it.
pub(crate) const FLEET: HeaderName = HeaderName::from_static("adit-fleet");
/// In an answer: there is none of an origin, and this is why.
pub(crate) const OUTCOME: HeaderName = HeaderName::from_static("adit-outcome");
/// In an answer to what wanted to become a WebSocket: it has not, and this is the status of the answer. Any that says well
/// would be the other protocol there (RFC 8441 5.1).
pub(crate) const NOT_SWITCHED: HeaderName = HeaderName::from_static("adit-not-switched");
/// Of what nodes say to each other. One that says more than another understands has a higher number.
pub(crate) const FORMAT: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_is_about_is_read_as_it_was_written_and_nothing_else_is() {
        let errand = Errand { tunnel: Uuid::from_u128(1), connector: Uuid::from_u128(2), hops: 0 };
        let header = errand.header();
        // As neighbours of this format have it.
        assert_eq!(
            header,
            "1 request 00000000-0000-0000-0000-000000000001 00000000-0000-0000-0000-000000000002 0"
        );
        assert_eq!(Errand::of(&header), Some(errand));
        let text = header.to_str().unwrap();
        for other in [
            text.replacen('1', "2", 1),
            text.replace("request", "presence"),
            format!("{text} 1"),
            text.replace(" 0", " 256"),
            text.replace(" 0", " -1"),
            text[..40].to_owned(),
            String::new(),
        ] {
            assert_eq!(Errand::of(&HeaderValue::try_from(&other).unwrap()), None, "{other}");
        }
    }

    #[test]
    fn outcomes_have_words_and_what_is_not_known_is_not_repeated() {
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::of(&HeaderValue::from_static(outcome.word())), outcome);
        }
        assert_eq!(Outcome::of(&HeaderValue::from_static("melted")), Outcome::Failed);
    }
}
