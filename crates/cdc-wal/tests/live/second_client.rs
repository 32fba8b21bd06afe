//! The same position read by pgwire-replication, another project's client: both must see the same
//! changes. It speaks protocol 1 and hides notices, so it is an oracle here and no transport.

use cdc_core::{Cell, OldTuple, RowChange};
use cdc_wal::{Message, OldKind, RelationCache, Tuples, decode};
use pgwire_replication::{ReplicationClient, ReplicationConfig, ReplicationEvent, TlsConfig};

use crate::fixture::{Postgres, within};

const WORK: &str = "INSERT INTO t SELECT n, repeat('x', n), n FROM generate_series(1, 500) n; \
     UPDATE t SET big = repeat('y', 9000) WHERE id % 50 = 0; UPDATE t SET n = n + 1 WHERE id % 50 = 0; \
     UPDATE t SET id = -id WHERE id % 7 = 0; DELETE FROM t WHERE id % 3 = 0; \
     ALTER TABLE t ADD COLUMN more text; INSERT INTO t VALUES (9999, 'a', 1, 'b'); TRUNCATE t";

fn line(lsn: u64, relation: u32, old: &[Cell<'_>], new: &[Cell<'_>]) -> String {
    format!("{lsn:X} {relation} {old:?} {new:?}")
}

/// What our stream says.
async fn ours(postgres: &Postgres, at: &cdc_wal::ResumePoint) -> Vec<String> {
    let mut stream = postgres.open(at).await.unwrap();
    let mut relations = RelationCache::new();
    let mut lines = Vec::new();
    let mut done = false;
    while !done {
        let mut block = within("a block", stream.next_block()).await.unwrap().unwrap();
        let mut events = block.events(&mut relations);
        while let Some(event) = events.next().unwrap() {
            match event {
                cdc_wal::Event::Change { relation, lsn, change } => {
                    let (old, new): (OldTuple<'_>, &[Cell<'_>]) = match change {
                        RowChange::Insert { new } => (OldTuple::None, new),
                        RowChange::Update { old, new } => (old, new),
                        RowChange::Delete { old } => (old, &[]),
                        RowChange::Truncate => (OldTuple::None, &[]),
                    };
                    let old = match old {
                        OldTuple::None => &[],
                        OldTuple::Key(cells) | OldTuple::Full(cells) => cells,
                    };
                    lines.push(line(lsn.0, relation, old, new));
                }
                cdc_wal::Event::Commit(commit) => {
                    lines.push(format!("commit {} {}", commit.commit_lsn, commit.end_lsn));
                    done = true;
                }
                _ => {}
            }
        }
    }
    stream.close().await.unwrap();
    lines
}

/// What the other client received, read by our decoder.
async fn theirs(postgres: &Postgres, slot: &str) -> Vec<String> {
    let config = ReplicationConfig::new("127.0.0.1", "postgres", "", slot, slot, "pub")
        .with_port(postgres.port)
        .with_tls(TlsConfig::disabled());
    let mut client = ReplicationClient::connect(config).await.unwrap();
    let mut lines = Vec::new();
    loop {
        match within("an event", client.recv()).await.unwrap().unwrap() {
            ReplicationEvent::XLogData { wal_start, data, .. } => {
                let mut tuples = Tuples::default();
                match decode(&data, false, &mut tuples).unwrap() {
                    Message::Insert { relation, .. }
                    | Message::Update { relation, old: OldKind::None | OldKind::Key, .. }
                    | Message::Delete { relation, .. } => {
                        lines.push(line(wal_start.0, relation, &tuples.old, &tuples.new));
                    }
                    Message::Truncate { relations, .. } => {
                        lines.extend(relations.map(|oid| line(wal_start.0, oid, &[], &[])));
                    }
                    _ => {}
                }
            }
            ReplicationEvent::Commit { lsn, end_lsn, .. } => {
                lines.push(format!("commit {} {}", cdc_core::Lsn(lsn.0), cdc_core::Lsn(end_lsn.0)));
                client.shutdown().await.unwrap();
                return lines;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn another_client_sees_the_same_changes() {
    let postgres = Postgres::shared();
    let setup = "CREATE TABLE t (id int PRIMARY KEY, big text, n int); \
                 ALTER TABLE t ALTER COLUMN big SET STORAGE EXTERNAL";
    let (client, at) = postgres.source("second_client", setup).await;
    client.batch_execute(&format!("BEGIN; {WORK}; COMMIT")).await.unwrap();
    let ours = ours(&postgres, &at).await;
    assert!(ours.len() > 700, "{}", ours.len());
    let theirs = theirs(&postgres, "second_client").await;
    assert_eq!(ours, theirs);
}
