//! Closures that capture variables are refused when a program is built, with a message that says what to do and points
//! at the user's line. `cargo check` does not see it, so these programs are built.

use millstream_tests::program::cargo;

#[test]
fn a_closure_that_captures_is_refused_with_the_way_out_and_the_users_line() {
    for program in ["map", "filter", "flat_map", "async_map", "key_by"] {
        let output = cargo()
            .args(["build", "--quiet", "--package", "millstream-tests", "--features", "refused", "--bin"])
            .arg(format!("refused_{program}"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{program}: a closure that captures was built");
        for part in ["this closure captures variables", "map_with", &format!("refused/{program}.rs:9:")] {
            assert!(message.contains(part), "{program}: no '{part}' in\n{message}");
        }
    }
}
