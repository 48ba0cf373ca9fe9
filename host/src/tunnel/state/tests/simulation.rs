//! Random events against the table, and random worlds against four slots with their allocation. The clock is
//! simulated.

use std::collections::HashSet;
use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::pace::{BURST, EVERY};
use super::super::*;
use crate::tunnel::discovery::addresses::Allocation;

const WINDOW: Duration = Duration::from_secs(10);

/// The most dials in a window, whatever happens.
fn most_dials() -> usize {
    BURST as usize + (WINDOW.as_millis() / EVERY.as_millis()) as usize + 1
}

fn check_rate(dials: &[Instant]) -> Result<(), TestCaseError> {
    for (index, first) in dials.iter().enumerate() {
        let within = dials[index..].iter().take_while(|at| **at - *first < WINDOW).count();
        prop_assert!(within <= most_dials(), "{within} dials in {WINDOW:?}");
    }
    Ok(())
}

/// What a slot that performs the actions has open.
struct Performer {
    state: State,
    tries: Option<Action>,
    timer: Option<Instant>,
    serves: bool,
    dials: Vec<Instant>,
}

impl Performer {
    fn perform(&mut self, event: Event, action: Action, now: Instant) -> Result<(), TestCaseError> {
        if matches!(event, Event::Lost { .. }) {
            self.serves = false;
        }
        match action {
            Action::Dial { .. } => {
                self.dials.push(now);
                (self.tries, self.timer) = (Some(action), None);
            }
            Action::Register => self.tries = Some(action),
            Action::Promote { rest } => {
                (self.serves, self.tries, self.timer) = (true, None, rest.map(|rest| now + rest));
            }
            Action::Wait { time, .. } => (self.tries, self.timer) = (None, Some(now + time)),
            Action::Rest { time, .. } => (self.tries, self.timer) = (None, time.map(|time| now + time)),
            Action::ReportLoss { .. } | Action::Continue => {}
            Action::Drain => (self.tries, self.timer) = (None, None),
            Action::End { .. } => (self.tries, self.timer, self.serves) = (None, None, false),
        }
        let is_live = matches!(self.state, State::Live(_));
        prop_assert!(
            !is_live || self.serves || self.tries.is_some() || self.timer.is_some(),
            "nothing will ever happen: {:?}",
            self.state
        );
        prop_assert!(
            !self.state.is_in_trouble() || self.tries.is_some() || self.timer.is_some(),
            "trouble and nothing is done about it: {:?}",
            self.state
        );
        Ok(())
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Dialled { transport: Transport::Quic }),
        2 => Just(Event::Dialled { transport: Transport::Http2 }),
        3 => any::<bool>().prop_map(|refused| Event::DialFailed { refused }),
        1 => Just(Event::NoAddress),
        5 => Just(Event::Registered),
        1 => (any::<bool>(), 0_u64..400).prop_map(|(permanent, seconds)| {
            Event::Refused(Refusal { permanent, retry_after: Duration::from_secs(seconds) })
        }),
        1 => Just(Event::Cut),
        4 => Just(Event::Waited),
        1 => Just(Event::EdgeFound),
        2 => Just(Event::Suspect),
        2 => Just(Event::Recovered),
        1 => Just(Event::ToldToLeave),
        2 => Just(Event::Misplaced),
        3 => any::<bool>().prop_map(|reset| Event::Lost { reset }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Events of every kind, sensible or not, one right behind the other or seconds apart.
    #[test]
    fn whatever_happens_a_slot_goes_on_and_never_in_a_hot_loop(
        protocol in prop_oneof![Just(Protocol::Auto), Just(Protocol::Quic), Just(Protocol::Http2)],
        events in vec((any_event(), prop_oneof![3 => Just(0_u64), 2 => 0_u64..50, 1 => 0_u64..20_000], 0.0..1.0_f64), 1..400),
    ) {
        let mut now = Instant::now();
        let at = |now, jitter| Tick { now, jitter: Jitter(jitter), served: true };
        let (state, action) = State::start(protocol, at(now, 0.5));
        let mut slot = Performer { state, tries: None, timer: None, serves: false, dials: Vec::new() };
        slot.perform(Event::Waited, action, now)?;
        let mut not_before = now;
        for (event, pause, jitter) in events {
            now += Duration::from_millis(pause);
            // What a slot cannot say it does not say.
            let fits = match event {
                Event::Lost { .. } | Event::Suspect | Event::Recovered | Event::ToldToLeave | Event::Misplaced => slot.serves,
                Event::Waited => slot.timer.is_some_and(|timer| timer <= now),
                Event::Registered | Event::Refused(_) | Event::Cut => slot.tries == Some(Action::Register),
                Event::Dialled { .. } | Event::DialFailed { .. } | Event::NoAddress => matches!(slot.tries, Some(Action::Dial { .. })),
                _ => true,
            };
            let (state, action) = slot.state.on(event, at(now, jitter));
            if !fits {
                // But if it did, nothing would break.
                continue;
            }
            slot.state = state;
            if let Event::Refused(refusal) = event && !slot.serves {
                not_before = now + refusal.retry_after.min(LONGEST_ASKED_WAIT);
            }
            if event == Event::Registered {
                not_before = now;
            }
            slot.perform(event, action, now)?;
            if matches!(action, Action::Dial { .. }) {
                prop_assert!(now >= not_before, "dialled sooner than the edge had asked");
            }
        }
        check_rate(&slot.dials)?;
    }
}

/// How the edge server behind an address behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edge {
    Good,
    /// The machine says that nobody listens.
    Down,
    /// Nothing comes back.
    Silent,
    /// Registrations are refused.
    Full,
    /// Connections are lost as soon as they are registered.
    Flapping,
    /// As good, but it tells everybody to leave and takes nobody.
    Leaving,
}

