//! A fake worker for the tests of this crate: it builds operators as a worker does, from the factories of a planned
//! job, gives them an I/O runtime, and does by hand what the data plane does.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{Arc, Condvar, LazyLock, Mutex},
    time::Duration,
};

use millstream_api::{
    context::{Accumulators, ContextParts, IoTask, RuntimeContext, Services, TaskWaker},
    coordinator::{CoordinatorActions, OperatorCoordinator},
    factory::{self, Build, Product},
    flow::{Flow, failure_of_panic},
    job::{JobError, PipelineExecutor, RunningJob},
    metrics::MetricRegistry,
    push::{AnyPush, Push},
    record::Record,
    signal::{Barrier, Signal},
    sink::Sink,
    source::{Source, SourceStatus, SourceTask},
    state::{Section, SectionKind, Snapshot, account::SlotAccount},
    stream::environment::StreamExecutionEnvironment,
};
use millstream_model::{
    config::Configuration,
    fault::Failure,
    id::{CheckpointId, OperatorId},
    job_graph::{FactoryRef, JobGraph, Operator},
    key_group::MaxParallelism,
    message::{CheckpointKind, TaskResult},
};

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("tests can have threads")
});

/// Counts wakes, so that none is lost between looking and waiting.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    ring: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.ring.notify_all();
    }

    fn wait(&self, at_most: Duration) -> bool {
        let rung = self.rung.lock().unwrap();
        let (mut rung, waited) = self.ring.wait_timeout_while(rung, at_most, |rung| !*rung).unwrap();
        *rung = false;
        !waited.timed_out()
    }
}

struct FakeServices {
    bell: Arc<Bell>,
    to_coordinator: RefCell<Vec<Vec<u8>>>,
}

impl Services for FakeServices {
    fn waker(&self) -> TaskWaker {
        let bell = self.bell.clone();
        TaskWaker::new(move || bell.ring())
    }

    fn spawn(&self, task: IoTask) {
        RUNTIME.spawn(task);
    }

    fn send_to_coordinator(&self, _: OperatorId, event: Vec<u8>) {
        self.to_coordinator.borrow_mut().push(event);
    }
}

struct NoExecutor;

impl PipelineExecutor for NoExecutor {
    fn configuration(&self) -> Configuration {
        Configuration::default()
    }

    fn submit(&self, _: JobGraph) -> Result<Arc<dyn RunningJob>, JobError> {
        Err(JobError::NoExecutor)
    }
}

fn plan(build: impl FnOnce(&StreamExecutionEnvironment)) -> Vec<Operator> {
    let mut env = StreamExecutionEnvironment::with_executor(Arc::new(NoExecutor));
    env.set_parallelism(1);
    build(&env);
    let graph = env.job_graph("test").expect("the job can be planned");
    graph.vertices.into_iter().flat_map(|vertex| vertex.operators).collect()
}

fn product(factory: &FactoryRef, build: Build<'_>) -> Result<Product, Failure> {
    // SAFETY: the graph was planned a moment ago by this very executable.
    unsafe { factory::resolve(factory)?(build) }
}

/// What one subtask shares with its fake worker.
struct Subtask {
    flow: Rc<Flow>,
    services: Rc<FakeServices>,
    accumulators: Accumulators,
}

impl Subtask {
    fn new(bell: &Arc<Bell>) -> Subtask {
        let services = FakeServices { bell: bell.clone(), to_coordinator: RefCell::default() };
        Subtask { flow: Rc::default(), services: Rc::new(services), accumulators: Accumulators::default() }
    }

    fn build(
        &self,
        operator: &Operator,
        (subtask, parallelism): (u32, u32),
        outputs: Vec<(Option<String>, AnyPush)>,
        restored: Option<Vec<Section>>,
    ) -> Result<Product, Failure> {
        let context = RuntimeContext::new(ContextParts {
            operator: operator.id,
            name: operator.name.as_str().into(),
            subtask,
            parallelism,
            max_parallelism: MaxParallelism(128),
            configuration: Arc::default(),
            flow: self.flow.clone(),
            services: self.services.clone(),
            accumulators: self.accumulators.clone(),
            metrics: MetricRegistry::default(),
            slot: Arc::new(SlotAccount::unlimited()),
            restored,
        });
        let conf = &operator.conf;
        product(&operator.factory, Build { conf, context, outputs, channels: None, restored_coordinator: None })
    }
}

/// State by subtask, and of the coordinator.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    pub subtasks: Vec<Vec<Section>>,
    pub coordinator: Option<Vec<u8>>,
}

