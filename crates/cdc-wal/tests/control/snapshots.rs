//! The rows of a snapshot against the rows that the server shows.

use std::collections::{BTreeMap, BTreeSet};

use cdc_core::{Cell, SourceTable};
use cdc_wal::{CopyJob, CopyPlanOptions, CopyTable, Error, SlotSpec, Source};

use super::{Database, column_names};
use crate::fixture::{Postgres, Tail, within};

/// Small enough to divide the tables of these tests.
const FINE: CopyPlanOptions = CopyPlanOptions { workers: 2, target_bytes: 64 * 1024 };

async fn plan(db: &Database<'_>, table: &SourceTable, options: CopyPlanOptions) -> Vec<CopyJob> {
    let columns = column_names(table);
    let wanted = [CopyTable { table, columns: &columns }];
    db.control().await.plan_copy(&wanted, options).await.unwrap()
}

/// All rows of the jobs as text, NULL as `None`.
async fn copy(source: &Source, snapshot: &str, jobs: &[CopyJob]) -> Vec<Vec<Option<String>>> {
    let mut reader = source.open_snapshot(snapshot).await.unwrap();
    let mut rows = Vec::new();
    for job in jobs {
        let mut copied = reader.copy(job).await.unwrap();
        while let Some(mut batch) = within("a batch", copied.next_batch()).await.unwrap() {
            batch
                .rows(|cells| {
                    rows.push(cells.iter().map(owned).collect());
                    Ok::<(), Error>(())
                })
                .unwrap();
        }
    }
    reader.close().await;
    rows
}

fn owned(cell: &Cell<'_>) -> Option<String> {
    match cell {
        Cell::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
        Cell::Null | Cell::Unchanged => None,
    }
}

async fn exported(client: &tokio_postgres::Client) -> String {
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.unwrap();
    client.query_one("SELECT pg_export_snapshot()", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn values_arrive_as_the_server_writes_them() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "copy_values",
        r#"CREATE TABLE "T ""1" (id int PRIMARY KEY, "a b" text, i interval, b bytea, r regclass,
             ts timestamptz, twice int GENERATED ALWAYS AS (id * 2) STORED);
           INSERT INTO "T ""1" VALUES
             (1, E'tab\tnewline\nback\\slash\r\b', '1 day 2 hours', '\x00ff', 'pg_class',
              '2024-03-10 15:30:00+05'),
             (2, '\N', NULL, '', '"T ""1"', 'infinity'), (3, '', NULL, NULL, NULL, NULL)"#,
    )
    .await;
    let snapshot = exported(&db.sql).await;
    let table = db.table("T \"1").await;
    let rows = copy(&db.source(), &snapshot, &plan(&db, &table, FINE).await).await;
    let text = |row: &[Option<&str>]| row.iter().map(|v| v.map(str::to_owned)).collect::<Vec<_>>();
    let expected = [
        text(&[
            Some("1"),
            Some("tab\tnewline\nback\\slash\r\u{8}"),
            Some("P1DT2H"),
            Some("\\x00ff"),
            Some("pg_class"),
            Some("2024-03-10 10:30:00+00"),
            Some("2"),
        ]),
        text(&[
            Some("2"),
            Some("\\N"),
            None,
            Some("\\x"),
            Some("public.\"T \"\"1\""),
            Some("infinity"),
            Some("4"),
        ]),
        text(&[Some("3"), Some(""), None, None, None, None, Some("6")]),
    ];
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn ranges_give_every_row_once() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "copy_ranges",
        "CREATE TABLE big (id int PRIMARY KEY, filler text);
         INSERT INTO big SELECT i, repeat('x', 100) FROM generate_series(1, 20000) i;
         UPDATE big SET filler = 'moved' WHERE id % 7 = 0; DELETE FROM big WHERE id % 13 = 0;
         CREATE TABLE child () INHERITS (big); INSERT INTO child VALUES (-1, 'not mine')",
    )
    .await;
    let snapshot = exported(&db.sql).await;
    let jobs = plan(&db, &db.table("big").await, FINE).await;
    assert!(jobs.len() > 10, "{} jobs", jobs.len());
    let rows = copy(&db.source(), &snapshot, &jobs).await;
    let mut ids: Vec<i32> =
        rows.iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect();
    ids.sort_unstable();
    let expected: Vec<i32> = (1..=20000).filter(|id| id % 13 != 0).collect();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn leaves_are_read_in_the_column_order_of_their_root() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "copy_leaves",
        "CREATE TABLE root (id int, at int, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE low PARTITION OF root FOR VALUES FROM (0) TO (10);
         CREATE TABLE other (note text, junk int, at int NOT NULL, id int NOT NULL);
         ALTER TABLE other DROP COLUMN junk;
         ALTER TABLE root ATTACH PARTITION other FOR VALUES FROM (10) TO (20);
         INSERT INTO root VALUES (1, 5, 'low'), (2, 15, 'high')",
    )
    .await;
    let snapshot = exported(&db.sql).await;
    let root = db.table("root").await;
    let jobs = plan(&db, &root, CopyPlanOptions::default()).await;
    assert_eq!(jobs.len(), 2);
    assert!(jobs.iter().all(|job| job.table == root.name));
    let rows: BTreeSet<Vec<Option<String>>> =
        copy(&db.source(), &snapshot, &jobs).await.into_iter().collect();
    let row = |values: [&str; 3]| values.map(|value| Some(value.to_owned())).to_vec();
    assert_eq!(rows, BTreeSet::from([row(["1", "5", "low"]), row(["2", "15", "high"])]));
}

