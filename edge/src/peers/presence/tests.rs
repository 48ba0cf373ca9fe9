//! Nodes in worlds made up of chance: connections come and go, streams break and begin anew, nodes freeze, die and come
//! back, words come late. Whatever happened, in the end each knows of the others what is so, and nothing that was.

use std::collections::VecDeque;

use super::*;

fn replica(number: u8, connections: u8) -> RemoteReplica {
    RemoteReplica { connector: Uuid::from_u128(number.into()), connections, is_silent: false }
}

fn tunnel(number: u64) -> Uuid {
    Uuid::from_u128(number.into())
}

/// All that a listener is told now, who has heard so much.
fn told(own: &Own, heard: Option<(u64, u64)>) -> Vec<Frame> {
    let (hello, mut cursor) = own.begin(heard);
    let mut frames = vec![hello];
    while let Some(page) = own.page(&mut cursor) {
        frames.push(page);
    }
    frames.push(own.heartbeat(NodeState::default()));
    frames
}

fn hear_all(view: &mut View, frames: Vec<Frame>, now: Duration) -> Vec<Change> {
    frames
        .into_iter()
        .flat_map(|frame| {
            let news = view.hear(frame, now);
            assert!(!news.is_confused);
            news.changes
        })
        .collect()
}

/// By their digests.
fn knows(view: &View) -> BTreeMap<Uuid, u64> {
    view.entries.iter().map(|(tunnel, heard)| (*tunnel, heard.digest)).collect()
}

fn has(own: &Own) -> BTreeMap<Uuid, u64> {
    let there = own.entries.iter().filter(|(_, kept)| !kept.replicas.is_empty());
    let digest = |tunnel: Uuid, kept: &Kept| Entry { tunnel, replicas: kept.replicas.clone() }.digest();
    there.map(|(tunnel, kept)| (*tunnel, digest(*tunnel, kept))).collect()
}

#[test]
fn everything_is_told_in_pages_and_then_only_what_changes() {
    let mut own = Own::new(7);
    for number in 0..5_000 {
        own.set(tunnel(number), vec![replica(1, 4)]);
    }
    let mut view = View::new();
    let frames = told(&own, view.heard_upto());
    assert!(frames.len() > 10, "{} frames", frames.len());
    let mut bytes = Vec::new();
    assert!(frames.iter().all(|frame| {
        bytes.clear();
        frame.write(&mut bytes);
        bytes.len() <= PAGE + 64
    }));
    hear_all(&mut view, frames, Duration::ZERO);
    assert_eq!(knows(&view), has(&own));
    own.set(tunnel(3), Vec::new());
    own.set(tunnel(4), vec![replica(2, 1)]);
    own.set(tunnel(5), vec![replica(1, 4)]);
    let frames = told(&own, view.heard_upto());
    let Frame::Entries { entries, .. } = &frames[1] else { panic!("{frames:?}") };
    // The last one is as it was, and is said all the same: somebody may have asked in between.
    assert_eq!(entries.iter().map(|entry| entry.tunnel).collect::<Vec<_>>(), [3, 4, 5].map(tunnel));
    hear_all(&mut view, frames, Duration::ZERO);
    assert_eq!(knows(&view), has(&own));
}

#[test]
fn a_silent_node_is_suspect_after_three_seconds_and_has_nothing_after_ten_until_it_speaks_again() {
    let mut own = Own::new(7);
    own.set(tunnel(1), vec![replica(1, 4)]);
    let mut view = View::new();
    assert_eq!(view.standing(), Standing::Gone);
    let second = Duration::from_secs(1);
    hear_all(&mut view, told(&own, None), second);
    for (seconds, standing) in [(3, Standing::Well), (4, Standing::Suspect), (10, Standing::Suspect)] {
        assert_eq!((view.tick(seconds * second), view.standing()), (Vec::new(), standing), "{seconds}");
        assert_eq!(view.tunnels().len(), 1);
    }
    assert_eq!(view.tick(11 * second), [Entry { tunnel: tunnel(1), replicas: Vec::new() }]);
    assert_eq!((view.tunnels().len(), view.heard_upto()), (0, None), "all of it is to be said anew");
    let frames = told(&own, view.heard_upto());
    hear_all(&mut view, frames, 12 * second);
    assert_eq!((view.standing(), knows(&view)), (Standing::Well, has(&own)));
}

