//! Keyed functions: the key of each record, its state, and its timers.

use std::{cell::RefCell, rc::Rc};

use millstream_model::{
    fault::Failure,
    id::OperatorId,
    key_group::{KeyHash, MaxParallelism},
    time::{EventTime, Watermark},
};
use serde::{Deserialize, Serialize};

use crate::{
    context::RuntimeContext,
    factory::{Build, KeyRef, Product},
    flow::{self, Flow},
    function::{KeyedContext, KeyedProcessFunction, Timer, TimerService},
    push::{AnyPush, Forward, Node, Operator, Out},
    record::{Key, Record, key::KeyOf},
    signal::Signal,
    state::{KeyedStates, timer::Timers},
};

/// The state, timers and time of one keyed operator, whatever its function and however many inputs it has.
pub(crate) struct KeyedCore<K: Key> {
    flow: Rc<Flow>,
    states: Option<KeyedStates>,
    timers: RefCell<TimerService<K>>,
    watermark: Watermark,
    /// A watermark that may be passed on only when the timers before it have fired.
    held: Option<Watermark>,
    /// Timers wait for room.
    paused: bool,
    operator: OperatorId,
    max_parallelism: MaxParallelism,
}

impl<K: Key> KeyedCore<K> {
    /// Takes over the states that `open` has made.
    pub(crate) fn new(mut context: RuntimeContext) -> Result<Self, Failure> {
        let mut timers = TimerService {
            event: Timers::new("event-time timers", context.account.clone()),
            processing: Timers::new("processing-time timers", context.account.clone()),
        };
        for section in context.keyed_sections() {
            timers.event.restore(section)?;
            timers.processing.restore(section)?;
        }
        if let Some(earliest) = timers.processing.earliest() {
            context.flow.wake_at(earliest);
        }
        Ok(KeyedCore {
            states: context.keyed.take(),
            timers: RefCell::new(timers),
            watermark: Watermark::MIN,
            held: None,
            paused: false,
            operator: context.operator,
            max_parallelism: context.max_parallelism,
            flow: context.flow,
        })
    }

    /// See [`Push::warm`](crate::push::Push::warm).
    pub(crate) fn can_warm(&self) -> bool {
        self.states.as_ref().is_some_and(KeyedStates::can_warm)
    }

    /// See [`Push::warm`](crate::push::Push::warm).
    pub(crate) fn warm(&self, key_hashes: &[KeyHash]) {
        self.states.iter().for_each(|states| states.warm(key_hashes));
    }

