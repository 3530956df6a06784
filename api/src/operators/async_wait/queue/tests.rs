//! The queue by itself: records, results and times go in, actions come out.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::operators::async_wait::settings::AsyncRetry;

type Queue = AsyncQueue<u64, u64>;

const NO_LIMIT: Duration = Duration::ZERO;

fn at(millis: i64) -> EventTime {
    EventTime(millis)
}

fn watermark(millis: i64) -> Fence {
    Fence::Watermark(Watermark(at(millis)))
}

/// What came out, without what was only started.
#[derive(PartialEq, Eq, Debug, Clone, Copy)]
enum Seen {
    Result(u64),
    GaveUp(u64),
    Fence(Fence),
}

/// A queue with a time, and the attempts that run.
struct Rig {
    queue: Queue,
    running: Vec<(Ticket, u64)>,
    now: i64,
    has_room: bool,
}

impl Rig {
    fn new(settings: AsyncWait) -> Rig {
        Rig { queue: Queue::new(settings), running: Vec::new(), now: 0, has_room: true }
    }

    fn accept(&mut self, records: impl IntoIterator<Item = u64>) {
        records.into_iter().for_each(|record| self.queue.accept(record, EventTime::MIN));
    }

    /// Does all there is to do.
    fn advance(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        while let Some(action) = self.queue.next(self.now, self.has_room) {
            match action {
                Action::Start(ticket, record) => self.running.push((ticket, *record)),
                Action::GiveUp(ticket, record) => {
                    let record = *record;
                    seen.push(Seen::GaveUp(record));
                    self.running.retain(|(running, _)| running.serial != ticket.serial);
                    self.queue.substitute(ticket, Ok(record + 1_000)).unwrap();
                }
                Action::Emit(result, _) => seen.push(Seen::Result(result)),
                Action::Fence(fence) => seen.push(Seen::Fence(fence)),
            }
        }
        seen
    }

    fn take(&mut self, record: u64) -> Ticket {
        let index = self.running.iter().position(|(_, running)| *running == record);
        self.running.remove(index.unwrap_or_else(|| panic!("{record} is not running"))).0
    }

    /// The record's attempt succeeds; its result is the record.
    fn complete(&mut self, record: u64) {
        let ticket = self.take(record);
        self.queue.complete(ticket, Ok(record), |_| true, self.now).unwrap();
    }

    fn fail(&mut self, record: u64) -> Result<(), Failure> {
        let ticket = self.take(record);
        let worth_retrying = |failure: &Failure| failure.message != "hopeless";
        let message = if record == 13 { "hopeless" } else { "busy" };
        self.queue.complete(ticket, Err(Failure::new(message)), worth_retrying, self.now)
    }

    fn running(&self) -> Vec<u64> {
        self.running.iter().map(|(_, record)| *record).collect()
    }
}

fn results(results: impl IntoIterator<Item = u64>) -> Vec<Seen> {
    results.into_iter().map(Seen::Result).collect()
}

#[test]
fn ordered_results_leave_in_the_order_of_their_records() {
    let mut rig = Rig::new(AsyncWait::ordered(NO_LIMIT));
    rig.accept(0..4);
    assert_eq!(rig.advance(), []);
    rig.complete(2);
    rig.complete(1);
    assert_eq!(rig.advance(), []);
    rig.complete(0);
    assert_eq!(rig.advance(), results([0, 1, 2]));
    rig.complete(3);
    assert_eq!(rig.advance(), results([3]));
    assert!(rig.queue.is_empty());
}

#[test]
fn unordered_results_leave_as_they_come_but_never_pass_a_watermark() {
    let mut rig = Rig::new(AsyncWait::unordered(NO_LIMIT));
    rig.accept(0..3);
    rig.queue.fence(watermark(10));
    rig.accept(3..6);
    assert_eq!(rig.advance(), []);
    rig.complete(5);
    rig.complete(2);
    rig.complete(4);
    assert_eq!(rig.advance(), results([2]));
    rig.complete(0);
    assert_eq!(rig.advance(), results([0]));
    rig.complete(1);
    let expected = [Seen::Result(1), Seen::Fence(watermark(10)), Seen::Result(4), Seen::Result(5)];
    assert_eq!(rig.advance(), expected);
    rig.complete(3);
    assert_eq!(rig.advance(), results([3]));
}

#[test]
fn of_watermarks_with_nothing_between_them_only_the_last_is_kept() {
    let mut rig = Rig::new(AsyncWait::ordered(NO_LIMIT));
    rig.accept([0]);
    rig.queue.fence(watermark(1));
    rig.queue.fence(watermark(2));
    rig.queue.fence(Fence::Idle(true));
    rig.queue.fence(watermark(3));
    rig.advance();
    rig.complete(0);
    let fences = [watermark(2), Fence::Idle(true), watermark(3)].map(Seen::Fence);
    assert_eq!(rig.advance(), [&results([0])[..], &fences[..]].concat());
}

