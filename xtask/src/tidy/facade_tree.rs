//! A user's build stays light: the facade pulls in no server, no cluster client and no C++ build.

use anyhow::Result;

use super::{Tree, Verdict};
use crate::checkout::output;

/// Crates that cost minutes or need a tool that a user does not have.
const HEAVY: [&str; 14] = [
    "aws-lc-sys",
    "axum",
    "cmake",
    "etcd-client",
    "k8s-openapi",
    "kube",
    "kube-client",
    "openssl-sys",
    "prost-build",
    "protobuf-src",
    "protoc-bin-vendored",
    "tonic",
    "tonic-build",
    "tonic-prost-build",
];

pub fn check(tree: &Tree) -> Result<Verdict> {
    // Build dependencies too: that is where compilers for other languages come in.
    let edges = ["-e", "normal,build", "--prefix", "none", "--format", "{p}"];
    let mut cargo = tree.checkout.workspace_cargo(["tree", "-p", "millstream"]);
    Ok(findings(&output(cargo.args(edges))?).into())
}

fn findings(listing: &str) -> Vec<String> {
    let mut names: Vec<&str> = listing.lines().filter_map(|line| line.split(' ').next()).collect();
    names.sort_unstable();
    names.dedup();
    let heavy = names.into_iter().filter(|name| HEAVY.contains(name));
    heavy.map(|name| format!("millstream pulls in {name}: see `cargo tree -p millstream -i {name}`")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heavy_crate_is_named_once_and_its_namesakes_are_not() {
        let listing = "millstream v0.1.0 (/x)\naxum v0.8.1\naxum v0.8.1 (*)\naxum-core v0.5.0\n";
        let found = findings(listing);
        assert!(found.len() == 1 && found[0].starts_with("millstream pulls in axum:"), "{found:?}");
    }
}
