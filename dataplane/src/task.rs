//! One subtask: a mailbox actor that its slot's thread runs in small steps.
//!
//! ```text
//!  mail (barrier, commit, cancel, events) ──┐
//!  records, barriers, watermarks of input ──┼─► step ─► chain ─► outputs
//!  time (timers, buffer timeout) ───────────┘
//! ```

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use millstream_api::{
    context::Accumulators,
    flow::{self, Flow},
    head::Head,
    panics,
    signal::{Barrier, Signal},
    source::{SourceStatus, SourceTask},
    state::Snapshot,
};
use millstream_model::{
    config::BufferTimeout,
    fault::Failure,
    id::{CheckpointId, ExecutionAttemptId},
    log::{self, LogTask},
    message::{Report, SnapshotStats, TaskResult},
    state::ExecutionState,
    time::Watermark,
};

use crate::{
    clock,
    input::{GateInput, Polled},
    metrics::{Spent, TaskCounters},
    report::Reporter,
    slot_thread::LifeSign,
    snapshot::{Uploader, nanos_since},
};

/// Records that a task may handle before others of its slot have their turn.
const BUDGET: u32 = 1024;

/// What a task is told from outside its thread.
#[derive(Debug)]
pub(crate) enum TaskMail {
    /// For sources: put a barrier into the stream.
    Trigger(Barrier),
    Complete(CheckpointId),
    Aborted(CheckpointId),
    /// The coordinator of a source speaks.
    Event(Vec<u8>),
    Finish,
    Cancel,
    /// Something that the task cannot do without is gone.
    Fail(Failure),
}

/// Where a task's records come from.
pub(crate) enum Work {
    Source { source: Box<dyn SourceTask>, queue: VecDeque<SourceMail>, pause: Pause },
    Gate { head: Box<dyn Head>, input: Box<GateInput> },
}

/// What a source must see in the order in which it came: a split that the coordinator assigned after its snapshot must
/// not get into the reader's snapshot for the same checkpoint, or it would be read twice.
pub(crate) enum SourceMail {
    Barrier(Barrier),
    Event(Vec<u8>),
}

/// Whether a source has asked to be left alone.
#[derive(Default)]
pub(crate) struct Pause {
    /// `Some` if it has: until then, or until it is woken (`None`: only then).
    until: Option<Option<Instant>>,
}

impl Pause {
    /// Whether the source is not to be polled now, and when it is.
    fn is_on(&mut self, now: Instant) -> Option<Option<Instant>> {
        if self.until?.is_some_and(|until| until <= now) {
            self.until = None;
        }
        self.until
    }
}

/// How far a task has come in reading its input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Data {
    Flowing,
    /// The last watermark has been sent; operators may still have to fire timers for it.
    Ending,
    /// The end of data has been passed on. Only barriers follow.
    Ended,
}

pub(crate) struct Task {
    pub(crate) attempt: ExecutionAttemptId,
    name: String,
    /// What is logged in its steps belongs to it.
    log_task: Arc<LogTask>,
    work: Work,
    data: Data,
    /// Set by the task's wakers.
    woken: Arc<AtomicBool>,
    flow: Rc<Flow>,
    accumulators: Accumulators,
    counters: Arc<TaskCounters>,
    reporter: Reporter,
    uploader: Uploader,
    buffer_timeout: BufferTimeout,
    step_warning: Duration,
    /// Something was emitted since the last flush.
    dirty: bool,
    flushed: Instant,
    /// End of the last step: what lies between two steps was spent as that one ended.
    stepped: Instant,
    spending: Spent,
    /// The last to go.
    _sign: LifeSign,
}

/// What a task is made of besides its chain.
pub(crate) struct TaskParts {
    pub(crate) attempt: ExecutionAttemptId,
    pub(crate) name: String,
    pub(crate) log_task: Arc<LogTask>,
    pub(crate) work: Work,
    pub(crate) woken: Arc<AtomicBool>,
    pub(crate) flow: Rc<Flow>,
    pub(crate) accumulators: Accumulators,
    pub(crate) counters: Arc<TaskCounters>,
    pub(crate) reporter: Reporter,
    pub(crate) uploader: Uploader,
    pub(crate) buffer_timeout: BufferTimeout,
    pub(crate) step_warning: Duration,
    pub(crate) sign: LifeSign,
}

/// Whether a task wants to run again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// At once.
    Ready,
    /// When something arrives, or at this time.
    Wait(Option<Instant>),
    /// Never.
    Done,
}

