//! The numbers of JobManager and TaskManagers, and who is told them.
//!
//! ```text
//!  JobManager ── job_manager ──┐             ┌──► prometheus: whoever asks
//!                              ├──► Scrape ──┤
//!  TaskManager ─ task_manager ─┘             └──► otlp: a collector, now and then
//! ```
//! Nothing is counted here and nothing kept but what a TaskManager's workers have reported last: each scrape asks for what is
//! true then. Names and labels are Flink's, so that its dashboards and alerts work; the guide says which there are.
//!
//! | Look here for | module |
//! |---|---|
//! | the numbers of one moment, by name | `scrape` |
//! | the metrics of a JobManager, of a TaskManager | `job_manager`, `task_manager` |
//! | what a process needs: memory, time, threads | `process` |
//! | the configured reporters | `reporters` |
//! | Prometheus, OpenTelemetry | `prometheus`, `otlp` |

mod job_manager;
mod otlp;
mod process;
mod prometheus;
mod reporters;
mod scrape;
mod task_manager;

pub(crate) use self::{
    job_manager::{ClusterNumbers, JobManagerMetrics, JobNumbers},
    reporters::Reporters,
    task_manager::{MemoryInUse, MemoryShares, TaskManagerMetrics, WorkerNumbers},
};
