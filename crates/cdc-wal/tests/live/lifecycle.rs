//! How a stream begins and ends: refusals on open, server shutdown, lost connections.

use std::time::Duration;

use cdc_core::{ErrorKind, Lsn};
use cdc_wal::{Error, ResumePoint, StreamOptions, WalStream};

use crate::fixture::{Postgres, Tail, create_slot, within};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";

#[tokio::test]
async fn trap_07_a_fast_shutdown_ends_at_once_when_the_consumer_flushes_on_request() {
    let postgres = Postgres::start(&[]);
    let (client, at) = postgres.source("drain", TABLE).await;
    let mut tail = Tail::new(postgres.open(&at).await.unwrap());
    let (acker, mut progress) = (tail.stream.acker(), tail.stream.progress());
    client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    tail.commits(1).await;
    let server = std::sync::Arc::new(postgres);
    let stopping = std::sync::Arc::clone(&server);
    let stop = tokio::task::spawn_blocking(move || stopping.stop_fast(Duration::from_secs(30)));
    within("the drain request", progress.wait_for(|p| p.drain_requested)).await.unwrap();
    acker.durable(tail.commits[0].token());
    let error = loop {
        match tail.step().await {
            Ok(true) => tail.idles.iter().for_each(|mark| acker.durable(mark.token())),
            Ok(false) => panic!("the stream ended without an error"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert!(!matches!(error, Error::Draining { .. }), "{error}");
    let took = stop.await.unwrap();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn trap_07_a_fast_shutdown_ends_within_ten_seconds_when_nobody_acknowledges() {
    let postgres = Postgres::start(&[]);
    let (client, at) = postgres.source("stuck", TABLE).await;
    let mut tail = Tail::new(postgres.open(&at).await.unwrap());
    client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    tail.commits(1).await;
    let server = std::sync::Arc::new(postgres);
    let stopping = std::sync::Arc::clone(&server);
    let stop = tokio::task::spawn_blocking(move || stopping.stop_fast(Duration::from_secs(30)));
    let error = tail.error().await;
    assert!(matches!(error, Error::Draining { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Transient);
    let took = stop.await.unwrap();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn trap_08_a_consumer_that_stops_reading_does_not_wedge_the_checkpointer() {
    let postgres =
        Postgres::start(&["max_slot_wal_keep_size=64MB", "min_wal_size=32MB", "max_wal_size=64MB"]);
    let (client, at) = postgres.source("wedge", TABLE).await;
    let mut options = StreamOptions::new("pub");
    options.buffer_bytes = 64 * 1024;
    options.stall_disconnect = Duration::from_millis(500);
    let mut tail = Tail::new(postgres.open_with(&at, options).await.unwrap());
    let rows = "INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 60000) n";
    client.batch_execute(rows).await.unwrap();
    let mut progress = tail.stream.progress();
    within("back-pressure", progress.wait_for(|progress| progress.backpressured)).await.unwrap();
    for _ in 0..8 {
        client
            .batch_execute("SELECT pg_switch_wal(); CREATE TABLE x(); DROP TABLE x")
            .await
            .unwrap();
    }
    let began = std::time::Instant::now();
    within("the checkpoint", client.batch_execute("CHECKPOINT")).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let error = tail.error().await;
    // ours or, if its farewell still found room, the server's
    let farewell = matches!(&error, Error::Server { message, .. } if message.sqlstate == "57P01");
    assert!(farewell || matches!(error, Error::Stalled { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Transient);
    // trap 31: what the checkpointer invalidated meanwhile is reported as lost
    let lost = "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = 'wedge'";
    within("the slot to be lost", async {
        while !client.query_one(lost, &[]).await.unwrap().get::<_, bool>(0) {
            client
                .batch_execute("SELECT pg_switch_wal(); CREATE TABLE x(); DROP TABLE x; CHECKPOINT")
                .await
                .unwrap();
        }
    })
    .await;
    let error = postgres.open(&at).await.unwrap_err();
    assert!(matches!(error, Error::SlotLost { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Gap);
}

#[tokio::test]
async fn trap_10_a_publication_made_behind_the_slot_is_missing_at_its_position() {
    let postgres = Postgres::shared();
    let (client, at) = postgres.source("late_pub", TABLE).await;
    client
        .batch_execute("INSERT INTO t VALUES (1); CREATE PUBLICATION late FOR TABLE t")
        .await
        .unwrap();
    let stream = postgres.open_with(&at, StreamOptions::new("late")).await.unwrap();
    let error = Tail::new(stream).error().await;
    assert!(
        matches!(&error, Error::PublicationMissing { publication } if publication == "late"),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Gap);
}

#[tokio::test]
async fn trap_11_a_publication_with_an_awkward_name_is_found() {
    let postgres = Postgres::shared();
    let setup = format!("{TABLE}; CREATE PUBLICATION \"My \"\"Pub's\" FOR TABLE t");
    let (client, at) = postgres.source("awkward", &setup).await;
    client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    let stream = postgres.open_with(&at, StreamOptions::new("My \"Pub's")).await.unwrap();
    let mut tail = Tail::new(stream);
    tail.commits(1).await;
    tail.stream.close().await.unwrap();
}

#[tokio::test]
async fn trap_31_open_refuses_what_would_lose_changes() {
    let postgres = Postgres::shared();
    let (client, at) = postgres.source("refusals", TABLE).await;
    let refused = async |at: ResumePoint| postgres.open(&at).await.unwrap_err();

    let error = refused(ResumePoint { slot: "refusals_not_there".into(), ..at.clone() }).await;
    // the database of the connector is named like the slot, and is missing too
    assert!(matches!(error, Error::Server { .. }), "{error}");
    let connector = postgres.connector("refusals");
    let open = async |at: ResumePoint, publication: &str| {
        WalStream::open(&connector, at, StreamOptions::new(publication)).await.unwrap_err()
    };
    let missing = ResumePoint { slot: "nothing".into(), ..at.clone() };
    let error = open(missing, "pub").await;
    assert!(
        matches!(error, Error::SlotMissing { .. }) && error.kind() == ErrorKind::Gap,
        "{error}"
    );
    let error = open(at.clone(), "nothing").await;
    assert!(matches!(error, Error::PublicationMissing { .. }), "{error}");
    let error = open(ResumePoint { system_id: 1, ..at.clone() }, "pub").await;
    assert!(matches!(error, Error::IdentityChanged { what: "system identifier", .. }), "{error}");
    let error = open(ResumePoint { timeline: 99, ..at.clone() }, "pub").await;
    assert!(matches!(error, Error::IdentityChanged { what: "timeline", .. }), "{error}");
    let error = open(ResumePoint { lsn: Lsn(at.lsn.0 - 1), ..at.clone() }, "pub").await;
    assert!(matches!(error, Error::Gap { .. }) && error.kind() == ErrorKind::Gap, "{error}");
    let error = open(ResumePoint { lsn: Lsn(at.lsn.0 << 8), ..at.clone() }, "pub").await;
    assert!(matches!(error, Error::IdentityChanged { .. }), "trap 1, a future position: {error}");
    let test_slot = "SELECT pg_create_logical_replication_slot('other_plugin', 'test_decoding')";
    client.batch_execute(test_slot).await.unwrap();
    let error = open(ResumePoint { slot: "other_plugin".into(), ..at }, "pub").await;
    assert!(matches!(error, Error::SlotUnusable { .. }), "{error}");
}

#[tokio::test]
async fn trap_31_a_slot_in_use_is_busy_and_free_after_close() {
    let postgres = Postgres::shared();
    let (_client, at) = postgres.source("busy", TABLE).await;
    let stream = postgres.open(&at).await.unwrap();
    let error = postgres.open(&at).await.unwrap_err();
    assert!(matches!(error, Error::SlotBusy { pid, .. } if pid > 0), "{error}");
    assert_eq!(error.kind(), ErrorKind::Transient);
    stream.close().await.unwrap();
    postgres.open(&at).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn a_terminated_walsender_is_transient_and_the_stream_goes_on_where_it_was() {
    let postgres = Postgres::shared();
    let (client, at) = postgres.source("killed", TABLE).await;
    client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    let mut tail = Tail::new(postgres.open(&at).await.unwrap());
    tail.commits(1).await;
    let end = tail.commits[0].end_lsn;
    let kill = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'killed'";
    client.batch_execute(kill).await.unwrap();
    let error = tail.error().await;
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert!(
        matches!(&error, Error::Server { message, .. } if message.sqlstate == "57P01"),
        "{error}"
    );
    client.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    let stream = within("the slot to be free", async {
        loop {
            match postgres.open(&ResumePoint { lsn: end, ..at.clone() }).await {
                Ok(stream) => break stream,
                Err(error) => assert!(matches!(error, Error::SlotBusy { .. }), "{error}"),
            }
        }
    })
    .await;
    let mut tail = Tail::new(stream);
    tail.commits(1).await;
    assert_eq!(tail.lines[2], "insert 2|null");
    tail.stream.close().await.unwrap();
}

#[tokio::test]
async fn trap_09_a_slow_consumer_outlives_the_wal_sender_timeout() {
    let postgres = Postgres::start(&["wal_sender_timeout=1s"]);
    let (client, at) = postgres.source("slow", TABLE).await;
    let mut options = StreamOptions::new("pub");
    options.buffer_bytes = 64 * 1024;
    let mut tail = Tail::new(postgres.open_with(&at, options).await.unwrap());
    let rows = "INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 60000) n";
    client.batch_execute(rows).await.unwrap();
    let mut progress = tail.stream.progress();
    within("back-pressure", progress.wait_for(|progress| progress.backpressured)).await.unwrap();
    let replies =
        "SELECT count(*) FROM pg_stat_replication WHERE reply_time > now() - interval '500 ms'";
    // three timeouts long: the server sleeps, the consumer takes nothing
    client.batch_execute("SELECT pg_sleep(3)").await.unwrap();
    assert_eq!(client.query_one(replies, &[]).await.unwrap().get::<_, i64>(0), 1);
    tail.commits(1).await;
    assert_eq!(tail.change_lsns.len(), 60000);
    tail.stream.close().await.unwrap();
}

#[tokio::test]
async fn a_unix_socket_serves_both_kinds_of_session() {
    let postgres = Postgres::shared();
    let (_client, at) = postgres.source("unix", TABLE).await;
    let directory = postgres.socket_dir().display().to_string().replace('/', "%2F");
    let connector =
        postgres.connector_with(&format!("postgres@{directory}:{}/unix", postgres.port));
    let (client, connection) = connector.connect_sql().await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute("INSERT INTO public.t VALUES (1)").await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
    let stream = WalStream::open(&connector, at, StreamOptions::new("pub")).await.unwrap();
    let mut tail = Tail::new(stream);
    tail.commits(1).await;
    tail.stream.close().await.unwrap();
}

#[tokio::test]
async fn a_slot_of_another_database_is_refused() {
    let postgres = Postgres::shared();
    let (_one, at) = postgres.source("db_one", TABLE).await;
    let (two, _) = postgres.source("db_two", TABLE).await;
    create_slot(&two, "of_two").await;
    let wrong = ResumePoint { slot: "of_two".into(), ..at };
    let connector = postgres.connector("db_one");
    let error = WalStream::open(&connector, wrong, StreamOptions::new("pub")).await.unwrap_err();
    assert!(matches!(error, Error::SlotUnusable { .. }), "{error}");
}