fn edge() -> impl Strategy<Value = Edge> {
    prop_oneof![
        6 => Just(Edge::Good),
        2 => Just(Edge::Down),
        2 => Just(Edge::Silent),
        1 => Just(Edge::Full),
        1 => Just(Edge::Flapping),
        1 => Just(Edge::Leaving),
    ]
}

const STEP: Duration = Duration::from_millis(50);
const SLOTS: usize = 4;

struct World {
    regions: Vec<Vec<(SocketAddr, Edge)>>,
    allocation: Allocation,
    slots: Vec<Member>,
    now: Instant,
    random: fastrand::Rng,
}

struct Member {
    performer: Performer,
    action: Action,
    /// When what is tried comes to something, and what it is tried at.
    due: Instant,
    tries: Option<SocketAddr>,
    holds: Option<SocketAddr>,
    /// What serves is not heard of since then.
    silent: Option<Instant>,
    is_suspect: bool,
    told: bool,
}

impl World {
    fn new(shape: &[usize], seed: u64) -> Self {
        let regions: Vec<Vec<(SocketAddr, Edge)>> = (0..)
            .zip(shape)
            .map(|(region, count)| {
                let address = |place| SocketAddr::from(([192, 0, region, place], 7844));
                (0..*count).map(|place| (address(place as u8), Edge::Good)).collect()
            })
            .collect();
        let mut allocation = Allocation::new(SLOTS);
        allocation.refresh(regions.iter().map(|region| region.iter().map(|(address, _)| *address).collect()));
        let (now, mut random) = (Instant::now(), fastrand::Rng::with_seed(seed));
        let slots = (0..SLOTS).map(|_| {
            let (state, action) =
                State::start(Protocol::Auto, Tick { now, jitter: Jitter(random.f64()), served: true });
            let performer = Performer { state, tries: None, timer: None, serves: false, dials: Vec::new() };
            Member {
                performer,
                action,
                due: now,
                tries: None,
                holds: None,
                silent: None,
                is_suspect: false,
                told: false,
            }
        });
        let slots = slots.collect();
        let mut world = Self { regions, allocation, slots, now, random };
        for slot in 0..SLOTS {
            let action = world.slots[slot].action;
            world.perform(slot, Event::Waited, action).unwrap();
        }
        world
    }

    fn edge(&self, address: SocketAddr) -> Edge {
        let all = self.regions.iter().flatten();
        all.copied().find(|(known, _)| *known == address).map_or(Edge::Down, |(_, edge)| edge)
    }

    fn on(&mut self, slot: usize, event: Event) -> Result<(), TestCaseError> {
        let moment = Tick { now: self.now, jitter: Jitter(self.random.f64()), served: true };
        let (state, action) = self.slots[slot].performer.state.on(event, moment);
        self.allocation.follow(slot, event, &state, &action, self.now);
        self.slots[slot].performer.state = state;
        self.perform(slot, event, action)
    }

