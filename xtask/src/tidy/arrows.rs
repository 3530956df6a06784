//! Which crate may depend on which. Adding an arrow is a change of this table, to be explained in
//! `docs/decisions/`.

use anyhow::Result;
use serde_json::Value;

use super::{Tree, Verdict};

/// A crate, and those of the workspace that it may name.
const ARROWS: [(&str, &[&str]); 16] = [
    ("millstream-model", &[]),
    ("millstream-derive", &[]),
    ("millstream-macros", &[]),
    ("millstream-api", &["model", "derive"]),
    ("millstream-shuffle", &["model"]),
    ("millstream-slots", &["model"]),
    ("millstream-providers", &["model"]),
    ("millstream-storage", &["model"]),
    ("millstream-dataplane", &["api", "shuffle", "slots", "storage", "model"]),
    ("millstream-controlplane", &["slots", "providers", "storage", "model"]),
    ("millstream-connectors", &["api", "storage", "model"]),
    ("millstream-sql", &["api", "storage", "model"]),
    // The facade wires the planes, so it may name what they take; see docs/decisions/0001.
    (
        "millstream",
        &[
            "api",
            "dataplane",
            "controlplane",
            "connectors",
            "providers",
            "shuffle",
            "slots",
            "storage",
            "model",
            "macros",
        ],
    ),
    ("millstream-client", &["model"]),
    // The processes of a cluster; see docs/decisions/0010.
    ("millstream-cluster", &["millstream", "client", "controlplane", "providers", "slots", "storage", "model"]),
    ("xtask", &[]),
];

/// May depend on everything; nothing else depends on them, not even its tests.
const TOP: [&str; 5] =
    ["millstream-cli", "millstream-tests", "millstream-sim", "millstream-benches", "millstream-examples"];

/// A crate names another of the workspace.
#[derive(Debug)]
struct Arrow<'a> {
    from: &'a str,
    to: &'a str,
    for_tests_only: bool,
}

pub fn check(tree: &Tree) -> Result<Verdict> {
    Ok(findings(&tree.metadata).into())
}

fn findings(metadata: &Value) -> Vec<String> {
    let packages = || metadata["packages"].as_array().into_iter().flatten();
    let members: Vec<&str> = packages().filter_map(|package| package["name"].as_str()).collect();
    let mut findings = Vec::new();
    for member in &members {
        if !TOP.contains(member) && allowed(member).is_none() {
            findings.push(format!("{member} has no row in xtask/src/tidy/arrows.rs"));
        }
    }
    for package in packages() {
        let from = package["name"].as_str().unwrap_or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            let arrow = Arrow { from, to, for_tests_only: dependency["kind"] == "dev" };
            if members.contains(&to) && !arrow.is_allowed() {
                let kind = if arrow.for_tests_only { "the tests of " } else { "" };
                findings.push(format!("{kind}{from} must not depend on {to}"));
            }
        }
    }
    findings.sort();
    findings.dedup();
    findings
}

impl Arrow<'_> {
    fn is_allowed(&self) -> bool {
        let Arrow { from, to, for_tests_only } = *self;
        if TOP.contains(&to) {
            return for_tests_only && TOP.contains(&from);
        }
        let short = to.strip_prefix("millstream-").unwrap_or(to);
        for_tests_only || TOP.contains(&from) || allowed(from).is_some_and(|allowed| allowed.contains(&short))
    }
}

fn allowed(from: &str) -> Option<&'static [&'static str]> {
    ARROWS.iter().find(|(name, _)| *name == from).map(|(_, to)| *to)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workspace(from: &str, to: &str, kind: Option<&str>) -> Vec<String> {
        findings(&json!({ "packages": [
            { "name": from, "dependencies": [{ "name": to, "kind": kind }, { "name": "serde" }] },
            { "name": to, "dependencies": [] },
        ]}))
    }

    #[test]
    fn the_planes_never_see_each_other() {
        assert_eq!(
            workspace("millstream-dataplane", "millstream-controlplane", None),
            ["millstream-dataplane must not depend on millstream-controlplane"]
        );
        assert_eq!(workspace("millstream-controlplane", "millstream-api", None).len(), 1);
        assert!(workspace("millstream-dataplane", "millstream-slots", None).is_empty());
    }

    #[test]
    fn tests_of_a_crate_may_look_anywhere_but_at_the_top() {
        assert!(workspace("millstream-shuffle", "millstream-slots", Some("dev")).is_empty());
        assert_eq!(
            workspace("millstream-shuffle", "millstream-cli", Some("dev")),
            ["the tests of millstream-shuffle must not depend on millstream-cli"]
        );
        assert!(workspace("millstream-tests", "millstream-cli", Some("dev")).is_empty());
    }

    #[test]
    fn a_new_crate_needs_a_row() {
        assert_eq!(
            workspace("millstream-new", "millstream", None),
            ["millstream-new has no row in xtask/src/tidy/arrows.rs", "millstream-new must not depend on millstream",]
        );
    }
}
