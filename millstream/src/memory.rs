//! How much memory this process may count on, if nobody says: that of the machine, or of the cgroup that it is in.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::prctl;

/// Bytes; a number that no machine has if it cannot be found out.
pub fn available_bytes() -> u64 {
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&cgroups, Path::new("/sys/fs/cgroup")).into_iter().filter_map(|path| limit_in(&path));
    limits.chain(machine_bytes()).min().unwrap_or(1 << 50)
}

/// Whether what this process allocates from now on may consist of huge pages, if the kernel makes them. The processes that it
/// starts begin with the same. mimalloc asks for them, and the kernel makes 2 MiB of zeros for each that is touched anywhere:
/// docs/decisions/0025-huge-pages.md has what that costs, and what it is good for.
pub fn allow_huge_pages(are_allowed: bool) {
    if let Err(cause) = prctl::set_thp_disable(!are_allowed) {
        tracing::debug!(%cause, "huge pages are as the system has them");
    }
}

/// What the machine has.
pub fn machine_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map(|kib: u64| kib << 10)
}

/// Where the limits of a process are that is in these cgroups, and of all around them; of both versions.
fn limit_files(cgroups: &str, root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        // Inside of a container the path may be one of outside, and what is seen as the root is its own.
        files.extend(Path::new(path.trim_start_matches('/')).ancestors().map(|path| root.join(path).join(file)));
    }
    files
}

/// `max`, and what version 1 writes in its place, are none.
fn limit_in(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok().filter(|bytes| *bytes < i64::MAX as u64 / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_forbidden_and_allowed() {
        for are_allowed in [false, true] {
            allow_huge_pages(are_allowed);
            assert_eq!(prctl::get_thp_disable(), Ok(!are_allowed));
        }
    }

    #[test]
    fn the_limits_of_a_process_are_those_of_its_cgroups_and_of_all_around_them() {
        let of = |cgroups| limit_files(cgroups, Path::new("/mount"));
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(of("0::/a/b\n"), paths(&["/mount/a/b/memory.max", "/mount/a/memory.max", "/mount/memory.max"]));
        assert_eq!(
            of("9:name=systemd:/x\n4:memory:/a\n0::/\n"),
            paths(&[
                "/mount/memory/a/memory.limit_in_bytes",
                "/mount/memory/memory.limit_in_bytes",
                "/mount/memory.max"
            ])
        );
        assert_eq!(of("nonsense\n"), paths(&[]));
    }

    #[test]
    fn this_machine_has_memory() {
        let (available, machine) = (available_bytes(), machine_bytes().unwrap());
        assert!(available > 1 << 20 && available <= machine, "{available} of {machine}");
    }
}
