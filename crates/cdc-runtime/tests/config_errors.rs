//! What is refused, and in which words.

use expect_test::{Expect, expect};

use crate::{parse_as, problems};
use cdc_runtime::SourceUse;

/// `text` below a storage section that is right.
fn check(text: &str, expected: Expect) {
    expected.assert_eq(&problems(&format!("storage: {{ path: /srv/lake }}\n{text}")));
}

#[test]
fn an_unknown_key_is_refused_with_its_path_and_a_suggestion() {
    check("flush: { interval: 5 }", expect![""]);
    check("source: { postgres: { shemas: [a] } }", expect![""]);
    check("flash: {}", expect![""]);
    check("runs: { qqq: 1 }", expect![""]);
    check("rest: { jwt: { isuer: x } }", expect![""]);
}

#[test]
fn a_key_that_never_worked_is_named_unsupported() {
    expect![""].assert_eq(&problems("storage: { path: /x, partition_by_tag: true }"));
}

#[test]
fn a_wrong_type_is_refused() {
    check("flush: { interval_sec: ten }", expect![""]);
    check("flush: { max_rows: '10' }", expect![""]);
    check("flush: { max_rows: 1.5 }", expect![""]);
    check("flush: { max_rows: }", expect![""]);
    check("flush: 10", expect![""]);
    check("tables: { exclude: public.a }", expect![""]);
    check("tables: { auto_add: 'yes' }", expect![""]);
    check("tables: { tags: { pii: [1] } }", expect![""]);
    check("changelog: { retention: 30 }", expect![""]);
    check("changelog: { retention: 30 days }", expect![""]);
    check("catalog: { database: 5 }", expect![""]);
}

#[test]
fn a_value_out_of_range_is_refused() {
    check("flush: { interval_sec: 0.05 }", expect![""]);
    check("flush: { parallel_workers: 65 }", expect![""]);
    check("flush: { max_rows: 0 }", expect![""]);
    check("flush: { max_rows: -3 }", expect![""]);
    check("replication: { heartbeat_interval_sec: 99999999999999999999 }", expect![""]);
    check("catalog: { snapshot_retain_count: 5000000000 }", expect![""]);
    check("compaction: { max_delete_ratio: 1.5 }", expect![""]);
    check("freshness: { stale_threshold_sec: .inf }", expect![""]);
    check("refstore: { retain_raw: -2 }", expect![""]);
    check("source: { postgres: { schemas: [] } }", expect![""]);
}

#[test]
fn a_value_outside_its_list_is_refused_with_the_list() {
    check("iceberg: { deletes: equality }", expect![""]);
    check("profiles: { source: ldap }", expect![""]);
    check("tables: { policy: { pii: drop } }", expect![""]);
    check("replication: { streaming: true }", expect![""]);
}

#[test]
fn formats_of_text_values_are_checked() {
    check("replication: { slot: My-Slot }", expect![""]);
    check("tables: { exclude: ['public.[a', ''] }", expect![""]);
    check("metrics: { listen_addr: '9090' }", expect![""]);
    check("rest: { listen_addr: 'unix:' }", expect![""]);
    check("types: { numeric_unconstrained: 'decimal(40,2)' }", expect![""]);
    check("types: { columns: [{ match: 'a.b.c', as: int }, { as: list }] }", expect![""]);
}

#[test]
fn a_repeated_key_is_refused_wherever_it_stands() {
    check("flush: { max_rows: 1, max_rows: 2 }\nflush: {}", expect![""]);
}

#[test]
fn rules_between_keys_are_checked() {
    expect![""].assert_eq(&problems("storage: { type: s3 }"));
    expect![""].assert_eq(&problems(""));
    check("limits: { buffer_bytes: 1000 }", expect![""]);
    check("init: { parallel_workers: 8 }\nsource: { postgres: {} }", expect![""]);
    check("catalog: { backend: rest }", expect![""]);
    check("catalog: { type: glue, backend: glue, database: d }", expect![""]);
    check("catalog: { warehouse: 's3://elsewhere' }", expect![""]);
    check("governance: { backend: aws, break_glass_max_ttl: 25h }", expect![""]);
    check("rest: { jwt: { issuer: x }, tls: { key: k } }", expect![""]);
    check(
        "governance: { emergency: [{ match: 'a.*', tags: {}, reason: r, created_by: c, created_at: '1960-01-01T00:00:00Z', expires_at: '1965-01-01T00:00:00Z' }] }",
        expect![""],
    );
}

#[test]
fn the_source_url_is_checked_and_never_shown() {
    check("source: { postgres: { url: 'mysql://u:hunter2@h/d' } }", expect![""]);
    check(
        "source: { postgres: { iam_auth: true, url: 'postgresql://u:hunter2@h/d?sslmode=prefer' } }",
        expect![""],
    );
    check("source: { postgres: { url: 'postgresql://u:${NOPE}@h/d' } }", expect![""]);
}

#[test]
fn all_problems_are_shown_at_once() {
    check(
        "
flush: { interval_sec: x, max_row: 1 }
catalog: { database: '${NOPE}' }
replication: { slot: 'A', slot: b }
metrics: { listen_addr: nowhere }
",
        expect![""],
    );
    // a problem of one key does not hide a rule between others
    check("catalog: { database: '${NOPE}', backend: rest }", expect![""]);
}

#[test]
fn what_is_not_yaml_is_refused_with_its_place() {
    expect![""].assert_eq(&problems("storage: [\n"));
    expect![""].assert_eq(&problems("a: 1\n---\nb: 2\n"));
    expect![""].assert_eq(&problems("just text"));
}

#[test]
fn the_read_plane_needs_no_variable_of_the_source_url() {
    let text = "{ storage: { path: /x }, source: { postgres: { url: 'postgresql://${NOPE}' } } }";
    assert!(parse_as(text, SourceUse::Unused).is_ok());
    assert!(parse_as(text, SourceUse::Checked).is_err());
    assert!(parse_as("storage: { path: /x }", SourceUse::Checked).is_ok());
    let error = parse_as("storage: { path: /x }", SourceUse::Needed).unwrap_err();
    assert!(error.to_string().contains("source.postgres.url: required"), "{error}");
}
