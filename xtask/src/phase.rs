//! Which tests run in which phase, as arguments for `cargo test`.
//!
//! Every phase selects *targets* of the whole workspace, never packages: with other packages
//! cargo resolves other features, and what the build phase built would be built once more.

use serde_json::Value;

use crate::budget::Share;

/// The package whose integration tests need real components or break them.
const TESTS_PACKAGE: &str = "millstream-tests";
/// Its tests that kill, cut and fill things begin with this.
const CHAOS_PREFIX: &str = "chaos_";

/// An integration test of the workspace: one executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestTarget {
    pub package: String,
    pub name: String,
}

/// One `cargo test`.
#[derive(Debug, PartialEq, Eq)]
pub struct Phase {
    pub name: &'static str,
    pub share: Share,
    /// What follows `cargo test`.
    pub arguments: Vec<String>,
    /// Whether `#[ignore]` means "takes long" here. In a doc test it means "cannot be run".
    pub has_long_tests: bool,
}

/// All phases in the order they run. One without tests is left out.
pub fn phases(targets: &[TestTarget]) -> Vec<Phase> {
    let (of_tests, others): (Vec<_>, Vec<_>) = targets.iter().partition(|target| target.package == TESTS_PACKAGE);
    let (chaos, components): (Vec<_>, Vec<_>) =
        of_tests.into_iter().partition(|target| target.name.starts_with(CHAOS_PREFIX));
    let phase = |name, share, selection: &[&str], tests: &[&TestTarget]| {
        let mut arguments: Vec<String> = ["--workspace"].iter().chain(selection).map(owned).collect();
        for test in tests {
            arguments.extend(["--test".to_owned(), test.name.clone()]);
        }
        Phase { name, share, arguments, has_long_tests: !selection.contains(&"--doc") }
    };
    let mut phases = vec![
        phase("build the tests", Share::Build, &["--no-run"], &[]),
        phase("tests of each crate", Share::UnitAndSimulation, &["--lib", "--bins"], &others),
        phase("examples in the docs", Share::UnitAndSimulation, &["--doc"], &[]),
    ];
    if !components.is_empty() {
        phases.push(phase("real components", Share::RealComponents, &[], &components));
    }
    if !chaos.is_empty() {
        phases.push(phase("chaos", Share::Chaos, &[], &chaos));
    }
    phases
}

/// The integration tests that `cargo metadata` lists, by package and name.
pub fn test_targets(metadata: &Value) -> Vec<TestTarget> {
    let mut targets = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        for target in package["targets"].as_array().into_iter().flatten() {
            if target["kind"][0] == "test" {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let (package, name) = (text(&package["name"]), text(&target["name"]));
                targets.push(TestTarget { package, name });
            }
        }
    }
    targets.sort_by(|a, b| (&a.package, &a.name).cmp(&(&b.package, &b.name)));
    targets
}

fn owned(text: &&str) -> String {
    (*text).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn target(package: &str, name: &str) -> TestTarget {
        TestTarget { package: package.into(), name: name.into() }
    }

    fn arguments(phases: &[Phase], name: &str) -> String {
        let phase = phases.iter().find(|phase| phase.name == name);
        phase.map_or("none".into(), |phase| phase.arguments.join(" "))
    }

    #[test]
    fn what_breaks_things_runs_last_and_on_its_own_budget() {
        let targets = [
            target("millstream", "refused_at_compile_time"),
            target(TESTS_PACKAGE, "chaos_kill"),
            target(TESTS_PACKAGE, "word_count"),
        ];
        let phases = phases(&targets);
        assert_eq!(
            arguments(&phases, "tests of each crate"),
            "--workspace --lib --bins --test refused_at_compile_time"
        );
        assert_eq!(arguments(&phases, "real components"), "--workspace --test word_count");
        assert_eq!(arguments(&phases, "chaos"), "--workspace --test chaos_kill");
        assert_eq!(phases.last().map(|phase| phase.share), Some(Share::Chaos));
    }

    #[test]
    fn a_phase_without_targets_must_not_select_everything() {
        assert_eq!(arguments(&phases(&[]), "chaos"), "none");
        assert_eq!(arguments(&phases(&[]), "real components"), "none");
    }

    #[test]
    fn only_targets_that_are_tests_are_listed() {
        let metadata = json!({ "packages": [{ "name": "millstream-tests", "targets": [
            { "kind": ["lib"], "name": "millstream_tests" },
            { "kind": ["test"], "name": "word_count" },
            { "kind": ["bin"], "name": "helper" },
        ]}]});
        assert_eq!(test_targets(&metadata), [target("millstream-tests", "word_count")]);
    }
}
