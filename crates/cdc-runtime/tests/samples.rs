//! The sample configurations and substitution.

use cdc_core::ExposeSecret;
use cdc_runtime::{CatalogBackend, GovernanceBackend};

use crate::parse;

const FIRST: &str = r#"
source:
  postgres: { url: "postgresql://cdc_user:${PGCDC_PASSWORD}@host:5432/db", schemas: ["public"], provider: auto }
storage: { type: filesystem, path: /var/lib/pg-cdc/output/ }
replication: { publication: pg_cdc_pub, slot: pg_cdc_slot }
flush: { interval_sec: 10, max_rows: 1000 }
"#;

const SECOND: &str = r#"
source:
  postgres:
    url: "postgresql://cdc_user@my-db.abc.us-west-2.rds.amazonaws.com:5432/db?sslmode=require"
    schemas: ["public"]
    provider: aurora
    iam_auth: true
storage: { type: s3, bucket: my-governed-warehouse, prefix: cdc/, region: us-west-2 }
catalog: { type: iceberg, warehouse: "s3://my-governed-warehouse/cdc/", database: my_db, region: us-west-2, acl_table: my-acl-table }
governance: { catalog: glue, mode: strict, require_tags: ["sensitivity"] }
replication: { publication: pg_cdc_pub, slot: pg_cdc_slot, heartbeat_interval_sec: 30 }
guardrail: { max_retained_wal_bytes: 10737418240 }
"#;

#[test]
fn the_first_sample_resolves_to_sqlite_without_governance() {
    let config = parse(FIRST).unwrap();
    assert_eq!(config.catalog.backend, Some(CatalogBackend::Sqlite));
    assert!(config.governance.is_none());
    assert_eq!(config.storage_root().as_deref(), Some("file:///var/lib/pg-cdc/output"));
}

#[test]
fn the_second_sample_resolves_to_glue_and_aws() {
    let config = parse(SECOND).unwrap();
    assert_eq!(config.catalog.backend, Some(CatalogBackend::Glue));
    assert_eq!(config.governance.unwrap().backend, Some(GovernanceBackend::Aws));
    assert_eq!(config.audit.required, Some(true));
}

#[test]
fn an_acl_table_alone_switches_governance_on() {
    let config = parse("{ storage: { path: /x }, catalog: { acl_table: t } }").unwrap();
    assert_eq!(config.governance.unwrap().backend, Some(GovernanceBackend::Aws));
}

#[test]
fn a_variable_with_yaml_in_it_stays_text() {
    let config = parse("{ storage: { path: /x }, catalog: { database: '${YAML}' } }").unwrap();
    assert_eq!(config.catalog.database.as_deref(), Some("[a, b]"));
}

#[test]
fn the_source_url_is_resolved_from_the_environment_at_each_call() {
    let text = "{ storage: { path: /x }, source: { postgres: { url: 'postgresql://$${a}$b/${PGCDC_SURELY_UNSET:-db}' } } }";
    let url = parse(text).unwrap().source_url().unwrap();
    assert_eq!(url.expose_secret(), "postgresql://${a}$b/db");
}

#[test]
fn a_variable_that_vanished_is_named_with_its_key() {
    let config =
        parse("{ storage: { path: /x }, source: { postgres: { url: 'postgresql://${V}' } } }");
    let error = config.unwrap().source_url().unwrap_err().to_string();
    assert!(error.starts_with("source.postgres.url: environment variable V is not set"), "{error}");
}

#[test]
fn prefixes_are_brought_to_one_form() {
    let config = parse("storage: { type: s3, bucket: b, region: r, prefix: /a/b }").unwrap();
    assert_eq!(config.storage.prefix, "a/b/");
    assert_eq!(config.storage_root().as_deref(), Some("s3://b/a/b"));
}

#[test]
fn the_schema_accepts_its_own_samples_by_name() {
    let schema = cdc_runtime::Config::json_schema();
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["flush"]["properties"]["max_rows"]["default"], 100_000);
}