#[test]
fn a_new_process_has_nothing_of_the_one_before_and_a_goodbye_ends_everything_at_once() {
    let mut own = Own::new(7);
    own.set(tunnel(1), vec![replica(1, 4)]);
    own.set(tunnel(2), vec![replica(1, 4)]);
    let mut view = View::new();
    hear_all(&mut view, told(&own, None), Duration::ZERO);
    let mut next = Own::new(8);
    next.set(tunnel(2), vec![replica(2, 1)]);
    let heard = view.heard_upto();
    assert_eq!(heard, Some((7, 2)));
    let mut frames = told(&next, heard).into_iter();
    let news = view.hear(frames.next().unwrap(), Duration::ZERO);
    assert_eq!(news.changes.len(), 2, "with its first word");
    hear_all(&mut view, frames.collect(), Duration::ZERO);
    assert_eq!(knows(&view), has(&next));
    let news = view.hear(Frame::Goodbye, Duration::ZERO);
    assert_eq!((news.changes.len(), view.standing()), (1, Standing::Gone));
}

#[test]
fn words_that_do_not_fit_together_are_said_anew_without_a_moment_without_them() {
    let mut own = Own::new(7);
    own.set(tunnel(1), vec![replica(1, 4)]);
    let mut view = View::new();
    hear_all(&mut view, told(&own, None), Duration::ZERO);
    // One change was lost on the way.
    own.set(tunnel(2), vec![replica(1, 4)]);
    own.set(tunnel(1), Vec::new());
    let news = view.hear(own.heartbeat(NodeState::default()), Duration::ZERO);
    assert!(news.is_confused && news.changes.is_empty());
    assert_eq!((view.tunnels().len(), view.heard_upto()), (1, None));
    let frames = told(&own, view.heard_upto());
    let changes = hear_all(&mut view, frames, Duration::ZERO);
    assert!(changes.contains(&Entry { tunnel: tunnel(1), replicas: Vec::new() }), "{changes:?}");
    assert_eq!(knows(&view), has(&own));
}

#[test]
fn what_is_gone_is_remembered_for_those_who_listen_but_not_for_ever() {
    let mut own = Own::new(7);
    own.set(tunnel(0), vec![replica(1, 4)]);
    let mut view = View::new();
    hear_all(&mut view, told(&own, None), Duration::ZERO);
    for number in 1..=3 * MOST_GONE as u64 {
        own.set(tunnel(number), vec![replica(1, 4)]);
        own.set(tunnel(number), Vec::new());
        assert!(own.entries.len() <= MOST_GONE + 2);
    }
    assert_eq!(has(&own).len(), 1);
    // It has missed more than is remembered.
    let frames = told(&own, view.heard_upto());
    assert_eq!(frames[0], Frame::Hello { epoch: 7, after: 0 });
    hear_all(&mut view, frames, Duration::ZERO);
    assert_eq!(knows(&view), has(&own));
}

/// One world: some nodes, of which each has a view of each other one, and streams with words on their way.
struct World {
    now: Duration,
    nodes: Vec<Node>,
    chance: fastrand::Rng,
    epochs: u64,
}

struct Node {
    /// `None`: it is dead.
    own: Option<Own>,
    is_frozen: bool,
    /// Of each node; that of itself is not used.
    views: Vec<View>,
    streams: Vec<Option<Stream>>,
}

