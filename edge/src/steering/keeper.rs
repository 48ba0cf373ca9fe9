//! Who of a pool is left out for a while and who starts slowly, and the [`Board`] that requests read: all endpoints
//! as they stand, laid out for choosing. Told the time and what each endpoint shows; does not know tunnels.

use std::time::Duration;

use adit_balance::eject::{Change, Ejector, Tally};
use adit_balance::health::{PoolHealth, Signs, State};
use adit_balance::slow_start::SlowStart;
use adit_balance::steer::{Ballot, Candidate, ONE};

/// An endpoint as it shows itself.
pub(super) struct Member<'a> {
    /// Without a word about ejection.
    pub(super) signs: Signs,
    /// In hundredths.
    pub(super) weight: u8,
    pub(super) hash: u64,
    pub(super) tally: &'a Tally,
}

/// What requests read of a pool.
pub(super) struct Board {
    /// Of which turn it is.
    pub(super) turn: u64,
    /// From then on it is out of date, whatever happens.
    pub(super) until: Duration,
    pub(super) states: Vec<State>,
    pub(super) health: PoolHealth,
    pub(super) ballot: Ballot,
    /// From then on a request may find out how an ejected endpoint is.
    pub(super) next_trial: Option<Duration>,
}

/// What is remembered between two boards.
#[derive(Default)]
pub(super) struct Keeper {
    pub(super) ejector: Ejector,
    starts: Vec<Start>,
}

#[derive(Clone, Copy, Default)]
struct Start {
    slow: SlowStart,
    /// Since when it serves.
    since: Option<Duration>,
}

impl Keeper {
    pub(super) fn new(endpoints: usize) -> Self {
        Self { ejector: Ejector::new(endpoints), starts: vec![Start::default(); endpoints] }
    }

    /// The same for a pool that was changed: for each endpoint the place that it had, if it was there.
    pub(super) fn rearranged(&self, before: &[Option<usize>]) -> Self {
        let start = |at: &Option<usize>| at.and_then(|at| self.starts.get(at)).copied().unwrap_or_default();
        Self {
            ejector: self.ejector.rearranged(before.iter().copied()),
            starts: before.iter().map(start).collect(),
        }
    }

    /// Looks at everybody, and says who was ejected or came back.
    pub(super) fn look(
        &mut self,
        (turn, now): (u64, Duration),
        members: &[Member<'_>],
        pool: impl FnOnce(&[State]) -> PoolHealth,
        chance: u64,
    ) -> (Board, Vec<Change>) {
        let able = |at: usize| members[at].signs.state().is_able();
        let changes = self.ejector.judge(now, |at| members[at].tally, able, chance);
        let state = |(at, member): (usize, &Member<'_>)| {
            Signs { is_ejected: self.ejector.is_out(at), ..member.signs }.state()
        };
        let states: Vec<State> = members.iter().enumerate().map(state).collect();
        let is_slow = self.begin(now, &states);
        let candidates = states.iter().zip(members).zip(&self.starts).map(|((state, member), start)| {
            let weight =
                f64::from(member.weight) / 100.0 * f64::from(ONE) * start.slow.factor(now, SLOW_START);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to ONE")]
            let weight = weight.ceil() as u32;
            Some(Candidate { standing: state.standing()?, weight, hash: member.hash })
        });
        let board = Board {
            turn,
            until: if is_slow { now + STEP } else { Duration::MAX },
            ballot: Ballot::new(candidates),
            health: pool(&states),
            states,
            next_trial: self.ejector.next_trial(),
        };
        (board, changes)
    }

    /// Takes note of who serves now, and says whether somebody starts slowly.
    fn begin(&mut self, now: Duration, states: &[State]) -> bool {
        let serves = |state: &State| matches!(state, State::Up | State::Unknown);
        let is_warm = |start: &Start| start.since.is_some_and(|since| now.saturating_sub(since) >= WARM);
        let mut serving = self.starts.iter().zip(states).filter(|(_, state)| serves(state));
        // Whoever comes is not warm, so this is about the others.
        let are_others_warm = serving.any(|(start, _)| is_warm(start));
        for (start, state) in self.starts.iter_mut().zip(states) {
            if !serves(state) {
                start.slow.leave();
                start.since = None;
            } else if start.since.is_none() {
                start.slow.rise(now, are_others_warm);
                start.since = Some(now);
            }
        }
        self.starts.iter().any(|start| start.slow.is_slow(now, SLOW_START))
    }
}

/// Until an endpoint that has come back gets all of its weight.
const SLOW_START: Duration = Duration::from_secs(30);
/// How often it gets more.
const STEP: Duration = Duration::from_secs(1);
/// Who has served for so long carries the rest meanwhile. As long as hosts may take to find an edge that has started,
/// so that they do not start slowly beside the first of them.
const WARM: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use adit_balance::health::Active;

    use super::*;

    struct Pool {
        keeper: Keeper,
        tallies: Vec<Tally>,
        connected: Vec<bool>,
        now: Duration,
    }

    impl Pool {
        fn new(endpoints: usize) -> Self {
            let tallies = (0..endpoints).map(|_| Tally::default()).collect();
            Self { keeper: Keeper::new(endpoints), tallies, connected: vec![true; endpoints], now: WARM }
        }

