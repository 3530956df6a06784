//! Servers that tests start: Debian's, unpacked in the cache folder and not installed, for an installation would start them
//! for everybody. `tests/src/ssh.rs` and `tests/src/prometheus.rs` look for them there.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::checkout::run;

/// A server, which is in the first of the packages; the others have those of its libraries that not every system has.
struct Server {
    packages: &'static [&'static str],
    program: &'static str,
    needed_by: &'static str,
}

const SERVERS: [Server; 2] = [
    Server {
        packages: &["openssh-server", "libwrap0", "libnsl2", "libtirpc3"],
        program: "usr/sbin/sshd",
        needed_by: "an SSH server is needed by the test of bin/start-cluster.sh",
    },
    Server {
        packages: &["prometheus"],
        program: "usr/bin/prometheus",
        needed_by: "Prometheus is needed by the test of metrics",
    },
];

/// Unpacks those that are not there.
///
/// # Errors
/// If one cannot be had.
pub fn install_missing(cache: &Path) -> Result<()> {
    SERVERS.iter().try_for_each(|server| server.install_missing(cache))
}

impl Server {
    fn install_missing(&self, cache: &Path) -> Result<()> {
        let name = self.packages[0];
        let folder = cache.join(name);
        if folder.join(self.program).is_file() {
            return Ok(());
        }
        // What is cut off half-way has another name.
        let unfinished = cache.join(format!("{name}.unfinished-{}", std::process::id()));
        let unpacked = unpack(&unfinished, self.packages).and_then(|()| {
            // Of a cut-off installation by an older version of this.
            let _ = fs::remove_dir_all(&folder);
            fs::rename(&unfinished, &folder).with_context(|| format!("{} cannot be made", folder.display()))
        });
        if unpacked.is_err() {
            let _ = fs::remove_dir_all(&unfinished);
        }
        unpacked.context(self.needed_by)
    }
}

fn unpack(folder: &Path, packages: &[&str]) -> Result<()> {
    let archives = folder.join("archives");
    fs::create_dir_all(&archives).with_context(|| format!("{} cannot be made", archives.display()))?;
    let download = || run(Command::new("apt-get").args(["-qq", "download"]).args(packages).current_dir(&archives));
    if download().is_err() {
        // What the system knows of packages may be old, or nothing.
        run(Command::new("apt-get").args(["-qq", "update"]))?;
        download()?;
    }
    for archive in fs::read_dir(&archives)? {
        run(Command::new("dpkg").arg("--extract").arg(archive?.path()).arg(folder))?;
    }
    Ok(())
}
