//! The operator in a chain: what it tells the flow, and what it does with signals. Its futures are run by hand.

use std::{
    cell::RefCell,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use millstream_model::{
    config::{Configuration, MemorySize, OVERFLOW_MAX},
    id::CheckpointId,
    key_group::MaxParallelism,
    message::CheckpointKind,
    time::{EventTime, Watermark},
};

use super::{closures::*, *};
use crate::{
    context::{Accumulators, ContextParts, IoTask, RuntimeContext, TaskWaker},
    factory::encode_conf,
    metrics::MetricRegistry,
    push::{AnyPush, Push},
    signal::Barrier,
    state::{Section, Snapshot, account::SlotAccount},
};

/// Keeps what is spawned.
#[derive(Default)]
struct Spawned(RefCell<Vec<IoTask>>);

impl Services for Spawned {
    fn waker(&self) -> TaskWaker {
        TaskWaker::new(|| {})
    }
    fn spawn(&self, task: IoTask) {
        self.0.borrow_mut().push(task);
    }
    fn send_to_coordinator(&self, _: OperatorId, _: Vec<u8>) {}
}

/// Keeps what comes out: numbers, and watermarks as negative ones.
#[derive(Clone, Default)]
struct Kept(Rc<RefCell<Vec<i64>>>);

impl Push<u64> for Kept {
    fn push(&mut self, record: u64) {
        self.0.borrow_mut().push(record as i64);
    }
    fn signal(&mut self, signal: &mut Signal<'_>) {
        if let Signal::Watermark(watermark) = signal {
            self.0.borrow_mut().push(-watermark.0.0);
        }
    }
}

struct Rig {
    operator: Box<dyn Push<u64>>,
    flow: Rc<Flow>,
    services: Rc<Spawned>,
    kept: Kept,
}

impl Rig {
    fn new(settings: AsyncWait, restored: Option<Vec<Section>>) -> Rig {
        Rig::of(settings, restored, |number| async move { Ok(number) })
    }

    fn of<F, Fut>(settings: AsyncWait, restored: Option<Vec<Section>>, function: F) -> Rig
    where
        F: Fn(u64) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<u64, Failure>> + Send + 'static,
    {
        Rig::configured(Configuration::new(), settings, restored, function)
    }

    fn configured<F, Fut>(
        configuration: Configuration,
        settings: AsyncWait,
        restored: Option<Vec<Section>>,
        _: F,
    ) -> Rig
    where
        F: Fn(u64) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<u64, Failure>> + Send + 'static,
    {
        let (flow, services, kept) = (Rc::<Flow>::default(), Rc::<Spawned>::default(), Kept::default());
        let context = RuntimeContext::new(ContextParts {
            operator: OperatorId(1),
            name: "async".into(),
            subtask: 0,
            parallelism: 1,
            max_parallelism: MaxParallelism(128),
            configuration: Arc::new(configuration),
            flow: flow.clone(),
            services: services.clone(),
            accumulators: Accumulators::default(),
            metrics: MetricRegistry::default(),
            slot: Arc::new(SlotAccount::unlimited()),
            restored,
        });
        let conf = encode_conf(&(settings, ()));
        let outputs = vec![(None, AnyPush::new::<u64>(kept.clone()))];
        let build = Build { conf: &conf, context, outputs, channels: None, restored_coordinator: None };
        let Ok(Product::Push(push)) = async_wait::<Alone<One, Fails, u64, u64, F, Fut>>(build) else {
            panic!("the factory makes an operator")
        };
        let Ok(operator) = push.typed::<u64>() else { panic!("it takes numbers") };
        Rig { operator, flow, services, kept }
    }

    fn push(&mut self, numbers: impl IntoIterator<Item = u64>) {
        numbers.into_iter().for_each(|number| self.operator.push(number));
    }

    /// Runs what was spawned, and tells the operator.
    fn run(&mut self) {
        for mut task in self.services.0.take() {
            assert!(task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        }
        self.operator.signal(&mut Signal::Resume);
    }

    fn kept(&self) -> Vec<i64> {
        self.kept.0.take()
    }
}

#[test]
fn results_without_room_stay_and_the_operator_asks_to_be_resumed() {
    let mut rig = Rig::new(AsyncWait::ordered(Duration::ZERO), None);
    rig.push([1, 2]);
    rig.flow.output_filled();
    rig.run();
    assert_eq!((rig.kept(), rig.flow.pending()), (vec![], 1));
    rig.flow.output_freed();
    assert!(rig.flow.halted(), "nothing may enter before what is there has left");
    rig.operator.signal(&mut Signal::Resume);
    assert_eq!((rig.kept(), rig.flow.pending(), rig.flow.halted()), (vec![1, 2], 0, false));
}

#[test]
fn a_full_operator_waits_and_says_so_to_those_before_it_only() {
    let mut rig = Rig::new(AsyncWait::ordered(Duration::ZERO).capacity(2), None);
    rig.push([1]);
    assert!(!rig.flow.halted() && !rig.operator.waits());
    rig.push([2, 3]);
    assert!(rig.flow.only_waits() && rig.operator.waits());
    assert_eq!(rig.services.0.borrow().len(), 2, "the third record waits for a place");
    rig.run();
    assert_eq!(rig.kept(), [1, 2]);
    assert!(!rig.flow.halted() && !rig.operator.waits());
    rig.run();
    assert_eq!(rig.kept(), [3]);
}

#[test]
fn a_watermark_waits_for_the_records_before_it_and_for_no_others() {
    let mut rig = Rig::new(AsyncWait::unordered(Duration::ZERO), None);
    rig.operator.signal(&mut Signal::Watermark(Watermark(EventTime(5))));
    assert_eq!(rig.kept(), [-5]);
    rig.push([1]);
    rig.operator.signal(&mut Signal::Watermark(Watermark(EventTime(6))));
    rig.push([2]);
    assert!(rig.kept().is_empty());
    rig.run();
    assert_eq!(rig.kept(), [1, -6, 2]);
}

#[test]
fn a_burst_from_the_operator_in_front_keeps_its_time_stamp() {
    let mut rig = Rig::new(AsyncWait::ordered(Duration::ZERO), None);
    rig.flow.set_timestamp(EventTime(1));
    rig.push([1]);
    for mut task in rig.services.0.take() {
        let _ = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    // The operator in front emits on, without setting the time stamp again.
    rig.flow.set_timestamp(EventTime(2));
    rig.push([2, 3]);
    assert_eq!(rig.flow.timestamp(), EventTime(2));
}

#[test]
fn a_restored_operator_starts_what_was_in_flight_within_its_capacity() {
    let mut rig = Rig::new(AsyncWait::ordered(Duration::ZERO).capacity(4), None);
    rig.push([1, 2, 3]);
    let barrier = Barrier { checkpoint: CheckpointId(1), kind: CheckpointKind::Checkpoint };
    let mut snapshot = Snapshot::new(barrier);
    rig.operator.signal(&mut Signal::Barrier(&mut snapshot));
    let mut rig = Rig::new(AsyncWait::ordered(Duration::ZERO).capacity(2), Some(snapshot.sections));
    assert_eq!(rig.services.0.borrow().len(), 2);
    assert!(rig.flow.only_waits());
    rig.run();
    rig.run();
    assert_eq!(rig.kept(), [1, 2, 3]);
    assert!(!rig.flow.halted());
}

#[test]
fn time_is_looked_at_when_the_clock_strikes() {
    let settings = AsyncWait::ordered(Duration::from_millis(100));
    let mut rig = Rig::of(settings, None, |_| std::future::pending());
    rig.flow.set_now_millis(1_000);
    rig.push([1]);
    assert_eq!(rig.flow.take_next_clock(), 1_100);
    rig.flow.set_now_millis(1_099);
    rig.operator.signal(&mut Signal::Clock);
    assert_eq!(rig.flow.take_next_clock(), 1_100, "every strike asks for the next one");
    rig.flow.set_now_millis(1_100);
    let struck = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rig.operator.signal(&mut Signal::Clock)));
    let failure = flow::failure_of_panic(struck.unwrap_err(), None);
    assert_eq!(
        (failure.operator.as_deref(), failure.position.as_deref()),
        (Some("async"), Some("record 1 into the operator"))
    );
}

#[test]
fn a_burst_counts_as_overflow_until_it_is_started_and_fails_beyond_the_bound() {
    let mut configuration = Configuration::new();
    configuration.set(&OVERFLOW_MAX, MemorySize::from_bytes(10_000));
    let settings = AsyncWait::ordered(Duration::ZERO).capacity(2);
    let mut rig = Rig::configured(configuration, settings, None, |number| async move { Ok(number) });
    rig.push([1, 2]);
    assert_eq!(rig.flow.overflow_bytes(), 0, "there are places for two");
    rig.push([3, 4, 5]);
    let three = rig.flow.overflow_bytes();
    assert!(three > 3 * 8, "{three}");
    rig.run();
    assert_eq!(rig.flow.overflow_bytes(), three / 3);
    rig.run();
    assert_eq!(rig.flow.overflow_bytes(), 0);
    rig.run();
    assert_eq!(rig.kept(), [1, 2, 3, 4, 5]);

    // What others of the task hold counts as well.
    let others = 10_000 - three / 3 * 2;
    rig.flow.overflow_changed(0, others);
    rig.push([6, 7, 8, 9]);
    let in_front = |push: &mut dyn FnMut()| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let blame = flow::Blame::on("in front");
            push();
            blame.lift();
        }))
    };
    let failure = flow::failure_of_panic(in_front(&mut || rig.push([10])).unwrap_err(), None);
    assert_eq!(failure.operator.as_deref(), Some("in front"));
    assert!(failure.message.contains("the async function 'async'"), "{failure}");
    assert!(failure.message.contains("flat_map_iter") && failure.message.contains("(10000 bytes)"), "{failure}");
    // The next failure is blamed as ever.
    let failure = flow::failure_of_panic(in_front(&mut || flow::fail(Failure::new("own"))).unwrap_err(), None);
    assert_eq!(failure.operator.as_deref(), Some("in front"));
}
