//! Where transactions stand: resuming, order, acknowledgement, idle slots.

use cdc_core::Lsn;
use cdc_wal::ResumePoint;

use crate::fixture::{Postgres, Tail, within};

async fn inserted(tail: &mut Tail, count: usize) -> Vec<String> {
    tail.commits(count).await;
    let lines = std::mem::take(&mut tail.lines);
    lines.into_iter().filter(|line| line.starts_with("insert")).collect()
}

#[tokio::test]
async fn trap_02_a_resume_at_the_end_of_a_transaction_does_not_repeat_it() {
    let postgres = Postgres::shared();
    let (client, at) = postgres.source("resume", "CREATE TABLE t (id int PRIMARY KEY)").await;
    for id in 1..=3 {
        client.batch_execute(&format!("INSERT INTO t VALUES ({id})")).await.unwrap();
    }
    let mut tail = Tail::new(postgres.open(&at).await.unwrap());
    assert_eq!(inserted(&mut tail, 3).await, ["insert 1", "insert 2", "insert 3"]);
    let (first, second) = (tail.commits[0], tail.commits[1]);
    assert!(tail.begins[1] == second.commit_lsn && second.commit_lsn < second.end_lsn);
    tail.stream.close().await.unwrap();

    let at_commit = ResumePoint { lsn: second.commit_lsn, ..at.clone() };
    let mut tail = Tail::new(postgres.open(&at_commit).await.unwrap());
    assert_eq!(inserted(&mut tail, 2).await, ["insert 2", "insert 3"]);
    assert!(first.end_lsn <= at_commit.lsn);
    tail.stream.close().await.unwrap();

    let at_end = ResumePoint { lsn: second.end_lsn, ..at };
    let mut tail = Tail::new(postgres.open(&at_end).await.unwrap());
    assert_eq!(inserted(&mut tail, 1).await, ["insert 3"]);
    assert!(tail.begins[0] >= at_end.lsn, "a transaction not held begins at or behind the resume");
    tail.stream.close().await.unwrap();
}

#[tokio::test]
async fn trap_03_transactions_come_in_commit_order_and_positions_overlap() {
    let postgres = Postgres::shared();
    let (early, at) = postgres.source("overlap", "CREATE TABLE t (id int PRIMARY KEY)").await;
    let late = postgres.session("overlap").await;
    early.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    late.batch_execute("BEGIN; INSERT INTO t VALUES (2); COMMIT").await.unwrap();
    early.batch_execute("INSERT INTO t VALUES (3); COMMIT").await.unwrap();
    let mut tail = Tail::new(postgres.open(&at).await.unwrap());
    assert_eq!(inserted(&mut tail, 2).await, ["insert 2", "insert 1", "insert 3"]);
    assert!(
        tail.change_lsns[1] < tail.commits[0].end_lsn,
        "the change is older than the commit before"
    );
    assert!(tail.commits[0].end_lsn < tail.commits[1].end_lsn);
    tail.stream.close().await.unwrap();
}

#[tokio::test]
async fn trap_05_an_idle_slot_advances_while_another_database_writes() {
    let postgres = Postgres::shared();
    let (_client, at) = postgres.source("idle", "CREATE TABLE t (id int PRIMARY KEY)").await;
    let other = postgres.session("postgres").await;
    let mut tail = Tail::new(postgres.open(&at).await.unwrap());
    let acker = tail.stream.acker();
    other.batch_execute("CREATE TABLE noise AS SELECT generate_series(1, 1000)").await.unwrap();
    let row = other.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap();
    let target: Lsn = row.get::<_, String>(0).parse().unwrap();
    while tail.idles.last().is_none_or(|mark| mark.wal_end < target) {
        assert!(tail.step().await.unwrap());
    }
    assert!(tail.commits.is_empty());
    acker.durable(tail.idles.last().unwrap().token());
    postgres.wait_confirmed("idle", target).await;
    tail.stream.close().await.unwrap();
}

#[tokio::test]
async fn trap_06_a_transaction_open_across_an_acknowledgement_is_delivered_twice_at_most() {
    let postgres = Postgres::shared();
    let (open, at) = postgres.source("open_txn", "CREATE TABLE t (id int PRIMARY KEY)").await;
    let client = postgres.session("open_txn").await;
    open.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    client.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    let mut tail = Tail::new(postgres.open(&at).await.unwrap());
    assert_eq!(inserted(&mut tail, 1).await, ["insert 2"]);
    let acked = tail.commits[0];
    tail.stream.acker().durable(acked.token());
    postgres.wait_confirmed("open_txn", acked.end_lsn).await;
    open.batch_execute("COMMIT").await.unwrap();
    assert_eq!(inserted(&mut tail, 2).await, ["insert 1"]);
    tail.stream.close().await.unwrap();

    let again = ResumePoint { lsn: acked.end_lsn, ..at };
    let mut tail = Tail::new(postgres.open(&again).await.unwrap());
    assert_eq!(inserted(&mut tail, 1).await, ["insert 1"]);
    tail.stream.close().await.unwrap();
}

#[tokio::test]
async fn trap_01_nothing_is_confirmed_without_a_token_and_close_sends_the_last_one() {
    let postgres = Postgres::shared();
    let (client, at) = postgres.source("tokens", "CREATE TABLE t (id int PRIMARY KEY)").await;
    client.batch_execute("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)").await.unwrap();
    client.batch_execute("INSERT INTO t VALUES (3)").await.unwrap();
    let mut tail = Tail::new(postgres.open(&at).await.unwrap());
    tail.commits(2).await;
    tail.stream.close().await.unwrap();
    assert_eq!(postgres.confirmed("tokens").await, at.lsn, "received is not durable");

    let mut tail = Tail::new(postgres.open(&at).await.unwrap());
    tail.commits(2).await;
    let first = tail.commits[0];
    tail.stream.acker().durable(first.token());
    tail.stream.close().await.unwrap();
    assert_eq!(postgres.confirmed("tokens").await, first.end_lsn);
}

#[tokio::test]
async fn a_large_transaction_passes_through_a_small_buffer() {
    let postgres = Postgres::shared();
    let setup = "CREATE TABLE t (id int PRIMARY KEY, v text)";
    let (client, at) = postgres.source("large", setup).await;
    let work = "INSERT INTO t SELECT n, repeat('x', 100) FROM generate_series(1, 40000) n; \
                INSERT INTO t SELECT -1, repeat('y', 3000000)";
    client.batch_execute(work).await.unwrap();
    let mut options = cdc_wal::StreamOptions::new("pub");
    options.buffer_bytes = 100_000;
    let mut tail = Tail::new(postgres.open_with(&at, options).await.unwrap());
    let rows = within("all rows", inserted(&mut tail, 1)).await;
    assert_eq!(rows.len(), 40001);
    assert_eq!(rows[40000], "insert -1|3000000 bytes");
    tail.stream.close().await.unwrap();
}
