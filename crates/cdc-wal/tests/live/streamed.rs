//! Transactions that the server sends while they are open: the events are those of a stream
//! without, whatever becomes of them.

use std::path::Path;

use cdc_core::{ErrorKind, Lsn};
use cdc_wal::{ResumePoint, SpoolOptions, StreamOptions, WalStream};

use crate::fixture::{Postgres, Tail, create_slot, within};

/// Whatever does not fit is streamed.
const SMALL: &[&str] = &["logical_decoding_work_mem=64kB"];

fn streaming(directory: &Path, memory_bytes: usize) -> StreamOptions {
    let mut options = StreamOptions::new("pub");
    let directory = directory.to_owned();
    options.spool = Some(SpoolOptions { directory, memory_bytes, disk_bytes: 1 << 30 });
    options
}

/// What one stream told.
#[derive(Debug, PartialEq)]
struct Told {
    lines: Vec<String>,
    changes: Vec<Lsn>,
    commits: Vec<(Lsn, Lsn, i64)>,
}

async fn follow(
    postgres: &Postgres,
    database: &str,
    at: ResumePoint,
    options: StreamOptions,
    marker: &str,
) -> Told {
    let connector = postgres.connector(database);
    let opened = WalStream::open(&connector, at, options);
    let mut tail = Tail::new(within("the stream to open", opened).await.unwrap());
    while !tail.lines.iter().any(|line| line.contains(marker)) {
        assert!(tail.step().await.unwrap(), "the stream ended");
    }
    let told = within("the end of the last transaction", async {
        while tail.lines.last().is_none_or(|line| line != "commit") {
            assert!(tail.step().await.unwrap(), "the stream ended");
        }
        tail
    })
    .await;
    let mut lines: Vec<String> = Vec::new();
    for line in told.lines {
        // some servers send transactions of which nothing is published, with streaming all do
        if line == "commit" && lines.last().is_some_and(|last| last == "begin") {
            lines.pop();
        } else {
            lines.push(line);
        }
    }
    let commits = told.commits.iter();
    let commits = commits.map(|c| (c.commit_lsn, c.end_lsn, c.commit_micros)).collect();
    told.stream.close().await.unwrap();
    Told { lines, changes: told.change_lsns, commits }
}

/// How many transactions the server has streamed and spilled for a slot.
async fn counts(client: &tokio_postgres::Client, slot: &str) -> (i64, i64) {
    let sql = "SELECT coalesce(sum(stream_txns), 0)::bigint, coalesce(sum(spill_txns), 0)::bigint \
               FROM pg_stat_replication_slots WHERE slot_name = $1";
    let row = client.query_one(sql, &[&slot]).await.unwrap();
    (row.get(0), row.get(1))
}