    /// Calls the function with the context of a record.
    #[inline]
    pub(crate) fn with_context<T: Record, R>(
        &self,
        key_of: KeyOf<K, T>,
        record: T::Ref<'_>,
        call: impl FnOnce(&KeyedContext<'_, K>) -> R,
    ) -> R {
        let handle = T::shorten(record);
        let key = key_of(&handle);
        call(&self.context(key))
    }

    #[inline]
    fn context<'a>(&'a self, key: K::Ref<'a>) -> KeyedContext<'a, K> {
        let hash = self.flow.key_hash();
        debug_assert_eq!(hash, K::key_hash(key), "records reach a keyed operator over a hash edge");
        KeyedContext { key, hash, flow: &self.flow, watermark: self.watermark, timers: &self.timers }
    }

    /// Handles a signal; `fire` calls the function for one timer.
    pub(crate) fn signal<O: Record>(
        &mut self,
        signal: &mut Signal<'_>,
        out: &mut Out<'_, O>,
        mut fire: impl FnMut(Timer, &KeyedContext<'_, K>, &mut Out<'_, O>),
    ) -> Forward {
        match signal {
            Signal::Watermark(watermark) => {
                self.watermark = *watermark;
                self.held = Some(*watermark);
                self.fire_due(out, &mut fire);
                Forward::Hold
            }
            Signal::Clock => {
                self.fire_due(out, &mut fire);
                Forward::Now
            }
            Signal::Resume => {
                if self.paused {
                    self.paused = false;
                    self.flow.operator_resumed();
                    self.fire_due(out, &mut fire);
                }
                Forward::Now
            }
            Signal::Barrier(snapshot) => {
                self.states.iter().for_each(|states| states.snapshot(snapshot));
                let timers = self.timers.borrow();
                timers.event.snapshot(self.operator, self.max_parallelism, snapshot);
                timers.processing.snapshot(self.operator, self.max_parallelism, snapshot);
                Forward::Now
            }
            _ => Forward::Now,
        }
    }

    /// Fires timers as long as there is room, then passes the held watermark on.
    fn fire_due<O: Record>(
        &mut self,
        out: &mut Out<'_, O>,
        fire: &mut impl FnMut(Timer, &KeyedContext<'_, K>, &mut Out<'_, O>),
    ) {
        loop {
            if out.is_blocked(&self.flow) {
                if !self.paused {
                    self.paused = true;
                    self.flow.operator_paused();
                }
                return;
            }
            let Some((timer, hash, key)) = self.next_due() else { break };
            let time = if let Timer::EventTime(time) = timer { time } else { EventTime::MIN };
            self.flow.set_timestamp(time);
            self.flow.set_key_hash(hash);
            fire(timer, &self.context(key.handle()), out);
        }
        if let Some(earliest) = self.timers.borrow().processing.earliest() {
            self.flow.wake_at(earliest);
        }
        if let Some(watermark) = self.held.take() {
            out.signal(&mut Signal::Watermark(watermark));
        }
    }

    fn next_due(&self) -> Option<(Timer, KeyHash, K)> {
        let mut timers = self.timers.borrow_mut();
        if let Some((at, hash, key)) = timers.event.next_due(self.watermark.0.0) {
            return Some((Timer::EventTime(EventTime(at)), hash, key));
        }
        let (at, hash, key) = timers.processing.next_due(self.flow.now_millis())?;
        Some((Timer::ProcessingTime(at), hash, key))
    }
}

/// What travels for a keyed operator: how to find the key, and the function's own configuration.
#[derive(Serialize, Deserialize)]
pub(crate) struct KeyedConf<C> {
    pub(crate) key: KeyRef,
    pub(crate) conf: C,
}

struct KeyedProcess<P: KeyedProcessFunction> {
    function: P,
    key: KeyOf<P::Key, P::In>,
    core: KeyedCore<P::Key>,
}

impl<P: KeyedProcessFunction> Operator<P::In, P::Out> for KeyedProcess<P> {
    fn can_warm(&self) -> bool {
        self.core.can_warm()
    }

    fn warm(&mut self, key_hashes: &[KeyHash]) {
        self.core.warm(key_hashes);
    }

    #[inline]
    fn process(&mut self, record: <P::In as Record>::Ref<'_>, out: &mut Out<'_, P::Out>) {
        let function = &mut self.function;
        self.core
            .with_context(self.key, record, |context| function.process(record, context, out))
            .unwrap_or_else(|failure| flow::fail(failure));
    }

    fn signal(&mut self, signal: &mut Signal<'_>, out: &mut Out<'_, P::Out>) -> Forward {
        if matches!(signal, Signal::Close) {
            self.function.close();
        }
        let function = &mut self.function;
        self.core.signal(signal, out, |timer, context, out| {
            function.on_timer(timer, context, out).unwrap_or_else(|failure| flow::fail(failure));
        })
    }
}

pub(crate) fn keyed_process<P: KeyedProcessFunction>(mut build: Build<'_>) -> Result<Product, Failure> {
    let KeyedConf { key, conf } = build.conf()?;
    // SAFETY: the graph's hash is this executable's (see `factory::resolve`), and `KeyedStream` made the reference
    // for this key and record.
    let key = unsafe { key.resolve::<P::Key, P::In>() }?;
    let function = P::open(conf, &mut build.context)?;
    let (name, metrics) = (build.context.name.clone(), build.context.metrics());
    let Build { context, outputs, .. } = build;
    let core = KeyedCore::new(context)?;
    let node = Node::new(KeyedProcess { function, key, core }, outputs, name, &metrics)?;
    Ok(Product::Push(AnyPush::new(node)))
}