    fn perform(&mut self, slot: usize, event: Event, action: Action) -> Result<(), TestCaseError> {
        let (now, took) = (self.now, Duration::from_millis(self.random.u64(1..100)));
        self.slots[slot].performer.perform(event, action, now)?;
        match action {
            Action::Dial { goal, .. } => {
                let sought = self.allocation.seek(slot, goal, now);
                if goal == Goal::Return
                    && let Some(sought) = sought
                {
                    let places = self.slots.iter().enumerate().filter(|(other, _)| *other != slot);
                    let places: Vec<_> = places.filter_map(|(_, it)| it.tries.or(it.holds)).collect();
                    let at = |address| places.iter().filter(|place| **place == address).count();
                    let mine = self.slots[slot].holds.map_or(0, at);
                    prop_assert!(at(sought) <= mine, "a slot goes where more are than at its own place");
                }
                let slow = match sought.map(|sought| self.edge(sought)) {
                    Some(Edge::Silent) => Duration::from_secs(3),
                    _ => took,
                };
                let member = &mut self.slots[slot];
                (member.tries, member.due) = (sought, now + slow);
            }
            Action::Register => self.slots[slot].due = now + took,
            Action::Promote { .. } => {
                let member = &mut self.slots[slot];
                member.holds = member.tries.take();
                (member.silent, member.is_suspect, member.told) = (None, false, false);
                for other in (0..SLOTS).filter(|other| *other != slot) {
                    self.on(other, Event::EdgeFound)?;
                }
            }
            Action::Wait { .. } | Action::Rest { .. } => self.slots[slot].tries = None,
            Action::ReportLoss { .. } | Action::Continue | Action::Drain | Action::End { .. } => {}
        }
        Ok(())
    }

    /// Lets one step of time pass.
    fn step(&mut self) -> Result<(), TestCaseError> {
        self.now += STEP;
        for slot in 0..SLOTS {
            self.tried(slot)?;
            self.served(slot)?;
            if self.slots[slot].performer.timer.is_some_and(|timer| timer <= self.now) {
                self.slots[slot].performer.timer = None;
                self.on(slot, Event::Waited)?;
            }
        }
        Ok(())
    }

    fn tried(&mut self, slot: usize) -> Result<(), TestCaseError> {
        let member = &self.slots[slot];
        if member.due > self.now {
            return Ok(());
        }
        let edge = member.tries.map(|address| self.edge(address));
        let event = match (member.performer.tries, edge) {
            (None, _) => return Ok(()),
            (Some(Action::Register), Some(Edge::Good | Edge::Flapping)) => Event::Registered,
            (Some(Action::Register), Some(Edge::Full | Edge::Leaving)) => {
                Event::Refused(Refusal { permanent: false, retry_after: Duration::from_secs(1) })
            }
            (Some(Action::Register), Some(Edge::Down | Edge::Silent)) => Event::Cut,
            (_, None) => Event::NoAddress,
            (_, Some(Edge::Down)) => Event::DialFailed { refused: true },
            (_, Some(Edge::Silent)) => Event::DialFailed { refused: false },
            (_, Some(_)) => Event::Dialled { transport: Transport::Quic },
        };
        self.on(slot, event)
    }

    fn served(&mut self, slot: usize) -> Result<(), TestCaseError> {
        let now = self.now;
        let Some(held) = self.slots[slot].holds else { return Ok(()) };
        let edge = self.edge(held);
        let member = &mut self.slots[slot];
        let is_silent = matches!(edge, Edge::Down | Edge::Silent);
        if is_silent && member.silent.is_none() {
            member.silent = Some(now);
        }
        let silence = member.silent.map_or(Duration::ZERO, |since| now - since);
        let event = match edge {
            Edge::Good | Edge::Full if member.is_suspect => {
                (member.silent, member.is_suspect) = (None, false);
                // Back as it was, or restarted.
                if self.random.bool() { Event::Recovered } else { Event::Lost { reset: true } }
            }
            Edge::Flapping => Event::Lost { reset: false },
            Edge::Leaving if !member.told => {
                member.told = true;
                Event::ToldToLeave
            }
            _ if is_silent && silence >= Duration::from_secs(5) => Event::Lost { reset: false },
            _ if is_silent && silence >= Duration::from_secs(1) && !member.is_suspect => {
                member.is_suspect = true;
                Event::Suspect
            }
            _ if self.random.u8(0..10) == 0 && self.allocation.is_misplaced(slot, now) => Event::Misplaced,
            _ => return Ok(()),
        };
        if matches!(event, Event::Lost { .. }) {
            (member.holds, member.silent, member.is_suspect) = (None, None, false);
        }
        self.on(slot, event)
    }

    fn run(&mut self, time: Duration) -> Result<(), TestCaseError> {
        let until = self.now + time;
        while self.now < until {
            self.step()?;
        }
        Ok(())
    }

