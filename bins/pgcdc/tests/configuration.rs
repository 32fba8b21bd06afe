//! How commands find the configuration and what they say about it.

use std::process::{Command, Stdio};

use expect_test::expect;

use crate::{directory, directory_with, finish, pgcdc};

const GOOD: &str = "storage: { path: lake }\nsource: { postgres: { url: 'postgresql://u@127.0.0.1:1/d?connect_timeout=2' } }\n";

#[test]
fn without_a_file_every_command_that_needs_one_names_both() {
    let dir = directory();
    for line in [
        "preflight",
        "init",
        "start",
        "status",
        "discover",
        "compact",
        "reconcile",
        "verify",
        "table add a.b",
        "catalog register",
        "config check",
        "config show",
        "teardown",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let run = pgcdc(dir.path(), &args);
        assert_eq!(run.code, Some(2), "{line}");
        assert!(run.stderr.contains("pgcdc.yml") && run.stderr.contains("pg-cdc.yml"), "{line}");
    }
}

#[test]
fn the_second_name_is_used_and_a_named_file_must_exist() {
    let dir = directory();
    std::fs::write(dir.path().join("pg-cdc.yml"), GOOD).unwrap();
    assert_eq!(pgcdc(dir.path(), &["config", "check"]).shown(), "exit 0\nok\n");
    let run = pgcdc(dir.path(), &["--config", "x.yml", "config", "check"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("x.yml"), "{}", run.stderr);
}

#[test]
fn check_prints_every_problem_and_json_lists_them() {
    let dir = directory_with("storage: { path: lake }\nflush: { interval: 1, max_rows: no }\n");
    expect![[r#"
        exit 2
        flush.interval: unknown key; hint: did you mean `interval_sec`?
        flush.max_rows: expected a whole number, found text
    "#]]
    .assert_eq(&pgcdc(dir.path(), &["config", "check"]).shown());
    expect![[r#"
        exit 2
        {
          "ok": false,
          "file": "pgcdc.yml",
          "errors": [
            {
              "path": "flush.interval",
              "message": "unknown key; hint: did you mean `interval_sec`?"
            },
            {
              "path": "flush.max_rows",
              "message": "expected a whole number, found text"
            }
          ],
          "catalog_backend": null,
          "governance_backend": null
        }
    "#]]
    .assert_eq(&pgcdc(dir.path(), &["config", "check", "--json"]).shown());
    let run = pgcdc(dir.path(), &["init"]);
    expect![[r#"
        exit 2
        error: configuration file pgcdc.yml is not valid:
          flush.interval: unknown key; hint: did you mean `interval_sec`?
          flush.max_rows: expected a whole number, found text
    "#]]
    .assert_eq(&run.shown());
}

#[test]
fn an_unset_variable_is_named_with_its_key() {
    let dir = directory_with(
        "storage: { path: lake }\nsource: { postgres: { url: 'postgresql://${PGCDC_T_UNSET}' } }",
    );
    for command in [&["config", "check"][..], &["init"], &["start"], &["config", "show"]] {
        let run = pgcdc(dir.path(), command);
        assert_eq!(run.code, Some(2), "{command:?}");
        let text = run.shown();
        assert!(text.contains("source.postgres.url: ") && text.contains("PGCDC_T_UNSET"), "{text}");
    }
    let mut set = Command::new(env!("CARGO_BIN_EXE_pgcdc"));
    set.args(["config", "check"]).current_dir(dir.path()).env("PGCDC_T_UNSET", "u@h/d");
    assert_eq!(finish(&mut set).code, Some(0));
}

#[test]
fn show_hides_secrets_and_can_be_checked_again() {
    let dir = directory_with(GOOD);
    let shown = pgcdc(dir.path(), &["config", "show"]);
    assert!(!shown.stdout.contains("127.0.0.1:1") && shown.stdout.contains("url: '***'"));
    let json = pgcdc(dir.path(), &["config", "show", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["flush"]["max_rows"], 100_000);
    let schema = pgcdc(dir.path(), &["config", "show", "--schema"]).stdout;
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert!(schema["properties"]["flush"]["properties"]["max_rows"].is_object());
}

#[test]
fn what_is_not_available_is_refused_by_name() {
    let dir = directory_with(GOOD);
    let run = pgcdc(dir.path(), &["table", "remove", "a.b", "--purge", "--yes"]);
    assert!(
        run.shown().starts_with("exit 2\nerror: --purge is not available yet"),
        "{}",
        run.shown()
    );
    for (config, key) in [
        ("storage: { path: l }\niceberg: { deletes: copy_on_write }", "iceberg.deletes"),
        ("storage: { path: l }\ncatalog: { backend: rest, uri: 'http://h' }", "catalog.backend"),
        ("storage: { path: l }\ngovernance: { mode: strict }", "governance"),
    ] {
        let source = "source: { postgres: { url: 'postgresql://u@127.0.0.1:1/d' } }";
        let dir = directory_with(&format!("{config}\n{source}\n"));
        assert_eq!(pgcdc(dir.path(), &["config", "check"]).code, Some(0), "{config}");
        let run = pgcdc(dir.path(), &["init"]);
        assert_eq!(run.code, Some(2), "{config}");
        assert!(run.stderr.contains(key) && run.stderr.contains("not available yet"), "{config}");
    }
}

#[test]
fn an_unreachable_source_ends_operator_commands_with_2() {
    let dir = directory_with(GOOD);
    for command in ["preflight", "discover", "init", "teardown"] {
        let run = pgcdc(dir.path(), &[command]);
        assert_eq!(run.code, Some(2), "{command}: {}", run.stderr);
        assert!(
            run.stderr.contains("127.0.0.1:1") && run.stderr.contains("hint"),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn status_without_a_lake_ends_with_4() {
    let dir = directory_with("storage: { path: lake }\n");
    let run = pgcdc(dir.path(), &["status"]);
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    assert!(run.stderr.contains("init"), "{}", run.stderr);
    assert!(!dir.path().join("lake").exists(), "status made a lake");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = directory();
    let mut child = Command::new(env!("CARGO_BIN_EXE_pgcdc"))
        .args(["config", "show", "--schema"])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // closing the pipe before anything is read; the schema is larger than a pipe holds
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(0));
}
