//! What processes of this machine need: memory, processor time, threads, as Linux counts them.

use std::fs;

use super::scrape::Scope;

/// Of one or more processes.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct ProcessNumbers {
    pub(super) resident_bytes: u64,
    pub(super) cpu_nanos: u64,
    pub(super) threads: u64,
    pub(super) open_files: u64,
}

impl ProcessNumbers {
    pub(super) fn own() -> ProcessNumbers {
        ProcessNumbers::of(std::process::id())
    }

    /// Zeros for a process that is not there.
    pub(super) fn of(process: u32) -> ProcessNumbers {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let field = |name: &str| {
            let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
            rest.split_whitespace().next()?.parse::<u64>().ok()
        };
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        ProcessNumbers {
            resident_bytes: field("VmRSS:").unwrap_or(0) << 10,
            cpu_nanos: cpu_ticks(&stat).unwrap_or(0) * (1_000_000_000 / TICKS_PER_SECOND),
            threads: field("Threads:").unwrap_or(0),
            open_files: fs::read_dir(format!("/proc/{process}/fd")).map_or(0, |files| files.count() as u64),
        }
    }

    pub(super) fn and(self, other: ProcessNumbers) -> ProcessNumbers {
        ProcessNumbers {
            resident_bytes: self.resident_bytes + other.resident_bytes,
            cpu_nanos: self.cpu_nanos + other.cpu_nanos,
            threads: self.threads + other.threads,
            open_files: self.open_files + other.open_files,
        }
    }

    /// Under the names that Flink has for its JVM. Its heap is where jobs' state and records are, which here is all memory.
    pub(super) fn show(self, scope: &mut Scope<'_>, memory_max: u64) {
        scope
            .counter("Status.JVM.CPU.Time", self.cpu_nanos as f64)
            .gauge("Status.JVM.Memory.Heap.Used", self.resident_bytes as f64)
            .gauge("Status.JVM.Memory.Heap.Committed", self.resident_bytes as f64)
            .gauge("Status.JVM.Memory.Heap.Max", memory_max as f64)
            .gauge("Status.JVM.Threads.Count", self.threads as f64)
            .gauge("Status.FileDescriptor.Open", self.open_files as f64);
    }
}

/// The kernel counts in these for users, on every machine that Linux runs on today.
const TICKS_PER_SECOND: u64 = 100;

/// Of user and system, from `/proc/PID/stat`.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The name in parentheses may have anything in it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    Some(user + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something_of_everything() {
        let numbers = ProcessNumbers::own();
        assert!(
            numbers.resident_bytes > 1 << 20 && numbers.resident_bytes <= millstream::memory::available_bytes(),
            "{numbers:?}"
        );
        assert!(numbers.threads >= 1 && numbers.open_files >= 3, "{numbers:?}");
        assert_eq!(ProcessNumbers::of(u32::MAX), ProcessNumbers::default());
    }

    #[test]
    fn a_name_with_parentheses_spoils_no_number() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 1 0 100 1 1";
        assert_eq!(cpu_ticks(stat), Some(400));
        assert_eq!(cpu_ticks("7 (a"), None);
    }
}