#[tokio::test]
async fn a_table_without_columns_still_has_rows() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "copy_nothing",
        "CREATE TABLE none (); INSERT INTO none DEFAULT VALUES; INSERT INTO none DEFAULT VALUES",
    )
    .await;
    let snapshot = exported(&db.sql).await;
    let rows = copy(&db.source(), &snapshot, &plan(&db, &db.table("none").await, FINE).await).await;
    assert_eq!(rows, [vec![], vec![]]);
}

/// Snapshot and stream together are the table, with writers running before, while and after the
/// slot is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_and_stream_meet_at_the_consistent_point() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "copy_meets",
        "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE PUBLICATION pub FOR TABLE t;
         INSERT INTO t SELECT i, 0 FROM generate_series(1, 1000) i",
    )
    .await;
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let rest = format!("postgres@127.0.0.1:{}/copy_meets?sslmode=disable", server.port);
            let connector = server.connector_with(&rest);
            tokio::spawn(async move {
                let (client, connection) = connector.connect_sql().await.unwrap();
                tokio::spawn(connection);
                for round in 0..200 {
                    let id = 2000 + writer * 1000 + round;
                    let sql = format!(
                        "BEGIN; INSERT INTO public.t VALUES ({id}, 1); \
                         UPDATE public.t SET n = n + 1 WHERE id = {}; COMMIT",
                        round * 3 + writer + 1
                    );
                    client.batch_execute(&sql).await.unwrap();
                }
            })
        })
        .collect();
    let slot = db.source().create_slot(&SlotSpec::new("copy_meets")).await.unwrap();
    let jobs = plan(&db, &db.table("t").await, FINE).await;
    let rows = copy(&db.source(), &slot.snapshot_name, &jobs).await;
    slot.lease.release().await.unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    db.sql.batch_execute("INSERT INTO t VALUES (0, 0)").await.unwrap();
    let mut replayed: BTreeMap<i32, i32> = rows
        .iter()
        .map(|row| {
            (row[0].as_ref().unwrap().parse().unwrap(), row[1].as_ref().unwrap().parse().unwrap())
        })
        .collect();
    let at = cdc_wal::ResumePoint {
        system_id: slot.system_identifier,
        timeline: slot.timeline,
        slot: slot.slot,
        lsn: slot.consistent_point,
    };
    let mut tail = Tail::new(server.open(&at).await.unwrap());
    while !replayed.contains_key(&0) {
        assert!(tail.step().await.unwrap());
        for line in std::mem::take(&mut tail.lines) {
            replay(&mut replayed, &line);
        }
    }
    let found = db.sql.query("SELECT id, n FROM t", &[]).await.unwrap();
    let found: BTreeMap<i32, i32> = found.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(replayed, found);
}

fn replay(rows: &mut BTreeMap<i32, i32>, line: &str) {
    let pair = |text: &str| {
        let (id, n) = text.split_once('|').unwrap();
        (id.parse::<i32>().unwrap(), n.parse::<i32>().unwrap())
    };
    if let Some(new) = line.strip_prefix("insert ") {
        let (id, n) = pair(new);
        assert_eq!(rows.insert(id, n), None, "row {id} is in the snapshot and in the stream");
    } else if let Some(new) = line.strip_prefix("update -> ") {
        let (id, n) = pair(new);
        assert_eq!(rows.insert(id, n), Some(n - 1), "row {id}");
    }
}

#[tokio::test]
async fn row_policies_never_shrink_a_snapshot() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "copy_policy",
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
         ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE ROLE copy_policy LOGIN;
         GRANT SELECT ON t TO copy_policy",
    )
    .await;
    let snapshot = exported(&db.sql).await;
    let jobs = plan(&db, &db.table("t").await, FINE).await;
    let source = db.source_as("copy_policy");
    let mut reader = source.open_snapshot(&snapshot).await.unwrap();
    let failed = match reader.copy(&jobs[0]).await {
        Ok(mut rows) => rows.next_batch().await.map(drop),
        Err(error) => Err(error),
    };
    let error = failed.unwrap_err();
    assert!(cdc_core::chain(&error).contains("row-level security"), "{error}");
}

#[tokio::test]
async fn trap_21_copy_and_stream_have_the_same_columns() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "copy_generated",
        "CREATE TABLE t (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, n int)",
    )
    .await;
    let table = db.table("t").await;
    let control = db.control().await;
    let tables = std::slice::from_ref(&table);
    let publication = control.ensure_publication("pub", tables).await.unwrap();
    assert_eq!(publication.publishes_generated, control.server_version_num() >= 180_000);
    let schema = cdc_core::TableSchema::first(
        &table,
        cdc_core::Identity::of(&table).unwrap(),
        &cdc_core::TypePolicy::default(),
        |_| None,
        publication.publishes_generated,
    );
    let columns: Vec<String> = schema.columns.iter().map(|column| column.name.clone()).collect();
    let slot = db.source().create_slot(&SlotSpec::new("copy_generated")).await.unwrap();
    let wanted = [CopyTable { table: &table, columns: &columns }];
    let jobs = control.plan_copy(&wanted, FINE).await.unwrap();
    assert_eq!(copy(&db.source(), &slot.snapshot_name, &jobs).await.len(), 0);
    slot.lease.release().await.unwrap();
    db.sql.batch_execute("INSERT INTO t VALUES (3, DEFAULT, 1)").await.unwrap();
    let at = cdc_wal::ResumePoint {
        system_id: slot.system_identifier,
        timeline: slot.timeline,
        slot: slot.slot,
        lsn: slot.consistent_point,
    };
    let mut tail = Tail::new(server.open(&at).await.unwrap());
    tail.commits(1).await;
    let relation = tail.relations.get(table.oid).unwrap();
    let streamed: Vec<String> = relation.columns.iter().map(|c| c.name.clone()).collect();
    assert_eq!(streamed, columns);
}
