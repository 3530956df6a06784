//! Where a program starts: the environment that gathers operators and runs them as a job.

use std::{
    cell::RefCell,
    panic::Location,
    rc::Rc,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use millstream_model::{
    config::{Configuration, PARALLELISM, PIPELINE_JOB_ID, PIPELINE_NAME},
    fault::Failure,
    id::JobId,
    job_graph::{JobGraph, OperatorRole},
};
use xxhash_rust::xxh3::xxh3_128;

use super::data_stream::DataStream;
use crate::{
    builtin::CollectionSource,
    factory::{self, encode_conf},
    graph::{
        InvalidGraph,
        node::{Chaining, StreamGraph, StreamNode},
        plan,
    },
    job::{JobClient, JobError, JobExecutionResult, PipelineExecutor, default_executor},
    record::Record,
    source::{self, Source},
};

/// What streams and their environment share.
pub(crate) type SharedGraph = Rc<RefCell<StreamGraph>>;

/// Gathers the operators of a job and runs it.
///
/// `main()` may call `execute` several times; each runs what was added since the call before.
pub struct StreamExecutionEnvironment {
    graph: SharedGraph,
    configuration: Configuration,
    executor: Option<Arc<dyn PipelineExecutor>>,
}

impl StreamExecutionEnvironment {
    /// The environment of the place where the program runs: an embedded cluster if it was started directly, the
    /// cluster it was submitted to otherwise.
    pub fn get() -> Self {
        let executor = default_executor();
        let configuration = executor.as_ref().map(|executor| executor.configuration()).unwrap_or_default();
        StreamExecutionEnvironment { graph: SharedGraph::default(), configuration, executor }
    }

    /// An environment whose jobs `executor` runs.
    pub fn with_executor(executor: Arc<dyn PipelineExecutor>) -> Self {
        let configuration = executor.configuration();
        StreamExecutionEnvironment { graph: SharedGraph::default(), configuration, executor: Some(executor) }
    }

    /// What jobs of this environment are configured with. Changes count for jobs that are executed afterwards.
    pub fn configuration_mut(&mut self) -> &mut Configuration {
        &mut self.configuration
    }

    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// How many subtasks operators have that are not told otherwise.
    pub fn set_parallelism(&mut self, parallelism: u32) -> &mut Self {
        self.configuration.set(&PARALLELISM, parallelism);
        self
    }

    /// A stream from a source.
    #[track_caller]
    pub fn from_source<S: Source>(&self, source: S) -> DataStream<S::Out> {
        let node = StreamNode {
            kind: "Source",
            line: line(Location::caller()),
            name: None,
            uid: None,
            parallelism: None,
            max_parallelism: None,
            slot_sharing_group: None,
            chaining: Chaining::Head,
            on_own_thread: false,
            role: OperatorRole::Source,
            boundedness: Some(source.boundedness()),
            factory: factory::reference(source::source::<S>),
            conf: encode_conf(&source),
            coordinator: S::COORDINATED.then(|| factory::reference(source::source_coordinator::<S>)),
            reader: None,
            inputs: Vec::new(),
        };
        DataStream::of_node(&self.graph, node)
    }

    /// A stream of the given records. They travel in the job graph, so keep them few. Parallelism 1.
    #[track_caller]
    pub fn from_collection<T: Record>(&self, records: impl IntoIterator<Item = T>) -> DataStream<T> {
        self.from_source(CollectionSource::new(records)).set_parallelism(1)
    }

    /// The job graph of what was added so far, which stays.
    ///
    /// # Errors
    /// If it is no job that could run.
    pub fn job_graph(&self, name: &str) -> Result<JobGraph, InvalidGraph> {
        let given = self.configuration.get(&PIPELINE_JOB_ID)?;
        plan::plan(&self.graph.borrow(), given.unwrap_or_else(fresh_job_id), name, &self.configuration)
    }

    /// Runs the job and waits for its end.
    ///
    /// # Errors
    /// If it cannot be planned or submitted, fails, or is cancelled.
    pub fn execute(&self, name: &str) -> Result<JobExecutionResult, JobError> {
        self.execute_async(name)?.result()
    }

    /// Starts the job and returns at once.
    ///
    /// # Errors
    /// If it cannot be planned or submitted.
    pub fn execute_async(&self, name: &str) -> Result<JobClient, JobError> {
        let executor = self.executor.clone().ok_or(JobError::NoExecutor)?;
        let configured = self.configuration.get(&PIPELINE_NAME).map_err(InvalidGraph::from)?;
        let graph = self.job_graph(configured.as_deref().unwrap_or(name))?;
        self.configuration.validate().map_err(|bad| JobError::Submission(Failure::fatal(bad.to_string())))?;
        self.graph.borrow_mut().nodes.clear();
        let job_id = graph.job_id;
        Ok(JobClient { job_id, job: executor.submit(graph)? })
    }
}

/// An id that no other job has: from the clock, the process and the heap's place.
fn fresh_job_id() -> JobId {
    #[expect(clippy::disallowed_methods, reason = "an id must be new, and this is where ids are made")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos());
    let unique = Box::new(0_u8);
    let text = format!("{now}:{}:{:p}", std::process::id(), &raw const *unique);
    JobId(xxh3_128(text.as_bytes()))
}

/// File and line, for names.
pub(crate) fn line(place: &Location<'_>) -> String {
    let file = place.file().rsplit('/').next().unwrap_or_default();
    format!("{file}:{}", place.line())
}
