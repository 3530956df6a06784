//! Clients in Python, with the packages that `cargo xtask test` installs, and calls that are generated from `client/proto`.

use std::process::Command;

use crate::{
    cache_folder,
    program::{succeed, workspace},
};

const PACKAGES: &str = "python-grpc-1.85.1";

/// Generated code in a folder of its own, and the packages that it needs.
pub struct PythonClient(tempfile::TempDir);

impl PythonClient {
    /// Generates the code of what clients may ask.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn generate() -> PythonClient {
        let packages = cache_folder().join(PACKAGES);
        assert!(
            packages.is_dir(),
            "the Python packages are not in {}: `cargo xtask test` installs them there",
            packages.display()
        );
        let client = PythonClient(tempfile::tempdir().expect("there is room for a folder"));
        let mut protoc = client.python();
        let out = client.0.path().display();
        protoc.args(["-m", "grpc_tools.protoc", "-I"]).arg(workspace().join("client/proto"));
        protoc.args([format!("--python_out={out}"), format!("--grpc_python_out={out}")]);
        succeed(protoc.arg("millstream/v1/submission.proto"));
        client
    }

    /// Python, which finds the generated code and the packages, and no others than its own.
    pub fn python(&self) -> Command {
        let mut python = Command::new("python3");
        let mut path = self.0.path().as_os_str().to_owned();
        path.push(":");
        path.push(cache_folder().join(PACKAGES));
        // What is kept beside the packages would be written there by whoever runs first.
        python.env("PYTHONPATH", path).env("PYTHONDONTWRITEBYTECODE", "1");
        python
    }
}
