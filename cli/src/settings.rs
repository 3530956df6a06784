//! The configuration of the command itself.

use std::ffi::OsString;

use anyhow::{Context, Result};
use millstream::{
    model::config::{Configuration, REST_ADDRESS, REST_PORT},
    settings,
};

/// What `conf/config.yaml`, the environment and these `-D` settings say.
///
/// # Errors
/// If a file cannot be read, or a value is bad.
pub fn load(dynamic: &[OsString]) -> Result<Configuration> {
    let mut configuration = settings::load()?;
    let texts = dynamic.iter().map(|setting| setting.to_str().map(|text| format!("-D{text}")));
    let texts: Option<Vec<String>> = texts.collect();
    configuration.apply_dynamic(texts.context("a -D setting is no text")?)?;
    configuration.validate().map_err(|bad| anyhow::anyhow!("{bad}"))?;
    Ok(configuration)
}

/// A setting as an argument of a program: `-Dkey=value`.
pub fn argument(setting: OsString) -> OsString {
    let mut argument = OsString::from("-D");
    argument.push(setting);
    argument
}

/// The JobManager to speak with: what the command line says, or else `rest.address` and `rest.port`.
///
/// # Errors
/// If a value is bad.
pub fn jobmanager(given: Option<&str>, configuration: &Configuration) -> Result<String> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let (host, port) = (configuration.get(&REST_ADDRESS)?, configuration.get(&REST_PORT)?);
    Ok(format!("{host}:{port}"))
}
