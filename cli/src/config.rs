//! `millstream config`: what configuration keys are set to, for the scripts in `bin/`.

use std::ffi::OsString;

use anyhow::{Context, Result};
use clap::Args;
use millstream::model::config::keys;

use crate::{settings, show};

#[derive(Args)]
pub struct Options {
    /// Configuration, stronger than conf/config.yaml and the environment
    #[arg(short = 'D', value_name = "key=value")]
    settings: Vec<OsString>,
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
}

/// Prints the value of each key on a line of its own, which is empty if there is none.
///
/// # Errors
/// If there is no such key, or the configuration cannot be read.
pub fn run(options: &Options) -> Result<()> {
    let configuration = settings::load(&options.settings)?;
    let mut lines = String::new();
    for key in &options.keys {
        let key = keys::find(key).with_context(|| format!("there is no key {key}; docs/configuration.md has them"))?;
        lines.push_str(configuration.text(key).unwrap_or_default());
        lines.push('\n');
    }
    show(&lines)
}
