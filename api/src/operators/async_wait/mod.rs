//! Async functions: records whose results come later, from the I/O runtime. Flink's `AsyncWaitOperator`.
//!
//! ```text
//!  record ──► queue ──Start──► attempt (I/O runtime)
//!               ▲                 │ arrivals, TaskWaker
//!               └──── complete ◄──┘
//!             queue ──Emit──► what is behind
//! ```
//!
//! | Look here for | module |
//! |---|---|
//! | the operator: a thin driver | this one |
//! | what is started, given up and emitted, and when | [`queue`] |
//! | one run of the function | [`attempt`] |
//! | the records in a checkpoint | [`in_flight`] |
//! | closures as functions | [`closures`] |
//! | order, timeout, capacity, retries | [`settings`] |

use std::{collections::HashMap, rc::Rc, sync::Arc};

use millstream_model::{fault::Failure, id::OperatorId, time::EventTime};

mod attempt;
pub(crate) mod closures;
mod in_flight;
mod queue;
pub mod settings;

use self::{
    attempt::{Arrival, Arrivals, Attempt, Hold},
    queue::{Action, AsyncQueue, Fence, Ticket},
    settings::AsyncWait,
};
use crate::{
    context::Services,
    factory::{Build, Product},
    flow::{self, Flow},
    function::AsyncFunction,
    operators::stateless::node,
    overflow::Overflow,
    push::{Forward, Operator, Out},
    record::{Record, archive},
    signal::Signal,
};

struct AsyncOperator<P: AsyncFunction> {
    function: Arc<P>,
    queue: AsyncQueue<P::In, Vec<P::Out>>,
    /// Of the records that are being worked on, by serial.
    holds: HashMap<u64, Hold>,
    arrivals: Arc<Arrivals<Vec<P::Out>>>,
    /// Empty between two calls.
    arrived: Vec<Arrival<Vec<P::Out>>>,
    flow: Rc<Flow>,
    services: Rc<dyn Services>,
    operator: OperatorId,
    name: Rc<str>,
    overflow: Overflow,
    /// As the flow was told.
    waits: bool,
    paused: bool,
}

impl<P: AsyncFunction> AsyncOperator<P> {
    /// Takes over what has arrived.
    fn receive(&mut self) {
        self.arrivals.take(&mut self.arrived);
        let now = self.flow.now_millis();
        for (ticket, outcome) in self.arrived.drain(..) {
            // The hold may already be that of a later attempt; then this one was given up.
            let worth_retrying = |failure: &Failure| self.function.is_worth_retrying(failure);
            self.queue.complete(ticket, outcome, worth_retrying, now).unwrap_or_else(|failure| flow::fail(failure));
        }
    }

    /// Does what is to be done now. Without `out` nothing is emitted.
    fn advance(&mut self, mut out: Option<&mut Out<'_, P::Out>>) {
        let now = self.flow.now_millis();
        loop {
            let has_room = out.as_ref().is_some_and(|out| !out.is_blocked(&self.flow));
            let Some(action) = self.queue.next(now, has_room) else { break };
            match (action, &mut out) {
                (Action::Start(ticket, record), _) => {
                    let record = P::In::own(record.handle());
                    self.start(ticket, record);
                }
                (Action::GiveUp(ticket, record), _) => {
                    let record = P::In::own(record.handle());
                    self.holds.remove(&ticket.serial);
                    let substitute = self.function.timeout(record);
                    self.queue.substitute(ticket, substitute).unwrap_or_else(|failure| flow::fail(failure));
                }
                (Action::Emit(records, time), Some(out)) => {
                    self.flow.set_timestamp(time);
                    records.iter().for_each(|record| out.0.push(record.handle()));
                }
                (Action::Fence(fence), Some(out)) => out.signal(&mut match fence {
                    Fence::Watermark(watermark) => Signal::Watermark(watermark),
                    Fence::Idle(idle) => Signal::Idle(idle),
                }),
                (Action::Emit(..) | Action::Fence(_), None) => unreachable!("nothing is emitted without room"),
            }
        }
        if let Some(millis) = self.queue.wake_millis() {
            self.flow.wake_at(millis);
        }
        self.tell_flow(out.is_some());
    }