/// Runs `work`, one list of statements for each session and step, and compares both streams.
async fn check(name: &str, setup: &str, work: &[(usize, &str)]) -> Told {
    let postgres = Postgres::start(SMALL);
    let (client, at) = postgres.source(name, setup).await;
    let plain_at = create_slot(&client, "plain").await;
    client.batch_execute("CREATE TABLE the_end (marker text PRIMARY KEY)").await.unwrap();
    let sessions = [postgres.session(name).await, postgres.session(name).await];
    for (session, statements) in work {
        // what fails aborts its transaction, which some tests want
        let _ = sessions[*session].batch_execute(statements).await;
    }
    client.batch_execute("INSERT INTO the_end VALUES ('this is the end')").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let plain = StreamOptions::new("pub");
    let expected = follow(&postgres, name, plain_at, plain, "this is the end").await;
    let mut told = None;
    for memory_bytes in [0, 200_000, 1 << 26] {
        let options = streaming(directory.path(), memory_bytes);
        let found = follow(&postgres, name, at.clone(), options, "this is the end").await;
        assert_eq!(found.lines.len(), expected.lines.len(), "{name}: {memory_bytes}");
        for (found, expected) in found.lines.iter().zip(&expected.lines) {
            assert_eq!(found, expected, "{name}: {memory_bytes}");
        }
        assert_eq!(found.changes, expected.changes, "{name}: {memory_bytes}");
        let commits = expected.commits.iter();
        assert!(commits.clone().all(|commit| found.commits.contains(commit)), "{name}");
        told = Some(found);
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    within("the server's statistics", async {
        while counts(&client, name).await.0 == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(counts(&client, "plain").await.0, 0, "{name}: streamed though not asked to");
    told.unwrap()
}

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";

#[tokio::test]
async fn f_pg13_a_streamed_transaction_is_told_like_any_other() {
    let told = check(
        "streamed_big",
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE f (id int, v text); \
         ALTER TABLE f REPLICA IDENTITY FULL; ALTER TABLE t ALTER COLUMN v SET STORAGE EXTERNAL",
        &[
            (0, "INSERT INTO t VALUES (0, 'before')"),
            (
                0,
                "BEGIN; INSERT INTO t SELECT n, repeat('x', 100) FROM generate_series(1, 3000) n; \
                 INSERT INTO f SELECT n, 'f' FROM generate_series(1, 1000) n; \
                 SELECT pg_logical_emit_message(true, 'in', 'the transaction'); \
                 SELECT pg_logical_emit_message(false, 'beside', 'it'); \
                 INSERT INTO t VALUES (9000, repeat('toast', 3000)); \
                 UPDATE t SET id = 9001 WHERE id = 9000; UPDATE f SET v = 'g'; \
                 DELETE FROM t WHERE id <= 500; TRUNCATE f; \
                 INSERT INTO f SELECT n, 'h' FROM generate_series(1, 1000) n; COMMIT",
            ),
            (0, "INSERT INTO t VALUES (-1, 'after')"),
        ],
    )
    .await;
    assert!(told.lines.iter().any(|line| line.starts_with("update key 9000|null -> 9001|unch")));
}

#[tokio::test]
async fn f_pg11_rolled_back_savepoints_leave_nothing_of_a_streamed_transaction() {
    let told = check(
        "streamed_savepoints",
        TABLE,
        &[(
            0,
            "BEGIN; INSERT INTO t SELECT n, 'top' FROM generate_series(1, 2000) n; \
             SAVEPOINT a; INSERT INTO t SELECT n, 'dead' FROM generate_series(2001, 4000) n; \
             ROLLBACK TO a; INSERT INTO t SELECT n, 'again' FROM generate_series(2001, 4000) n; \
             SAVEPOINT b; SAVEPOINT c; \
             INSERT INTO t SELECT n, 'dead' FROM generate_series(4001, 6000) n; RELEASE c; \
             INSERT INTO t VALUES (6001, 'dead'); ROLLBACK TO b; \
             SAVEPOINT d; INSERT INTO t SELECT n, 'kept' FROM generate_series(4001, 6000) n; \
             RELEASE d; INSERT INTO t SELECT n, 'end' FROM generate_series(6001, 8000) n; COMMIT",
        )],
    )
    .await;
    assert!(!told.lines.iter().any(|line| line.contains("dead")));
    assert_eq!(told.lines.iter().filter(|line| line.starts_with("insert")).count(), 8001);
}

#[tokio::test]
async fn f_pg11_a_thousand_exception_blocks_roll_back_their_own_rows() {
    let told = check(
        "streamed_exceptions",
        TABLE,
        &[(
            0,
            "DO $$ BEGIN FOR n IN 1..1500 LOOP BEGIN \
               INSERT INTO t VALUES (n, repeat('x', 200)); \
               IF n % 3 = 0 THEN RAISE EXCEPTION 'no'; END IF; \
             EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$",
        )],
    )
    .await;
    assert_eq!(told.lines.iter().filter(|line| line.starts_with("insert")).count(), 1001);
}

#[tokio::test]
async fn f_pg13_an_aborted_streamed_transaction_is_never_seen() {
    let told = check(
        "streamed_abort",
        TABLE,
        &[
            (0, "BEGIN; INSERT INTO t SELECT n, 'dead' FROM generate_series(1, 5000) n"),
            (1, "INSERT INTO t VALUES (7000, 'beside')"),
            (0, "ROLLBACK"),
            (0, "INSERT INTO t VALUES (1, 'alive')"),
            (0, "BEGIN; INSERT INTO t SELECT n, 'dead' FROM generate_series(1, 5000) n; COMMIT"),
        ],
    )
    .await;
    assert!(!told.lines.iter().any(|line| line.contains("dead")));
    assert_eq!(told.lines.iter().filter(|line| line.starts_with("insert")).count(), 3);
}

#[tokio::test]
async fn f_pg13_interleaved_streamed_transactions_come_in_commit_order() {
    let told = check(
        "streamed_interleaved",
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY, v text)",
        &[
            (0, "BEGIN; INSERT INTO t SELECT n, 'first' FROM generate_series(1, 2000) n"),
            (1, "BEGIN; INSERT INTO t SELECT n, 'second' FROM generate_series(10001, 12000) n"),
            (0, "INSERT INTO u SELECT n, 'first' FROM generate_series(1, 2000) n"),
            (1, "INSERT INTO u SELECT n, 'second' FROM generate_series(10001, 12000) n"),
            (1, "SAVEPOINT a; INSERT INTO u SELECT n, 'dead' FROM generate_series(20001, 22000) n"),
            (0, "INSERT INTO t SELECT n, 'first' FROM generate_series(2001, 4000) n"),
            (1, "ROLLBACK TO a; COMMIT"),
            (0, "COMMIT"),
        ],
    )
    .await;
    let first = told.lines.iter().position(|line| line.contains("first")).unwrap();
    let second = told.lines.iter().rposition(|line| line.contains("second")).unwrap();
    assert!(second < first, "the second transaction committed first");
}

#[tokio::test]
async fn trap_14_ddl_inside_a_streamed_transaction_describes_each_shape_before_its_rows() {
    let told = check(
        "streamed_ddl",
        TABLE,
        &[
            (0, "INSERT INTO t VALUES (0, 'old')"),
            (
                0,
                "BEGIN; INSERT INTO t SELECT n, 'a' FROM generate_series(1, 1500) n; \
                 ALTER TABLE t ADD COLUMN w int DEFAULT 7; \
                 INSERT INTO t SELECT n, 'b' FROM generate_series(1501, 3000) n; \
                 SAVEPOINT s; ALTER TABLE t ADD COLUMN dead int; \
                 INSERT INTO t SELECT n, 'dead', 1, 2 FROM generate_series(3001, 4500) n; \
                 ROLLBACK TO s; INSERT INTO t SELECT n, 'c' FROM generate_series(3001, 4500) n; \
                 ALTER TABLE t RENAME COLUMN w TO x; \
                 INSERT INTO t SELECT n, 'd' FROM generate_series(4501, 6000) n; COMMIT",
            ),
            (0, "INSERT INTO t VALUES (-1, 'new')"),
            (
                0,
                "BEGIN; ALTER TABLE t DROP COLUMN x; \
                 INSERT INTO t SELECT n, 'e' FROM generate_series(7001, 9000) n; ROLLBACK",
            ),
            (0, "INSERT INTO t VALUES (-2, 'newer')"),
        ],
    )
    .await;
    let described: Vec<_> = told.lines.iter().filter(|line| line.contains(" public.t ")).collect();
    assert_eq!(described.len(), 3, "{described:?}");
    assert!(!told.lines.iter().any(|line| line.contains("dead")));
}

#[tokio::test]
async fn trap_28_a_prepared_transaction_comes_when_it_commits() {
    check(
        "streamed_prepared",
        TABLE,
        &[
            (0, "BEGIN; INSERT INTO t SELECT n, 'p' FROM generate_series(1, 3000) n"),
            (0, "PREPARE TRANSACTION 'p'"),
            (1, "INSERT INTO t VALUES (-1, 'between')"),
            (0, "COMMIT PREPARED 'p'"),
            (0, "BEGIN; INSERT INTO t SELECT n, 'q' FROM generate_series(5001, 8000) n"),
            (0, "PREPARE TRANSACTION 'q'"),
            (0, "ROLLBACK PREPARED 'q'"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_connection_lost_in_the_middle_of_a_streamed_transaction_loses_and_repeats_nothing() {
    let postgres = Postgres::start(SMALL);
    let (open, at) = postgres.source("streamed_reconnect", TABLE).await;
    let client = postgres.session("streamed_reconnect").await;
    let directory = tempfile::tempdir().unwrap();
    let options = streaming(directory.path(), 0);
    open.batch_execute("BEGIN; INSERT INTO t SELECT n, 'x' FROM generate_series(1, 5000) n")
        .await
        .unwrap();
    let mut tail = Tail::new(postgres.open_with(&at, options.clone()).await.unwrap());
    let mut progress = tail.stream.progress();
    within("parts", progress.wait_for(|progress| progress.spooled_bytes > 0)).await.unwrap();
    client.batch_execute("INSERT INTO t VALUES (-1, 'other')").await.unwrap();
    tail.commits(1).await;
    let acked = tail.commits[0];
    assert_eq!(tail.take_lines().lines().filter(|line| line.starts_with("insert")).count(), 1);
    tail.stream.acker().durable(acked.token());
    postgres.wait_confirmed("streamed_reconnect", acked.end_lsn).await;
    tail.stream.close().await.unwrap();

    let again = ResumePoint { lsn: acked.end_lsn, ..at };
    let mut tail = Tail::new(postgres.open_with(&again, options).await.unwrap());
    let mut progress = tail.stream.progress();
    // the server streams nothing that lies below the position again until more follows
    open.batch_execute("INSERT INTO t SELECT n, 'x' FROM generate_series(5001, 9000) n")
        .await
        .unwrap();
    within("parts", progress.wait_for(|progress| progress.spooled_bytes > 0)).await.unwrap();
    assert!(tail.lines.is_empty() && tail.idles.is_empty());
    open.batch_execute("COMMIT").await.unwrap();
    tail.commits(1).await;
    let rows = tail.take_lines();
    assert_eq!(rows.lines().filter(|line| line.starts_with("insert")).count(), 9000);
    within("an empty spool", progress.wait_for(|progress| progress.spooled_bytes == 0))
        .await
        .unwrap();
    tail.stream.close().await.unwrap();
}

#[tokio::test]
async fn f_229_a_full_spool_ends_the_stream_and_confirms_nothing() {
    let postgres = Postgres::start(SMALL);
    let (client, at) = postgres.source("streamed_limit", TABLE).await;
    let directory = tempfile::tempdir().unwrap();
    let mut options = streaming(directory.path(), 1000);
    options.spool.as_mut().unwrap().disk_bytes = 100_000;
    client
        .batch_execute("INSERT INTO t SELECT n, 'x' FROM generate_series(1, 9000) n")
        .await
        .unwrap();
    let mut tail = Tail::new(postgres.open_with(&at, options).await.unwrap());
    let error = tail.error().await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("hint: raise limits.spool_bytes"), "{error}");
    assert!(tail.lines.is_empty());
    assert_eq!(postgres.confirmed("streamed_limit").await, at.lsn);
}
