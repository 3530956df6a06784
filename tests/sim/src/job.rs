//! The jobs that are simulated: pipelines without edges between them, each of so many sources and sinks, and what each
//! source has to read.

use std::time::Duration;

use millstream_model::{
    config::{self, Configuration, FailoverStrategy, Origin},
    id::{JobId, JobVertexId, OperatorId, Subtask},
    job_graph::{JobGraph, Partitioning, sketch},
};

const KEYS: u64 = 7;
/// More than any pipeline has subtasks of a vertex.
const SUBTASKS_MAX: u32 = 16;

/// A vertex of sources, and one of sinks.
#[derive(Clone, Copy, Debug)]
pub struct Pipeline {
    pub sources: u32,
    pub sinks: u32,
    /// Whether each source has a sink of its own, instead of all sinks by key: then there are as many of both.
    pub is_forward: bool,
    pub has_coordinator: bool,
}

impl Pipeline {
    fn random(random: &mut fastrand::Rng) -> Pipeline {
        let (sources, sinks) = (random.u32(1..=3), random.u32(1..=3));
        let is_forward = random.u32(0..3) == 0;
        let sinks = if is_forward { sources } else { sinks };
        Pipeline { sources, sinks, is_forward, has_coordinator: random.bool() }
    }
}

#[derive(Clone, Debug)]
pub struct JobSpec {
    pub id: JobId,
    pub pipelines: Vec<Pipeline>,
    /// Of each source.
    pub records: u64,
    pub checkpoint_interval: Duration,
    pub max_concurrent: u32,
    pub tolerable_failures: u32,
    pub num_retained: u32,
    /// Fixed delay with no end instead of the default, which grows.
    pub restarts_soon: bool,
    /// `jobmanager.execution.failover-strategy` is `full`.
    pub restarts_all: bool,
}

impl JobSpec {
    /// Any job that the engine should take.
    pub fn random(id: JobId, random: &mut fastrand::Rng) -> JobSpec {
        let pipelines = if random.bool() { 1 } else { random.u32(2..=3) };
        JobSpec {
            id,
            pipelines: (0..pipelines).map(|_| Pipeline::random(random)).collect(),
            records: random.u64(5..60),
            checkpoint_interval: Duration::from_millis(random.u64(50..1500)),
            max_concurrent: random.u32(1..=2),
            tolerable_failures: random.u32(0..=3),
            num_retained: random.u32(1..=2),
            restarts_soon: random.bool(),
            restarts_all: random.u32(0..6) == 0,
        }
    }

    pub fn required_slots(&self) -> u32 {
        self.pipelines.iter().map(|pipeline| pipeline.sources.max(pipeline.sinks)).max().unwrap_or(0)
    }

    /// The place of a subtask's pipeline, and whether it is a source.
    pub fn place(&self, subtask: Subtask) -> (usize, bool) {
        let number = subtask.vertex.0 as usize - 1;
        (number / 2, number.is_multiple_of(2))
    }

    pub fn pipeline(&self, subtask: Subtask) -> Pipeline {
        self.pipelines[self.place(subtask).0]
    }

    pub fn is_source(&self, subtask: Subtask) -> bool {
        self.place(subtask).1
    }

    fn vertex(pipeline: usize, is_source: bool) -> u128 {
        2 * pipeline as u128 + if is_source { 1 } else { 2 }
    }

    fn subtask(pipeline: usize, is_source: bool, index: u32) -> Subtask {
        Subtask { vertex: JobVertexId(JobSpec::vertex(pipeline, is_source)), index }
    }

    /// A number for each source, or each sink, of the job.
    pub fn number(&self, subtask: Subtask) -> u32 {
        self.place(subtask).0 as u32 * SUBTASKS_MAX + subtask.index
    }

    /// The numbers of all sources.
    pub fn source_numbers(&self) -> Vec<u32> {
        let of = |(place, pipeline): (usize, &Pipeline)| {
            (0..pipeline.sources).map(move |index| place as u32 * SUBTASKS_MAX + index)
        };
        self.pipelines.iter().enumerate().flat_map(of).collect()
    }

    /// Which subtasks have to restart together, said otherwise than the engine finds it out: a pipeline, or a pair of its
    /// subtasks if nothing joins these.
    pub fn region_of(&self, subtask: Subtask) -> (usize, u32) {
        let (place, _) = self.place(subtask);
        let Pipeline { is_forward, has_coordinator, .. } = self.pipelines[place];
        (place, if is_forward && !has_coordinator { subtask.index } else { 0 })
    }

