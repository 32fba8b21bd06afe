//! The stream against a scripted walsender: what a real one does only on a bad day.

mod login;
mod wire;

use std::time::{Duration, Instant};

use cdc_core::{ErrorKind, Lsn};
use cdc_wal::{Error, StreamOptions};

use crate::fixture::{Tail, within};
use wire::{FakeServer, RESUME, keepalive, message, relation, response, transaction, wal};

fn options() -> StreamOptions {
    StreamOptions::new("pub")
}

#[tokio::test]
async fn half_frames_and_any_chunking_give_the_same_events() {
    let server = FakeServer::start().await;
    let (stream, mut wire) = server.open(options()).await;
    let mut tail = Tail::new(stream);
    let bytes = [
        relation(),
        transaction(0x2000, &["1", "2"]),
        keepalive(0x2008, false),
        transaction(0x3000, &["3"]),
    ]
    .concat();
    for byte in &bytes {
        wire.send(&[*byte]).await;
    }
    tail.commits(2).await;
    let expected =
        "relation public.t v1 id*:23\nbegin\ninsert 1\ninsert 2\ncommit\nbegin\ninsert 3\ncommit\n";
    assert_eq!(tail.take_lines(), expected);
}

#[tokio::test]
async fn trap_01_flush_and_apply_are_the_token_and_write_is_what_arrived() {
    let server = FakeServer::start().await;
    let (stream, mut wire) = server.open(options()).await;
    let mut tail = Tail::new(stream);
    let first = wire.status().await.unwrap();
    assert_eq!((first.write, first.flush, first.apply), (RESUME, RESUME, RESUME));
    wire.send(&[relation(), transaction(0x2000, &["1"]), transaction(0x3000, &["2"])].concat())
        .await;
    tail.commits(2).await;
    wire.send(&keepalive(0x4000, true)).await;
    let answer = wire.status().await.unwrap();
    assert_eq!((answer.write, answer.flush, answer.apply), (Lsn(0x4000), RESUME, RESUME));
    assert!(!answer.reply_requested, "a reply that asks for a reply costs another round");
    tail.stream.acker().durable(tail.commits[0].token());
    let acked = wire.status().await.unwrap();
    assert_eq!((acked.flush, acked.apply), (Lsn(0x2008), Lsn(0x2008)));
    // an older token changes nothing
    tail.stream.acker().durable(tail.commits[0].token());
    tail.stream.acker().durable(tail.commits[1].token());
    assert_eq!(wire.status().await.unwrap().flush, Lsn(0x3008));
}

#[tokio::test]
async fn trap_04_a_position_of_zero_does_not_move_received_back() {
    let server = FakeServer::start().await;
    let (stream, mut wire) = server.open(options()).await;
    let mut progress = stream.progress();
    wire.send(&transaction(0x2000, &[])).await;
    within("the commit", progress.wait_for(|p| p.received == Lsn(0x2008))).await.unwrap();
    wire.status().await.unwrap();
    wire.send(&[relation(), keepalive(0x1800, true)].concat()).await;
    assert_eq!(wire.status().await.unwrap().write, Lsn(0x2008));
}

#[tokio::test]
async fn trap_05_an_idle_mark_follows_what_was_delivered_before_it() {
    let server = FakeServer::start().await;
    let (stream, mut wire) = server.open(options()).await;
    let mut tail = Tail::new(stream);
    wire.send(&[relation(), transaction(0x2000, &["1"]), keepalive(0x5000, false)].concat()).await;
    while tail.idles.is_empty() {
        tail.step().await.unwrap();
    }
    assert_eq!((tail.commits.len(), tail.idles[0].wal_end), (1, Lsn(0x5000)));
    tail.stream.acker().durable(tail.idles[0].token());
    wire.status().await.unwrap();
    assert_eq!(wire.status().await.unwrap().flush, Lsn(0x5000));
}

