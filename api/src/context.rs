//! What an operator is told when it starts: who it is, what it had, and whom it can ask.

use std::{cell::RefCell, collections::BTreeMap, future::Future, ops::Range, pin::Pin, rc::Rc, sync::Arc};

use millstream_model::{
    config::Configuration,
    fault::Failure,
    id::OperatorId,
    key_group::{KeyGroup, MaxParallelism},
};

use crate::{
    flow::Flow,
    metrics::{Counter, MetricGroup, MetricRegistry},
    record::{Key, Record},
    state::{
        KeyedStates, ListState, MapState, ReducingState, Section, SectionKind, ValueState,
        account::{SlotAccount, StateAccount},
        table::StateValue,
    },
};

/// Work for the worker's I/O threads.
pub type IoTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the runtime does for operators. Implemented by the data plane.
pub trait Services {
    /// Makes the task run again, from any thread, though nothing has arrived for it.
    fn waker(&self) -> TaskWaker;
    /// Runs `task` on the worker's I/O runtime.
    fn spawn(&self, task: IoTask);
    /// Sends an event to the operator's coordinator.
    fn send_to_coordinator(&self, operator: OperatorId, event: Vec<u8>);
}

/// Wakes one task; cheap if it is awake. The task's operators then see a [`Signal::Resume`](crate::signal::Signal).
#[derive(Clone)]
pub struct TaskWaker(Arc<dyn Fn() + Send + Sync>);

impl TaskWaker {
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        TaskWaker(Arc::new(wake))
    }

    pub fn wake(&self) {
        (self.0)();
    }
}

/// Sums by name that a task's operators add to, for the job's result.
#[derive(Default, Clone)]
pub struct Accumulators(Rc<RefCell<BTreeMap<String, Counter>>>);

impl Accumulators {
    /// The sums so far.
    pub fn totals(&self) -> BTreeMap<String, i64> {
        self.0.borrow().iter().map(|(name, counter)| (name.clone(), counter.get())).collect()
    }
}

/// What one operator of one subtask gets to know and to use; Flink's `RuntimeContext`.
pub struct RuntimeContext {
    pub(crate) operator: OperatorId,
    pub(crate) name: Rc<str>,
    pub(crate) subtask: u32,
    pub(crate) parallelism: u32,
    pub(crate) max_parallelism: MaxParallelism,
    pub(crate) configuration: Arc<Configuration>,
    pub(crate) flow: Rc<Flow>,
    pub(crate) services: Rc<dyn Services>,
    pub(crate) accumulators: Accumulators,
    pub(crate) metrics: MetricRegistry,
    /// This operator's part of the checkpoint it starts from.
    pub(crate) restored: Vec<Section>,
    pub(crate) is_restored: bool,
    pub(crate) account: StateAccount,
    pub(crate) keyed: Option<KeyedStates>,
}

/// The parts of a [`RuntimeContext`] that the runtime supplies.
pub struct ContextParts {
    pub operator: OperatorId,
    pub name: Rc<str>,
    pub subtask: u32,
    pub parallelism: u32,
    pub max_parallelism: MaxParallelism,
    pub configuration: Arc<Configuration>,
    pub flow: Rc<Flow>,
    pub services: Rc<dyn Services>,
    pub accumulators: Accumulators,
    pub metrics: MetricRegistry,
    /// What the state of its slot takes, and may take.
    pub slot: Arc<SlotAccount>,
    /// `None` without a checkpoint to start from.
    pub restored: Option<Vec<Section>>,
}

impl RuntimeContext {
    pub fn new(parts: ContextParts) -> Self {
        RuntimeContext {
            operator: parts.operator,
            account: StateAccount::new(parts.slot, parts.name.clone()),
            name: parts.name,
            subtask: parts.subtask,
            parallelism: parts.parallelism,
            max_parallelism: parts.max_parallelism,
            configuration: parts.configuration,
            flow: parts.flow,
            services: parts.services,
            accumulators: parts.accumulators,
            metrics: parts.metrics,
            is_restored: parts.restored.is_some(),
            restored: parts.restored.unwrap_or_default(),
            keyed: None,
        }
    }

