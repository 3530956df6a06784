//! Cgroups of version 2: one for each worker, so that the kernel keeps it to its memory, and what it starts with it.
//!
//! ```text
//!  the TaskManager's own ─┬─ taskmanager   itself: a cgroup that shares out memory may have no processes of its own
//!                         ├─ worker-…      memory.max, and all of it is killed together
//!                         └─ worker-…
//! ```
//! That takes a cgroup that this process is alone in and may write to: a service of systemd with `Delegate=yes`, or a container
//! with a cgroup namespace. Wherever something is missing, workers are limited otherwise.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
};

use millstream_model::id::AllocationId;

/// Of the TaskManager.
#[derive(Debug)]
pub(super) struct CgroupTree {
    root: PathBuf,
}

/// Of one worker; it goes when this is dropped, if its processes have.
#[derive(Debug)]
pub(super) struct Cgroup(PathBuf);

impl CgroupTree {
    /// Makes the TaskManager's own cgroup one that has those of workers in it.
    ///
    /// # Errors
    /// Why that is not to be had.
    pub(super) fn of_this_process() -> Result<CgroupTree, String> {
        CgroupTree::below(of_this_process()?, process::id())
    }

    fn below(root: PathBuf, own: u32) -> Result<CgroupTree, String> {
        let read = |name: &str| {
            let path = root.join(name);
            fs::read_to_string(&path).map_err(|cause| format!("{}: {cause}", path.display()))
        };
        if !read("cgroup.controllers")?.split_whitespace().any(|controller| controller == "memory") {
            return Err(format!("{} does not control memory", root.display()));
        }
        let others = read("cgroup.procs")?.split_whitespace().filter(|process| *process != own.to_string()).count();
        if others > 0 {
            return Err(format!("{} has {others} other processes in it", root.display()));
        }
        let leaf = root.join("taskmanager");
        match fs::create_dir(&leaf) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
                return Err(format!("{}: {cause}", leaf.display()));
            }
            _ => {}
        }
        let moved = write(&leaf.join("cgroup.procs"), &own.to_string());
        let shared_out = moved.and_then(|()| write(&root.join("cgroup.subtree_control"), "+memory"));
        if let Err(why) = shared_out {
            // As it was before.
            let _ = write(&root.join("cgroup.procs"), &own.to_string());
            let _ = fs::remove_dir(&leaf);
            return Err(why);
        }
        Ok(CgroupTree { root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// A cgroup for a worker, without anything in it yet.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn make(&self, allocation: AllocationId, bytes_max: u64) -> Result<Cgroup, String> {
        let path = self.root.join(format!("worker-{allocation}"));
        fs::create_dir(&path).map_err(|cause| format!("{}: {cause}", path.display()))?;
        let cgroup = Cgroup(path);
        write(&cgroup.0.join("memory.max"), &bytes_max.to_string())?;
        // Of kernels that have them: what is swapped out counts, and no process of a worker goes on without the others.
        let _ = write(&cgroup.0.join("memory.swap.max"), "0");
        let _ = write(&cgroup.0.join("memory.oom.group"), "1");
        Ok(cgroup)
    }
}

impl Cgroup {
    /// Puts a process into it, and what that starts from then on.
    ///
    /// # Errors
    /// If that cannot be done.
    pub(super) fn add(&self, process: u32) -> Result<(), String> {
        write(&self.0.join("cgroup.procs"), &process.to_string())
    }

    /// Whether the kernel has killed something in it, since it had used up its memory. What it has killed since the machine had
    /// none left counts among the kills alike, and not as a limit that was reached.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.0.join("memory.events")).unwrap_or_default();
        let is_there = |name: &str| {
            let count = events.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            count.is_some_and(|count| count.trim() != "0")
        };
        is_there("oom") && is_there("oom_kill")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its files go with it. One that is busy still is left; the next TaskManager here has other names.
        let _ = fs::remove_dir(&self.0);
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    // Not created: what is there is the kernel's.
    let file = fs::OpenOptions::new().write(true).open(path);
    let written = file.and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(|cause| format!("{}: {cause}", path.display()))
}

/// The folder of this process's cgroup.
///
/// # Errors
/// Why there is none.
pub(super) fn of_this_process() -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(|cause| format!("/proc/self/mounts: {cause}"))?;
    let own = fs::read_to_string("/proc/self/cgroup").map_err(|cause| format!("/proc/self/cgroup: {cause}"))?;
    own_cgroup(&mounts, &own)
}

fn own_cgroup(mounts: &str, own: &str) -> Result<PathBuf, String> {
    let of_version_2 = |line: &&str| line.split(' ').nth(2) == Some("cgroup2");
    let mount = mounts.lines().find(of_version_2).and_then(|line| line.split(' ').nth(1));
    let mount = mount.ok_or("no cgroups of version 2 are mounted")?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).ok_or("this process is in no such cgroup")?;
    Ok(Path::new(mount).join(path.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_of_a_process_is_below_the_mount_of_version_2() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let own = "4:memory:/x\n0::/system.slice/millstream.service\n";
        let expected = "/sys/fs/cgroup/unified/system.slice/millstream.service";
        assert_eq!(own_cgroup(mounts, own), Ok(PathBuf::from(expected)));
        assert!(own_cgroup("tmpfs / tmpfs rw 0 0", own).is_err());
        assert!(own_cgroup(mounts, "4:memory:/x\n").is_err());
    }

    /// A folder that looks like a cgroup that controls these, with these processes in it.
    fn folder(controllers: &str, processes: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in
            [("cgroup.controllers", controllers), ("cgroup.procs", processes), ("cgroup.subtree_control", "")]
        {
            fs::write(root.path().join(name), text).unwrap();
        }
        root
    }

    #[test]
    fn where_something_is_missing_it_is_said_and_nothing_is_left() {
        let below = |root: &tempfile::TempDir| CgroupTree::below(root.path().to_owned(), 7).map(drop).unwrap_err();
        assert!(below(&folder("cpu io\n", "7\n")).contains("does not control memory"));
        assert!(below(&folder("cpu memory\n", "7\n8\n9\n")).contains("2 other processes"));
        // The files of a cgroup that is made come from the kernel, and none is here.
        let root = folder("memory\n", "7\n");
        assert!(below(&root).contains("taskmanager/cgroup.procs"));
        assert!(!root.path().join("taskmanager").exists());
    }

    #[test]
    fn a_kill_for_want_of_memory_is_told_from_others() {
        let root = tempfile::tempdir().unwrap();
        let cgroup = Cgroup(root.path().to_owned());
        assert!(!cgroup.ran_out_of_memory());
        for (events, expected) in [
            ("low 0\nmax 9\noom 1\noom_kill 0\n", false),
            ("max 0\noom 0\noom_kill 1\n", false),
            ("oom 1\noom_kill 2\n", true),
        ] {
            fs::write(root.path().join("memory.events"), events).unwrap();
            assert_eq!(cgroup.ran_out_of_memory(), expected);
        }
    }
}
