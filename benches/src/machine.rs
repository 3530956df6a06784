//! The machine under the benchmarks: its clock, its processors, and who else used them. The same rules as in
//! `benches/baselines/harness`, so that both sides call the same runs invalid.

use std::{fs, thread};

use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        time::{TimeVal, TimeValLike},
    },
    time::{ClockId, clock_gettime},
};

/// Above this many processors used by others, a run says nothing about the program.
pub const OTHER_LOAD_MAX: f64 = 0.05;

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline]
pub fn now_nanos() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has a monotonic clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Seconds of processor time, user and system, that this process has used.
pub fn cpu_seconds() -> f64 {
    cpu_seconds_of(UsageWho::RUSAGE_SELF)
}

fn cpu_seconds_of(who: UsageWho) -> f64 {
    let usage = getrusage(who).expect("getrusage of oneself cannot fail");
    let seconds = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// Seconds of processor time, user and system, that another process has used.
///
/// # Errors
/// If there is no such process.
pub fn cpu_seconds_of_process(process: u32) -> std::io::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may have blanks; user and system time are the 12th and 13th field after it.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    Ok(fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0)
}

/// Processors that this process may use.
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Processor model and kernel.
pub fn description() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let model = model.trim_start_matches([' ', '\t', ':']);
    format!("{model}, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}

/// Watches how much of the machine others use: other processes and, in a VM, the hypervisor.
pub struct OtherLoad {
    started_nanos: u64,
    others_seconds: Option<f64>,
}

impl OtherLoad {
    pub fn watch() -> OtherLoad {
        OtherLoad { started_nanos: now_nanos(), others_seconds: others_seconds() }
    }

    /// Processors that others kept busy on average since [`watch`](Self::watch); `None` where `/proc/stat` is hidden.
    pub fn processors(&self) -> Option<f64> {
        let elapsed = (now_nanos() - self.started_nanos) as f64 / 1e9;
        Some(((others_seconds()? - self.others_seconds?) / elapsed).max(0.0))
    }
}

/// Busy time of all processors since boot less ours.
fn others_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<f64> = stat.lines().next()?.split_whitespace().skip(1).flat_map(str::parse).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else { return None };
    let ours = cpu_seconds() + cpu_seconds_of(UsageWho::RUSAGE_CHILDREN);
    Some((user + nice + system + irq + softirq + steal) / 100.0 - ours)
}
