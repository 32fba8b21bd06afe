//! Help, version and usage errors.

use expect_test::expect;

use crate::{directory, pgcdc};

#[test]
fn help_lists_every_command_of_all_binaries() {
    let run = pgcdc(directory().path(), &["--help"]);
    assert_eq!(run.code, Some(0));
    expect![[r#"
        PostgreSQL to governed, time-travelling Iceberg tables

        Usage: pgcdc [OPTIONS] <COMMAND>

        Commands:
          quickstart  Copy a database into a local lake and follow it, from nothing but its URL
          preflight   Check whether the source is ready, with a remedy for each thing that is not
          init        Make publication, slot and lake, and copy all tables at one position of the log
          start       Run the daemon: follow the log and commit epochs until a signal
          compact     Write complete bases, let old changes go, and remove what nothing needs any more
          status      Show slot, lag, tables and refs
          discover    List the tables of the source with tags and the decision about each
          reconcile   Compare the source's schema with the manifest
          verify      Prove that source and lake are equal at one position of the log
          table       Add, remove, resync, pause or resume a table
          catalog     Register the manifest's tables in the catalog
          config      Check or show the configuration
          teardown    Drop slot and publication, and with --yes the lake
          version     Print build information
          serve       Serve the lake to agents (MCP) and programs (HTTP); run by pgcdc-serve
          query       Read tables, changes and older cuts; run by pgcdc-serve
          promote     Move the ref `main` to another cut; run by pgcdc-serve
          diff        Compare the schemas of two refs; run by pgcdc-serve
          acl         Classify resources and grant access; run by pgcdc-acl
          help        Print this message or the help of the given subcommand(s)

        Options:
              --config <PATH>        Configuration file [default: pgcdc.yml, then pg-cdc.yml]
              --log-level <LEVEL>    Least level that is logged: trace, debug, info, warn, error
              --log-format <FORMAT>  Form of a log line: json, text [default: text on a terminal, else json]
          -h, --help                 Print help
          -V, --version              Print version

        Exit codes: 0 ok · 1 failed while working · 2 usage, configuration or a backend that cannot be
        reached · 3 a difference was found · 4 denied, not found or refused
    "#]].assert_eq(&run.stdout);
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
