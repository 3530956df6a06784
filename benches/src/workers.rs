//! Jobs over two worker processes of this machine: what is exchanged goes through sockets.

use anyhow::{Result, ensure};
use clap::Args;
use millstream::{
    model::config::{self, Origin},
    prelude::*,
};
use serde_json::{Value, json};

/// How the two processes speak with each other.
#[derive(Clone, Debug, Args)]
pub struct Workers {
    /// What `shuffle.transport` is set to
    #[arg(long, default_value = "quic")]
    pub transport: String,
    /// Neither proof of identity nor encryption, as the opponents' TCP has none; QUIC always has both
    #[arg(long)]
    pub no_tls: bool,
}

impl Workers {
    /// An environment whose jobs get two workers. Sharing groups fill them in the order in which a job names them, so
    /// two groups of `slots` subtasks are apart.
    pub fn environment(&self, slots: u32) -> StreamExecutionEnvironment {
        let mut env = StreamExecutionEnvironment::get();
        let configuration = env.configuration_mut();
        configuration.set(&config::LOCAL_TASK_MANAGERS, 2).set(&config::TASK_SLOTS, slots);
        configuration.set_text("shuffle.transport", &self.transport, Origin::Program);
        configuration.set(&config::SHUFFLE_TLS, !self.no_tls);
        env.set_parallelism(slots);
        env
    }

    /// The conditions that this sets, with those of the program.
    pub fn conditions(&self, of_program: Value) -> Value {
        let Value::Object(mut conditions) = of_program else { unreachable!("conditions are objects") };
        let tls = !self.no_tls || self.transport == "quic";
        let transport = if tls && self.transport == "tcp" { "tcp+tls" } else { &self.transport };
        conditions.insert("transport".to_owned(), json!(transport));
        conditions.insert("path".to_owned(), json!("loopback"));
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
