//! An SSH server on loopback addresses, which lets this user in by a key that is made for it. `cargo xtask test` unpacks
//! it; it leaves nothing on the system.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{cache_folder, program::succeed, standalone::free_ports, wait_until};

/// Before it is the server, the process gets a view of the file system in which there is the server's own user, whom it
/// becomes where it needs no rights.
const IN_A_VIEW: &str = r#"mount --bind "$0" /etc/passwd && mount -t tmpfs -o mode=755 none /run && mkdir -m 755 /run/sshd &&
    exec "$@""#;

/// A server. It ends when this is dropped.
pub struct SshServer {
    process: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl SshServer {
    /// Starts one that listens on these addresses.
    ///
    /// # Panics
    /// If it cannot be started, which takes root.
    pub fn start(addresses: &[&str]) -> SshServer {
        let installed = cache_folder().join("openssh-server");
        let program = installed.join("usr/sbin/sshd");
        assert!(program.is_file(), "{} is missing: `cargo xtask test` unpacks it", program.display());
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let path = |name: &str| folder.path().join(name);
        for key in ["host", "user"] {
            succeed(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path(key)));
        }
        let [port] = free_ports();
        write(&path("config"), &configuration(port, addresses, &path("host"), &path("user.pub")));
        let host_key = fs::read_to_string(path("host.pub")).expect("it was made");
        let known = addresses.iter().map(|address| format!("[{address}]:{port} {host_key}"));
        write(&path("known_hosts"), &known.collect::<String>());
        let users = fs::read_to_string("/etc/passwd").expect("there are users");
        let others = users.lines().filter(|user| !user.starts_with("sshd:")).map(|user| format!("{user}\n"));
        write(&path("passwd"), &(others.collect::<String>() + "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"));
        fs::set_permissions(path("passwd"), fs::Permissions::from_mode(0o644)).expect("it is this process's");

        let mut server = Command::new("unshare");
        server.args(["--mount", "--propagation", "private", "sh", "-c", IN_A_VIEW]).arg(path("passwd")).arg(program);
        server.args(["-D", "-f"]).arg(path("config")).arg("-E").arg(path("log"));
        server.env("LD_LIBRARY_PATH", env::join_paths(libraries(&installed)).expect("no path has a colon in it"));
        server.stdin(Stdio::null());
        let process = server.spawn().expect("`unshare`, of the package util-linux, can be run");
        let mut server = SshServer { process, folder, port };
        wait_until("the SSH server", || {
            let ended = server.process.try_wait().expect("it is a child");
            assert!(ended.is_none(), "the SSH server has ended: {}", server.log());
            server.log().matches("Server listening").count() == addresses.len()
        });
        server
    }

    /// Options of `ssh` with which this user is let in, separated by blanks.
    pub fn options(&self) -> String {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let (key, known_hosts) = (path("user"), path("known_hosts"));
        format!(
            "-F none -p {} -i {key} -o IdentitiesOnly=yes -o BatchMode=yes -o UserKnownHostsFile={known_hosts}",
            self.port
        )
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(port: u16, addresses: &[&str], host_key: &Path, user_key: &Path) -> String {
    let listen: String = addresses.iter().map(|address| format!("ListenAddress {address}\n")).collect();
    format!(
        "Port {port}\n{listen}HostKey {}\nAuthorizedKeysFile {}\nPidFile none\nLogLevel VERBOSE\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         PermitRootLogin prohibit-password\n",
        host_key.display(),
        user_key.display()
    )
}

/// Where the libraries are that were unpacked with it.
fn libraries(installed: &Path) -> Vec<PathBuf> {
    let entries = ["usr/lib", "lib"].map(|below| fs::read_dir(installed.join(below)));
    let folders = entries.into_iter().flatten().flatten().flatten().map(|entry| entry.path());
    folders.filter(|folder| folder.to_string_lossy().ends_with("-linux-gnu")).collect()
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("there is room for a file");
}
