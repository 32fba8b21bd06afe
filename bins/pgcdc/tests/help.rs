//! Help, version and usage errors.

use expect_test::expect;

use crate::{directory, pgcdc};

#[test]
fn help_lists_every_command_of_all_binaries() {
    let run = pgcdc(directory().path(), &["--help"]);
    assert_eq!(run.code, Some(0));
    expect![""].assert_eq(&run.stdout);
}

#[test]
fn every_command_has_help_and_those_with_an_example_show_it() {
    let dir = directory();
    for command in ["quickstart", "preflight", "init", "start", "compact", "status", "discover"] {
        let run = pgcdc(dir.path(), &[command, "--help"]);
        assert_eq!(run.code, Some(0), "{command}");
        assert!(run.stdout.contains(&format!("Example: pgcdc {command}")), "{}", run.stdout);
    }
    for command in ["table", "catalog", "config", "teardown", "version", "reconcile", "verify"] {
        assert_eq!(pgcdc(dir.path(), &[command, "--help"]).code, Some(0), "{command}");
    }
}

#[test]
fn version_names_the_build() {
    let dir = directory();
    let plain = pgcdc(dir.path(), &["version"]);
    assert!(plain.stdout.starts_with("pgcdc 0.") && plain.stdout.contains(", rustc "));
    let json = pgcdc(dir.path(), &["version", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    for key in ["version", "git_sha", "rustc", "target"] {
        assert!(json[key].is_string(), "{key} in {json}");
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    let dir = directory();
    for args in [
        &["nonsense"][..],
        &[],
        &["status", "--nonsense"],
        &["table", "remove", "a.b", "--purge"],
        &["--log-level", "loud", "config", "show"],
    ] {
        assert_eq!(pgcdc(dir.path(), args).code, Some(2), "{args:?}");
    }
}