        fn look(&mut self) -> Board {
            let members: Vec<_> = (0..self.tallies.len())
                .map(|at| Member {
                    signs: Signs {
                        is_enabled: true,
                        is_connected: Some(self.connected[at]),
                        active: Active::NotMonitored,
                        is_ejected: false,
                        is_draining: false,
                    },
                    weight: 100,
                    hash: at as u64,
                    tally: &self.tallies[at],
                })
                .collect();
            let health = |states: &[State]| PoolHealth::new(true, 1, states.iter().copied());
            self.keeper.look((0, self.now), &members, health, 7).0
        }

        /// The part of many requests that an endpoint gets.
        fn share(&mut self, of: usize) -> f64 {
            let (board, mut chance, mut count) = (self.look(), 1_u64, 0);
            for _ in 0..20_000 {
                chance =
                    chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                count += u32::from(board.ballot.random(|_| true, chance >> 3) == Some(of));
            }
            f64::from(count) / 20_000.0
        }
    }

    #[test]
    fn one_that_comes_back_beside_others_gets_a_growing_part() {
        let mut pool = Pool::new(3);
        assert!((pool.share(0) - 1.0 / 3.0).abs() < 0.02, "all are new: nobody is slow");
        pool.connected[0] = false;
        assert!(pool.share(0) < f64::EPSILON);
        pool.now += WARM;
        pool.connected[0] = true;
        let began = pool.now;
        for (after, weight) in [(0, 0.1), (3, 0.1), (15, 0.5), (24, 0.8), (30, 1.0)] {
            pool.now = began + Duration::from_secs(after);
            let (share, wanted) = (pool.share(0), weight / (2.0 + weight));
            assert!((share - wanted).abs() < 0.02, "{share} after {after} s, not {wanted}");
            assert_eq!(pool.look().until == Duration::MAX, after == 30, "{after}");
        }
    }

    #[test]
    fn hosts_that_find_a_new_edge_one_after_the_other_do_not_start_slowly() {
        let mut pool = Pool::new(2);
        pool.connected = vec![true, false];
        pool.look();
        pool.now += WARM - Duration::from_secs(1);
        pool.connected[1] = true;
        assert!((pool.share(1) - 0.5).abs() < 0.02);
    }

    #[test]
    fn who_is_ejected_gets_nothing_and_comes_back_where_the_other_goes() {
        let mut pool = Pool::new(2);
        for source in 1..=5 {
            pool.tallies[0].bad(pool.now, source);
        }
        let board = pool.look();
        assert_eq!((board.states[0], board.health), (State::Ejected, PoolHealth::Healthy));
        assert!(board.next_trial.is_some_and(|due| due > pool.now));
        assert!(pool.share(0) < f64::EPSILON);
        pool.connected[1] = false;
        assert_eq!(pool.look().states, [State::Up, State::NotConnected]);
    }

    #[test]
    fn what_is_known_moves_with_an_endpoint_to_its_new_place() {
        let mut pool = Pool::new(2);
        for source in 1..=5 {
            pool.tallies[1].bad(pool.now, source);
        }
        pool.look();
        pool.keeper = pool.keeper.rearranged(&[Some(1), None, Some(0)]);
        pool.tallies.push(Tally::default());
        pool.connected.push(true);
        assert_eq!(pool.look().states, [State::Ejected, State::Up, State::Up]);
    }

    #[test]
    fn an_endpoint_that_fails_every_other_second_gets_no_more_than_its_part_and_changes_no_pool() {
        let mut pool = Pool::new(3);
        let (mut asked, mut failed, mut changes, mut chance) = ([0_u32; 3], 0, 0, 1_u64);
        let (began, mut health) = (pool.now, None);
        // A request each hundredth of a second, for five minutes.
        for turn in 0..30_000_u64 {
            pool.now = began + Duration::from_millis(10 * turn);
            let board = pool.look();
            changes += u32::from(health.replace(board.health).is_some_and(|before| before != board.health));
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let due = board.next_trial.is_some_and(|due| pool.now >= due);
            let trial = (0..3).find(|at| due && pool.keeper.ejector.begin_trial(*at, pool.now, true));
            let at =
                trial.or_else(|| board.ballot.random(|at| board.states[at] != State::Ejected, chance >> 3));
            let at = at.unwrap();
            let is_good = at != 0 || pool.now.as_secs().is_multiple_of(2);
            asked[at] += 1;
            failed += u32::from(!is_good);
            let (now, tally) = (pool.now, &pool.tallies[at]);
            if trial.is_some() {
                pool.keeper.ejector.end_trial(at, is_good, now, tally, chance);
            } else if is_good {
                tally.good(now);
            } else {
                tally.bad(now, turn);
            }
        }
        let share = f64::from(asked[0]) / 30_000.0;
        println!(
            "share of the one that flips {share:.4}, failed {failed} of 30000, the pool changed {changes} times"
        );
        assert_eq!(changes, 0);
        assert!(share <= 1.0 / 3.0 && failed < 500, "{share} {failed}");
        assert!(asked[1] > 10_000 && asked[2] > 10_000, "{asked:?}");
    }
}