#[test]
fn no_more_records_are_worked_on_than_the_capacity_even_after_a_burst() {
    for settings in [AsyncWait::ordered(NO_LIMIT), AsyncWait::unordered(NO_LIMIT)] {
        let mut rig = Rig::new(settings.capacity(2));
        assert!(!rig.queue.is_full());
        rig.accept(0..5);
        assert!(rig.queue.is_full());
        assert_eq!(rig.advance(), []);
        assert_eq!(rig.running(), [0, 1]);
        // A result that cannot leave keeps its place.
        rig.has_room = false;
        rig.complete(0);
        assert_eq!(rig.advance(), []);
        assert!(rig.queue.has_output());
        assert_eq!(rig.running(), [1]);
        rig.has_room = true;
        assert_eq!(rig.advance(), results([0]));
        assert_eq!(rig.running(), [1, 2]);
        for record in 1..5 {
            rig.complete(record);
            assert_eq!(rig.advance(), results([record]));
        }
        assert!(!rig.queue.is_full() && rig.queue.is_empty());
    }
}

#[test]
fn a_record_without_a_result_in_time_is_given_up_and_its_late_result_ignored() {
    let mut rig = Rig::new(AsyncWait::ordered(Duration::from_millis(100)).capacity(2));
    rig.accept([0, 1, 2]);
    rig.advance();
    assert_eq!(rig.queue.wake_millis(), Some(100));
    rig.now = 60;
    rig.complete(1);
    let late = rig.running[0].0;
    rig.now = 99;
    assert_eq!(rig.advance(), []);
    rig.now = 100;
    rig.has_room = false;
    assert_eq!(rig.advance(), [Seen::GaveUp(0)]);
    rig.queue.complete(late, Ok(0), |_| true, 100).unwrap();
    rig.has_room = true;
    assert_eq!(rig.advance(), results([1_000, 1]));
    rig.queue.complete(late, Ok(0), |_| true, 100).unwrap();
    // The time of a record that had to wait begins with its first attempt.
    assert_eq!((rig.running(), rig.queue.wake_millis()), (vec![2], Some(200)));
    rig.complete(2);
    assert_eq!((rig.advance(), rig.queue.wake_millis()), (results([2]), None));
}

#[test]
fn a_failed_attempt_is_repeated_as_often_as_the_strategy_says_and_then_names_the_record() {
    let retry = AsyncRetry::fixed_delay(2, Duration::from_millis(10));
    let mut rig = Rig::new(AsyncWait::unordered(Duration::from_millis(1_000)).retry(retry));
    rig.queue.accept(7, at(42));
    rig.accept([13]);
    for start in [0, 10, 20] {
        rig.now = start;
        rig.advance();
        assert!(rig.running().contains(&7), "at {start}");
        if start < 20 {
            rig.fail(7).unwrap();
            assert_eq!(rig.queue.wake_millis(), Some(start + 10));
            rig.now = start + 9;
            rig.advance();
            assert!(!rig.running().contains(&7));
        }
    }
    let failure = rig.fail(7).unwrap_err();
    assert_eq!(failure.position.as_deref(), Some("record 1 into the operator, time stamp 42"));
    let failure = rig.fail(13).unwrap_err();
    assert_eq!((failure.position.as_deref(), &*failure.message), (Some("record 2 into the operator"), "hopeless"));
}

#[test]
fn the_time_of_a_record_is_that_of_all_attempts_together() {
    let retry = AsyncRetry::fixed_delay(9, Duration::from_millis(70));
    let mut rig = Rig::new(AsyncWait::ordered(Duration::from_millis(100)).retry(retry));
    rig.accept([0]);
    rig.advance();
    rig.now = 50;
    rig.fail(0).unwrap();
    rig.now = 100;
    assert_eq!(rig.advance(), [Seen::GaveUp(0), Seen::Result(1_000)]);
    assert_eq!(rig.queue.wake_millis(), None, "no retry is left behind");
    rig.now = 120;
    assert_eq!(rig.advance(), []);
}

#[test]
fn an_earlier_attempt_must_not_answer_for_a_later_one() {
    let retry = AsyncRetry::fixed_delay(1, NO_LIMIT);
    let mut rig = Rig::new(AsyncWait::ordered(NO_LIMIT).retry(retry));
    rig.accept([0]);
    rig.advance();
    let first = rig.running[0].0;
    rig.fail(0).unwrap();
    rig.advance();
    rig.queue.complete(first, Ok(99), |_| true, 0).unwrap();
    assert_eq!(rig.advance(), []);
    rig.complete(0);
    assert_eq!(rig.advance(), results([0]));
}

