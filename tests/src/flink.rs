//! The command line of a real Flink, which `cargo xtask test` installs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{cache_folder, program::succeed};

const VERSION: &str = "2.3.0";

/// An installation of Flink, and a folder for what it makes.
pub struct Flink {
    home: PathBuf,
    folder: tempfile::TempDir,
}

impl Flink {
    /// # Panics
    /// If it is not installed.
    pub fn find() -> Flink {
        let home = cache_folder().join(format!("flink-{VERSION}/pyflink"));
        assert!(
            home.join("bin/flink").is_file(),
            "Flink {VERSION} is not in {}: `cargo xtask test` installs it there",
            home.display()
        );
        Flink { home, folder: tempfile::tempdir().expect("there is room for a folder") }
    }

    /// `flink`, as its users run it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("bash");
        command
            .arg(self.home.join("bin/flink"))
            .args(arguments)
            .env("FLINK_HOME", &self.home)
            .env("FLINK_CONF_DIR", self.home.join("conf"))
            .env("FLINK_LOG_DIR", self.folder.path());
        command
    }

    /// A JAR with this program in Java, whose class is `Job`.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn jar(&self, source: &Path) -> PathBuf {
        let classes = self.folder.path().join("classes");
        let jar = self.folder.path().join("job.jar");
        let class_path = format!("{}/*", self.home.join("lib").display());
        fs::create_dir_all(&classes).expect("there is room for a folder");
        succeed(Command::new("javac").args(["-cp", &class_path, "-d"]).arg(&classes).arg(source));
        succeed(
            Command::new("jar")
                .args(["--create", "--main-class", "Job", "--file"])
                .arg(&jar)
                .arg("-C")
                .arg(&classes)
                .arg("."),
        );
        jar
    }
}
