//! The governance command line through the real binary.

use std::path::Path;
use std::process::{Command, Output};

fn run(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pgcdc-acl"))
        .args(args)
        .current_dir(directory)
        .output()
        .expect("the binary was just built")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn version_names_the_build() {
    let directory = tempfile::tempdir().unwrap();
    let plain = run(directory.path(), &["version"]).stdout;
    assert!(String::from_utf8_lossy(&plain).starts_with("pgcdc-acl 0."));
    let json = run(directory.path(), &["version", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert!(json["git_sha"].is_string() && json["target"].is_string(), "{json}");
}

#[test]
fn commands_say_that_they_are_not_available_yet() {
    let directory = tempfile::tempdir().unwrap();
    let missing = run(directory.path(), &["list"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("pg-cdc.yml"), "{}", stderr(&missing));
    std::fs::write(directory.path().join("pgcdc.yml"), "storage: { path: lake }\n").unwrap();
    for args in
        [&["list", "--json"][..], &["set", "db.s.t", "--tag", "a=b"], &["break-glass", "list"]]
    {
        let output = run(directory.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let expected = format!("error: `pgcdc acl {}` is not available yet\n", args[0]);
        assert_eq!(stderr(&output), expected);
    }
}
