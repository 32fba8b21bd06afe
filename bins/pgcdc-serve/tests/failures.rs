//! What goes wrong, what is said of it, and the exit code.

use expect_test::expect;

use crate::shop::Shop;

#[tokio::test]
async fn failures_have_the_exit_codes_of_the_contract() {
    let shop = Shop::open().await;
    let cases: [(&[&str], i32, &str); 14] = [
        (&["query", "-t", "nope"], 4, "no such table `nope`"),
        (&["query", "-t", "public.orders", "--epoch", "7"], 4, "no such cut: epoch 7"),
        (&["query", "-t", "orders", "--ref", "nope"], 4, "no such cut: ref `nope`"),
        (&["query", "-t", "orders", "-c", "nope"], 2, "unknown column `nope`"),
        (&["query", "-t", "orders", "-w", "id:gt:ten"], 2, "not a whole number"),
        (&["query", "-t", "orders", "-w", "id"], 2, "column:operator:value"),
        (&["query", "-t", "orders", "--epoch", "0", "--lsn", "0/1"], 2, "cannot be used with"),
        (&["query", "-t", "orders", "--sql", "SELECT 1"], 2, "cannot be used with"),
        (
            &["query", "-t", "orders", "--ref", "raw@2026-05-04T12:00:00.5Z", "--min-lsn", "0/1"],
            2,
            "does not move",
        ),
        (&["query", "--sql", "DROP TABLE orders"], 2, "only SELECT is available"),
        (&["query", "--sql", "SELECT nope FROM orders"], 2, "nope"),
        (&["query", "--sql", "SELECT * FROM '/etc/passwd'"], 4, "no such table `/etc/passwd`"),
        (&["serve", "--http"], 2, "`serve` is not available in this build"),
        (&["diff", "--from", "nope"], 4, "no such cut: ref `nope`"),
    ];
    for (args, code, message) in cases {
        let run = shop.run(args);
        assert_eq!(run.code, Some(code), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(message), "{args:?}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{args:?}");
    }
    assert_eq!(shop.run(&["--mcp"]).code, Some(2));
    assert_eq!(shop.run(&["promote", "--reason", "x"]).code, Some(2));
}

#[tokio::test]
async fn without_lake_or_configuration_the_way_out_is_named() {
    let shop = Shop::empty();
    let run = shop.run(&["query"]);
    assert_eq!(run.code, Some(1));
    expect![[r#"
        error: no lake here: manifest.json does not exist; hint: run `pgcdc init` first
    "#]]
    .assert_eq(&run.stderr);
    std::fs::remove_file(shop.path().join("pgcdc.yml")).unwrap();
    let run = shop.run(&["query"]);
    assert_eq!(run.code, Some(2));
    expect![[r#"
        error: no configuration file: neither pgcdc.yml nor pg-cdc.yml is in the working directory; hint: name one with --config, or run `pgcdc quickstart`
    "#]].assert_eq(&run.stderr);
}

#[tokio::test]
async fn a_governed_lake_is_not_served_without_its_policy() {
    let shop = Shop::open().await;
    shop.write_config("governance: { backend: sqlite, mode: permissive }\n");
    let run = shop.run(&["query", "-t", "orders"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    expect![[r#"
        error: governance is configured, and this build cannot enforce it; hint: nothing is served rather than too much
    "#]].assert_eq(&run.stderr);
}

#[test]
fn help_and_version_are_complete() {
    let shop = Shop::empty();
    let help = shop.run(&["query", "--help"]);
    for flag in [
        "--table",
        "--columns",
        "--where",
        "--limit",
        "--format",
        "--role",
        "--no-deltas",
        "--changes-since",
        "--sql",
        "--order-by",
        "--ref",
        "--epoch",
        "--lsn",
        "--as-of",
        "--min-lsn",
        "--timeout-ms",
        "--include-deleted",
        "--evidence",
        "Examples:",
    ] {
        assert!(help.stdout.contains(flag), "{flag}");
    }
    let version = shop.run(&["version", "--json"]);
    let version: serde_json::Value = serde_json::from_str(&version.stdout).unwrap();
    let keys: Vec<&String> = version.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["version", "git_sha", "rustc", "target"]);
    assert!(shop.run(&["version"]).stdout.starts_with("pgcdc-serve "));
}
