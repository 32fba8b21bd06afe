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
    check(
        "flush: { interval: 5 }",
        expect![[r#"
        flush.interval: unknown key; hint: did you mean `interval_sec`?
    "#]],
    );
    check(
        "source: { postgres: { shemas: [a] } }",
        expect![[r#"
        source.postgres.shemas: unknown key; hint: did you mean `schemas`?
    "#]],
    );
    check(
        "flash: {}",
        expect![[r#"
        flash: unknown key; hint: did you mean `flush`?
    "#]],
    );
    check(
        "runs: { qqq: 1 }",
        expect![[r#"
        runs.qqq: unknown key; hint: known here are retain
    "#]],
    );
    check(
        "rest: { jwt: { isuer: x } }",
        expect![[r#"
        rest.jwt.isuer: unknown key; hint: did you mean `issuer`?
    "#]],
    );
}

#[test]
fn a_key_that_never_worked_is_named_unsupported() {
    expect![[r#"
        storage.partition_by_tag: not supported; hint: remove it, it never had an effect
    "#]]
    .assert_eq(&problems("storage: { path: /x, partition_by_tag: true }"));
}

#[test]
fn a_wrong_type_is_refused() {
    check(
        "flush: { interval_sec: ten }",
        expect![[r#"
            flush.interval_sec: expected a number, found text
        "#]],
    );
    check(
        "flush: { max_rows: '10' }",
        expect![[r#"
        flush.max_rows: expected a whole number, found text; hint: write it without quotes
    "#]],
    );
    check(
        "flush: { max_rows: 1.5 }",
        expect![[r#"
        flush.max_rows: expected a whole number, found a number
    "#]],
    );
    check(
        "flush: { max_rows: }",
        expect![[r#"
        flush.max_rows: expected a whole number, found nothing; hint: remove the key to have the default
    "#]],
    );
    check(
        "flush: 10",
        expect![[r#"
        flush: expected a section, found a whole number
    "#]],
    );
    check(
        "tables: { exclude: public.a }",
        expect![[r#"
        tables.exclude: expected a list, found text
    "#]],
    );
    check(
        "tables: { auto_add: 'yes' }",
        expect![[r#"
        tables.auto_add: expected true or false, found text
    "#]],
    );
    check(
        "tables: { tags: { pii: [1] } }",
        expect![[r#"
        tables.tags.pii[0]: expected text, found a whole number; hint: put the value in quotes
    "#]],
    );
    check(
        "changelog: { retention: 30 }",
        expect![[r#"
        changelog.retention: a duration needs a unit; hint: such as 500ms, 10s, 5m, 1h or 30d
    "#]],
    );
    check(
        "changelog: { retention: 30 days }",
        expect![[r#"
        changelog.retention: expected a duration such as 500ms, 10s, 5m, 1h or 30d
    "#]],
    );
    check(
        "catalog: { database: 5 }",
        expect![[r#"
        catalog.database: expected text, found a whole number; hint: put the value in quotes
    "#]],
    );
}

#[test]
fn a_value_out_of_range_is_refused() {
    check(
        "flush: { interval_sec: 0.05 }",
        expect![[r#"
        flush.interval_sec: 0.05 is less than 0.1
    "#]],
    );
    check(
        "flush: { parallel_workers: 65 }",
        expect![[r#"
        flush.parallel_workers: 65 is outside 1 to 64
    "#]],
    );
    check(
        "flush: { max_rows: 0 }",
        expect![[r#"
        flush.max_rows: 0 is less than 1
    "#]],
    );
    check(
        "flush: { max_rows: -3 }",
        expect![[r#"
        flush.max_rows: -3 is less than 1
    "#]],
    );
    check(
        "replication: { heartbeat_interval_sec: 99999999999999999999 }",
        expect![[r#"
        replication.heartbeat_interval_sec: 99999999999999999999 is more than 9223372036854775807
    "#]],
    );
    check(
        "catalog: { snapshot_retain_count: 5000000000 }",
        expect![[r#"
        catalog.snapshot_retain_count: 5000000000 is more than 4294967295
    "#]],
    );
    check(
        "compaction: { max_delete_ratio: 1.5 }",
        expect![[r#"
        compaction.max_delete_ratio: 1.5 is outside 0 to 1
    "#]],
    );
    check(
        "freshness: { stale_threshold_sec: .inf }",
        expect![[r#"
            freshness.stale_threshold_sec: must be finite
        "#]],
    );
    check(
        "refstore: { retain_raw: -2 }",
        expect![[r#"
        refstore.retain_raw: -2 is less than -1
    "#]],
    );
    check(
        "source: { postgres: { schemas: [] } }",
        expect![[r#"
        source.postgres.schemas: must not be empty
    "#]],
    );
}

#[test]
fn a_value_outside_its_list_is_refused_with_the_list() {
    check(
        "iceberg: { deletes: equality }",
        expect![[r#"
        iceberg.deletes: `equality` is not one of position, vector, copy_on_write
    "#]],
    );
    check(
        "profiles: { source: ldap }",
        expect![[r#"
        profiles.source: `ldap` is not one of "", pg_acl
    "#]],
    );
    check(
        "tables: { policy: { pii: drop } }",
        expect![[r#"
        tables.policy.pii: `drop` is not one of include, exclude
    "#]],
    );
    check(
        "replication: { streaming: true }",
        expect![[r#"
        replication.streaming: expected one of auto, off, found true or false
    "#]],
    );
}

#[test]
fn formats_of_text_values_are_checked() {
    check(
        "replication: { slot: My-Slot }",
        expect![[r#"
        replication.slot: expected 1 to 63 of the characters a-z, 0-9 and _
    "#]],
    );
    check(
        "tables: { exclude: ['public.[a', ''] }",
        expect![[r#"
        tables.exclude[0]: `public.[a` is not a pattern: unclosed character class; missing ']'
        tables.exclude[1]: an empty pattern matches nothing; hint: write schema.table
    "#]],
    );
    check(
        "metrics: { listen_addr: '9090' }",
        expect![[r#"
        metrics.listen_addr: expected host:port such as 127.0.0.1:8080
    "#]],
    );
    check(
        "rest: { listen_addr: 'unix:' }",
        expect![[r#"
        rest.listen_addr: expected host:port such as 127.0.0.1:8080
    "#]],
    );
    check(
        "types: { numeric_unconstrained: 'decimal(40,2)' }",
        expect![[r#"
        types.numeric_unconstrained: decimal(p,s) needs p from 1 to 38 and s from 0 to p
    "#]],
    );
    check(
        "types: { numeric_unconstrained: list }",
        expect![[r#"
        types.numeric_unconstrained: a number is no list; hint: string, double or decimal(p,s)
    "#]],
    );
    check(
        "types: { columns: [{ match: 'a.b.c', as: int }, { as: list }] }",
        expect![[r#"
        types.columns[0].as: expected string, double, decimal(p,s) or list
        types.columns[1].match: required
    "#]],
    );
}

#[test]
fn a_repeated_key_is_refused_wherever_it_stands() {
    check(
        "flush: { max_rows: 1, max_rows: 2 }\nflush: {}",
        expect![[r#"
        flush.max_rows: given twice; hint: keep one of them
        flush: given twice; hint: keep one of them
    "#]],
    );
}

#[test]
fn rules_between_keys_are_checked() {
    expect![[r#"
        storage.bucket: required when storage.type is s3
        storage.region: required when storage.type is s3
    "#]]
    .assert_eq(&problems("storage: { type: s3 }"));
    expect![[r#"
        storage.path: required when storage.type is filesystem
    "#]]
    .assert_eq(&problems(""));
    check(
        "limits: { buffer_bytes: 1000 }",
        expect![[r#"
        limits.buffer_bytes: must be at least flush.max_bytes (134217728)
    "#]],
    );
    check(
        "init: { parallel_workers: 8 }\nsource: { postgres: {} }",
        expect![[r#"
        source.postgres.max_conns: must be at least init.parallel_workers + 2 (10)
    "#]],
    );
    check(
        "catalog: { backend: rest }",
        expect![[r#"
        catalog.uri: required when catalog.backend is rest
    "#]],
    );
    check(
        "catalog: { type: glue, backend: glue, database: d }",
        expect![[r#"
        catalog.backend: glue together with catalog.type glue would use each table name twice; hint: leave catalog.backend out, or set catalog.type: iceberg
    "#]],
    );
    check(
        "catalog: { warehouse: 's3://elsewhere' }",
        expect![[r#"
        catalog.warehouse: must be the storage root file:///srv/lake
    "#]],
    );
    check(
        "governance: { backend: aws, break_glass_max_ttl: 25h }",
        expect![[r#"
        catalog.acl_table: required when governance.backend is aws
        governance.break_glass_max_ttl: must be above 0 and at most 24h
    "#]],
    );
    check(
        "rest: { jwt: { issuer: x }, tls: { key: k } }",
        expect![[r#"
        rest.jwt.audience: required with rest.jwt.issuer
        rest.jwt.jwks_url: required with rest.jwt.issuer
        rest.tls.cert: required with rest.tls.key and rest.tls.client_ca
    "#]],
    );
    check(
        "governance: { emergency: [{ match: 'a.*', tags: {}, reason: r, created_by: c, created_at: '1960-01-01T00:00:00Z', expires_at: '1965-01-01T00:00:00Z' }] }",
        expect![[r#"
            governance.emergency[0].expires_at: is in the past; hint: remove the entry
        "#]],
    );
}

#[test]
fn the_source_url_is_checked_and_never_shown() {
    check(
        "source: { postgres: { url: 'mysql://u:hunter2@h/d' } }",
        expect![[r#"
        source.postgres.url: expected a URL that starts with postgresql:// or postgres://
    "#]],
    );
    check(
        "source: { postgres: { iam_auth: true, url: 'postgresql://u:hunter2@h/d?sslmode=prefer' } }",
        expect![[r#"
            source.postgres.url: must hold no password when source.postgres.iam_auth is on
            source.postgres.url: needs sslmode=require or better when source.postgres.iam_auth is on
        "#]],
    );
    check(
        "source: { postgres: { url: 'postgresql://u:${NOPE}@h/d' } }",
        expect![[r#"
        source.postgres.url: environment variable NOPE is not set; hint: set it, or give a default with ${NOPE:-default}
    "#]],
    );
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
        expect![[r#"
            catalog.database: environment variable NOPE is not set; hint: set it, or give a default with ${NOPE:-default}
            flush.interval_sec: expected a number, found text
            flush.max_row: unknown key; hint: did you mean `max_rows`?
            replication.slot: expected 1 to 63 of the characters a-z, 0-9 and _
            replication.slot: given twice; hint: keep one of them
            metrics.listen_addr: expected host:port such as 127.0.0.1:8080
        "#]],
    );
    // a problem of one key does not hide a rule between others
    check(
        "catalog: { database: '${NOPE}', backend: rest }",
        expect![[r#"
        catalog.database: environment variable NOPE is not set; hint: set it, or give a default with ${NOPE:-default}
        catalog.uri: required when catalog.backend is rest
    "#]],
    );
}

#[test]
fn what_is_not_yaml_is_refused_with_its_place() {
    expect![[r#"
        not YAML: did not find expected node content at line 2 column 1, while parsing a flow node
    "#]]
    .assert_eq(&problems("storage: [\n"));
    expect![[r#"
        not YAML: deserializing from YAML containing more than one document is not supported
    "#]]
    .assert_eq(&problems("a: 1\n---\nb: 2\n"));
    expect![[r#"
        expected a section, found text
    "#]]
    .assert_eq(&problems("just text"));
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
