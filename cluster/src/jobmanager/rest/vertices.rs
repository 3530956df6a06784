//! The vertices of a job, made of its tasks as Flink makes them.

use std::collections::BTreeMap;

use millstream_controlplane::{ExecutionSnapshot, TaskCounts, TaskSnapshot};
use millstream_model::{message::TaskMetrics, state::ExecutionState};
use serde_json::{Map, Value, json};

use super::plan::{Plan, PlanVertex};

/// A vertex as `/jobs/:jobid` shows it.
pub(super) struct Vertex<'a> {
    plan: &'a PlanVertex,
    counts: TaskCounts,
    pub(super) state: ExecutionState,
    metrics: Metrics,
    /// Milliseconds since 1970; -1 if there is none.
    start: i64,
    end: i64,
    duration: i64,
}

/// Sums over the tasks of a vertex.
#[derive(Clone, Copy, Default)]
struct Metrics {
    sums: TaskMetrics,
    /// Whether each task has reported some.
    is_complete: bool,
}

impl Metrics {
    fn of(tasks: &[&TaskSnapshot], parallelism: u32) -> Metrics {
        let mut sums = TaskMetrics::default();
        let reported: Vec<TaskMetrics> = tasks.iter().filter_map(|task| task.metrics).collect();
        for task in &reported {
            sums.records_in += task.records_in;
            sums.records_out += task.records_out;
            sums.bytes_in += task.bytes_in;
            sums.bytes_out += task.bytes_out;
            sums.busy_nanos += task.busy_nanos;
            sums.idle_nanos += task.idle_nanos;
            sums.backpressured_nanos += task.backpressured_nanos;
        }
        Metrics { sums, is_complete: reported.len() == parallelism as usize }
    }

    fn to_json(self) -> Value {
        let Metrics { sums, is_complete } = self;
        let millis = |nanos: u64| nanos / 1_000_000;
        json!({
            "read-bytes": sums.bytes_in, "read-bytes-complete": is_complete,
            "write-bytes": sums.bytes_out, "write-bytes-complete": is_complete,
            "read-records": sums.records_in, "read-records-complete": is_complete,
            "write-records": sums.records_out, "write-records-complete": is_complete,
            "accumulated-backpressured-time": millis(sums.backpressured_nanos),
            "accumulated-idle-time": millis(sums.idle_nanos),
            "accumulated-busy-time": millis(sums.busy_nanos) as f64,
        })
    }
}

/// All vertices of a job; `snapshot` is `None` for a job that has ended before it had any tasks.
pub(super) fn all<'a>(plan: &'a Plan, snapshot: Option<&ExecutionSnapshot>, now: i64) -> Vec<Vertex<'a>> {
    let mut tasks = BTreeMap::<_, Vec<&TaskSnapshot>>::new();
    for task in snapshot.into_iter().flat_map(|snapshot| &snapshot.tasks) {
        tasks.entry(task.subtask.vertex).or_default().push(task);
    }
    let of = |vertex: &PlanVertex| tasks.get(&vertex.id).map_or(&[][..], Vec::as_slice);
    plan.vertices.iter().map(|vertex| Vertex::of(vertex, of(vertex), now)).collect()
}

impl Vertex<'_> {
    fn of<'a>(plan: &'a PlanVertex, tasks: &[&TaskSnapshot], now: i64) -> Vertex<'a> {
        let mut counts = TaskCounts::default();
        tasks.iter().for_each(|task| counts.add(task.state));
        (tasks.len() as u32..plan.parallelism).for_each(|_| counts.add(ExecutionState::Created));
        let deployed = tasks.iter().flat_map(|task| &task.history);
        let deployed = deployed.filter(|(state, _)| *state == ExecutionState::Deploying);
        let start = deployed.map(|(_, at)| at.unix_millis() as i64).min();
        let changes = tasks.iter().filter_map(|task| task.history.last());
        let latest = changes.map(|(_, at)| at.unix_millis() as i64).max();
        let have_ended = tasks.iter().all(|task| task.state.is_terminal());
        let (end, duration) = match (start, latest) {
            (Some(start), Some(end)) if have_ended => (end, end - start),
            (Some(start), _) => (-1, now - start),
            (None, _) => (-1, -1),
        };
        Vertex {
            plan,
            counts,
            state: state_of(&counts),
            metrics: Metrics::of(tasks, plan.parallelism),
            start: start.unwrap_or(-1),
            end,
            duration,
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "id": self.plan.id.to_string(),
            "slotSharingGroupId": self.plan.slot_sharing_group_id(),
            "name": self.plan.name,
            "maxParallelism": self.plan.max_parallelism,
            "parallelism": self.plan.parallelism,
            "status": self.state,
            "start-time": self.start,
            "end-time": self.end,
            "duration": self.duration,
            "tasks": by_state(&self.counts),
            "metrics": self.metrics.to_json(),
        })
    }
}