    /// Takes a record that the operator in front has emitted without looking, if there is memory for it.
    #[cold]
    fn accept_overflow(&mut self, record: <P::In as Record>::Ref<'_>, time: EventTime) {
        let bytes = archive::write_alone::<P::In>(record).as_slice().len() as u64;
        self.queue.accept_overflow(P::In::own(record), time, bytes.max(1));
        self.overflow.set(self.queue.overflow_bytes());
        let checked = self.overflow.check(format_args!("in front of the async function '{}'", self.name));
        checked.unwrap_or_else(|failure| flow::fail_caller(failure));
    }

    fn start(&mut self, ticket: Ticket, record: P::In) {
        let future = self.function.clone().invoke(record);
        let (attempt, hold) = Attempt::new(future, ticket, &self.arrivals);
        self.holds.insert(ticket.serial, hold);
        self.services.spawn(Box::pin(attempt));
    }

    /// Says whether records may enter. `tried` is whether everything was emitted that there was room for.
    fn tell_flow(&mut self, tried: bool) {
        self.overflow.set(self.queue.overflow_bytes());
        let waits = self.queue.is_full();
        match (std::mem::replace(&mut self.waits, waits), waits) {
            (false, true) => self.flow.operator_waits(),
            (true, false) => self.flow.operator_goes_on(),
            _ => {}
        }
        // What is emitted when there is room is for the task to remember; what was not tried, for a wake to come.
        let paused = if tried { self.queue.has_output() } else { self.paused };
        match (std::mem::replace(&mut self.paused, paused), paused) {
            (false, true) => self.flow.operator_paused(),
            (true, false) => self.flow.operator_resumed(),
            _ => {}
        }
    }

    /// Keeps a fence behind the records that came before it.
    fn hold_back(&mut self, fence: Fence) -> Forward {
        if self.queue.is_empty() {
            return Forward::Now;
        }
        self.queue.fence(fence);
        self.tell_flow(false);
        Forward::Hold
    }
}

impl<P: AsyncFunction> Operator<P::In, P::Out> for AsyncOperator<P> {
    fn process(&mut self, record: <P::In as Record>::Ref<'_>, _: &mut Out<'_, P::Out>) {
        let time = self.flow.timestamp();
        if self.queue.has_place() {
            self.queue.accept(P::In::own(record), time);
        } else {
            self.accept_overflow(record, time);
        }
        // Nothing is emitted here: the operator in front may be about to emit more with the same time stamp.
        self.advance(None);
    }

    fn signal(&mut self, signal: &mut Signal<'_>, out: &mut Out<'_, P::Out>) -> Forward {
        match signal {
            Signal::Resume | Signal::Clock => {
                self.receive();
                self.advance(Some(out));
            }
            Signal::Watermark(watermark) => return self.hold_back(Fence::Watermark(*watermark)),
            Signal::Idle(idle) => return self.hold_back(Fence::Idle(*idle)),
            Signal::Barrier(snapshot) => match in_flight::sections(self.operator, self.queue.unemitted()) {
                Ok(sections) => snapshot.sections.extend(sections),
                Err(failure) => flow::fail(failure),
            },
            Signal::EndOfData => {
                assert!(
                    self.queue.is_empty(),
                    "the last watermark comes before the end of data, and waits for all results"
                );
            }
            Signal::Close => {
                self.holds.clear();
                self.function.close();
            }
            _ => {}
        }
        Forward::Now
    }

    fn waits(&self) -> bool {
        self.waits
    }
}

/// The factory; its configuration is the operator's and that of its function.
pub(crate) fn async_wait<P: AsyncFunction>(mut build: Build<'_>) -> Result<Product, Failure> {
    let (settings, conf): (AsyncWait, P::Conf) = build.conf()?;
    let context = &mut build.context;
    let mut queue = AsyncQueue::new(settings);
    for (time, record) in in_flight::restored(context)? {
        queue.accept(record, time);
    }
    let mut operator = AsyncOperator {
        function: Arc::new(P::open(conf, context)?),
        queue,
        holds: HashMap::new(),
        arrivals: Arc::new(Arrivals::new(context.waker())),
        arrived: Vec::new(),
        flow: context.flow.clone(),
        services: context.services(),
        operator: context.operator_id(),
        name: context.name.clone(),
        overflow: Overflow::configured(context.flow.clone(), context.configuration())?,
        waits: false,
        paused: false,
    };
    operator.advance(None);
    node::<P::In, P::Out>(operator, build)
}

#[cfg(test)]
mod tests;