impl Task {
    pub(crate) fn new(parts: TaskParts) -> Task {
        let now = clock::now();
        Task {
            attempt: parts.attempt,
            name: parts.name,
            log_task: parts.log_task,
            work: parts.work,
            data: Data::Flowing,
            woken: parts.woken,
            flow: parts.flow,
            accumulators: parts.accumulators,
            stepped: parts.counters.begun(),
            counters: parts.counters,
            reporter: parts.reporter,
            uploader: parts.uploader,
            buffer_timeout: parts.buffer_timeout,
            step_warning: parts.step_warning,
            dirty: false,
            flushed: now,
            spending: Spent::Idle,
            _sign: parts.sign,
        }
    }

    /// Handles one mail. What fails ends the task.
    pub(crate) fn on_mail(&mut self, mail: TaskMail) -> Step {
        match mail {
            TaskMail::Trigger(barrier) => {
                self.queue_for_source(SourceMail::Barrier(barrier));
                Step::Ready
            }
            TaskMail::Complete(checkpoint) => self.guarded(|task| task.signal(&mut Signal::Complete(checkpoint))),
            TaskMail::Aborted(checkpoint) => self.guarded(|task| {
                if let Work::Gate { input, .. } = &mut task.work {
                    input.on_aborted(checkpoint.0);
                }
                task.signal(&mut Signal::Aborted(checkpoint))
            }),
            TaskMail::Event(event) => {
                self.queue_for_source(SourceMail::Event(event));
                Step::Ready
            }
            TaskMail::Finish => {
                let mut result = TaskResult::default();
                let finished = self.guarded(|task| task.signal(&mut Signal::Finish(&mut result)));
                if finished == Step::Done {
                    return Step::Done;
                }
                // Sinks may have put sums of their own into the result.
                result.accumulators.append(&mut self.accumulators.totals());
                self.reporter.send(Report::Result { attempt: self.attempt, result });
                self.end(ExecutionState::Finished)
            }
            TaskMail::Fail(failure) => self.guarded(|_| Err(failure)),
            TaskMail::Cancel => {
                self.reporter.state(self.attempt, ExecutionState::Canceling);
                self.end(ExecutionState::Canceled)
            }
        }
    }

    fn queue_for_source(&mut self, mail: SourceMail) {
        if let Work::Source { queue, .. } = &mut self.work {
            queue.push_back(mail);
        }
    }

    /// Runs for a short while.
    pub(crate) fn step(&mut self) -> Step {
        let started = clock::now();
        self.counters.spent(self.spending, (started - self.stepped).as_nanos() as u64, Spent::Busy);
        self.flow.set_now_millis(clock::wall_millis());
        let mut next = Step::Done;
        let outcome = self.guarded(|task| {
            next = task.run(started)?;
            Ok(())
        });
        self.stepped = clock::now();
        let busy = self.stepped - started;
        self.spending = if self.flow.halted() { Spent::Backpressured } else { Spent::Idle };
        self.counters.spent(Spent::Busy, busy.as_nanos() as u64, self.spending);
        if outcome == Step::Done {
            return Step::Done;
        }
        if let Work::Gate { input, .. } = &mut self.work {
            input.end_step(self.stepped);
        }
        if busy > self.step_warning && !self.step_warning.is_zero() {
            let _entered = log::context::enter(&self.log_task);
            tracing::debug!(task = %self.name, subtask = self.attempt.subtask.index, ?busy, "a step kept its slot for long");
        }
        next
    }

    /// The step itself: what is left over, then time, then input.
    fn run(&mut self, now: Instant) -> Result<Step, Failure> {
        let room_changes = self.flow.room_changes();
        // Taken before anything is looked at, so a wake from now on counts for the next step.
        let woken = self.woken.swap(false, Ordering::SeqCst);
        if woken && let Work::Source { pause, .. } = &mut self.work {
            pause.until = None;
        }
        if woken || self.flow.halted() {
            self.dirty = true;
            self.signal(&mut Signal::Resume)?;
        }
        // Timers emit, so they wait for room; those that only end a wait for something outside must not.
        if !self.flow.full() && self.flow.now_millis() >= self.flow.next_clock_millis() {
            self.flow.take_next_clock();
            self.dirty = true;
            self.signal(&mut Signal::Clock)?;
        }
        if self.flow.halted() {
            return self.halted(room_changes, now);
        }
        if self.data == Data::Ending {
            self.end_data(now)?;
            return Ok(Step::Ready);
        }
        match &self.work {
            Work::Source { .. } => self.run_source(now),
            Work::Gate { .. } => self.run_gate(now),
        }
    }