    /// The operator's name, as the web page shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn operator_id(&self) -> OperatorId {
        self.operator
    }

    /// Which of the parallel instances this is, from 0.
    pub fn index_of_this_subtask(&self) -> u32 {
        self.subtask
    }

    pub fn number_of_parallel_subtasks(&self) -> u32 {
        self.parallelism
    }

    pub fn max_parallelism(&self) -> MaxParallelism {
        self.max_parallelism
    }

    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Whether the job continues from a checkpoint.
    pub fn is_restored(&self) -> bool {
        self.is_restored
    }

    /// A sum that shows among the operator's metrics while the job runs and, added up over all subtasks, in its result.
    pub fn accumulator(&self, name: &str) -> Counter {
        let mut all = self.accumulators.0.borrow_mut();
        // Operators of a task share the sum, and the first of them reports it.
        all.entry(name.to_owned()).or_insert_with(|| self.metrics().counter(name)).clone()
    }

    /// Numbers of this operator that show while the job runs, and not in its result.
    pub fn metrics(&self) -> MetricGroup {
        let (operator, operator_name) = (self.operator, self.name.clone());
        MetricGroup { operator, operator_name, registry: self.metrics.clone() }
    }

    /// Wakes this task from another thread.
    pub fn waker(&self) -> TaskWaker {
        self.services.waker()
    }

    /// Runs `task` on the worker's I/O runtime, which is tokio's.
    pub fn spawn_io(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.services.spawn(Box::pin(task));
    }

    /// Sends an event to the operator's coordinator.
    pub fn send_to_coordinator(&self, event: Vec<u8>) {
        self.services.send_to_coordinator(self.operator, event);
    }

    /// The runtime's half of this context, for operators that talk to their coordinator while they run.
    pub fn services(&self) -> Rc<dyn Services> {
        self.services.clone()
    }

    /// The parts of the restored checkpoint called `name`; each is returned once.
    pub fn take_restored(&mut self, name: &str) -> Vec<Vec<u8>> {
        self.take_sections(name).into_iter().map(|section| section.bytes).collect()
    }

    /// [`RuntimeContext::take_restored`] with all that is known of each part.
    pub(crate) fn take_sections(&mut self, name: &str) -> Vec<Section> {
        let wanted = |section: &mut Section| !matches!(section.kind, SectionKind::Keyed(_)) && section.name == name;
        self.restored.extract_if(.., wanted).collect()
    }

    /// The key groups that this subtask owns.
    pub(crate) fn key_groups(&self) -> Range<u16> {
        KeyGroup::range(self.max_parallelism, self.parallelism, self.subtask)
    }

    pub(crate) fn keyed_sections(&self) -> impl Iterator<Item = &Section> {
        self.restored.iter().filter(|section| matches!(section.kind, SectionKind::Keyed(_)))
    }

    fn states(&mut self) -> &mut KeyedStates {
        let groups = self.key_groups();
        let keyed: Vec<Section> = self.keyed_sections().cloned().collect();
        self.keyed.get_or_insert_with(|| {
            KeyedStates::new(self.operator, self.max_parallelism, groups, keyed, self.account.clone())
        })
    }

    /// A state with one value per key.
    ///
    /// # Errors
    /// If another state of the operator has the name, or the checkpoint holds other types under it.
    pub fn value_state<K: Key, V: StateValue>(&mut self, name: &str) -> Result<ValueState<K, V>, Failure> {
        self.states().table(name).map(ValueState)
    }

    /// A state with a list of values per key.
    ///
    /// # Errors
    /// As [`Self::value_state`].
    pub fn list_state<K: Key, V: Record>(&mut self, name: &str) -> Result<ListState<K, V>, Failure> {
        self.states().table(name).map(ListState)
    }

    /// A state with a map per key.
    ///
    /// # Errors
    /// As [`Self::value_state`].
    pub fn map_state<K: Key, M: Record + std::hash::Hash + Eq, V: Record>(
        &mut self,
        name: &str,
    ) -> Result<MapState<K, M, V>, Failure> {
        self.states().table(name).map(MapState)
    }

    /// A state with one value per key, into which `reduce` folds every further one.
    ///
    /// # Errors
    /// As [`Self::value_state`].
    pub fn reducing_state<K: Key, V: Record>(
        &mut self,
        name: &str,
        reduce: fn(&mut V, V::Ref<'_>),
    ) -> Result<ReducingState<K, V>, Failure> {
        self.states().table(name).map(|table| ReducingState { table, reduce })
    }
}
