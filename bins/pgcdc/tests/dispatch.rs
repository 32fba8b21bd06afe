//! Commands of the other planes run the sibling binary of the same directory.

#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Run, directory, finish};

/// Files that will be executed are made by other processes: one that this process writes is held
/// open for a moment by every child that another test starts, and cannot be executed until then.
fn shell(script: &str, args: [&Path; 2]) {
    let status = Command::new("sh").args(["-ec", script, "sh"]).args(args).status();
    assert!(status.expect("there is a shell").success(), "{script}");
}

/// A directory of its own for the binary; the build's directory has real siblings.
fn install(directory: &Path) -> PathBuf {
    let installed = directory.join("pgcdc");
    shell("cp \"$1\" \"$2\"", [Path::new(env!("CARGO_BIN_EXE_pgcdc")), &installed]);
    installed
}

/// A sibling that prints its arguments and ends with 7.
fn sibling(directory: &Path, name: &str) {
    let script = r#"printf '#!/bin/sh\necho "sibling $*"\nexit 7\n' > "$1/$2"; chmod +x "$1/$2""#;
    shell(script, [directory, Path::new(name)]);
}

fn run(binary: &Path, path: &str, args: &[&str]) -> Run {
    finish(Command::new(binary).args(args).env("PATH", path))
}

#[test]
fn a_sibling_gets_the_arguments_and_its_exit_code_passes_through() {
    let dir = directory();
    let binary = install(dir.path());
    sibling(dir.path(), "pgcdc-serve");
    sibling(dir.path(), "pgcdc-acl");
    let cases = [
        ("query --help", "sibling query --help"),
        ("--config a.yml serve --http", "sibling --config a.yml serve --http"),
        ("acl set db.s.t --tag a=b", "sibling set db.s.t --tag a=b"),
        ("promote --nonsense -- x", "sibling promote --nonsense -- x"),
    ];
    for (line, expected) in cases {
        let args: Vec<&str> = line.split(' ').collect();
        let run = run(&binary, "/usr/bin:/bin", &args);
        assert_eq!(run.shown(), format!("exit 7\n{expected}\n"));
    }
}

#[test]
fn an_absent_sibling_is_named_and_path_is_not_searched() {
    let dir = directory();
    let binary = install(dir.path());
    let elsewhere = directory();
    sibling(elsewhere.path(), "pgcdc-serve");
    sibling(elsewhere.path(), "pgcdc-acl");
    let path = elsewhere.path().display().to_string();
    for (command, file) in [("diff", "pgcdc-serve"), ("acl", "pgcdc-acl")] {
        let run = run(&binary, &path, &[command]);
        assert_eq!(run.code, Some(2));
        let looked_for = fs::canonicalize(dir.path()).unwrap().join(file);
        assert!(run.stderr.contains(&looked_for.display().to_string()), "{}", run.stderr);
        assert_eq!(run.stdout, "");
    }
}
