//! Where configuration comes from: `conf/config.yaml`, the environment, and `-Dkey=value` on the command line.

use std::{env, fs, io, path::PathBuf};

use millstream_model::config::{Configuration, MalformedArgument, MalformedFile};

use crate::{client_line::CLIENT_VARIABLE, logging::LOG_FILE_VARIABLE, role::ROLE_VARIABLE};

/// Names the directory that holds `config.yaml`; without it, `conf` in the working directory is looked at.
const CONF_DIR_VARIABLE: &str = "MILLSTREAM_CONF_DIR";
/// Variables that are not configuration keys, though they start like those.
const OWN_VARIABLES: [&str; 11] = [
    ROLE_VARIABLE,
    CLIENT_VARIABLE,
    CONF_DIR_VARIABLE,
    "MILLSTREAM_CACHE_DIR",
    "MILLSTREAM_USRLIB_DIR",
    // Of the scripts in `bin/`.
    "MILLSTREAM_HOME",
    "MILLSTREAM_BIN",
    "MILLSTREAM_LOG_DIR",
    LOG_FILE_VARIABLE,
    "MILLSTREAM_PID_DIR",
    "MILLSTREAM_SSH_OPTS",
];

/// Configuration that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read the configuration file {path}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(transparent)]
    MalformedFile(#[from] MalformedFile),
    #[error(transparent)]
    MalformedArgument(#[from] MalformedArgument),
    #[error("{0}")]
    BadValues(String),
}

/// Whether an argument of the command line is configuration.
pub(crate) fn is_dynamic(argument: &str) -> bool {
    argument.strip_prefix("-D").is_some_and(|rest| !rest.is_empty())
}

/// The configuration of this process, checked.
///
/// # Errors
/// If a file cannot be read, or a value is bad; all bad values are named at once.
pub fn load() -> Result<Configuration, SettingsError> {
    let directory = env::var_os(CONF_DIR_VARIABLE).map_or_else(|| PathBuf::from("conf"), PathBuf::from);
    let mut configuration = from_files(&directory)?;
    let own = |name: &str| name.starts_with("MILLSTREAM_") && !OWN_VARIABLES.contains(&name);
    configuration.apply_environment(env::vars().filter(|(name, _)| own(name)));
    configuration.apply_dynamic(env::args().skip(1).filter(|argument| is_dynamic(argument)))?;
    configuration.validate().map_err(|bad| SettingsError::BadValues(bad.to_string()))?;
    Ok(configuration)
}

/// `config.yaml`, or the older `flink-conf.yaml`, or nothing.
fn from_files(directory: &std::path::Path) -> Result<Configuration, SettingsError> {
    type Parse = fn(&str, &str) -> Result<Configuration, MalformedFile>;
    let forms: [(&str, Parse); 2] =
        [("config.yaml", Configuration::from_yaml), ("flink-conf.yaml", Configuration::from_flink_conf)];
    for (name, parse) in forms {
        let path = directory.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => return Ok(parse(&text, &path.display().to_string())?),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(SettingsError::Unreadable { path, source }),
        }
    }
    Ok(Configuration::new())
}

/// Logs what is odd about a configuration that is not wrong.
pub(crate) fn report(configuration: &Configuration) {
    for warning in configuration.warnings() {
        tracing::warn!("{warning}");
    }
}
