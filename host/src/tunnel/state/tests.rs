//! What follows from what, as a person expects it.

// Tests look at one variant and want none of the others.
#![allow(clippy::wildcard_enum_match_arm)]

mod simulation;

use super::*;

const HALF: Jitter = Jitter(0.5);
const LATE: Jitter = Jitter(0.999);

/// A slot whose clock the test turns.
struct Scene {
    state: State,
    action: Action,
    now: Instant,
    jitter: Jitter,
    served: bool,
    timer: Option<Duration>,
}

impl Scene {
    fn start(protocol: Protocol) -> Self {
        let (now, jitter) = (Instant::now(), HALF);
        let (state, action) = State::start(protocol, Tick { now, jitter, served: true });
        Self { state, action, now, jitter, served: true, timer: None }
    }

    /// A slot that has served for an hour, over this transport.
    fn serving(protocol: Protocol, transport: Transport) -> Self {
        let mut scene = Self::start(protocol);
        scene.on(Event::Dialled { transport });
        scene.on(Event::Registered);
        scene.pass(Duration::from_secs(3600));
        scene
    }

    fn on(&mut self, event: Event) -> Action {
        let moment = Tick { now: self.now, jitter: self.jitter, served: self.served };
        (self.state, self.action) = self.state.on(event, moment);
        match self.action {
            Action::Continue | Action::ReportLoss { .. } => {}
            Action::Wait { time, .. } => self.timer = Some(time),
            Action::Rest { time, .. } => self.timer = time,
            Action::Dial { .. }
            | Action::Register
            | Action::Promote { .. }
            | Action::Drain
            | Action::End { .. } => self.timer = None,
        }
        self.action
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Lets the timer run out.
    fn wait(&mut self) -> Action {
        let time = self.timer.expect("there is a timer");
        self.pass(time);
        self.on(Event::Waited)
    }
}

fn dial(goal: Goal, first: Transport) -> Action {
    Action::Dial { goal, way: DialPlan { first, both: true, is_urgent: goal == Goal::Rescue } }
}

fn rest(verdict: Verdict) -> Action {
    Action::Rest { time: None, verdict }
}

const FAILED: Event = Event::DialFailed { refused: false };
const LOST: Event = Event::Lost { reset: false };
const RESET: Event = Event::Lost { reset: true };

#[test]
fn a_slot_that_meets_no_trouble_dials_registers_serves_and_drains() {
    for (protocol, first, both) in [
        (Protocol::Auto, Transport::Quic, true),
        (Protocol::Quic, Transport::Quic, false),
        (Protocol::Http2, Transport::Http2, false),
    ] {
        let mut slot = Scene::start(protocol);
        assert_eq!(
            slot.action,
            Action::Dial { goal: Goal::Connect, way: DialPlan { first, both, is_urgent: false } }
        );
        assert_eq!(slot.on(Event::Dialled { transport: first }), Action::Register);
        assert_eq!(slot.on(Event::Registered), Action::Promote { rest: None });
        assert_eq!(slot.on(Event::Stop), Action::Drain);
        assert_eq!(slot.on(Event::Drained), Action::End { fatal: false });
        assert_eq!(slot.state, State::Ended);
    }
}

#[test]
fn a_silent_edge_is_replaced_by_another_one_before_it_is_given_up() {
    let mut slot = Scene::serving(Protocol::Auto, Transport::Quic);
    assert_eq!(slot.on(Event::Suspect), dial(Goal::Rescue, Transport::Quic));
    assert_eq!(slot.on(Event::Dialled { transport: Transport::Quic }), Action::Register);
    assert_eq!(slot.on(Event::Registered), Action::Promote { rest: None });
    assert!(!slot.state.is_in_trouble());
}

#[test]
fn an_edge_that_is_heard_again_keeps_its_slot_unless_the_other_is_being_registered() {
    let mut slot = Scene::serving(Protocol::Auto, Transport::Quic);
    slot.on(Event::Suspect);
    assert_eq!(slot.on(Event::Recovered), rest(Verdict::Free));
    slot.on(Event::Suspect);
    slot.on(Event::Dialled { transport: Transport::Quic });
    assert_eq!(slot.on(Event::Recovered), Action::Continue);
    assert_eq!(slot.on(Event::Registered), Action::Promote { rest: None });
}

#[test]
fn what_is_tried_when_the_old_one_goes_takes_its_place() {
    for registering in [false, true] {
        let mut slot = Scene::serving(Protocol::Auto, Transport::Quic);
        slot.on(Event::Suspect);
        if registering {
            slot.on(Event::Dialled { transport: Transport::Quic });
        }
        assert_eq!(slot.on(LOST), Action::ReportLoss { verdict: Verdict::Unreachable });
        if !registering {
            assert_eq!(slot.on(Event::Dialled { transport: Transport::Quic }), Action::Register);
        }
        assert_eq!(slot.on(Event::Registered), Action::Promote { rest: None });
    }
}

#[test]
fn an_edge_that_was_restarted_is_dialled_again_at_once_and_one_that_is_gone_is_left() {
    for (lost, verdict) in [(RESET, Verdict::Keep), (LOST, Verdict::Unreachable)] {
        let mut slot = Scene::serving(Protocol::Auto, Transport::Quic);
        slot.jitter = LATE;
        let Action::Wait { time, verdict: found } = slot.on(lost) else { panic!("{:?}", slot.action) };
        assert!(time <= QUICK);
        assert_eq!(found, verdict);
        assert_eq!(slot.wait(), dial(Goal::Connect, Transport::Quic));
        // Once; then it is a failure like any other.
        let Action::Wait { time, .. } = slot.on(Event::DialFailed { refused: true }) else { panic!() };
        assert!(time <= QUICK);
        slot.wait();
        let Action::Wait { time, .. } = slot.on(Event::DialFailed { refused: true }) else { panic!() };
        assert!(time > QUICK);
    }
}

#[test]
fn a_reset_is_good_news_for_a_slot_that_found_nothing_else() {
    let mut slot = Scene::serving(Protocol::Auto, Transport::Quic);
    slot.on(Event::Suspect);
    for _ in 0..4 {
        slot.on(FAILED);
        slot.wait();
    }
    slot.on(FAILED);
    let Action::Wait { time, verdict } = slot.on(RESET) else { panic!("{:?}", slot.action) };
    assert!(time <= QUICK);
    assert_eq!(verdict, Verdict::Keep);
}

#[test]
fn a_slot_that_is_told_to_leave_moves_and_its_old_place_is_dialled_no_more_than_others() {
    let mut slot = Scene::serving(Protocol::Auto, Transport::Quic);
    assert_eq!(slot.on(Event::ToldToLeave), dial(Goal::Leave, Transport::Quic));
    assert!(matches!(slot.on(Event::NoAddress), Action::Wait { verdict: Verdict::Free, .. }));
    assert_eq!(slot.wait(), dial(Goal::Leave, Transport::Quic));
    slot.on(Event::Dialled { transport: Transport::Quic });
    assert_eq!(slot.on(Event::Registered), Action::Promote { rest: None });
}

#[test]
fn looks_for_a_better_address_are_rare_and_never_cost_what_serves() {
    let mut slot = Scene::serving(Protocol::Auto, Transport::Quic);
    let mut last = Duration::ZERO;
    for _ in 0..20 {
        let began = slot.now;
        while slot.on(Event::Misplaced) != dial(Goal::Return, Transport::Quic) {
            assert_eq!(slot.action, Action::Continue);
            slot.pass(Duration::from_millis(100));
        }
        let pause = slot.now - began;
        assert!(pause + Duration::from_millis(100) >= last && pause <= LONGEST_LOOK, "{pause:?} {last:?}");
        last = pause;
        assert_eq!(slot.on(FAILED), rest(Verdict::Unreachable));
    }
    assert!(last > LONGEST_LOOK / 2);
    // One that was refused as it asked.
    slot.pass(LONGEST_LOOK);
    slot.on(Event::Misplaced);
    slot.on(Event::Dialled { transport: Transport::Quic });
    let refusal = Refusal { permanent: false, retry_after: Duration::from_secs(60) };
    assert_eq!(slot.on(Event::Refused(refusal)), rest(Verdict::Unfit));
    slot.pass(Duration::from_secs(59));
    assert_eq!(slot.on(Event::Misplaced), Action::Continue);
    slot.pass(Duration::from_secs(1));
    assert_eq!(slot.on(Event::Misplaced), dial(Goal::Return, Transport::Quic));
}

#[test]
fn a_look_that_fails_while_trouble_came_up_is_followed_by_a_rescue() {
    let mut slot = Scene::serving(Protocol::Auto, Transport::Quic);
    slot.on(Event::Misplaced);
    assert_eq!(slot.on(Event::Suspect), Action::Continue);
    assert!(matches!(slot.on(FAILED), Action::Wait { .. }));
    assert_eq!(slot.wait(), dial(Goal::Rescue, Transport::Quic));
}

#[test]
fn a_slot_that_came_over_http2_looks_for_quic_and_finds_it_within_a_minute() {
    let mut slot = Scene::start(Protocol::Auto);
    slot.jitter = LATE;
    slot.on(Event::Dialled { transport: Transport::Http2 });
    let Action::Promote { rest: Some(mut time) } = slot.on(Event::Registered) else {
        panic!("{:?}", slot.action)
    };
    let upgrade = Action::Dial {
        goal: Goal::Upgrade,
        way: DialPlan { first: Transport::Quic, both: false, is_urgent: false },
    };
    let mut last = Duration::ZERO;
    for _ in 0..100 {
        assert!(time >= last && time <= LONGEST_PROBE);
        last = time;
        slot.pass(time);
        assert_eq!(slot.on(Event::Waited), upgrade);
        let Action::Rest { time: Some(next), .. } = slot.on(FAILED) else { panic!("{:?}", slot.action) };
        time = next;
    }
    assert!(last > Duration::from_secs(45));
    slot.pass(time);
    slot.on(Event::Waited);
    slot.on(Event::Dialled { transport: Transport::Quic });
    assert_eq!(slot.on(Event::Registered), Action::Promote { rest: None });
}

#[test]
fn a_look_for_quic_does_not_hold_up_a_redial() {
    let mut slot = Scene::start(Protocol::Auto);
    slot.on(Event::Dialled { transport: Transport::Http2 });
    let Action::Promote { rest: Some(time) } = slot.on(Event::Registered) else { panic!() };
    slot.pass(time);
    slot.on(Event::Waited);
    let mut other = Scene { ..slot };
    assert!(matches!(slot.on(LOST), Action::Wait { time, .. } if time <= QUICK));
    assert_eq!(slot.wait(), dial(Goal::Connect, Transport::Http2));
    assert_eq!(other.on(Event::Suspect), dial(Goal::Rescue, Transport::Http2));
}

#[test]
fn what_served_last_is_tried_first_and_registrations_that_are_cut_change_that() {
    let mut slot = Scene::start(Protocol::Auto);
    for (cuts, first) in
        [(0, Transport::Quic), (1, Transport::Quic), (2, Transport::Quic), (3, Transport::Http2)]
    {
        assert_eq!(slot.action, dial(Goal::Connect, first), "{cuts}");
        slot.on(Event::Dialled { transport: first });
        slot.on(Event::Cut);
        slot.wait();
    }
    let mut slot = Scene::serving(Protocol::Auto, Transport::Http2);
    slot.on(LOST);
    assert_eq!(slot.wait(), dial(Goal::Connect, Transport::Http2));
}

#[test]
fn a_protocol_that_was_asked_for_is_never_left() {
    for (protocol, transport) in [(Protocol::Quic, Transport::Quic), (Protocol::Http2, Transport::Http2)] {
        let mut slot = Scene::start(protocol);
        for _ in 0..20 {
            assert_eq!(
                slot.action,
                Action::Dial {
                    goal: Goal::Connect,
                    way: DialPlan { first: transport, both: false, is_urgent: false }
                }
            );
            slot.on(Event::Dialled { transport });
            slot.on(Event::Cut);
            slot.wait();
        }
    }
}

#[test]
fn the_first_retry_comes_within_a_second_and_no_wait_exceeds_fifteen() {
    let mut slot = Scene::start(Protocol::Quic);
    slot.jitter = LATE;
    let mut waits = Vec::new();
    for _ in 0..40 {
        let Action::Wait { time, verdict } = slot.on(FAILED) else { panic!("{:?}", slot.action) };
        assert_eq!(verdict, Verdict::Unreachable);
        waits.push(time);
        slot.wait();
    }
    assert!(waits[0] < Duration::from_secs(1) && waits[0] >= FIRST_WAIT / 2);
    assert!(waits.is_sorted());
    assert!(waits[39] <= LONGEST_WAIT && waits[39] > LONGEST_WAIT - Duration::from_secs(1));
}

#[test]
fn waits_double_no_more_often_than_retries_says() {
    for (retries, longest) in [(0, 1), (1, 2), (3, 8), (4, 15), (5, 15), (u32::MAX, 15)] {
        let mut slot = Scene::start(Protocol::Quic);
        slot.state = slot.state.doubling(Some(retries));
        slot.jitter = LATE;
        let waits: Vec<Duration> = (0..40)
            .map(|_| {
                let Action::Wait { time, .. } = slot.on(FAILED) else { panic!("{:?}", slot.action) };
                slot.wait();
                time
            })
            .collect();
        let longest = Duration::from_secs(longest);
        assert!(
            waits.is_sorted() && waits[39] <= longest && waits[39] > longest * 9 / 10,
            "{retries}: {waits:?}"
        );
    }
}

#[test]
fn connections_that_do_not_last_are_failures_too() {
    let mut slot = Scene::start(Protocol::Quic);
    let mut waits = Vec::new();
    for _ in 0..20 {
        slot.on(Event::Dialled { transport: Transport::Quic });
        slot.on(Event::Registered);
        slot.pass(STEADY / 2);
        let Action::Wait { time, .. } = slot.on(RESET) else { panic!("{:?}", slot.action) };
        waits.push(time);
        slot.wait();
    }
    assert!(waits.is_sorted() && waits[19] > LONGEST_WAIT / 2, "{waits:?}");
    slot.on(Event::Dialled { transport: Transport::Quic });
    slot.on(Event::Registered);
    slot.pass(STEADY);
    assert!(matches!(slot.on(RESET), Action::Wait { time, .. } if time <= QUICK));
}

#[test]
fn the_luck_of_another_slot_ends_a_long_wait_once() {
    let mut slot = Scene::start(Protocol::Quic);
    for _ in 0..8 {
        slot.on(FAILED);
        slot.wait();
    }
    slot.on(FAILED);
    assert!(
        matches!(slot.on(Event::EdgeFound), Action::Wait { time, verdict: Verdict::Keep } if time <= SOON)
    );
    assert_eq!(slot.on(Event::EdgeFound), Action::Continue);
    slot.pass(SOON);
    assert_eq!(slot.on(Event::Waited), dial_quic());
}

fn dial_quic() -> Action {
    Action::Dial {
        goal: Goal::Connect,
        way: DialPlan { first: Transport::Quic, both: false, is_urgent: false },
    }
}

#[test]
fn the_edge_may_ask_for_a_longer_wait_and_nothing_shortens_it() {
    let mut slot = Scene::start(Protocol::Quic);
    slot.on(Event::Dialled { transport: Transport::Quic });
    let asked = Duration::from_secs(40);
    let refusal = Refusal { permanent: false, retry_after: asked };
    assert_eq!(slot.on(Event::Refused(refusal)), Action::Wait { time: asked, verdict: Verdict::Unfit });
    assert_eq!(slot.on(Event::EdgeFound), Action::Continue);
    assert_eq!(slot.wait(), dial_quic());
    slot.on(Event::Dialled { transport: Transport::Quic });
    let refusal = Refusal { permanent: false, retry_after: Duration::from_secs(100_000) };
    let Action::Wait { time, .. } = slot.on(Event::Refused(refusal)) else { panic!() };
    assert_eq!(time, LONGEST_ASKED_WAIT);
}

#[test]
fn a_permanent_refusal_ends_the_process_only_if_nothing_ever_served() {
    let refusal = Refusal { permanent: true, retry_after: Duration::ZERO };
    for served in [false, true] {
        let mut slot = Scene { served, ..Scene::start(Protocol::Quic) };
        slot.on(Event::Dialled { transport: Transport::Quic });
        match slot.on(Event::Refused(refusal)) {
            Action::End { fatal: true } => assert!(!served),
            Action::Wait { .. } => assert!(served),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_stop_ends_every_state_at_once_except_one_that_serves() {
    let mut slot = Scene::start(Protocol::Auto);
    let mut scenes = vec![Scene { ..slot }];
    slot.on(Event::Dialled { transport: Transport::Quic });
    scenes.push(Scene { ..slot });
    slot.on(Event::Cut);
    scenes.push(slot);
    for mut scene in scenes {
        assert_eq!(scene.on(Event::Stop), Action::End { fatal: false });
    }
    // Not even a rescue is waited for.
    let mut slot = Scene::serving(Protocol::Auto, Transport::Quic);
    slot.on(Event::Suspect);
    assert_eq!(slot.on(Event::Stop), Action::Drain);
    assert_eq!(slot.on(Event::Registered), Action::Continue);
    assert_eq!(slot.on(Event::Drained), Action::End { fatal: false });
}
