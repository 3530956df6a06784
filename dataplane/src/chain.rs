//! Builds the chain of one subtask from the job graph: from its ends to its head, each operator around what follows it.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use millstream_api::{
    context::{Accumulators, ContextParts, RuntimeContext, Services},
    factory::{self, Build, Product},
    flow::Flow,
    head::Head,
    metrics::MetricRegistry,
    push::{AnyPush, TaggedPush},
    source::SourceTask,
    state::{Section, account::SlotAccount},
};
use millstream_model::{
    fault::Failure,
    id::OperatorId,
    job_graph::{FactoryRef, JobGraph, OperatorRole, OutputTarget},
};
use millstream_shuffle::channel::ChannelSender;

use crate::{
    metrics::TaskCounters,
    output::{EdgeChannels, Limits},
};

/// What a chain is built from.
pub(crate) struct ChainParts<'a> {
    pub(crate) graph: &'a Arc<JobGraph>,
    pub(crate) vertex: usize,
    pub(crate) subtask: u32,
    /// The channels of each output edge, by the edge's index.
    pub(crate) senders: HashMap<usize, Vec<ChannelSender>>,
    /// The state of each operator, if the job continues from a checkpoint.
    pub(crate) restored: Option<HashMap<OperatorId, Vec<Section>>>,
    pub(crate) flow: Rc<Flow>,
    pub(crate) services: Rc<dyn Services>,
    pub(crate) accumulators: Accumulators,
    pub(crate) metrics: MetricRegistry,
    pub(crate) account: Arc<SlotAccount>,
    pub(crate) counters: Arc<TaskCounters>,
    pub(crate) limits: Limits,
}

/// A chain as its task drives it.
pub(crate) enum Chain {
    Source(Box<dyn SourceTask>),
    Head(Box<dyn Head>),
}

/// Calls a factory of the job graph.
pub(crate) fn call_factory(reference: &FactoryRef, build: Build<'_>) -> Result<Product, Failure> {
    let name = build.context.name().to_owned();
    // SAFETY: a worker starts a job graph only if the graph's artifact is its own executable (`Worker::deploy` compares
    // the hashes), or if this very process planned it.
    let factory = unsafe { factory::resolve(reference) }.map_err(|failure| failure.in_operator(&name))?;
    factory(build).map_err(|failure| failure.in_operator(&name))
}

impl ChainParts<'_> {
    pub(crate) fn build(mut self) -> Result<Chain, Failure> {
        let graph = self.graph.clone();
        let vertex = &graph.vertices[self.vertex];
        let mut built: Vec<Option<AnyPush>> = vertex.operators.iter().map(|_| None).collect();
        for index in (0..vertex.operators.len()).rev() {
            let operator = &vertex.operators[index];
            let mut outputs: Vec<TaggedPush> = Vec::new();
            for output in &operator.outputs {
                let push = match output.target {
                    OutputTarget::Chained(next) => built[next].take().ok_or_else(|| malformed(&operator.name))?,
                    OutputTarget::Edge(edge) => self.writer(edge)?,
                };
                outputs.push((output.tag.clone(), push));
            }
            let restored = self.restored.as_mut().map(|all| all.remove(&operator.id).unwrap_or_default());
            let context = self.context(operator.id, &operator.name, self.vertex, restored);
            let build = Build { conf: &operator.conf, context, outputs, channels: None, restored_coordinator: None };
            match (call_factory(&operator.factory, build)?, operator.role) {
                (Product::Push(push), OperatorRole::OneInput) => built[index] = Some(push),
                (Product::Source(source), OperatorRole::Source) if index == 0 => return Ok(Chain::Source(source)),
                (Product::Head(head), OperatorRole::TwoInput) if index == 0 => return Ok(Chain::Head(head)),
                _ => return Err(malformed(&operator.name)),
            }
        }
        self.reader(built[0].take().ok_or_else(|| malformed(&vertex.name))?)
    }

    /// What turns the bytes of the input channels into records for the first operator.
    fn reader(&self, first: AnyPush) -> Result<Chain, Failure> {
        let vertex = &self.graph.vertices[self.vertex];
        let reader = self.graph.inputs(self.vertex).find_map(|(_, edge)| edge.reader.as_ref());
        let reader = reader.ok_or_else(|| malformed(&vertex.name))?;
        let head = &vertex.operators[0];
        let context = self.context(head.id, &head.name, self.vertex, None);
        let outputs = vec![(None, first)];
        let build = Build { conf: &[], context, outputs, channels: None, restored_coordinator: None };
        match call_factory(reader, build)? {
            Product::Head(head) => Ok(Chain::Head(head)),
            _ => Err(malformed(&vertex.name)),
        }
    }

    fn writer(&mut self, edge: usize) -> Result<AnyPush, Failure> {
        let graph = self.graph.clone();
        let job_edge = &graph.edges[edge];
        let senders = self.senders.remove(&edge).ok_or_else(|| malformed(&graph.vertices[self.vertex].name))?;
        let channels = EdgeChannels::new(senders, self.flow.clone(), self.counters.clone(), self.limits);
        // Key groups are those of the consumer.
        let target = &graph.vertices[job_edge.target];
        let context = self.context(target.operators[0].id, &target.operators[0].name, job_edge.target, None);
        let build = Build {
            conf: &job_edge.writer_conf,
            context,
            outputs: Vec::new(),
            channels: Some(Box::new(channels)),
            restored_coordinator: None,
        };
        match call_factory(&job_edge.writer, build)? {
            Product::Push(push) => Ok(push),
            _ => Err(malformed(&graph.vertices[self.vertex].name)),
        }
    }

    fn context(
        &self,
        operator: OperatorId,
        name: &str,
        vertex: usize,
        restored: Option<Vec<Section>>,
    ) -> RuntimeContext {
        let vertex = &self.graph.vertices[vertex];
        RuntimeContext::new(ContextParts {
            operator,
            name: name.into(),
            subtask: self.subtask,
            parallelism: vertex.parallelism,
            max_parallelism: vertex.max_parallelism,
            configuration: Arc::new(self.graph.configuration.clone()),
            flow: self.flow.clone(),
            services: self.services.clone(),
            accumulators: self.accumulators.clone(),
            metrics: self.metrics.clone(),
            slot: self.account.clone(),
            restored,
        })
    }
}

fn malformed(operator: &str) -> Failure {
    Failure::fatal(format!(
        "the job graph around operator '{operator}' makes no sense; it was not planned by this engine"
    ))
}
