//! The checkout, the cache folder beside it, and the processes that are started for it.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf, absolute},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Where the source is, and where what is made from it goes.
pub struct Checkout {
    pub root: PathBuf,
    /// Everything that can be made again: build output, texts of benchmarks.
    pub cache: PathBuf,
    /// Build output of the workspace.
    pub target: PathBuf,
}

impl Checkout {
    /// # Errors
    /// If no environment variable says where a cache folder may be.
    pub fn find() -> Result<Checkout> {
        // Cargo names the folder of the package that it runs; the compiled-in one is for a binary
        // that is started by hand.
        let package =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.parent().context("xtask lies in the checkout")?.to_path_buf();
        let cache = absolute(cache_folder(|name| env::var_os(name))?)?;
        let target = match set(env::var_os("CARGO_TARGET_DIR")) {
            Some(target) => absolute(target)?,
            None => cache.join("target"),
        };
        Ok(Checkout { root, cache, target })
    }

    /// A cargo process whose output goes to the cache folder. It starts in the current folder.
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // The outer cargo describes *xtask* in these. Build scripts that watch them would run
        // again at each change between `cargo xtask test` and `cargo test`.
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix)) {
                cargo.env_remove(&*name);
            }
        }
        cargo.env("CARGO_TARGET_DIR", &self.target);
        cargo
    }

    /// A cargo process that works on this workspace, wherever the user is.
    pub fn workspace_cargo<I, S>(&self, arguments: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        let mut cargo = self.cargo();
        cargo.current_dir(&self.root).args(arguments.into_iter().map(Into::into));
        cargo
    }

    /// An executable that `cargo build --release` has made.
    pub fn release_binary(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }

    /// What `cargo metadata` says of the members of the workspace.
    ///
    /// # Errors
    /// If a manifest cannot be read.
    pub fn metadata(&self) -> Result<Value> {
        let arguments = ["metadata", "--no-deps", "--format-version", "1"];
        let output = output(&mut self.workspace_cargo(arguments))?;
        serde_json::from_str(&output).context("cargo metadata prints JSON")
    }
}

/// Runs a process that prints for the user, showing what is run.
///
/// # Errors
/// If it cannot be started or fails.
pub fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("{} cannot start", shown(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", shown(command));
    }
    Ok(())
}

/// What a process prints; its complaints go to the user.
///
/// # Errors
/// If it cannot be started, fails, or prints what is not UTF-8.
pub fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("{} cannot start", shown(command)))?;
    if !output.status.success() {
        bail!("{} failed: {}", shown(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} prints text", shown(command)))
}

/// A command as a person would type it.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn cache_folder(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let folder = |name, below: &str| set(variable(name)).map(|path| PathBuf::from(path).join(below));
    folder("MILLSTREAM_CACHE_DIR", "")
        .or_else(|| folder("XDG_CACHE_HOME", "millstream"))
        .or_else(|| folder("HOME", ".cache/millstream"))
        .context("set MILLSTREAM_CACHE_DIR: neither it, XDG_CACHE_HOME nor HOME is set")
}

/// An empty variable counts as one that is not set, as everywhere in the XDG rules.
fn set(value: Option<OsString>) -> Option<OsString> {
    value.filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(variables: &[(&str, &str)]) -> Option<PathBuf> {
        cache_folder(|wanted| {
            let found = variables.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| OsString::from(value))
        })
        .ok()
    }

    #[test]
    fn our_own_variable_wins_over_the_systems() {
        let all = [("MILLSTREAM_CACHE_DIR", "/a"), ("XDG_CACHE_HOME", "/b"), ("HOME", "/c")];
        assert_eq!(folder_with(&all), Some("/a".into()));
        assert_eq!(folder_with(&all[1..]), Some("/b/millstream".into()));
        assert_eq!(folder_with(&all[2..]), Some("/c/.cache/millstream".into()));
        assert_eq!(folder_with(&[]), None);
    }

    #[test]
    fn an_empty_variable_is_not_the_current_folder() {
        let empty = [("MILLSTREAM_CACHE_DIR", ""), ("XDG_CACHE_HOME", ""), ("HOME", "/c")];
        assert_eq!(folder_with(&empty), Some("/c/.cache/millstream".into()));
    }

    #[test]
    fn a_command_is_shown_without_the_folder_of_its_program() {
        let mut command = Command::new("/somewhere/bin/cargo");
        command.args(["test", "--workspace"]);
        assert_eq!(shown(&command), "cargo test --workspace");
    }
}
