//! The generated code is what the protocol's description makes.

use std::{fs, path::Path};

use prost::Message;

#[test]
fn the_generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["millstream/v1/submission.proto", "millstream/v1/task_managers.proto", "millstream/v1/logs.proto"];
    let described = protox::compile(files, [root.join("proto")]).expect("the description is well formed");
    let made = tempfile::tempdir().expect("there is room for a folder");
    tonic_prost_build::configure().out_dir(made.path()).compile_fds(described.clone()).expect("code can be made of it");
    let code = fs::read(made.path().join("millstream.v1.rs")).expect("it was made");
    let checked_in = root.join("generated");
    let outputs = [("millstream.v1.rs", code), ("millstream.v1.bin", described.encode_to_vec())];
    for (name, made) in outputs {
        let path = checked_in.join(name);
        if std::env::var_os("UPDATE_PROTO").is_some() {
            fs::write(&path, &made).expect("it can be written");
        }
        let there = fs::read(&path).unwrap_or_default();
        assert!(there == made, "{name} is not what proto/ describes: run this test with UPDATE_PROTO=1");
    }
}
