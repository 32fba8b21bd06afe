//! Preflight reports.

use cdc_wal::{Check, CheckStatus, PreflightReport, SlotSpec};

use super::{Database, want};
use crate::fixture::Postgres;

fn check<'a>(report: &'a PreflightReport, name: &str) -> &'a Check {
    let found = report.checks.iter().filter(|check| check.name == name);
    found.max_by_key(|check| check.status).unwrap_or_else(|| panic!("no check {name}: {report:#?}"))
}

#[tokio::test]
async fn a_ready_source_passes_before_and_after_init() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "ready",
        "CREATE TABLE t (id int PRIMARY KEY, tags text[], at timestamptz)",
    )
    .await;
    let control = db.control().await;
    let want = want(db.tables("public").await, "ready");
    let report = control.preflight(&want).await.unwrap();
    assert!(report.is_ready(), "{report:#?}");
    assert!(check(&report, "publication").detail.contains("will be created"));
    control.ensure_publication(&want.publication, &want.tables).await.unwrap();
    let slot = db.source().create_slot(&SlotSpec::new(&want.slot)).await.unwrap();
    slot.lease.release().await.unwrap();
    let report = control.preflight(&want).await.unwrap();
    assert!(report.is_ready(), "{report:#?}");
    assert!(check(&report, "publication").detail.contains("exists and fits"));
    assert!(check(&report, "slot").detail.contains("exists"));
    control.drop_slot(&want.slot).await.unwrap();
}

#[tokio::test]
async fn settings_of_the_server_are_checked_in_its_providers_words() {
    let server = Postgres::start(&[
        "wal_level=replica",
        "max_replication_slots=0",
        "max_wal_senders=0",
        "max_slot_wal_keep_size=100MB",
        "wal_sender_timeout=2s",
    ]);
    let db = Database::create(&server, "bare", "").await;
    let report = db.control().await.preflight(&want(vec![], "bare")).await.unwrap();
    let level = check(&report, "wal_level");
    assert_eq!((level.status, level.detail.as_str()), (CheckStatus::Fail, "replica"));
    assert!(level.remediation.contains("ALTER SYSTEM SET wal_level"), "{level:?}");
    assert_eq!(check(&report, "slot headroom").status, CheckStatus::Fail);
    assert_eq!(check(&report, "wal sender headroom").status, CheckStatus::Fail);
    assert_eq!(check(&report, "wal retention").status, CheckStatus::Warn);
    assert_eq!(check(&report, "wal sender timeout").status, CheckStatus::Warn);
    assert!(!report.is_ready());
    db.sql.batch_execute("CREATE ROLE rds_superuser").await.unwrap();
    let report = db.control().await.preflight(&want(vec![], "bare")).await.unwrap();
    let remedy = &check(&report, "wal_level").remediation;
    assert!(remedy.contains("rds.logical_replication = 1 in the DB parameter group"), "{remedy}");
}

#[tokio::test]
async fn missing_privileges_are_named_with_the_grants() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "grants",
        "REVOKE ALL ON SCHEMA public FROM public; CREATE ROLE \"Cdc Role\" LOGIN;
         CREATE TABLE mine (id int PRIMARY KEY); ALTER TABLE mine OWNER TO \"Cdc Role\";
         CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE leaf PARTITION OF root FOR VALUES FROM (0) TO (10);
         GRANT SELECT ON root TO \"Cdc Role\"",
    )
    .await;
    let tables = db.tables("public").await;
    let control = db.source_as("Cdc%20Role").connect().await.unwrap();
    let report = control.preflight(&want(tables.clone(), "grants")).await.unwrap();
    let fails = |name: &str, remedy: &str| {
        let found = check(&report, name);
        assert_eq!(found.status, CheckStatus::Fail, "{found:?}");
        assert!(found.remediation.contains(remedy), "{found:?}");
    };
    fails("replication privilege", "ALTER ROLE \"Cdc Role\" REPLICATION");
    fails("create privilege", "GRANT CREATE ON DATABASE \"grants\" TO \"Cdc Role\"");
    fails("table ownership", "GRANT \"postgres\" TO \"Cdc Role\"");
    fails("select privilege", "GRANT USAGE ON SCHEMA \"public\"");
    fails("select privilege", "GRANT SELECT ON \"public\".\"leaf\" TO");
    let grants: Vec<&str> = report.checks.iter().map(|check| check.remediation.as_str()).collect();
    assert!(!grants.iter().any(|grant| grant.contains("\"mine\"")), "{grants:?}");
    // with a publication of the right tables neither CREATE nor ownership is needed
    let admin = db.control().await;
    let published: Vec<_> = tables.into_iter().filter(|table| table.name.name != "leaf").collect();
    admin.ensure_publication("grants_pub", &published).await.unwrap();
    let report = control.preflight(&want(published, "grants")).await.unwrap();
    assert_eq!(check(&report, "publication").status, CheckStatus::Pass);
    assert!(!report.checks.iter().any(|check| check.name == "table ownership"));
}

