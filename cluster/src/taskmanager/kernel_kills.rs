//! Whether the kernel has killed processes since, for there was no memory left: what ends with SIGKILL does not say who did
//! it. The kernel counts its kills, for the machine and for each cgroup; whom it has killed is in its log alone, which is not
//! for everybody.

use std::{fs, path::Path};

/// Its kills, as they were counted at one time. `None` where they cannot be known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct KernelKills {
    /// Of this machine. In a container, too, it is the whole machine's.
    machine: Option<u64>,
    /// In the cgroup of this process and those below: a container's, as a rule.
    cgroup: Option<u64>,
}

impl KernelKills {
    /// As they are now.
    pub(super) fn now(cgroup: Option<&Path>) -> KernelKills {
        let read = |path: &Path| fs::read_to_string(path).ok();
        KernelKills {
            machine: read(Path::new("/proc/vmstat")).and_then(|text| counted(&text)),
            cgroup: cgroup.and_then(|cgroup| read(&cgroup.join("memory.events"))).and_then(|text| counted(&text)),
        }
    }

    /// What is to be said of a worker that was killed between then and `now`, and not by its TaskManager.
    pub(super) fn explain(self, now: KernelKills) -> String {
        let grown = |before: Option<u64>, now: Option<u64>| Some(now?.saturating_sub(before?));
        let here = grown(self.cgroup, now.cgroup).unwrap_or(0);
        match (here, grown(self.machine, now.machine)) {
            (0, Some(0)) => {
                "it was not killed for want of memory: the kernel has killed nothing for that on this machine since \
                             the worker started. A person or a program has done it"
                    .to_owned()
            }
            (0, None) => {
                "the kernel may have killed it for want of memory, or a person or a program: its log (dmesg) tells"
                    .to_owned()
            }
            (0, Some(kills)) => format!(
                "probably the kernel has killed it, since the machine had no memory left: {} since the worker started \
                 (oom_kill in /proc/vmstat; its log, dmesg, names them). Give the machine more memory, or its TaskManagers \
                 and what else runs there less",
                killed(kills)
            ),
            (kills, _) => format!(
                "probably the kernel has killed it, since the cgroup of the TaskManager had no memory left: {} there since \
                 the worker started (oom_kill in memory.events). Give the container more memory, or the TaskManager less \
                 (taskmanager.memory.process.size)",
                killed(kills)
            ),
        }
    }
}

fn killed(kills: u64) -> String {
    match kills {
        1 => "it has killed one process".to_owned(),
        kills => format!("it has killed {kills} processes"),
    }
}

/// Both files have it by the same name.
fn counted(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_killed_is_told_whether_the_kernel_may_have_done_it() {
        let kills = |machine, cgroup| KernelKills { machine, cgroup };
        let before = kills(Some(3), Some(1));
        let explained = |now: KernelKills| before.explain(now);
        assert!(explained(kills(Some(3), Some(1))).contains("not killed for want of memory"));
        let machine = explained(kills(Some(5), Some(1)));
        assert!(machine.contains("machine had no memory") && machine.contains("2 processes"), "{machine}");
        let container = explained(kills(Some(4), Some(2)));
        assert!(container.contains("cgroup of the TaskManager") && container.contains("one process"), "{container}");
        // What cannot be read claims nothing.
        assert!(explained(kills(None, None)).contains("or a person"));
        assert!(kills(None, None).explain(before).contains("or a person"));
    }

    #[test]
    fn kills_are_counted_where_the_kernel_counts_them() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(KernelKills::now(Some(folder.path())).cgroup, None);
        fs::write(folder.path().join("memory.events"), "low 0\noom 4\noom_kill 2\noom_group_kill 1\n").unwrap();
        let now = KernelKills::now(Some(folder.path()));
        assert_eq!(now.cgroup, Some(2));
        assert_eq!(counted("nr_free_pages 1\noom_kill 17\n"), Some(17));
        assert!(now.machine.is_some(), "Linux counts them since 4.13");
    }
}
