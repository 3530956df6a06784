//! Says in words what holds a job back now.
//!
//! ```text
//!  JobShape, status, ExecutionSnapshot, CheckpointStats ──► why ──► findings, the most important first
//! ```
//! A decider: it looks at one moment of a job and keeps nothing. What it says is what one would find out oneself on Flink's
//! pages for back pressure, subtasks and checkpoints, put together.
//!
//! | Look here for | module |
//! |---|---|
//! | why a job does not run | `standstill` |
//! | who is too slow, who gets too much, who blocks its slot | `bottleneck` |
//! | why checkpoints take long or fail | `checkpoints` |

mod bottleneck;
mod checkpoints;
mod standstill;
#[cfg(test)]
mod tests;

use std::time::Duration;

use millstream_model::{
    id::{JobVertexId, Subtask},
    job_graph::JobGraph,
    state::{ExecutionState, JobStatus},
};

use crate::{
    clock::Moment,
    job_master::{ExecutionSnapshot, JobMetrics, TaskSnapshot},
};

/// Of a job's graph, what is needed to say who waits for whom.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct JobShape {
    vertices: Vec<Vertex>,
    /// From and to, as indices of vertices.
    edges: Vec<(usize, usize)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Vertex {
    id: JobVertexId,
    name: String,
    parallelism: u32,
}

/// All that is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub shape: &'a JobShape,
    pub status: JobStatus,
    pub metrics: &'a JobMetrics,
    /// `None` if the JobMaster has shown none.
    pub execution: Option<&'a ExecutionSnapshot>,
    /// Slots that the job waits for.
    pub missing_slots: u32,
    /// Why its workers do not come up.
    pub trouble: Option<&'a str>,
    /// Between the starts of two checkpoints; `None` if none are taken.
    pub checkpoint_interval: Option<Duration>,
    pub now: Moment,
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// It holds the job back.
    Problem,
    /// It may, before long.
    Warning,
    /// Good to know.
    Note,
}

/// What is found, for programs. Words are in [`Finding::text`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The job has ended.
    Ended,
    /// It waits for slots, for workers, or for the end of a pause.
    NotRunning,
    /// Some of its tasks do not run yet.
    Starting,
    /// It has failed and was restarted.
    Restarted,
    /// A task is busy, and others wait for it.
    Bottleneck,
    /// Tasks wait for room at others that are not busy: what lies between them is slow.
    Transfer,
    /// A task is near its limit.
    Busy,
    /// One subtask gets much more than others.
    Skew,
    /// A step kept its slot from others.
    LongStep,
    /// A checkpoint takes long, or fails.
    Checkpoint,
    /// Nothing holds the job back.
    Nothing,
}

/// One thing that was found.
#[derive(Clone, PartialEq, Debug)]
pub struct Finding {
    pub severity: Severity,
    pub kind: Kind,
    /// Whom it is about, if one.
    pub vertex: Option<JobVertexId>,
    pub subtask: Option<u32>,
    /// One or more sentences, with what can be done.
    pub text: String,
}

impl JobShape {
    pub fn of(graph: &JobGraph) -> JobShape {
        let vertices = graph.vertices.iter().map(|vertex| Vertex {
            id: vertex.id,
            name: vertex.name.clone(),
            parallelism: vertex.parallelism,
        });
        let edges = graph.edges.iter().map(|edge| (edge.source, edge.target));
        JobShape { vertices: vertices.collect(), edges: edges.collect() }
    }

    fn find(&self, id: JobVertexId) -> Option<&Vertex> {
        self.vertices.iter().find(|vertex| vertex.id == id)
    }

    /// A subtask, as people say it.
    fn name_of(&self, subtask: Subtask) -> String {
        match self.find(subtask.vertex) {
            Some(vertex) => vertex.subtask(subtask.index),
            None => subtask.to_string(),
        }
    }
}

impl Vertex {
    fn subtask(&self, index: u32) -> String {
        match self.parallelism {
            1 => format!("'{}'", self.name),
            parallelism => format!("subtask {index} of the {parallelism} of '{}'", self.name),
        }
    }
}

/// Looks at a job. Never empty; the most important first.
pub fn why(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = standstill::look(facts);
    if facts.status == JobStatus::Running && findings.iter().all(|finding| finding.kind != Kind::Starting) {
        findings.extend(bottleneck::look(facts));
    }
    if !facts.status.is_terminal() {
        findings.extend(checkpoints::look(facts));
    }
    // Within a severity they stay as they were found.
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// The running tasks of a vertex.
fn running<'a>(facts: &Facts<'a>, vertex: &Vertex) -> Vec<&'a TaskSnapshot> {
    let tasks = facts.execution.into_iter().flat_map(|execution| &execution.tasks);
    let of_vertex = tasks.filter(|task| task.subtask.vertex == vertex.id && task.state == ExecutionState::Running);
    of_vertex.collect()
}

/// A share as people say it.
fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A time as people say it.
fn shown(duration: Duration) -> String {
    match duration {
        long if long >= Duration::from_secs(120) => format!("{} min", long.as_secs() / 60),
        seconds if seconds >= Duration::from_secs(10) => format!("{} s", seconds.as_secs()),
        seconds if seconds >= Duration::from_secs(1) => format!("{:.1} s", seconds.as_secs_f64()),
        millis if millis >= Duration::from_millis(1) => format!("{} ms", millis.as_millis()),
        micros => format!("{} µs", micros.as_micros()),
    }
}
