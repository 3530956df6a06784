//! How long each phase took, beside the time it may take in CI.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// A part of the CI run that has its own share of the time. CONTRIBUTING.md says what belongs where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    Build,
    UnitAndSimulation,
    RealComponents,
    Chaos,
}

/// Names, and minutes out of the 90 that a CI run may take.
const SHARES: [(Share, &str, u64); 4] = [
    (Share::Build, "build", 40),
    (Share::UnitAndSimulation, "unit and simulation", 10),
    (Share::RealComponents, "real components", 20),
    (Share::Chaos, "chaos", 10),
];
const SLACK_MINUTES: u64 = 10;

/// Runs steps one after the other, and remembers how long each took and whether it failed.
#[derive(Default)]
pub struct Steps {
    done: Vec<Step>,
}

struct Step {
    share: Share,
    name: String,
    took: Duration,
    failed: bool,
}

impl Steps {
    /// Runs one step. Its error is printed at once and counted; the next step runs all the same,
    /// so that one CI run shows everything that is wrong. Returns whether it went well.
    pub fn run(&mut self, share: Share, name: &str, step: impl FnOnce() -> Result<()>) -> bool {
        eprintln!("── {name}");
        let started = Instant::now();
        let failed = step().inspect_err(|error| eprintln!("error: {error:#}")).is_err();
        self.done.push(Step { share, name: name.to_owned(), took: started.elapsed(), failed });
        !failed
    }

    /// Prints the table.
    ///
    /// # Errors
    /// If a step failed, naming all that did. Being over the budget is shown and is no failure:
    /// the machine may be slower than CI's.
    pub fn conclude(self) -> Result<()> {
        println!("\n{}", self.table());
        let failed: Vec<_> = self.done.iter().filter(|step| step.failed).map(|step| &*step.name).collect();
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }

    fn table(&self) -> String {
        let mut table = format!("{:<28}{:>10}{:>10}\n", "", "took", "budget");
        let mut row = |name: &str, took: &str, budget: &str, remark: &str| {
            let line = format!("{name:<28}{took:>10}{budget:>10}  {remark}");
            writeln!(table, "{}", line.trim_end()).expect("a string takes all");
        };
        for (share, name, minutes) in SHARES {
            let steps = || self.done.iter().filter(|step| step.share == share);
            let took: Duration = steps().map(|step| step.took).sum();
            let over = took > Duration::from_secs(60 * minutes);
            let remark = if over { "OVER BUDGET" } else { "" };
            let shown = if steps().count() == 0 { "not run".to_owned() } else { clock(took) };
            row(name, &shown, &format!("{minutes} min"), remark);
            for step in steps() {
                let remark = if step.failed { "FAILED" } else { "" };
                row(&format!("  {}", step.name), &clock(step.took), "", remark);
            }
        }
        row("slack", "", &format!("{SLACK_MINUTES} min"), "");
        let took = self.done.iter().map(|step| step.took).sum();
        let budget: u64 = SHARES.iter().map(|(_, _, minutes)| minutes).sum();
        row("all", &clock(took), &format!("{} min", budget + SLACK_MINUTES), "");
        table
    }
}

fn clock(took: Duration) -> String {
    match took.as_secs() {
        0..10 => format!("{:.1} s", took.as_secs_f64()),
        seconds @ 10..60 => format!("{seconds} s"),
        seconds => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(share: Share, name: &str, seconds: u64, failed: bool) -> Step {
        Step { share, name: name.to_owned(), took: Duration::from_secs(seconds), failed }
    }

    #[test]
    fn a_share_is_over_budget_by_the_sum_of_its_steps() {
        let halves = [step(Share::Chaos, "kill", 301, false), step(Share::Chaos, "cut", 300, false)];
        let table = Steps { done: halves.into() }.table();
        let chaos = table.lines().find(|line| line.starts_with("chaos")).expect("it has a row");
        assert!(chaos.ends_with("OVER BUDGET"), "{table}");
        assert_eq!(table.matches("OVER BUDGET").count(), 1, "{table}");
    }

    #[test]
    fn a_share_without_steps_is_not_shown_as_quick() {
        let table = Steps::default().table();
        assert_eq!(table.matches("not run").count(), SHARES.len(), "{table}");
    }

    #[test]
    fn a_failure_does_not_keep_later_steps_from_running_but_fails_the_whole() {
        let mut steps = Steps::default();
        let mut ran = false;
        assert!(!steps.run(Share::Build, "first", || bail!("broken")));
        assert!(steps.run(Share::Build, "second", || {
            ran = true;
            Ok(())
        }));
        assert!(ran);
        let error = steps.conclude().expect_err("a step failed");
        assert_eq!(error.to_string(), "failed: first");
    }

    #[test]
    fn contributing_states_the_same_budget() {
        let page = include_str!("../../CONTRIBUTING.md");
        for (_, name, minutes) in SHARES.iter().chain(&[(Share::Build, "slack", SLACK_MINUTES)]) {
            let row = format!("| {name} | {minutes} |");
            assert!(page.contains(&row), "CONTRIBUTING.md lacks the row `{row}`");
        }
    }

    #[test]
    fn times_read_as_people_say_them() {
        assert_eq!(clock(Duration::from_millis(1250)), "1.2 s");
        assert_eq!(clock(Duration::from_secs(59)), "59 s");
        assert_eq!(clock(Duration::from_secs(125)), "2 min 05 s");
    }
}
