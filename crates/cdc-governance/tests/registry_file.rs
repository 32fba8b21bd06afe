//! The file of the embedded registry: its mode, versions, append-only tables, and what a crash or a
//! change of the taxonomy does to it (L04, L12).

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_core::SystemClock;
use cdc_governance::{Error, IntentRegistry, RegistryOptions, SqliteRegistry, Taxonomy};
use rusqlite::Connection;

use crate::world::{TABLE, by, on_every_backend, options};

fn open(path: &std::path::Path, options: RegistryOptions) -> Result<SqliteRegistry, Error> {
    SqliteRegistry::open(path, options, Arc::new(SystemClock))
}

#[cfg(unix)]
#[test]
fn the_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SqliteRegistry::FILE_NAME);
    drop(open(&path, options()).unwrap());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = open(&path, options()).unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn a_newer_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SqliteRegistry::FILE_NAME);
    drop(open(&path, options()).unwrap());
    let db = Connection::open(&path).unwrap();
    db.execute("UPDATE meta SET schema_version = 2", []).unwrap();
    drop(db);
    let error = open(&path, options()).unwrap_err();
    assert!(matches!(error, Error::RegistryNewer { found: 2, known: 1, .. }), "{error}");
}

#[test]
fn l12_history_and_audit_cannot_be_changed() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id"]).await;
        world.tag(TABLE, &["domain=hr"]).await;
        let db = Connection::open(world.path()).unwrap();
        for sql in [
            "UPDATE audit SET body = '{}'",
            "DELETE FROM audit WHERE seq = 1",
            "UPDATE resource_version SET by = 'nobody'",
            "DELETE FROM resource_version",
            "UPDATE meta SET policy_version = 1",
        ] {
            assert!(db.execute(sql, []).is_err(), "{sql}");
        }
        assert!(world.backend.registry.verify_audit().await.is_ok());
    });
}

#[test]
fn a_record_that_was_changed_behind_the_trigger_is_found() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id"]).await;
        world.tag(TABLE, &["domain=hr"]).await;
        let db = Connection::open(world.path()).unwrap();
        db.execute_batch(
            "DROP TRIGGER audit_update;
             UPDATE audit SET body = replace(body, 'daemon', 'nobody') WHERE seq = 2;",
        )
        .unwrap();
        let error = world.backend.registry.verify_audit().await.unwrap_err();
        assert!(matches!(error, Error::BrokenChain { line: Some(2), .. }), "{error}");
        let checks = world.backend.plane.preflight().await.unwrap();
        assert!(!checks.iter().all(|check| check.passed));
    });
}

#[test]
fn l04_a_change_that_did_not_commit_left_nothing_and_can_be_repeated() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id"]).await;
        let registry = &world.backend.registry;
        let before = registry.policy_version().await.unwrap();
        // a process that dies inside the transaction: its connection goes without a commit
        let mut db = Connection::open(world.path()).unwrap();
        let tx = db.transaction().unwrap();
        tx.execute("UPDATE resource SET tags = '{\"sensitivity\":\"public\"}'", []).unwrap();
        tx.execute("UPDATE meta SET policy_version = policy_version + 1", []).unwrap();
        drop(tx);
        drop(db);
        assert_eq!(registry.policy_version().await.unwrap(), before);
        let entry = registry.get(&TABLE.parse().unwrap()).await.unwrap().unwrap();
        assert!(entry.tags.is_empty());
        world.tag(TABLE, &["sensitivity=public"]).await;
        assert_eq!(registry.policy_version().await.unwrap(), before + 1);
    });
}

#[test]
fn an_entry_that_cannot_be_read_makes_the_policy_unavailable() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id"]).await;
        let db = Connection::open(world.path()).unwrap();
        db.execute("UPDATE resource SET tags = '{\"sensitivity\":7}' WHERE level = 'table'", [])
            .unwrap();
        let error = world.backend.registry.load().await.unwrap_err();
        assert!(matches!(error, Error::RegistryRow { .. }), "{error}");
        assert!(world.engine().policy().await.is_err());
    });
}

#[test]
fn a_grant_that_cannot_be_read_counts_as_absent() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id"]).await;
        for column in ["target", "masks", "permissions", "principal", "row_filter"] {
            let grant = world.select("user:ana", "on app.public.users").await;
            assert_eq!(world.sees("user:ana", &users).await, "id", "{column}");
            let db = Connection::open(world.path()).unwrap();
            let value = match column {
                "permissions" => "[\"OWN\"]",
                "row_filter" | "principal" => "?",
                _ => "{\"x\":1}",
            };
            let sql = format!("UPDATE grant_ SET {column} = ?1 WHERE id = ?2");
            db.execute(&sql, [value, &grant.id]).unwrap();
            assert_eq!(world.sees("user:ana", &users).await, "", "{column}");
        }
    });
}

#[test]
fn a_tag_that_is_in_use_cannot_leave_the_taxonomy() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id"]).await;
        world.tag(TABLE, &["domain=hr"]).await;
        let with = |values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            let keys = BTreeMap::from([("domain".to_owned(), values)]);
            RegistryOptions { taxonomy: Taxonomy::parse(&keys).unwrap(), ..options() }
        };
        let error = open(&world.path(), with(&["sales"])).unwrap_err();
        assert!(matches!(error, Error::TagInUse { .. }), "{error}");
        let registry = open(&world.path(), with(&["hr", "it"])).unwrap();
        let lines = registry.audit(0, 1000).await.unwrap();
        assert!(lines.last().unwrap().line.contains("\"config\""));
        assert!(registry.revoke("g1".into(), by("user:admin")).await.is_err());
    });
}