impl Checkpoint {
    /// Who gets what at another parallelism.
    fn distribute(&self, parallelism: u32) -> Vec<Vec<Section>> {
        let mut shares = vec![Vec::new(); parallelism as usize];
        let same = self.subtasks.len() == shares.len();
        let mut next = (0..shares.len()).rev().cycle();
        for (subtask, sections) in self.subtasks.iter().enumerate() {
            for section in sections {
                match section.kind {
                    SectionKind::Union => shares.iter_mut().for_each(|share| share.push(section.clone())),
                    _ if same => shares[subtask].push(section.clone()),
                    _ => shares[next.next().expect("endless")].push(section.clone()),
                }
            }
        }
        shares
    }
}

struct Keep<O>(Rc<RefCell<Vec<O>>>);

impl<O: Record> Push<O> for Keep<O> {
    fn push(&mut self, record: O::Ref<'_>) {
        self.0.borrow_mut().push(O::own(record));
    }

    fn signal(&mut self, _: &mut Signal<'_>) {}
}

/// All subtasks of a source, and its coordinator.
pub struct SourceJob<O> {
    bell: Arc<Bell>,
    coordinator: Option<Box<dyn OperatorCoordinator>>,
    readers: Vec<(Subtask, Box<dyn SourceTask>)>,
    /// What was emitted, all subtasks together, in the order of emission.
    pub emitted: Rc<RefCell<Vec<O>>>,
}

impl<O: Record> SourceJob<O> {
    pub fn start<S: Source<Out = O>>(
        source: S,
        parallelism: u32,
        restored: Option<&Checkpoint>,
    ) -> Result<SourceJob<O>, Failure> {
        let operators = plan(|env| drop(env.from_source(source).discard()));
        let operator = &operators[0];
        let bell = Arc::<Bell>::default();
        let emitted = Rc::<RefCell<Vec<O>>>::default();
        let mut shares = restored.map(|checkpoint| checkpoint.distribute(parallelism).into_iter());
        let mut readers = Vec::new();
        for index in 0..parallelism {
            let subtask = Subtask::new(&bell);
            let share = shares.as_mut().and_then(Iterator::next);
            let outputs = vec![(None, AnyPush::new(Keep(emitted.clone())))];
            match subtask.build(operator, (index, parallelism), outputs, share)? {
                Product::Source(task) => readers.push((subtask, task)),
                _ => panic!("a source's factory makes a source"),
            }
        }
        let mut job = SourceJob { bell, coordinator: None, readers, emitted };
        if let Some(factory) = &operator.coordinator {
            let subtask = Subtask::new(&job.bell);
            let made = Operator { factory: factory.clone(), ..operator.clone() };
            let context = RuntimeContext::new(ContextParts {
                operator: made.id,
                name: made.name.as_str().into(),
                subtask: 0,
                parallelism,
                max_parallelism: MaxParallelism(128),
                configuration: Arc::default(),
                flow: subtask.flow,
                services: subtask.services,
                accumulators: subtask.accumulators,
                metrics: MetricRegistry::default(),
                slot: Arc::new(SlotAccount::unlimited()),
                restored: None,
            });
            let restored_coordinator = restored.and_then(|checkpoint| checkpoint.coordinator.clone());
            let build = Build { conf: &made.conf, context, outputs: Vec::new(), channels: None, restored_coordinator };
            match product(factory, build)? {
                Product::Coordinator(coordinator) => job.coordinator = Some(coordinator),
                _ => panic!("a coordinator's factory makes a coordinator"),
            }
            job.coordinate(|coordinator, actions| coordinator.start(parallelism, actions))?;
        }
        Ok(job)
    }

    fn coordinate(
        &mut self,
        act: impl FnOnce(&mut dyn OperatorCoordinator, &mut CoordinatorActions) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut actions = CoordinatorActions::default();
        act(self.coordinator.as_deref_mut().expect("a coordinated source"), &mut actions)?;
        for (subtask, event) in actions.events {
            self.readers[subtask as usize].1.on_event(&event)?;
            // What arrives for a task wakes it.
            self.bell.ring();
        }
        Ok(())
    }

    /// The time that the coordinator asked for is over.
    pub fn wake_coordinator(&mut self) -> Result<(), Failure> {
        self.coordinate(|coordinator, actions| coordinator.on_wake(actions))
    }

    /// Polls one reader, and carries its messages and the answers.
    pub fn step(&mut self, subtask: usize, budget: u32) -> Result<SourceStatus, Failure> {
        let (shared, reader) = &mut self.readers[subtask];
        let (status, _) = reader.poll(budget)?;
        let events = std::mem::take(&mut *shared.services.to_coordinator.borrow_mut());
        for event in events {
            self.coordinate(|coordinator, actions| coordinator.on_event(subtask as u32, &event, actions))?;
        }
        Ok(status)
    }

