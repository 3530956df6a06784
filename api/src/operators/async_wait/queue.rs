//! The records of an async operator whose results are not all there: a pure decider. It is told of records, fences,
//! results and the time, and says what to start, to give up and to emit.
//!
//! ```text
//!  accept, fence ──► | record | record | watermark | record | …  ──► Emit, Fence
//!                        │  ▲
//!                  Start ▼  │ complete
//!                     attempts
//! ```
//! Invariant: the records that have been started and not emitted are never more than the capacity. There may be more
//! records than that, after a burst from one record or after a restart at a lower parallelism; these wait. Those of a burst
//! count as overflow, which is bounded; those of a checkpoint do not, for they are as many as the capacities once were.
//!
//! Flink has these rules in `OrderedStreamElementQueue`, `UnorderedStreamElementQueue` and `AsyncWaitOperator`.

use std::collections::{BTreeSet, VecDeque};

use millstream_model::{
    fault::Failure,
    time::{EventTime, Watermark},
};

use super::settings::{AsyncWait, Order};

/// One attempt at one record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ticket {
    /// Numbers records and fences in the order in which they came.
    pub(crate) serial: u64,
    /// From 1.
    pub(crate) attempt: u32,
}

/// Something that later records must not overtake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fence {
    Watermark(Watermark),
    Idle(bool),
}

