//! The jobs that are simulated: so many sources, so many sinks, and what each source has to read.

use std::time::Duration;

use millstream_model::{
    config::{self, Configuration, Origin},
    id::{JobId, JobVertexId, OperatorId, Subtask},
    job_graph::{Codec, FactoryRef, JobEdge, JobGraph, JobVertex, Operator, OperatorRole, Partitioning},
    key_group::MaxParallelism,
};

const SOURCE: u128 = 1;
const SINK: u128 = 2;
const KEYS: u64 = 7;

#[derive(Clone, Debug)]
pub struct JobSpec {
    pub id: JobId,
    pub sources: u32,
    pub sinks: u32,
    /// Of each source.
    pub records: u64,
    pub has_coordinator: bool,
    pub checkpoint_interval: Duration,
    pub max_concurrent: u32,
    pub tolerable_failures: u32,
    pub num_retained: u32,
    /// Fixed delay with no end instead of the default, which grows.
    pub restarts_soon: bool,
}

impl JobSpec {
    /// Any job that the engine should take.
    pub fn random(id: JobId, random: &mut fastrand::Rng) -> JobSpec {
        JobSpec {
            id,
            sources: random.u32(1..=3),
            sinks: random.u32(1..=3),
            records: random.u64(5..60),
            has_coordinator: random.bool(),
            checkpoint_interval: Duration::from_millis(random.u64(50..1500)),
            max_concurrent: random.u32(1..=2),
            tolerable_failures: random.u32(0..=3),
            num_retained: random.u32(1..=2),
            restarts_soon: random.bool(),
        }
    }

    pub fn required_slots(&self) -> u32 {
        self.sources.max(self.sinks)
    }

    pub fn source(&self, index: u32) -> Subtask {
        Subtask { vertex: JobVertexId(SOURCE), index }
    }

    pub fn sink(&self, index: u32) -> Subtask {
        Subtask { vertex: JobVertexId(SINK), index }
    }

    pub fn is_source(&self, subtask: Subtask) -> bool {
        subtask.vertex == JobVertexId(SOURCE)
    }

    pub fn coordinator(&self) -> Option<OperatorId> {
        self.has_coordinator.then_some(OperatorId(SOURCE))
    }

    pub fn key(&self, source: u32, number: u64) -> u64 {
        (number * 31 + u64::from(source) * 17) % KEYS
    }

    pub fn sink_of(&self, key: u64) -> u32 {
        (key % u64::from(self.sinks)) as u32
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
        let named = || FactoryRef::Named("simulated".to_owned());
        let vertex = |number: u128, name: &str, parallelism, role, coordinator| JobVertex {
            id: JobVertexId(number),
            name: name.to_owned(),
            parallelism,
            max_parallelism: MaxParallelism(128),
            operators: vec![Operator {
                id: OperatorId(number),
                uid: None,
                name: name.to_owned(),
                role,
                factory: named(),
                conf: Vec::new(),
                coordinator,
                outputs: Vec::new(),
            }],
            slot_sharing_group: "default".to_owned(),
            on_own_thread: false,
        };
        let coordinator = self.has_coordinator.then(named);
        JobGraph {
            job_id: self.id,
            name: "simulated".to_owned(),
            vertices: vec![
                vertex(SOURCE, "source", self.sources, OperatorRole::OneInput, coordinator),
                vertex(SINK, "sink", self.sinks, OperatorRole::OneInput, None),
            ],
            edges: vec![JobEdge {
                source: 0,
                target: 1,
                input: 0,
                partitioning: Partitioning::Hash,
                codec: Codec::Row,
                writer: named(),
                writer_conf: Vec::new(),
                reader: None,
            }],
            configuration,
            artifact: None,
        }
    }
}
