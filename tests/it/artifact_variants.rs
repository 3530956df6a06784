//! An artifact is an artifact however it was built: `millstream info` reads it, it runs by itself, and worker processes
//! run their share of its job, which is addressed by places in its code.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use millstream::model::state::JobStatus;
use millstream_tests::{
    program::{built, cargo, succeed, workspace},
    worker_processes::{RemoteJob, planned},
};
use serde_json::Value;

const PROGRAM: &str = "two_pipelines_job";

/// Everything that is done with an artifact. Returns what `millstream info --json` says of it.
fn assert_works(artifact: &Path) -> Value {
    let info =
        succeed(Command::new(built("millstream")).args(["info".as_ref(), artifact.as_os_str(), "--json".as_ref()]));
    let info: Value = serde_json::from_str(&info).unwrap_or_else(|cause| panic!("{cause}: {info}"));
    let about = &info["artifact"];
    assert_eq!(about["engine_version"], millstream::artifact::ENGINE_VERSION, "{about}");
    assert_eq!(about["sha256"], millstream::artifact::hash_of(artifact).unwrap(), "{about}");
    assert_eq!(info["job_graph"]["name"], "two pipelines");
    let text = succeed(Command::new(built("millstream")).arg("info").arg(artifact));
    assert!(text.contains("Job           'two pipelines', ") && text.contains("in 2 slots"), "{text}");

    // Before it the function says which process it runs in.
    let output = succeed(&mut Command::new(artifact));
    assert!(output.ends_with("]1000 500\n"), "{output}");

    let outcome = RemoteJob::start(artifact, planned(artifact, &[]), 2, 1).wait();
    assert_eq!(outcome.status, JobStatus::Finished, "{:?}", outcome.failure);
    let bytes: usize = outcome.collected.iter().map(|(_, records)| records.len()).sum();
    assert_eq!(bytes, 16 * 1_500);
    info
}

/// Builds the program in a profile of its own, whose settings follow those of `dev`, and returns the executable.
fn variant(profile: &str, settings: &[&str], arguments: &[&str]) -> PathBuf {
    let mut build = cargo();
    build.args(["build", "--quiet", "--package", "millstream-tests", "--bin", PROGRAM, "--message-format=json"]);
    build.args(["--profile", profile, "--config", &format!("profile.{profile}.inherits='dev'")]);
    for setting in settings {
        build.args(["--config", &format!("profile.{profile}.{setting}")]);
    }
    let messages = succeed(build.args(arguments).current_dir(workspace()));
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = messages.filter(|message| message["target"]["name"] == PROGRAM);
    let executable = programs.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    executable.expect("cargo names the executable that it has built")
}

/// The names of an executable's sections, as `readelf` of binutils shows them.
fn sections(artifact: &Path) -> String {
    succeed(Command::new("readelf").args([OsStr::new("--wide"), OsStr::new("--section-headers"), artifact.as_os_str()]))
}

#[test]
fn the_profile_of_the_tests_with_debug_information() {
    let artifact = Path::new(env!("CARGO_BIN_EXE_two_pipelines_job"));
    assert!(sections(artifact).contains(".symtab") && sections(artifact).contains(".debug_line"));
    assert_works(artifact);
}

#[test]
fn stripped_of_all_that_need_not_be_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let artifact = folder.path().join("stripped");
    let strip = ["--strip-all", "--remove-section=.comment", env!("CARGO_BIN_EXE_two_pipelines_job"), "-o"];
    succeed(Command::new("strip").args(strip).arg(&artifact));
    assert!(!sections(&artifact).contains(".symtab") && !sections(&artifact).contains(".debug_line"));
    assert_works(&artifact);
    // Even without a table of sections, which nothing needs for running it: `info` reads what is loaded.
    let mut bytes = fs::read(&artifact).unwrap();
    // e_shoff, e_shnum, e_shstrndx of ELF's header for 64 bits.
    bytes[0x28..0x30].fill(0);
    bytes[0x3c..0x40].fill(0);
    let bare = folder.path().join("without-sections");
    fs::copy(&artifact, &bare).unwrap();
    fs::write(&bare, bytes).unwrap();
    assert_works(&bare);
}

#[test]
#[ignore = "long: builds the engine once more"]
fn of_a_release_build_that_is_stripped() {
    let artifact = variant("variant-stripped", &["opt-level=3", "debug=false", "strip=true"], &[]);
    assert!(!sections(&artifact).contains(".symtab"));
    assert_works(&artifact);
}

#[test]
#[ignore = "long: builds the engine once more"]
fn of_fat_lto_which_may_merge_and_move_all_functions() {
    let settings = ["opt-level=3", "debug=false", "lto='fat'", "codegen-units=1"];
    assert_works(&variant("variant-fat-lto", &settings, &[]));
}

#[test]
#[ignore = "long: builds the engine once more"]
fn that_aborts_when_it_panics() {
    let settings = ["opt-level=3", "debug=false", "lto='thin'", "strip=true", "panic='abort'"];
    assert_works(&variant("variant-abort", &settings, &[]));
}

#[test]
#[ignore = "long: builds the engine once more"]
fn statically_linked_with_musl() {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let libraries = succeed(Command::new(rustc).args(["--print", "target-libdir", "--target", &target]));
    if !Path::new(libraries.trim()).is_dir() {
        // Past the test harness, which would swallow what a test prints that does not fail.
        let said = "NOT TESTED: a static artifact with musl. It needs musl's C compiler and";
        writeln!(io::stderr(), "{said} `rustup target add {target}`").unwrap();
        return;
    }
    let artifact = variant("variant-musl", &["debug=false"], &["--target", &target]);
    let info = assert_works(&artifact);
    assert_eq!(info["artifact"]["libc"], "musl");
    assert_eq!(info["artifact"]["glibc_min"], Value::Null);
}
