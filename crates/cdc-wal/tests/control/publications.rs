//! The publication: made, compared, never silently changed.

use cdc_wal::Error;

use super::Database;
use crate::fixture::Postgres;

const TABLES: &str = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);
     CREATE TABLE child () INHERITS (a); ALTER TABLE child REPLICA IDENTITY FULL;
     CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id);
     CREATE TABLE leaf PARTITION OF root FOR VALUES FROM (0) TO (10);
     CREATE TABLE no_key (id int)";

#[tokio::test]
async fn a_new_publication_holds_exactly_the_wanted_tables_through_their_roots() {
    let server = Postgres::shared();
    let db = Database::create(&server, "pub_new", TABLES).await;
    let control = db.control().await;
    let tables = [db.table("a").await, db.table("root").await];
    let made = control.ensure_publication("My \"Pub\"", &tables).await.unwrap();
    assert!(made.created);
    let state = control.publication("My \"Pub\"").await.unwrap().unwrap();
    let names: Vec<&str> = state.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["a", "root"]);
    assert!(state.via_root && state.missing_actions.is_empty() && !state.open_ended);
    let again = control.ensure_publication("My \"Pub\"", &tables).await.unwrap();
    assert!(!again.created);
    assert_eq!(again.publishes_generated, made.publishes_generated);
    assert!(control.drop_publication("My \"Pub\"").await.unwrap());
    assert!(!control.drop_publication("My \"Pub\"").await.unwrap());
}

#[tokio::test]
async fn tables_without_identity_and_partitions_are_never_published() {
    let server = Postgres::shared();
    let db = Database::create(&server, "pub_never", TABLES).await;
    let control = db.control().await;
    for (table, word) in [("no_key", "no replica identity"), ("leaf", "is a partition")] {
        let tables = [db.table(table).await];
        let error = control.ensure_publication("p", &tables).await.unwrap_err();
        assert!(matches!(error, Error::SchemaConflict { .. }));
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(control.publication("p").await.unwrap().is_none());
}

#[tokio::test]
async fn drift_of_an_existing_publication_is_told_with_its_remedy() {
    let server = Postgres::shared();
    let db = Database::create(&server, "pub_drift", TABLES).await;
    let control = db.control().await;
    let (a, b, root) = (db.table("a").await, db.table("b").await, db.table("root").await);
    let drift = async |create: &str, tables: &[cdc_core::SourceTable]| {
        db.sql.batch_execute("DROP PUBLICATION IF EXISTS p").await.unwrap();
        db.sql.batch_execute(&format!("CREATE PUBLICATION p {create}")).await.unwrap();
        let error = control.ensure_publication("p", tables).await.unwrap_err();
        assert!(matches!(error, Error::PublicationMismatch { .. }), "{error}");
        error.to_string()
    };
    let cases = [
        (
            "FOR TABLE a, ONLY b",
            vec![b.clone(), root.clone()],
            vec![
                "does not publish public.root",
                "publishes public.a, public.child beyond",
                "publish_via_partition_root is off",
                "ALTER PUBLICATION \"p\" SET (publish_via_partition_root = true)",
            ],
        ),
        (
            "FOR TABLE ONLY a WITH (publish = 'insert, delete')",
            vec![a.clone()],
            vec![
                "leaves out update, truncate",
                "SET (publish = 'insert, update, delete, truncate')",
            ],
        ),
        (
            "FOR TABLE ONLY a",
            vec![a.clone(), b.clone()],
            vec!["ALTER PUBLICATION \"p\" ADD TABLE \"public\".\"b\""],
        ),
    ];
    for (create, tables, words) in cases {
        let message = drift(create, &tables).await;
        for word in words {
            assert!(message.contains(word), "{create}: {message}");
        }
    }
    if control.server_version_num() >= 150_000 {
        let message = drift("FOR TABLE ONLY a WHERE (id > 5)", &[a]).await;
        assert!(message.contains("only a part of public.a"), "{message}");
    }
}

#[tokio::test]
async fn trap_12_tables_join_and_leave_one_at_a_time() {
    let server = Postgres::shared();
    let db = Database::create(&server, "pub_members", TABLES).await;
    let control = db.control().await;
    let (a, b) = (db.table("a").await, db.table("b").await);
    control.ensure_publication("p", std::slice::from_ref(&a)).await.unwrap();
    control.add_to_publication("p", &b).await.unwrap();
    let both = [a.clone(), b.clone()];
    assert!(!control.ensure_publication("p", &both).await.unwrap().created);
    control.remove_from_publication("p", &b.name).await.unwrap();
    let state = control.publication("p").await.unwrap().unwrap();
    assert_eq!(state.tables.into_iter().collect::<Vec<_>>(), [a.name]);
}

#[tokio::test]
async fn trap_35_what_the_server_cannot_replicate_is_refused_before_it_refuses() {
    let server = Postgres::shared();
    let db =
        Database::create(&server, "pub_unlogged", "CREATE UNLOGGED TABLE u (id int PRIMARY KEY)")
            .await;
    let tables = [db.table("u").await];
    let error = db.control().await.ensure_publication("p", &tables).await.unwrap_err();
    assert!(error.to_string().contains("unlogged"), "{error}");
}