/// The state of a vertex whose tasks are in these: Flink's `getAggregateJobVertexState`.
fn state_of(counts: &TaskCounts) -> ExecutionState {
    use ExecutionState::*;
    let first = [Failed, Canceling, Canceled, Initializing, Running].into_iter().find(|state| counts.of(*state) > 0);
    match first {
        Some(state) => state,
        None if counts.of(Finished) == 0 => Created,
        None if counts.of(Finished) == counts.total() => Finished,
        None => Running,
    }
}

/// How many there are in each state, as vertices and jobs show it.
pub(super) fn by_state(counts: &TaskCounts) -> Value {
    let mut map = Map::new();
    for state in ExecutionState::ALL {
        map.insert(name(state), counts.of(state).into());
    }
    // Flink has it for tasks that a JobManager finds again; none is ever in this state here.
    map.insert("RECONCILING".to_owned(), 0.into());
    Value::Object(map)
}

/// The same in lower case and with a sum, as `/jobs/overview` shows it.
pub(super) fn by_state_with_total(counts: &TaskCounts) -> Value {
    let mut map = Map::new();
    for state in ExecutionState::ALL {
        map.insert(name(state).to_lowercase(), counts.of(state).into());
    }
    map.insert("reconciling".to_owned(), 0.into());
    map.insert("total".to_owned(), counts.total().into());
    Value::Object(map)
}

fn name(state: ExecutionState) -> String {
    match serde_json::to_value(state) {
        Ok(Value::String(name)) => name,
        other => unreachable!("states are written as texts: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millstream_controlplane::clock::Moment;
    use millstream_model::{
        config::Configuration,
        id::{JobVertexId, Subtask},
    };

    use super::*;

    fn task(index: u32, history: &[(ExecutionState, u64)], records_in: Option<u64>) -> TaskSnapshot {
        let history: Vec<_> =
            history.iter().map(|(state, millis)| (*state, Moment(Duration::from_millis(*millis)))).collect();
        TaskSnapshot {
            subtask: Subtask { vertex: JobVertexId(1), index },
            place: None,
            state: history.last().map_or(ExecutionState::Created, |(state, _)| *state),
            history,
            metrics: records_in.map(|records_in| TaskMetrics { records_in, ..TaskMetrics::default() }),
            rates: None,
        }
    }

    fn shown(tasks: &[TaskSnapshot]) -> Value {
        let graph = serde_json::from_value(json!({
            "job_id": "00000000000000000000000000000001", "name": "job", "edges": [], "artifact": null,
            "configuration": Configuration::new(),
            "vertices": [{
                "id": "00000000000000000000000000000001", "name": "v", "parallelism": 2, "max_parallelism": 128,
                "operators": [], "slot_sharing_group": "default", "on_own_thread": false,
            }],
        }));
        let plan = Plan::of(&graph.unwrap());
        let snapshot = ExecutionSnapshot { tasks: tasks.to_vec(), ..ExecutionSnapshot::default() };
        all(&plan, Some(&snapshot), 1_000)[0].to_json()
    }

    #[test]
    fn a_vertex_has_the_times_and_the_state_of_its_tasks() {
        use ExecutionState::*;
        let ended = [(Deploying, 10), (Running, 20), (Finished, 90)];
        let running = [(Deploying, 12), (Running, 25)];
        let vertex = shown(&[task(0, &ended, Some(3)), task(1, &running, None)]);
        assert_eq!((&vertex["status"], &vertex["start-time"]), (&json!("RUNNING"), &json!(10)));
        assert_eq!((&vertex["end-time"], &vertex["duration"]), (&json!(-1), &json!(990)));
        assert_eq!((&vertex["tasks"]["FINISHED"], &vertex["tasks"]["RUNNING"]), (&json!(1), &json!(1)));
        // What one of them has read is shown, and that it is not all.
        let metrics = &vertex["metrics"];
        assert_eq!((&metrics["read-records"], &metrics["read-records-complete"]), (&json!(3), &json!(false)));
        let vertex = shown(&[task(0, &ended, Some(3)), task(1, &ended, Some(4))]);
        assert_eq!(
            (&vertex["end-time"], &vertex["duration"], &vertex["status"]),
            (&json!(90), &json!(80), &json!("FINISHED"))
        );
        assert_eq!(vertex["metrics"]["read-records-complete"], true);
    }

    #[test]
    fn a_vertex_that_was_never_deployed_has_no_times() {
        let vertex = shown(&[]);
        assert_eq!((&vertex["status"], &vertex["tasks"]["CREATED"]), (&json!("CREATED"), &json!(2)));
        for key in ["start-time", "end-time", "duration"] {
            assert_eq!(vertex[key], -1, "{key}");
        }
    }

    #[test]
    fn one_task_that_has_failed_makes_a_vertex_that_has_failed() {
        use ExecutionState::*;
        let vertex = shown(&[task(0, &[(Deploying, 1), (Failed, 2)], None), task(1, &[(Deploying, 1)], None)]);
        assert_eq!(vertex["status"], "FAILED");
    }
}