    /// Polls all readers in turn until all have ended, or, for `Ok(false)`, until none has said or heard anything for
    /// `patience`.
    pub fn run(&mut self, budget: u32, patience: Duration) -> Result<bool, Failure> {
        loop {
            let mut all_ended = true;
            let mut all_idle = true;
            for subtask in 0..self.readers.len() {
                let before = self.emitted.borrow().len();
                let status = self.step(subtask, budget)?;
                all_ended &= status == SourceStatus::End;
                all_idle &= status != SourceStatus::More && self.emitted.borrow().len() == before;
            }
            if all_ended {
                return Ok(true);
            }
            if all_idle && !self.bell.wait(patience) {
                return Ok(false);
            }
        }
    }

    /// Lets time pass.
    #[expect(clippy::disallowed_methods, reason = "a test of what depends on time")]
    pub fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Runs a bounded source to its end.
    pub fn run_to_end(&mut self) -> Result<(), Failure> {
        let ended = self.run(100, Duration::from_secs(20))?;
        assert!(ended, "the source neither emits nor ends");
        Ok(())
    }

    /// As the runtime does it: the coordinator first, then all readers, and no message on its way.
    pub fn checkpoint(&mut self) -> Checkpoint {
        let coordinator = self.coordinator.as_mut().map(|coordinator| coordinator.snapshot().expect("a snapshot"));
        let subtasks = self.readers.iter_mut().map(|(_, reader)| {
            let mut snapshot = Snapshot::new(barrier(1));
            reader.signal(&mut Signal::Barrier(&mut snapshot));
            snapshot.sections
        });
        Checkpoint { subtasks: subtasks.collect(), coordinator }
    }

    pub fn position(&self, subtask: usize) -> String {
        self.readers[subtask].1.position()
    }

    pub fn flow(&self, subtask: usize) -> &Flow {
        &self.readers[subtask].0.flow
    }

    pub fn accumulator(&self, name: &str) -> i64 {
        self.readers.iter().filter_map(|(subtask, _)| subtask.accumulators.totals().get(name).copied()).sum()
    }
}

fn barrier(checkpoint: u64) -> Barrier {
    Barrier { checkpoint: CheckpointId(checkpoint), kind: CheckpointKind::Checkpoint }
}

/// One subtask of a sink.
pub struct SinkSubtask<T: Record> {
    shared: Subtask,
    bell: Arc<Bell>,
    push: Box<dyn Push<T>>,
}

impl<T: Record> SinkSubtask<T> {
    pub fn start<S: Sink<In = T>>(
        sink: S,
        of: (u32, u32),
        restored: Option<Vec<Section>>,
    ) -> Result<SinkSubtask<T>, Failure> {
        let operators = plan(|env| drop(env.from_collection::<T>([]).sink_to(sink)));
        let bell = Arc::<Bell>::default();
        let shared = Subtask::new(&bell);
        match shared.build(operators.last().expect("a sink"), of, Vec::new(), restored)? {
            Product::Push(push) => Ok(SinkSubtask { shared, bell, push: push.typed()? }),
            _ => panic!("a sink's factory makes a consumer"),
        }
    }

    /// Writes a record, after waiting for room.
    pub fn write(&mut self, record: T::Ref<'_>) -> Result<(), Failure> {
        while self.shared.flow.halted() {
            assert!(self.bell.wait(Duration::from_secs(20)), "the sink has no room and does not make any");
            self.signal(&mut Signal::Resume)?;
        }
        caught(|| self.push.push(record))
    }

    pub fn signal(&mut self, signal: &mut Signal<'_>) -> Result<(), Failure> {
        caught(|| self.push.signal(signal))
    }

    /// Takes a checkpoint and does what must be done before it counts.
    pub fn checkpoint(&mut self, checkpoint: u64) -> Result<Vec<Section>, Failure> {
        let mut snapshot = Snapshot::new(barrier(checkpoint));
        self.signal(&mut Signal::Barrier(&mut snapshot))?;
        snapshot.before_ack.into_iter().try_for_each(|work| work())?;
        Ok(snapshot.sections)
    }

    pub fn complete(&mut self, checkpoint: u64) -> Result<(), Failure> {
        self.signal(&mut Signal::Complete(CheckpointId(checkpoint)))
    }

    pub fn finish(&mut self) -> Result<(), Failure> {
        self.signal(&mut Signal::Finish(&mut TaskResult::default()))
    }

    pub fn close(&mut self) -> Result<(), Failure> {
        self.signal(&mut Signal::Close)
    }
}

fn caught(act: impl FnOnce()) -> Result<(), Failure> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|payload| failure_of_panic(payload, None))
}