/// Words from another node that are not heard yet.
struct Stream {
    cursor: Cursor,
    on_the_way: VecDeque<(Duration, Frame)>,
    /// The other side is gone; what is on the way still comes.
    is_cut: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let count = chance.usize(2..=4);
        let node = |epoch| Node {
            own: Some(Own::new(epoch)),
            is_frozen: false,
            views: (0..count).map(|_| View::new()).collect(),
            streams: (0..count).map(|_| None).collect(),
        };
        let nodes = (1..=count as u64).map(node).collect();
        Self { now: Duration::ZERO, nodes, chance, epochs: 10 }
    }

    fn happens(&mut self) {
        let at = self.chance.usize(..self.nodes.len());
        match self.chance.u8(..100) {
            0..60 => {
                let (id, count) = (tunnel(self.chance.u64(..6)), self.chance.u8(..3));
                let replicas = (0..count).map(|number| replica(number, 1 + self.chance.u8(..3))).collect();
                let Node { own, is_frozen, .. } = &mut self.nodes[at];
                if let Some(own) = own.as_mut().filter(|_| !*is_frozen) {
                    own.set(id, replicas);
                }
            }
            60..75 => {
                let from = self.chance.usize(..self.nodes.len());
                self.cut(at, from);
            }
            75..82 => {
                self.nodes[at].own = None;
                self.nodes[at].is_frozen = false;
                self.end_of(at);
            }
            82..90 if self.nodes[at].own.is_none() => {
                self.epochs += 1;
                let count = self.nodes.len();
                let node = &mut self.nodes[at];
                node.own = Some(Own::new(self.epochs));
                node.views = (0..count).map(|_| View::new()).collect();
                node.streams = (0..count).map(|_| None).collect();
            }
            90..95 => self.nodes[at].is_frozen = self.nodes[at].own.is_some(),
            _ => self.nodes[at].is_frozen = false,
        }
    }

    fn cut(&mut self, listener: usize, from: usize) {
        let is_abrupt = self.chance.bool();
        let stream = &mut self.nodes[listener].streams[from];
        if is_abrupt {
            *stream = None;
        } else if let Some(stream) = stream {
            stream.is_cut = true;
        }
    }

    fn end_of(&mut self, dead: usize) {
        for listener in 0..self.nodes.len() {
            self.cut(listener, dead);
        }
        for stream in &mut self.nodes[dead].streams {
            *stream = None;
        }
    }

    /// Lets time pass: who lives speaks, dials and hears.
    fn passes(&mut self, time: Duration) {
        self.now += time;
        for listener in 0..self.nodes.len() {
            if self.nodes[listener].own.is_none() || self.nodes[listener].is_frozen {
                continue;
            }
            for from in (0..self.nodes.len()).filter(|from| *from != listener) {
                self.speaks(listener, from);
                self.hears(listener, from);
                let view = &mut self.nodes[listener].views[from];
                view.tick(self.now);
            }
        }
    }

    fn speaks(&mut self, listener: usize, from: usize) {
        let (now, late) = (self.now, Duration::from_millis(self.chance.u64(..400)));
        let heard = self.nodes[listener].views[from].heard_upto();
        let before = self.nodes[listener].streams[from].take();
        let Node { own, is_frozen, .. } = &self.nodes[from];
        let Some(own) = own.as_ref().filter(|_| !is_frozen) else {
            self.nodes[listener].streams[from] = before;
            return;
        };
        let (mut stream, frames) = match before {
            Some(mut stream) if !stream.is_cut => {
                let mut frames = Vec::new();
                while let Some(page) = own.page(&mut stream.cursor) {
                    frames.push(page);
                }
                (stream, frames)
            }
            Some(stream) => (stream, Vec::new()),
            None => {
                let (hello, mut cursor) = own.begin(heard);
                let mut frames = vec![hello];
                while let Some(page) = own.page(&mut cursor) {
                    frames.push(page);
                }
                (Stream { cursor, on_the_way: VecDeque::new(), is_cut: false }, frames)
            }
        };
        if !stream.is_cut {
            let frames = frames.into_iter().chain([own.heartbeat(NodeState::default())]);
            // On one stream words keep their order.
            let earliest = stream.on_the_way.back().map_or(now, |(at, _)| *at);
            stream.on_the_way.extend(frames.map(|frame| (earliest.max(now + late), frame)));
        }
        self.nodes[listener].streams[from] = Some(stream);
    }

    fn hears(&mut self, listener: usize, from: usize) {
        let now = self.now;
        let Node { views, streams, .. } = &mut self.nodes[listener];
        let Some(stream) = &mut streams[from] else { return };
        while stream.on_the_way.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, frame)) = stream.on_the_way.pop_front() else { break };
            if views[from].hear(frame, now).is_confused {
                streams[from] = None;
                return;
            }
        }
        if stream.is_cut && stream.on_the_way.is_empty() {
            streams[from] = None;
        }
    }

    /// What is known where everything is quiet.
    fn is_so(&self, seed: u64) {
        for (at, listener) in self.nodes.iter().enumerate().filter(|(_, node)| node.own.is_some()) {
            for (other, node) in self.nodes.iter().enumerate().filter(|(other, _)| *other != at) {
                let known = knows(&listener.views[other]);
                let so = node.own.as_ref().map(has).unwrap_or_default();
                assert_eq!(known, so, "world {seed}: what node {at} knows of node {other}");
            }
        }
    }
}

/// Everything that may happen, for a while; then nothing does for as long as it takes to be sure of a dead node.
fn world(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..60 {
        world.happens();
        let time = Duration::from_millis(world.chance.u64(..1500));
        world.passes(time);
    }
    for node in &mut world.nodes {
        node.is_frozen = false;
    }
    // Ten seconds for the dead, and what was still on its way; the living are known after one.
    let settled = GONE + Duration::from_secs(2);
    let step = Duration::from_millis(250);
    for _ in 0..settled.as_millis() / step.as_millis() {
        world.passes(step);
    }
    world.is_so(seed);
}

#[test]
fn in_the_end_each_node_knows_of_the_others_what_is_so_and_has_no_ghosts() {
    (0..2_000).for_each(world);
}

#[test]
#[ignore = "takes minutes: cargo test -p adit-edge --lib peers::presence -- --ignored"]
fn in_a_hundred_thousand_worlds_no_node_has_ghosts() {
    (0..100_000).for_each(world);
}
