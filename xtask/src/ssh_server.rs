//! The SSH server over which a cluster is started in a test: Debian's, unpacked in the cache folder and not installed, for
//! an installation would start it for everybody. `tests/src/ssh.rs` looks for it there.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::checkout::run;

/// The server, and those of its libraries that not every system has.
const PACKAGES: [&str; 4] = ["openssh-server", "libwrap0", "libnsl2", "libtirpc3"];

/// Unpacks it, unless it is there.
///
/// # Errors
/// If it cannot be had.
pub fn install_missing(cache: &Path) -> Result<()> {
    let folder = cache.join("openssh-server");
    if folder.join("usr/sbin/sshd").is_file() {
        return Ok(());
    }
    // What is cut off half-way has another name.
    let unfinished = cache.join(format!("openssh-server.unfinished-{}", std::process::id()));
    let unpacked = unpack(&unfinished).and_then(|()| {
        fs::rename(&unfinished, &folder).with_context(|| format!("{} cannot be made", folder.display()))
    });
    if unpacked.is_err() {
        let _ = fs::remove_dir_all(&unfinished);
    }
    unpacked.context("an SSH server is needed by the test of bin/start-cluster.sh")
}

fn unpack(folder: &Path) -> Result<()> {
    let archives = folder.join("archives");
    fs::create_dir_all(&archives).with_context(|| format!("{} cannot be made", archives.display()))?;
    let download = || run(Command::new("apt-get").args(["-qq", "download"]).args(PACKAGES).current_dir(&archives));
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