    /// No record may enter. `room_changes` is as of before the step's resume.
    fn halted(&mut self, room_changes: u64, now: Instant) -> Result<Step, Failure> {
        // Consumers must see everything, or they could not make room.
        self.flush(now)?;
        if self.flow.only_waits() && self.let_barriers_pass(now)? {
            return Ok(Step::Ready);
        }
        if self.flow.room_changes() != room_changes {
            return Ok(Step::Ready);
        }
        Ok(match (self.flow.full(), self.flow.waits()) {
            (true, _) => Step::Wait(None),
            (false, true) => self.wait(None, now),
            (false, false) => Step::Ready,
        })
    }

    /// What an operator waits for may take long, and is part of its snapshot: a checkpoint need not wait, too. Returns
    /// whether there was anything.
    fn let_barriers_pass(&mut self, now: Instant) -> Result<bool, Failure> {
        match &mut self.work {
            Work::Source { source, queue, pause } => match queue.pop_front() {
                Some(SourceMail::Barrier(barrier)) => self.snapshot(barrier, now)?,
                Some(SourceMail::Event(event)) => {
                    pause.until = None;
                    source.on_event(&event)?;
                }
                None => return Ok(false),
            },
            Work::Gate { head, input } => match input.poll_control(&mut **head, now)? {
                Polled::Progress => self.dirty = true,
                Polled::Nothing => return Ok(false),
                Polled::Barrier(barrier, since) => self.snapshot(barrier, since)?,
                Polled::EndOfData => self.start_ending(now)?,
            },
        }
        Ok(true)
    }

    fn run_source(&mut self, now: Instant) -> Result<Step, Failure> {
        let Work::Source { source, queue, pause } = &mut self.work else { return Ok(Step::Done) };
        match queue.pop_front() {
            Some(SourceMail::Barrier(barrier)) => {
                self.snapshot(barrier, now)?;
                return Ok(Step::Ready);
            }
            Some(SourceMail::Event(event)) => {
                pause.until = None;
                source.on_event(&event)?;
                return Ok(Step::Ready);
            }
            None => {}
        }
        if self.data == Data::Ended {
            return Ok(self.wait(None, now));
        }
        if let Some(until) = pause.is_on(now) {
            return self.idle(until, now);
        }
        let budget = if self.buffer_timeout == BufferTimeout::EveryRecord { 1 } else { BUDGET };
        let (status, emitted) = source.poll(budget)?;
        self.after_poll(status, emitted, now)
    }

    fn after_poll(&mut self, status: SourceStatus, emitted: u32, now: Instant) -> Result<Step, Failure> {
        self.counters.read(u64::from(emitted), 0);
        self.dirty |= emitted > 0;
        match status {
            SourceStatus::More => {
                self.flush_if_due(now)?;
                Ok(Step::Ready)
            }
            SourceStatus::Idle => {
                self.pause_source(None);
                self.idle(None, now)
            }
            SourceStatus::IdleFor(pause) => {
                // From now on, not from the start of the step: the poll itself may have taken a while.
                let until = clock::now() + pause;
                self.pause_source(Some(until));
                self.idle(Some(until), now)
            }
            SourceStatus::End => {
                self.start_ending(now)?;
                Ok(Step::Ready)
            }
        }
    }

    fn pause_source(&mut self, until: Option<Instant>) {
        if let Work::Source { pause, .. } = &mut self.work {
            pause.until = Some(until);
        }
    }

    fn run_gate(&mut self, now: Instant) -> Result<Step, Failure> {
        let budget = if self.buffer_timeout == BufferTimeout::EveryRecord { 1 } else { BUDGET };
        if let Work::Gate { input, .. } = &mut self.work {
            input.set_budget(budget);
            // While the step runs, what waited before it; what is left is told at its end.
            self.counters.queued(input.queued_bytes());
        }
        loop {
            let Work::Gate { head, input } = &mut self.work else { return Ok(Step::Done) };
            if input.budget() == 0 || self.flow.halted() {
                break;
            }
            let polled = input.poll(&mut **head, now)?;
            match polled {
                Polled::Progress => self.dirty = true,
                Polled::Nothing => {
                    self.count_input();
                    return self.idle(None, now);
                }
                Polled::Barrier(barrier, since) => self.snapshot(barrier, since)?,
                Polled::EndOfData => {
                    self.count_input();
                    self.start_ending(now)?;
                    return Ok(Step::Ready);
                }
            }
        }
        self.count_input();
        self.flush_if_due(now)?;
        Ok(Step::Ready)
    }

    fn count_input(&mut self) {
        if let Work::Gate { input, .. } = &mut self.work {
            let (records, bytes) = input.take_counts();
            self.counters.read(records, bytes);
            self.counters.watermark(input.watermark().0.0);
            self.counters.queued(input.queued_bytes());
            self.counters.promised(input.promised());
        }
    }