    /// What must be true once the world stands still.
    fn check(&self) -> Result<(), TestCaseError> {
        let good: Vec<(usize, SocketAddr)> = self
            .regions
            .iter()
            .enumerate()
            .flat_map(|(region, edges)| edges.iter().map(move |(address, edge)| (region, *address, *edge)))
            .filter(|(.., edge)| *edge == Edge::Good)
            .map(|(region, address, _)| (region, address))
            .collect();
        if good.is_empty() {
            return Ok(());
        }
        let shown = || {
            format!("{:?} with {:?}", self.slots.iter().map(|it| it.holds).collect::<Vec<_>>(), self.regions)
        };
        let served: Vec<SocketAddr> = self.slots.iter().filter_map(|slot| slot.holds).collect();
        prop_assert_eq!(served.len(), SLOTS, "not all serve: {}", shown());
        let is_good = |address: &SocketAddr| good.iter().any(|(_, it)| it == address);
        prop_assert!(
            served.iter().all(|address| is_good(address) || self.edge(*address) == Edge::Full),
            "{}",
            shown()
        );
        let distinct: HashSet<_> = served.iter().collect();
        let free = good.iter().filter(|(_, address)| !served.contains(address)).count();
        prop_assert!(distinct.len() == SLOTS || free == 0, "shared while one is free: {}", shown());
        let region = |address: &SocketAddr| {
            self.regions.iter().position(|it| it.iter().any(|(known, _)| known == address))
        };
        let regions: HashSet<_> = served.iter().map(region).collect();
        let reachable: HashSet<_> = good.iter().map(|(region, _)| region).collect();
        prop_assert!(regions.len() >= 2 || reachable.len() < 2, "one region: {}", shown());
        Ok(())
    }
}

/// The changes, each followed by so many milliseconds: an edge's number among all, and how it behaves from
/// then on.
type Changes = Vec<(Vec<(usize, Edge)>, u64)>;

fn settles(shape: &[usize], changes: Changes, seed: u64) -> Result<(), TestCaseError> {
    let mut world = World::new(shape, seed);
    for (edges, pause) in changes {
        for (number, edge) in edges {
            let all: Vec<&mut (SocketAddr, Edge)> = world.regions.iter_mut().flatten().collect();
            let count = all.len();
            all.into_iter().nth(number % count).unwrap().1 = edge;
        }
        world.run(Duration::from_millis(pause))?;
    }
    world.run(Duration::from_secs(30))?;
    if world.regions.iter().flatten().any(|(_, edge)| *edge == Edge::Flapping) {
        // One that takes a connection and loses it is tried again now and then.
        for _ in 0..80 {
            if world.check().is_ok() {
                break;
            }
            world.step()?;
        }
    }
    world.check()?;
    for slot in &world.slots {
        check_rate(&slot.performer.dials)?;
    }
    // And it stays so, without moves that lead nowhere.
    let count = |world: &World| world.slots.iter().map(|slot| slot.holds).collect::<Vec<_>>();
    let settled = count(&world);
    if world.regions.iter().flatten().all(|(_, edge)| *edge == Edge::Good) {
        world.run(Duration::from_secs(20))?;
        prop_assert_eq!(settled, count(&world), "moves without end");
    }
    Ok(())
}

/// A random world found it: two slots went on dialling the one that was down.
#[test]
fn a_slot_tries_an_address_that_others_were_told_to_leave_once_nothing_else_comes_about() {
    let changes = vec![
        (vec![], 3651),
        (vec![(1, Edge::Leaving), (2, Edge::Down)], 0),
        (vec![], 4601),
        (vec![(5, Edge::Good)], 0),
    ];
    settles(&[1, 1], changes, 387376298533).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    /// Edges break and recover at random; thirty seconds after the last change all is well again.
    #[test]
    fn four_slots_spread_over_addresses_and_regions_again_within_thirty_seconds(
        shape in prop_oneof![
            3 => Just(vec![2, 2]), 1 => Just(vec![1, 1]), 1 => Just(vec![4, 4]), 1 => Just(vec![1, 3]),
            1 => Just(vec![3]), 1 => Just(vec![2, 2, 2]), 1 => Just(vec![1]), 1 => Just(vec![4, 1]),
        ],
        changes in vec((vec((0_usize..8, edge()), 0..6), 0_u64..20_000), 1..6),
        seed in any::<u64>(),
    ) {
        settles(&shape, changes, seed)?;
    }
}