#[tokio::test]
async fn trap_07_a_ping_storm_is_answered_slowly_and_asks_for_a_drain() {
    let server = FakeServer::start().await;
    let mut options = options();
    options.drain_grace = Duration::from_secs(2);
    let (stream, mut wire) = server.open(options).await;
    let mut tail = Tail::new(stream);
    let mut progress = tail.stream.progress();
    wire.status().await.unwrap();
    let started = Instant::now();
    let storm = async {
        // like PostgreSQL: the next ping as soon as the last one is answered
        let mut answers = 0;
        loop {
            wire.send(&keepalive(0x3000, true)).await;
            match wire.status().await {
                Some(_) => answers += 1,
                None => return answers,
            }
        }
    };
    let (answers, error) = tokio::join!(storm, tail.error());
    assert!(matches!(error, Error::Draining { wal_end: Lsn(0x3000), .. }), "{error}");
    assert!(progress.borrow_and_update().drain_requested);
    assert!(answers < 60, "{answers} answers in {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn trap_08_a_socket_left_unread_is_closed() {
    let server = FakeServer::start().await;
    let mut options = options();
    options.buffer_bytes = 64 * 1024;
    options.stall_disconnect = Duration::from_millis(400);
    let (stream, mut wire) = server.open(options).await;
    let mut progress = stream.progress();
    let rows = ["1"; 20];
    wire.send(&relation()).await;
    wire.flood(&transaction(0x2000, &rows)).await;
    within("the reader to give up", async { while progress.changed().await.is_ok() {} }).await;
    assert!(progress.borrow().backpressured);
    let mut tail = Tail::new(stream);
    let error = tail.error().await;
    assert!(matches!(error, Error::Stalled { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Transient);
    assert!(!tail.commits.is_empty(), "what was queued is still delivered");
    assert!(tail.stream.next_block().await.unwrap().is_none(), "the error is told once");
}

#[tokio::test]
async fn trap_10_the_warning_that_skips_a_publication_is_fatal() {
    let server = FakeServer::start().await;
    let (stream, mut wire) = server.open(options()).await;
    let text = "skipped loading publication \"pub\"";
    wire.send(&response(b'N', "WARNING", "55000", text)).await;
    wire.send(&keepalive(0x9000, false)).await;
    let error = Tail::new(stream).error().await;
    assert!(matches!(&error, Error::PublicationMissing { publication } if publication == "pub"));
    assert_eq!(error.kind(), ErrorKind::Gap);
}

#[tokio::test]
async fn another_notice_is_no_end() {
    let server = FakeServer::start().await;
    let (stream, mut wire) = server.open(options()).await;
    wire.send(&response(b'N', "LOG", "00000", "hello")).await;
    wire.send(&[relation(), transaction(0x2000, &["1"])].concat()).await;
    Tail::new(stream).commits(1).await;
}

#[tokio::test]
async fn a_shutdown_in_a_transaction_is_transient_and_what_was_whole_is_delivered() {
    let server = FakeServer::start().await;
    let (stream, mut wire) = server.open(options()).await;
    let mut half = transaction(0x3000, &["2"]);
    half.truncate(half.len() - 60);
    let bytes = [relation(), transaction(0x2000, &["1"]), half];
    wire.send(&bytes.concat()).await;
    drop(wire);
    let mut tail = Tail::new(stream);
    let error = tail.error().await;
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert_eq!(tail.commits.len(), 1);

    let (stream, mut wire) = server.open(options()).await;
    let text = "terminating connection due to administrator command";
    let bytes = [relation(), transaction(0x2000, &["1"]), response(b'E', "FATAL", "57P01", text)];
    wire.send(&bytes.concat()).await;
    let mut tail = Tail::new(stream);
    let error = tail.error().await;
    assert!(matches!(&error, Error::Server { message, .. } if message.sqlstate == "57P01"));
    assert_eq!(error.kind(), ErrorKind::Transient);
    assert_eq!(tail.commits.len(), 1);
}

#[tokio::test]
async fn the_end_of_the_copy_is_transient() {
    for bytes in [message(b'c', b""), message(b'C', b"COPY 0\0")] {
        let server = FakeServer::start().await;
        let (stream, mut wire) = server.open(options()).await;
        wire.send(&bytes).await;
        let error = Tail::new(stream).error().await;
        assert!(matches!(error, Error::Closed { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Transient);
    }
}

#[tokio::test]
async fn a_slot_lost_in_the_stream_is_a_gap() {
    let server = FakeServer::start().await;
    let (stream, mut wire) = server.open(options()).await;
    let text = "can no longer get changes from replication slot \"s\"";
    wire.send(&response(b'E', "ERROR", "55000", text)).await;
    let error = Tail::new(stream).error().await;
    assert!(matches!(error, Error::SlotLost { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Gap);
}

#[tokio::test]
async fn a_row_of_an_unknown_relation_is_an_error_and_never_dropped() {
    let server = FakeServer::start().await;
    let (stream, mut wire) = server.open(options()).await;
    wire.send(&transaction(0x2000, &["1"])).await;
    let error = Tail::new(stream).error().await;
    assert!(matches!(error, Error::UnknownRelation { oid: 5 }), "{error}");
    let (stream, mut wire) = server.open(options()).await;
    let truncate =
        pg_walstream::LogicalReplicationMessage::Truncate { relation_ids: vec![5, 6], flags: 0 };
    wire.send(&[relation(), wal(0x2000, &truncate)].concat()).await;
    let error = Tail::new(stream).error().await;
    assert!(matches!(error, Error::UnknownRelation { oid: 6 }), "{error}");
}

#[tokio::test]
async fn a_row_with_another_number_of_columns_is_an_error() {
    let server = FakeServer::start().await;
    let (stream, mut wire) = server.open(options()).await;
    let tuple = pg_walstream::protocol::TupleData::new(vec![]);
    let insert = pg_walstream::LogicalReplicationMessage::Insert { relation_id: 5, tuple };
    wire.send(&[relation(), wal(0x2000, &insert)].concat()).await;
    let error = Tail::new(stream).error().await;
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn trap_13_a_relation_repeated_unchanged_is_not_an_event() {
    let server = FakeServer::start().await;
    let (stream, mut wire) = server.open(options()).await;
    let mut tail = Tail::new(stream);
    let bytes = [relation(), transaction(0x2000, &["1"]), relation(), transaction(0x3000, &["2"])];
    wire.send(&bytes.concat()).await;
    tail.commits(2).await;
    assert_eq!(tail.take_lines().matches("relation").count(), 1);
    assert_eq!(tail.relations.get(5).unwrap().version, 1);
}

#[tokio::test]
async fn trap_30_an_empty_transaction_can_be_acknowledged() {
    let server = FakeServer::start().await;
    let (stream, mut wire) = server.open(options()).await;
    let mut tail = Tail::new(stream);
    wire.status().await.unwrap();
    wire.send(&transaction(0x2000, &[])).await;
    tail.commits(1).await;
    assert_eq!(tail.take_lines(), "begin\ncommit\n");
    tail.stream.acker().durable(tail.commits[0].token());
    assert_eq!(wire.status().await.unwrap().flush, Lsn(0x2008));
}

#[tokio::test]
async fn close_sends_the_last_position_and_ends_the_copy() {
    let server = FakeServer::start().await;
    let (stream, mut wire) = server.open(options()).await;
    let mut tail = Tail::new(stream);
    wire.status().await.unwrap();
    wire.send(&[relation(), transaction(0x2000, &["1"])].concat()).await;
    tail.commits(1).await;
    tail.stream.acker().durable(tail.commits[0].token());
    let script = async {
        let mut last = None;
        while let Some((tag, body)) = wire.receive().await {
            match tag {
                b'd' => last = Some(body),
                b'c' => {}
                other => {
                    assert_eq!(other, b'X');
                    break;
                }
            }
        }
        drop(wire);
        last.unwrap()
    };
    let (last, closed) = tokio::join!(script, tail.stream.close());
    closed.unwrap();
    assert_eq!(last[9..17], 0x2008u64.to_be_bytes());
}

#[tokio::test]
async fn garbage_in_the_stream_is_an_error() {
    for bytes in [b"\xff\xff\xff\xff\xff\xff".as_slice(), &message(b'd', b"q"), &message(b'd', b"")]
    {
        let server = FakeServer::start().await;
        let (stream, mut wire) = server.open(options()).await;
        wire.send(bytes).await;
        let error = Tail::new(stream).error().await;
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
    }
}