    /// Nothing is at hand: what was emitted leaves at once, and the task waits.
    fn idle(&mut self, until: Option<Instant>, now: Instant) -> Result<Step, Failure> {
        if self.buffer_timeout == BufferTimeout::WhenFull {
            return Ok(if self.flow.halted() { Step::Ready } else { self.wait(until, now) });
        }
        self.flush(now)?;
        // An output without room has not asked to be woken yet: the next step's resume does that.
        Ok(if self.flow.halted() { Step::Ready } else { self.wait(until, now) })
    }

    /// Waits for news, for `until`, or for the next timer.
    fn wait(&self, until: Option<Instant>, now: Instant) -> Step {
        let millis = self.flow.next_clock_millis();
        let timer = (millis != i64::MAX).then(|| {
            let pause = millis.saturating_sub(self.flow.now_millis()).max(0) as u64;
            now + Duration::from_millis(pause)
        });
        Step::Wait(until.into_iter().chain(timer).min())
    }

    fn flush_if_due(&mut self, now: Instant) -> Result<(), Failure> {
        let is_due = match self.buffer_timeout {
            BufferTimeout::EveryRecord => true,
            BufferTimeout::After(timeout) => now.duration_since(self.flushed) >= timeout,
            BufferTimeout::WhenFull => false,
        };
        if is_due { self.flush(now) } else { Ok(()) }
    }

    fn flush(&mut self, now: Instant) -> Result<(), Failure> {
        if std::mem::take(&mut self.dirty) {
            self.signal(&mut Signal::Flush)?;
        }
        self.flushed = now;
        Ok(())
    }

    fn start_ending(&mut self, now: Instant) -> Result<(), Failure> {
        self.data = Data::Ending;
        self.signal(&mut Signal::Watermark(Watermark::MAX))?;
        if self.flow.halted() { Ok(()) } else { self.end_data(now) }
    }

    fn end_data(&mut self, now: Instant) -> Result<(), Failure> {
        self.data = Data::Ended;
        self.dirty = true;
        self.signal(&mut Signal::EndOfData)?;
        self.flush(now)?;
        self.reporter.send(Report::EndOfData { attempt: self.attempt });
        Ok(())
    }

    fn snapshot(&mut self, barrier: Barrier, since: Instant) -> Result<(), Failure> {
        let alignment_nanos = nanos_since(since);
        let started = clock::now();
        let mut snapshot = Snapshot::new(barrier);
        self.signal(&mut Signal::Barrier(&mut snapshot))?;
        let sync_nanos = nanos_since(started);
        let stats = SnapshotStats { alignment_nanos, sync_nanos, ..SnapshotStats::default() };
        self.uploader.store(self.attempt, snapshot, stats);
        Ok(())
    }

    fn signal(&mut self, signal: &mut Signal<'_>) -> Result<(), Failure> {
        match &mut self.work {
            Work::Source { source, .. } => source.signal(signal),
            Work::Gate { head, .. } => head.signal(signal),
        }
        Ok(())
    }

    fn position(&self) -> String {
        match &self.work {
            Work::Source { source, .. } => source.position(),
            Work::Gate { input, .. } => input.position(),
        }
    }

    /// Runs code of the chain; a failure or a panic ends the task with a report.
    fn guarded(&mut self, run: impl FnOnce(&mut Task) -> Result<(), Failure>) -> Step {
        let _entered = log::context::enter(&self.log_task);
        let ran = catch_unwind(AssertUnwindSafe(|| run(self)));
        let failure = match ran {
            Ok(Ok(())) => return Step::Ready,
            Ok(Err(failure)) => failure,
            Err(payload) => flow::failure_of_panic(payload, panics::take_facts()),
        };
        // The position is asked of the same reader, which may be in no state to tell.
        let position = catch_unwind(AssertUnwindSafe(|| self.position())).ok();
        let failure = position.into_iter().fold(failure, |failure, position| failure.at(position));
        let failure = failure.in_operator(&self.name);
        tracing::error!(subtask = self.attempt.subtask.index, %failure, "a task has failed");
        self.close();
        self.reporter.failed(self.attempt, failure);
        Step::Done
    }

    fn end(&mut self, state: ExecutionState) -> Step {
        let _entered = log::context::enter(&self.log_task);
        self.close();
        self.reporter.state(self.attempt, state);
        Step::Done
    }

    fn close(&mut self) {
        let closed = catch_unwind(AssertUnwindSafe(|| self.signal(&mut Signal::Close)));
        if closed.is_err() {
            tracing::warn!(task = %self.name, "an operator panicked while it was closed");
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.counters.ended(clock::now());
    }
}