    /// All subtasks of a region.
    pub fn region(&self, region: (usize, u32)) -> Vec<Subtask> {
        let Pipeline { sources, sinks, .. } = self.pipelines[region.0];
        let sources = (0..sources).map(|index| JobSpec::subtask(region.0, true, index));
        let sinks = (0..sinks).map(|index| JobSpec::subtask(region.0, false, index));
        sources.chain(sinks).filter(|subtask| self.region_of(*subtask) == region).collect()
    }

    pub fn regions(&self) -> Vec<(usize, u32)> {
        let of =
            |place: usize| (0..self.pipelines[place].sources).map(move |index| JobSpec::subtask(place, true, index));
        let mut regions: Vec<_> = (0..self.pipelines.len()).flat_map(of).map(|source| self.region_of(source)).collect();
        regions.dedup();
        regions
    }

    /// The operator whose coordinator runs beside this subtask's pipeline.
    pub fn coordinator(&self, subtask: Subtask) -> Option<OperatorId> {
        let operator = OperatorId(JobSpec::vertex(self.place(subtask).0, true));
        self.pipeline(subtask).has_coordinator.then_some(operator)
    }

    /// The key of a record. No two sinks of the job that do not share them have the same.
    pub fn key(&self, source: Subtask, number: u64) -> u64 {
        let (place, _) = self.place(source);
        let alone = if self.pipelines[place].is_forward { u64::from(source.index) } else { 0 };
        (place as u64 * 100 + alone) * 1000 + (number * 31 + u64::from(source.index) * 17) % KEYS
    }

    /// The sink that a source's record goes to.
    pub fn sink_of(&self, source: Subtask, key: u64) -> Subtask {
        let Pipeline { sinks, is_forward, .. } = self.pipeline(source);
        let index = if is_forward { source.index } else { (key % u64::from(sinks)) as u32 };
        JobSpec::subtask(self.place(source).0, false, index)
    }

    /// The sinks that a source has channels to.
    pub fn sinks_of(&self, source: Subtask) -> Vec<Subtask> {
        let Pipeline { sinks, is_forward, .. } = self.pipeline(source);
        let indices = if is_forward { source.index..source.index + 1 } else { 0..sinks };
        indices.map(|index| JobSpec::subtask(self.place(source).0, false, index)).collect()
    }

    /// The sources that a sink has channels from, in their order.
    pub fn sources_of(&self, sink: Subtask) -> Vec<Subtask> {
        let Pipeline { sources, is_forward, .. } = self.pipeline(sink);
        let indices = if is_forward { sink.index..sink.index + 1 } else { 0..sources };
        indices.map(|index| JobSpec::subtask(self.place(sink).0, true, index)).collect()
    }

    pub fn graph(&self) -> JobGraph {
        let mut configuration = Configuration::new();
        configuration.set(&config::CHECKPOINTING_INTERVAL, Some(self.checkpoint_interval));
        configuration.set(&config::CHECKPOINTING_TIMEOUT, Duration::from_secs(3));
        configuration.set(&config::CHECKPOINTING_MAX_CONCURRENT, self.max_concurrent);
        configuration.set(&config::CHECKPOINTING_TOLERABLE_FAILURES, self.tolerable_failures);
        configuration.set(&config::CHECKPOINTING_NUM_RETAINED, self.num_retained);
        if self.restarts_soon {
            for (key, value) in
                [("type", "fixed-delay"), ("fixed-delay.attempts", "1000000"), ("fixed-delay.delay", "100 ms")]
            {
                configuration.set_text(&format!("restart-strategy.{key}"), value, Origin::Program);
            }
        }
        if self.restarts_all {
            configuration.set(&config::FAILOVER_STRATEGY, FailoverStrategy::Full);
        }
        let (mut vertices, mut edges) = (Vec::new(), Vec::new());
        for (place, Pipeline { sources, sinks, is_forward, has_coordinator }) in self.pipelines.iter().enumerate() {
            let number = |is_source| JobSpec::vertex(place, is_source);
            let source = if *has_coordinator { sketch::coordinated } else { sketch::vertex };
            vertices.push(source(number(true), "source", *sources));
            vertices.push(sketch::vertex(number(false), "sink", *sinks));
            let partitioning = if *is_forward { Partitioning::Forward } else { Partitioning::Hash };
            edges.push(sketch::edge(2 * place, 2 * place + 1, partitioning));
        }
        JobGraph { configuration, ..sketch::graph(self.id, vertices, edges) }
    }
}