#[tokio::test]
async fn tables_that_lose_something_are_reported() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "losses",
        "CREATE EXTENSION hstore;
         CREATE TABLE no_key (id int);
         CREATE UNLOGGED TABLE fast (id int PRIMARY KEY);
         CREATE TABLE whole (id int, h hstore); ALTER TABLE whole REPLICA IDENTITY FULL;
         CREATE TABLE computed (id int PRIMARY KEY, x int GENERATED ALWAYS AS (id) STORED);
         CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE leaf PARTITION OF root FOR VALUES FROM (0) TO (10);
         CREATE TABLE hidden (id int PRIMARY KEY); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
         CREATE ROLE losses LOGIN REPLICATION; GRANT SELECT ON ALL TABLES IN SCHEMA public TO losses;
         GRANT CREATE ON DATABASE losses TO losses",
    )
    .await;
    let control = db.source_as("losses").connect().await.unwrap();
    let report = control.preflight(&want(db.tables("public").await, "losses")).await.unwrap();
    let says = |name: &str, words: &str| {
        let mut found = report.checks.iter().filter(|check| check.name == name);
        assert!(found.any(|check| check.detail.contains(words)), "{name} {words}: {report:#?}");
    };
    says("replica identity", "public.no_key is left out");
    says("replica identity", "whole rows identify public.whole");
    says("not replicated", "unlogged: public.fast");
    says("partitions", "TRUNCATE of a single partition of public.root");
    says("types", "public.whole.h (public.hstore)");
    says("row security", "public.hidden");
    if control.server_version_num() < 180_000 {
        says("generated columns", "public.computed.x");
    }
}

#[tokio::test]
async fn identity_nothing_fails_with_the_table_and_no_key_is_only_warned_of() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "identity_nothing",
        "CREATE TABLE no_key (id int);
         CREATE TABLE keyed (id int PRIMARY KEY); ALTER TABLE keyed REPLICA IDENTITY NOTHING;
         CREATE TABLE bare (id int); ALTER TABLE bare REPLICA IDENTITY NOTHING;
         CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE leaf PARTITION OF root FOR VALUES FROM (0) TO (10);
         ALTER TABLE leaf REPLICA IDENTITY NOTHING",
    )
    .await;
    let control = db.control().await;
    let tables = db.tables("public").await;
    let report = control.preflight(&want(tables.clone(), "identity_nothing")).await.unwrap();
    let failed: Vec<&Check> =
        report.checks.iter().filter(|check| check.status == CheckStatus::Fail).collect();
    let expect = [
        ("public.bare", "ALTER TABLE \"public\".\"bare\" REPLICA IDENTITY FULL"),
        ("public.keyed", "ALTER TABLE \"public\".\"keyed\" REPLICA IDENTITY DEFAULT"),
        ("public.leaf", "ALTER TABLE \"public\".\"leaf\" REPLICA IDENTITY DEFAULT"),
    ];
    assert_eq!(failed.len(), expect.len(), "{report:#?}");
    for ((table, remedy), check) in expect.iter().zip(&failed) {
        assert_eq!(check.name, "replica identity");
        assert!(check.detail.contains(table) && check.remediation.contains(remedy), "{check:?}");
    }
    let usable: Vec<_> = tables
        .into_iter()
        .filter(|table| !["bare", "keyed", "leaf"].contains(&table.name.name.as_str()))
        .collect();
    assert!(control.preflight(&want(usable, "identity_nothing")).await.unwrap().is_ready());
}

#[tokio::test]
async fn trap_36_iam_logins_must_be_allowed_for_replication() {
    let server = Postgres::start(&[]);
    let db = Database::create(&server, "iam", "CREATE ROLE rds_superuser").await;
    let mut want = want(vec![], "iam");
    want.iam_auth = true;
    let report = db.control().await.preflight(&want).await.unwrap();
    let found = check(&report, "iam authentication");
    assert_eq!(found.status, CheckStatus::Fail);
    assert!(found.remediation.contains("set rds.iam_auth_for_replication = 1"), "{found:?}");
}

#[tokio::test]
async fn trap_37_a_timeout_of_idle_slots_is_warned_of() {
    let server = Postgres::shared();
    let db = Database::create(&server, "idle_slots", "").await;
    let control = db.control().await;
    let known = control.server_version_num() >= 180_000;
    let report = control.preflight(&want(vec![], "idle_slots")).await.unwrap();
    let reported = report.checks.iter().any(|check| check.name == "idle slot timeout");
    assert_eq!(reported, known);
    if known {
        let server = Postgres::start(&["idle_replication_slot_timeout=1h"]);
        let db = Database::create(&server, "idle_slots", "").await;
        let report = db.control().await.preflight(&want(vec![], "idle_slots")).await.unwrap();
        assert_eq!(check(&report, "idle slot timeout").status, CheckStatus::Warn);
    }
}