/// What is to be done next.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Action<'q, T, U> {
    /// Run the function on the record.
    Start(Ticket, &'q T),
    /// The record has no more time: nobody waits for this attempt. The answer is to be given by `substitute`.
    GiveUp(Ticket, &'q T),
    /// Emit the result of a record with this time stamp.
    Emit(U, EventTime),
    /// Pass it on.
    Fence(Fence),
}

enum Place<T, U> {
    Record(Box<Entry<T, U>>),
    Fence(Fence),
}

struct Entry<T, U> {
    record: T,
    time: EventTime,
    /// How many records had come with this one, for messages.
    number: u64,
    attempts: u32,
    /// What it takes as long as it waits for a place.
    overflow_bytes: u64,
    /// `i64::MAX` before the first attempt, and if there is no limit.
    deadline_millis: i64,
    state: State<U>,
}

enum State<U> {
    New,
    Running,
    /// Again at this time.
    Retrying(i64),
    /// Without time, and without a substitute yet.
    GivenUp,
    Done(U),
}

pub(crate) struct AsyncQueue<T, U> {
    settings: AsyncWait,
    /// Neighbours have neighbouring serials, except where an unordered record has left.
    line: VecDeque<(u64, Place<T, U>)>,
    next_serial: u64,
    /// Records that ever came.
    accepted: u64,
    /// Records in the line.
    records: usize,
    /// Those that were never started, in order.
    new: VecDeque<u64>,
    /// What those take that came with a burst.
    overflow_bytes: u64,
    /// The fences in the line, in order.
    fences: VecDeque<u64>,
    /// Unordered: those before the first fence that have their result, in the order in which they got it.
    done: VecDeque<u64>,
    /// When attempts end, and when the next ones begin.
    deadlines: BTreeSet<(i64, u64)>,
    retries: BTreeSet<(i64, u64)>,
    /// The last watermark of all is in the line.
    is_ending: bool,
}

impl<T, U> AsyncQueue<T, U> {
    /// What the queue has for each record, besides what the record has out of line.
    const ENTRY_BYTES: u64 = (size_of::<Entry<T, U>>() + size_of::<(u64, Place<T, U>)>() + size_of::<u64>()) as u64;

    pub(crate) fn new(settings: AsyncWait) -> Self {
        AsyncQueue {
            settings,
            line: VecDeque::new(),
            next_serial: 0,
            accepted: 0,
            records: 0,
            new: VecDeque::new(),
            overflow_bytes: 0,
            fences: VecDeque::new(),
            done: VecDeque::new(),
            deadlines: BTreeSet::new(),
            retries: BTreeSet::new(),
            is_ending: false,
        }
    }

    /// Takes a record, even beyond the capacity.
    pub(crate) fn accept(&mut self, record: T, time: EventTime) {
        self.accept_overflow(record, time, 0);
    }

    /// Takes a record of a burst, for which there is no place: with what else lies in memory for it, it takes about
    /// `record_bytes` until it is started.
    pub(crate) fn accept_overflow(&mut self, record: T, time: EventTime, record_bytes: u64) {
        self.accepted += 1;
        self.records += 1;
        let overflow_bytes = if record_bytes == 0 { 0 } else { record_bytes + Self::ENTRY_BYTES };
        self.overflow_bytes += overflow_bytes;
        let (number, deadline_millis) = (self.accepted, i64::MAX);
        let entry = Entry { record, time, number, attempts: 0, overflow_bytes, deadline_millis, state: State::New };
        let serial = self.append(Place::Record(Box::new(entry)));
        self.new.push_back(serial);
    }

    /// Takes what must not pass on before all records that are here.
    pub(crate) fn fence(&mut self, fence: Fence) {
        self.is_ending |= fence == Fence::Watermark(Watermark::MAX);
        // Of two fences of a kind with nothing between them, the second says it all.
        if let Some((_, Place::Fence(last))) = self.line.back_mut()
            && std::mem::discriminant(last) == std::mem::discriminant(&fence)
        {
            *last = fence;
            return;
        }
        let serial = self.append(Place::Fence(fence));
        self.fences.push_back(serial);
    }

    fn append(&mut self, place: Place<T, U>) -> u64 {
        let serial = self.next_serial;
        self.next_serial += 1;
        self.line.push_back((serial, place));
        serial
    }

    /// Nothing is here, not even a fence.
    pub(crate) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Whether no further record is wanted for now. At the end of the input that is so until the last record has left:
    /// the end must not overtake it.
    pub(crate) fn is_full(&self) -> bool {
        self.records >= self.settings.capacity as usize || (self.is_ending && self.records > 0)
    }

    /// Whether there is a place for one more record, so that it would be started at once.
    pub(crate) fn has_place(&self) -> bool {
        self.records < self.settings.capacity as usize
    }

    /// What the records of bursts take that were not started.
    pub(crate) fn overflow_bytes(&self) -> u64 {
        self.overflow_bytes
    }

    /// The records that are not emitted, in the order in which they came, with their time stamps.
    pub(crate) fn unemitted(&self) -> impl Iterator<Item = (EventTime, &T)> {
        self.line.iter().filter_map(|(_, place)| match place {
            Place::Record(entry) => Some((entry.time, &entry.record)),
            Place::Fence(_) => None,
        })
    }

    /// When `next` has to be called again though nothing was completed.
    pub(crate) fn wake_millis(&self) -> Option<i64> {
        let first = |set: &BTreeSet<(i64, u64)>| set.first().map(|(millis, _)| *millis);
        first(&self.deadlines).into_iter().chain(first(&self.retries)).min()
    }

    /// Whether something could be emitted.
    pub(crate) fn has_output(&self) -> bool {
        match self.line.front() {
            Some((_, Place::Fence(_))) => true,
            Some((_, Place::Record(entry))) => !self.done.is_empty() || matches!(entry.state, State::Done(_)),
            None => false,
        }
    }

    /// An attempt has ended. What nobody waits for any more is ignored.
    ///
    /// # Errors
    /// If it failed for good.
    pub(crate) fn complete(
        &mut self,
        ticket: Ticket,
        outcome: Result<U, Failure>,
        worth_retrying: impl FnOnce(&Failure) -> bool,
        now_millis: i64,
    ) -> Result<(), Failure> {
        let retry = self.settings.retry;
        let Some(entry) = self.entry(ticket.serial) else { return Ok(()) };
        if !matches!(entry.state, State::Running) || entry.attempts != ticket.attempt {
            return Ok(());
        }
        match outcome {
            Ok(result) => {
                entry.state = State::Done(result);
                self.finished(ticket.serial);
                Ok(())
            }
            Err(failure) => match retry.and_then(|retry| retry.delay_millis(ticket.attempt)) {
                Some(delay) if worth_retrying(&failure) => {
                    let at = now_millis.saturating_add(delay);
                    entry.state = State::Retrying(at);
                    self.retries.insert((at, ticket.serial));
                    Ok(())
                }
                _ => Err(failure.at(entry.position())),
            },
        }
    }

    /// What is to stand for the result of a record that had no more time.
    ///
    /// # Errors
    /// If nothing is to stand for it.
    pub(crate) fn substitute(&mut self, ticket: Ticket, result: Result<U, Failure>) -> Result<(), Failure> {
        let entry = self.entry(ticket.serial).expect("a record leaves only with a result");
        assert!(matches!(entry.state, State::GivenUp), "only what was given up needs a substitute");
        entry.state = State::Done(result.map_err(|failure| failure.at(entry.position()))?);
        self.finished(ticket.serial);
        Ok(())
    }

    /// The next thing to be done, if there is any; nothing is emitted unless `has_room`.
    pub(crate) fn next(&mut self, now_millis: i64, has_room: bool) -> Option<Action<'_, T, U>> {
        if let Some((_, serial)) = pop_due(&mut self.deadlines, now_millis) {
            return Some(self.give_up(serial));
        }
        if let Some((_, serial)) = pop_due(&mut self.retries, now_millis) {
            return Some(self.start(serial, now_millis));
        }
        if self.records - self.new.len() < self.settings.capacity as usize
            && let Some(serial) = self.new.pop_front()
        {
            return Some(self.start(serial, now_millis));
        }
        if has_room { self.emit() } else { None }
    }

    fn start(&mut self, serial: u64, now_millis: i64) -> Action<'_, T, U> {
        let timeout = self.settings.timeout_millis;
        let index = self.index(serial).expect("a record leaves only with a result");
        let Place::Record(entry) = &mut self.line[index].1 else { unreachable!("fences are not started") };
        entry.attempts += 1;
        entry.state = State::Running;
        self.overflow_bytes -= std::mem::take(&mut entry.overflow_bytes);
        // The time of a record is that of all its attempts together.
        if let (1, Some(timeout)) = (entry.attempts, timeout) {
            entry.deadline_millis = now_millis.saturating_add(timeout);
            self.deadlines.insert((entry.deadline_millis, serial));
        }
        Action::Start(Ticket { serial, attempt: entry.attempts }, &entry.record)
    }

    fn give_up(&mut self, serial: u64) -> Action<'_, T, U> {
        let index = self.index(serial).expect("a deadline is removed together with its record");
        let Place::Record(entry) = &mut self.line[index].1 else { unreachable!("fences have no deadline") };
        if let State::Retrying(at) = entry.state {
            self.retries.remove(&(at, serial));
        }
        entry.state = State::GivenUp;
        Action::GiveUp(Ticket { serial, attempt: entry.attempts }, &entry.record)
    }

    fn emit(&mut self) -> Option<Action<'_, T, U>> {
        let index = match (self.line.front()?, self.done.front()) {
            ((_, Place::Record(entry)), None) if !matches!(entry.state, State::Done(_)) => return None,
            (_, None) => 0,
            (_, Some(serial)) => {
                let index = self.index(*serial).expect("a record leaves only with a result");
                self.done.pop_front();
                index
            }
        };
        match self.line.remove(index)?.1 {
            Place::Record(entry) => {
                self.records -= 1;
                let State::Done(result) = entry.state else { unreachable!("only results are emitted") };
                Some(Action::Emit(result, entry.time))
            }
            Place::Fence(fence) => {
                self.fences.pop_front();
                self.is_ending &= fence != Fence::Watermark(Watermark::MAX);
                self.open_to_next_fence();
                Some(Action::Fence(fence))
            }
        }
    }

    /// A record has its result.
    fn finished(&mut self, serial: u64) {
        let deadline = self.entry(serial).map_or(i64::MAX, |entry| entry.deadline_millis);
        self.deadlines.remove(&(deadline, serial));
        if self.settings.order == Order::Unordered && self.fences.front().is_none_or(|fence| serial < *fence) {
            self.done.push_back(serial);
        }
    }

    /// The first fence has left: results up to the next one may leave, too.
    fn open_to_next_fence(&mut self) {
        if self.settings.order == Order::Unordered {
            let open = self.line.iter().take_while(|(_, place)| matches!(place, Place::Record(_)));
            let done = open
                .filter(|(_, place)| matches!(place, Place::Record(entry) if matches!(entry.state, State::Done(_))));
            self.done.extend(done.map(|(serial, _)| *serial));
        }
    }

    fn index(&self, serial: u64) -> Option<usize> {
        self.line.binary_search_by_key(&serial, |(serial, _)| *serial).ok()
    }

    fn entry(&mut self, serial: u64) -> Option<&mut Entry<T, U>> {
        let index = self.index(serial)?;
        match &mut self.line[index].1 {
            Place::Record(entry) => Some(entry),
            Place::Fence(_) => None,
        }
    }
}

impl<T, U> Entry<T, U> {
    fn position(&self) -> String {
        let time = if self.time == EventTime::MIN { String::new() } else { format!(", time stamp {}", self.time.0) };
        format!("record {} into the operator{time}", self.number)
    }
}

fn pop_due(times: &mut BTreeSet<(i64, u64)>, now_millis: i64) -> Option<(i64, u64)> {
    times.first().is_some_and(|(millis, _)| *millis <= now_millis).then(|| times.pop_first())?
}

#[cfg(test)]
mod tests;
