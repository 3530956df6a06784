//! Jobs over two worker processes of this machine: what is exchanged goes through sockets.

use std::sync::Arc;

use anyhow::{Result, ensure};
use clap::Args;
use millstream::{
    model::config::{self, MemorySize, Origin},
    prelude::*,
};
use serde_json::{Value, json};

use crate::path::{HostedCluster, POD_SOCKET_BUFFER, Path};

/// How the two processes speak with each other.
#[derive(Clone, Debug, Args)]
pub struct Workers {
    /// What `shuffle.transport` is set to
    #[arg(long, default_value = "quic")]
    pub transport: String,
    /// Neither proof of identity nor encryption, as the opponents' TCP has none; QUIC always has both
    #[arg(long)]
    pub no_tls: bool,
    /// What is between the two
    #[arg(long, value_enum, default_value_t)]
    pub path: Path,
    /// What `shuffle.quic.lanes` is set to: streams per connection, 0 for one per channel
    #[arg(long, default_value_t = 16)]
    pub lanes: u32,
}

impl Workers {
    /// An environment whose jobs get two workers. Sharing groups fill them in the order in which a job names them, so
    /// two groups of `slots` subtasks are apart.
    ///
    /// # Errors
    /// If the way between them carries no such transport.
    pub fn environment(&self, slots: u32) -> Result<StreamExecutionEnvironment> {
        self.environment_of(2, slots)
    }

    /// The same with so many workers.
    ///
    /// # Errors
    /// As above.
    pub fn environment_of(&self, workers: u32, slots: u32) -> Result<StreamExecutionEnvironment> {
        ensure!(self.path != Path::Lossy || self.transport == "quic", "a lossy path carries datagrams only");
        let mut env = StreamExecutionEnvironment::get();
        if self.path != Path::Loopback {
            let mut configuration = env.configuration_mut().clone();
            configuration.set(&config::SHUFFLE_SOCKET_BUFFER, MemorySize::from_bytes(POD_SOCKET_BUFFER));
            env = StreamExecutionEnvironment::with_executor(Arc::new(HostedCluster::new(
                configuration,
                self.path,
                workers as u8,
            )));
        }
        let configuration = env.configuration_mut();
        configuration.set(&config::SHUFFLE_LANES, self.lanes);
        configuration.set(&config::LOCAL_TASK_MANAGERS, workers).set(&config::TASK_SLOTS, slots);
        configuration.set_text("shuffle.transport", &self.transport, Origin::Program);
        configuration.set(&config::SHUFFLE_TLS, !self.no_tls);
        env.set_parallelism(slots);
        Ok(env)
    }

    /// The conditions that this sets, with those of the program.
    pub fn conditions(&self, of_program: Value) -> Value {
        let Value::Object(mut conditions) = of_program else { unreachable!("conditions are objects") };
        let tls = !self.no_tls || self.transport == "quic";
        let transport = if tls && self.transport == "tcp" { "tcp+tls" } else { &self.transport };
        conditions.insert("transport".to_owned(), json!(transport));
        conditions.insert("path".to_owned(), json!(self.path.name()));
        conditions.insert("lanes".to_owned(), json!(self.lanes));
        conditions.insert("workers".to_owned(), json!(2));
        Value::Object(conditions)
    }
}

/// # Errors
/// If the job was restarted: then its figures are of no use.
pub fn ensure_undisturbed(result: &JobExecutionResult) -> Result<()> {
    ensure!(result.restarts() == 0, "the job was restarted");
    Ok(())
}

/// How many records have gone from sources to sinks, which count them as `sent` and `received`.
///
/// # Errors
/// If the job was restarted, or not all have arrived.
pub fn records_passed(result: &JobExecutionResult) -> Result<i64> {
    ensure_undisturbed(result)?;
    let (sent, received) = (result.accumulator("sent"), result.accumulator("received"));
    ensure!(sent == received && sent > 0, "{received} records of {sent} have arrived");
    Ok(sent)
}
