//! Millstream: stream processing with Flink's model, in Rust.
//!
//! A job is an ordinary program. Its `main` describes streams and calls `execute`:
//!
//! ```no_run
//! use millstream::prelude::*;
//!
//! #[millstream::main]
//! fn main() -> Result<(), JobError> {
//!     let env = StreamExecutionEnvironment::get();
//!     env.from_collection(["to be or not to be".to_owned()])
//!         .flat_map::<String, _>(|line, out| line.split(' ').for_each(|word| out.emit(word)))
//!         .key_by::<String, _>(|word| *word)
//!         .count()
//!         .print();
//!     env.execute("word count")?;
//!     Ok(())
//! }
//! ```
//!
//! The same executable is started in different roles:
//!
//! ```text
//!  ./job            run     plan and run in an embedded MiniCluster, in this process
//!  (a client)       plan    run main() once; execute() ships the job graph
//!  (a TaskManager)  worker  main() does not run; operators are rebuilt from the job graph
//! ```
//!
//! | Look here for | module |
//! |---|---|
//! | what programs import | [`prelude`] |
//! | which role a process has | `role` |
//! | log lines | [`logging`] |
//! | how much memory there is | [`memory`] |
//! | which task it was, when a signal ends a worker | `crash` |
//! | the embedded cluster | [`mini_cluster`] |
//! | a job whose JobMaster is in this process | [`embedded_job`] |
//! | what must survive a cluster, and who writes it | [`leadership`] |
//! | configuration files, environment, `-D` | [`settings`] |
//! | a worker in a process of its own | [`worker_process`] |
//! | several of them for one job | `worker_fleet` |
//! | how they find and trust each other | [`worker_network`] |
//! | jobs for a cluster, when a client runs the program | [`client_line`] |
//! | what an artifact says about itself | [`artifact`] |
//! | whether a file is the one whose hash is known | [`hashed_file`] |

pub mod artifact;
pub mod client_line;
mod crash;
pub mod embedded_job;
pub mod hashed_file;
pub mod leadership;
pub mod logging;
pub mod memory;
pub mod mini_cluster;
mod role;
pub mod settings;
mod worker_fleet;
pub mod worker_network;
pub mod worker_process;

pub use millstream_api::{
    AsyncRetry, AsyncWait, InvalidGraph, Record, WatermarkStrategy, context, coordinator, flow::fail, function, job,
    metrics, push, record, sink, source, state, stream,
};
pub use millstream_connectors as connectors;
pub use millstream_macros::main;
pub use millstream_model as model;
pub use role::args;

/// What programs import: `use millstream::prelude::*`.
pub mod prelude {
    pub use millstream_api::{
        AsyncRetry, AsyncWait, Record, WatermarkStrategy,
        context::RuntimeContext,
        flow::fail,
        function::{
            AsyncFunction, CoProcessFunction, KeyedCoProcessFunction, KeyedContext, KeyedProcessFunction,
            ProcessContext, ProcessFunction, Timer,
        },
        job::{Collected, JobClient, JobError, JobExecutionResult},
        metrics::{Counter, Gauge, MetricGroup},
        push::{Out, OutputTag},
        record::{Key, List},
        state::{ListState, MapState, ReducingState, ValueState},
        stream::{
            connected::{ConnectedKeyedStreams, ConnectedStreams},
            data_stream::{DataStream, DataStreamSink},
            environment::StreamExecutionEnvironment,
            keyed_stream::KeyedStream,
        },
    };
    pub use millstream_model::{
        config::{self, Configuration},
        fault::Failure,
        state::JobStatus,
        time::{EventTime, Watermark},
    };

    pub use crate::mini_cluster::LocalEnvironment;
}

/// For code that macros have written.
#[doc(hidden)]
pub mod __private {
    pub use millstream_api::__private::*;

    pub use crate::role::enter;
}

#[cfg(feature = "allocator")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
