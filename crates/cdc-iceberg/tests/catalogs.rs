//! What every catalog promises, run on each of them, and what the SQLite file looks like.

use std::sync::Arc;

use cdc_iceberg::{
    Catalog, CreateOutcome, Error, MemoryCatalog, SqliteCatalog, SwapOutcome, TableIdent,
};
use rusqlite::Connection;

/// The conformance suite of [`Catalog`].
async fn conforms(catalog: Arc<dyn Catalog>) {
    let orders = TableIdent::new("lake", "orders");
    missing_things_are_told_apart(catalog.as_ref(), &orders).await;
    catalog.ensure_namespace("lake").await.unwrap();
    catalog.ensure_namespace("lake").await.unwrap();

    assert!(matches!(catalog.create(&orders, "m0").await.unwrap(), CreateOutcome::Created));
    let again = catalog.create(&orders, "other").await.unwrap();
    assert!(matches!(again, CreateOutcome::Exists(location) if location == "m0"));

    assert!(matches!(catalog.swap(&orders, "m0", "m1").await.unwrap(), SwapOutcome::Swapped));
    assert!(matches!(catalog.swap(&orders, "m0", "m2").await.unwrap(), SwapOutcome::Conflict));
    assert_eq!(catalog.pointer(&orders).await.unwrap().as_deref(), Some("m1"));

    let bills = TableIdent::new("lake", "bills");
    catalog.ensure_namespace("elsewhere").await.unwrap();
    let elsewhere = TableIdent::new("elsewhere", "orders");
    for ident in [&bills, &elsewhere] {
        assert!(matches!(catalog.create(ident, "b0").await.unwrap(), CreateOutcome::Created));
    }
    assert_eq!(catalog.list("lake").await.unwrap(), [bills, orders.clone()]);

    one_of_many_swaps_wins(&catalog, &orders).await;

    assert!(catalog.drop_table(&orders).await.unwrap());
    assert!(!catalog.drop_table(&orders).await.unwrap());
    assert_eq!(catalog.pointer(&orders).await.unwrap(), None);
    assert_eq!(catalog.pointer(&elsewhere).await.unwrap().as_deref(), Some("b0"));
}

async fn missing_things_are_told_apart(catalog: &dyn Catalog, orders: &TableIdent) {
    assert_eq!(catalog.pointer(orders).await.unwrap(), None);
    let no_namespace = catalog.create(orders, "m0").await;
    assert!(matches!(no_namespace, Err(Error::NoNamespace(name)) if name == "lake"));
    assert!(matches!(catalog.swap(orders, "m0", "m1").await.unwrap(), SwapOutcome::Conflict));
}

async fn one_of_many_swaps_wins(catalog: &Arc<dyn Catalog>, orders: &TableIdent) {
    let tries: Vec<_> = (0..16)
        .map(|number| {
            let (catalog, orders) = (Arc::clone(catalog), orders.clone());
            let location = format!("race{number}");
            tokio::spawn(async move {
                let outcome = catalog.swap(&orders, "m1", &location).await.unwrap();
                matches!(outcome, SwapOutcome::Swapped).then_some(location)
            })
        })
        .collect();
    let mut winners = Vec::new();
    for task in tries {
        winners.extend(task.await.unwrap());
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(catalog.pointer(orders).await.unwrap().as_ref(), winners.first());
}

#[tokio::test]
async fn memory_catalog_conforms() {
    conforms(Arc::new(MemoryCatalog::new())).await;
}

#[tokio::test]
async fn sqlite_catalog_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(Arc::new(SqliteCatalog::open(&dir.path().join("catalog.db")).unwrap())).await;
}

#[tokio::test]
async fn two_processes_see_each_others_swaps() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.db");
    let (one, two) = (SqliteCatalog::open(&path).unwrap(), SqliteCatalog::open(&path).unwrap());
    let orders = TableIdent::new("lake", "orders");
    one.ensure_namespace("lake").await.unwrap();
    assert!(matches!(one.create(&orders, "m0").await.unwrap(), CreateOutcome::Created));
    assert!(matches!(two.swap(&orders, "m0", "m1").await.unwrap(), SwapOutcome::Swapped));
    assert!(matches!(one.swap(&orders, "m0", "m2").await.unwrap(), SwapOutcome::Conflict));
    assert_eq!(one.pointer(&orders).await.unwrap().as_deref(), Some("m1"));
}

#[tokio::test]
async fn sqlite_rows_are_those_of_pyicebergs_sql_catalog() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.db");
    let catalog = SqliteCatalog::open(&path).unwrap();
    let orders = TableIdent::new("lake", "orders");
    catalog.ensure_namespace("lake").await.unwrap();
    assert!(matches!(catalog.create(&orders, "m0").await.unwrap(), CreateOutcome::Created));
    assert!(matches!(catalog.swap(&orders, "m0", "m1").await.unwrap(), SwapOutcome::Swapped));

    let connection = Connection::open(&path).unwrap();
    let row: [String; 6] = connection
        .query_row("SELECT * FROM iceberg_tables", [], |row| {
            Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?])
        })
        .unwrap();
    assert_eq!(row, ["pgcdc", "lake", "orders", "m1", "m0", "TABLE"]);
    let row: [String; 4] = connection
        .query_row("SELECT * FROM iceberg_namespace_properties", [], |row| {
            Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
        })
        .unwrap();
    assert_eq!(row, ["pgcdc", "lake", "exists", "true"]);
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[cfg(unix)]
#[test]
fn sqlite_file_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.db");
    let _catalog = SqliteCatalog::open(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}