#[test]
fn at_the_end_of_the_input_nothing_may_enter_until_the_last_record_has_left() {
    let mut rig = Rig::new(AsyncWait::ordered(NO_LIMIT));
    rig.accept([0]);
    assert!(!rig.queue.is_full());
    rig.queue.fence(Fence::Watermark(Watermark::MAX));
    assert!(rig.queue.is_full());
    rig.advance();
    rig.complete(0);
    assert_eq!(rig.advance(), [Seen::Result(0), Seen::Fence(Fence::Watermark(Watermark::MAX))]);
    assert!(!rig.queue.is_full());
    rig.accept([1]);
    assert!(!rig.queue.is_full(), "the end is over");
}

#[test]
fn a_checkpoint_holds_what_was_not_emitted_whether_or_not_its_result_is_there() {
    let mut rig = Rig::new(AsyncWait::unordered(NO_LIMIT).capacity(3));
    rig.accept(0..2);
    rig.queue.fence(watermark(1));
    rig.accept(2..5);
    rig.advance();
    rig.complete(1);
    rig.complete(2);
    assert_eq!(rig.advance(), results([1]));
    let unemitted: Vec<u64> = rig.queue.unemitted().map(|(_, record)| *record).collect();
    assert_eq!(unemitted, [0, 2, 3, 4]);
}

/// What a random test does next.
#[derive(Clone, Debug)]
enum Step {
    Accept,
    Fence,
    /// The result of one of the running attempts comes.
    Complete(prop::sample::Index),
    Fail(prop::sample::Index),
    Pass(i64),
    Room(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Accept),
        1 => Just(Step::Fence),
        4 => any::<prop::sample::Index>().prop_map(Step::Complete),
        1 => any::<prop::sample::Index>().prop_map(Step::Fail),
        1 => (0_i64..40).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Room),
    ]
}

proptest! {
    #[test]
    fn every_record_leaves_once_between_its_fences_whatever_happens(
        steps in prop::collection::vec(step(), 0..120),
        is_ordered: bool,
        capacity in 1_u32..6,
    ) {
        let timeout = Duration::from_millis(50);
        let settings = if is_ordered { AsyncWait::ordered(timeout) } else { AsyncWait::unordered(timeout) };
        let retry = AsyncRetry::fixed_delay(u32::MAX, Duration::from_millis(10));
        let mut rig = Rig::new(settings.capacity(capacity).retry(retry));
        // Records between two fences, by the fence before them; and the same of what came out.
        let (mut entered, mut left) = (vec![vec![]], vec![vec![]]);
        let mut next = 0;
        let mut note = |seen: Vec<Seen>| for seen in seen {
            match seen {
                Seen::Result(record) => left.last_mut().unwrap().push(record % 1_000),
                Seen::Fence(_) => left.push(vec![]),
                Seen::GaveUp(_) => {}
            }
        };
        for step in steps {
            match step {
                Step::Accept => {
                    rig.accept([next]);
                    entered.last_mut().unwrap().push(next);
                    next += 1;
                }
                Step::Fence if rig.queue.is_empty() || entered.last().unwrap().is_empty() => {}
                Step::Fence => {
                    rig.queue.fence(watermark(next as i64));
                    entered.push(vec![]);
                }
                Step::Complete(index) if !rig.running.is_empty() => rig.complete(index.get(&rig.running).1),
                // 13 cannot be mended.
                Step::Fail(index) if !rig.running.is_empty() && index.get(&rig.running).1 != 13 => {
                    rig.fail(index.get(&rig.running).1).unwrap();
                }
                Step::Complete(_) | Step::Fail(_) => {}
                Step::Pass(millis) => rig.now += millis,
                Step::Room(has_room) => rig.has_room = has_room,
            }
            note(rig.advance());
            let unemitted = rig.queue.unemitted().count();
            prop_assert!(rig.running.len() <= capacity as usize);
            prop_assert!(unemitted <= capacity as usize || rig.queue.is_full());
        }
        rig.has_room = true;
        note(rig.advance());
        while let Some(wake) = rig.queue.wake_millis() {
            rig.now = rig.now.max(wake);
            note(rig.advance());
        }
        prop_assert!(rig.queue.is_empty(), "everything leaves in the end");
        if !is_ordered {
            left.iter_mut().for_each(|records| records.sort_unstable());
        }
        prop_assert_eq!(left, entered);
    }
}
