//! A walsender that does what a test tells it, over TCP. It answers the queries of opening like a
//! healthy PostgreSQL and then says only what the script says.

use std::time::Duration;

use cdc_core::Lsn;
use cdc_wal::{Connector, Endpoint, ResumePoint, StreamOptions, WalStream};
use pg_walstream::protocol::{ColumnData, ColumnInfo, TupleData};
use pg_walstream::{LogicalReplicationMessage, encode_message_to_bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fixture::within;

/// Where every scripted stream starts.
pub(super) const RESUME: Lsn = Lsn(0x1000);

/// A listening fake server.
pub(super) struct FakeServer {
    listener: TcpListener,
    /// What `pg_settings` answers for TimeZone.
    pub(super) time_zone: &'static str,
}

/// A standby status update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) write: Lsn,
    pub(super) flush: Lsn,
    pub(super) apply: Lsn,
    pub(super) reply_requested: bool,
}

impl FakeServer {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, time_zone: "UTC" }
    }

    pub(super) fn connector(&self, more: &str) -> Connector {
        let port = self.listener.local_addr().unwrap().port();
        let url = format!("postgresql://u:secret@127.0.0.1:{port}/d?sslmode=disable{more}");
        Connector::new(Endpoint::parse(&url.into()).unwrap())
    }

    /// Opens a stream against the script-to-be.
    pub(super) async fn open(&self, options: StreamOptions) -> (WalStream, Wire) {
        let (opened, wire) = self.try_open(options).await;
        (opened.unwrap(), wire)
    }

    pub(super) async fn try_open(
        &self,
        options: StreamOptions,
    ) -> (cdc_wal::Result<WalStream>, Wire) {
        let at = ResumePoint { system_id: 7, timeline: 1, slot: "s".into(), lsn: RESUME };
        let connector = self.connector("");
        let serve = async {
            let mut wire = self.accept().await;
            wire.send(&authentication(0, &[])).await;
            wire.send(&message(b'Z', b"I")).await;
            wire.answer_queries(self.time_zone).await;
            wire
        };
        within("the stream to open", async {
            tokio::join!(WalStream::open(&connector, at, options), serve)
        })
        .await
    }

    /// Takes a connection and its startup packet.
    pub(super) async fn accept(&self) -> Wire {
        let (socket, _) = within("a connection", self.listener.accept()).await.unwrap();
        let mut wire = Wire { socket, startup: Vec::new() };
        let length = wire.socket.read_u32().await.unwrap();
        wire.startup = vec![0; length as usize - 4];
        wire.socket.read_exact(&mut wire.startup).await.unwrap();
        wire
    }
}

/// The server's end of one connection.
pub(super) struct Wire {
    socket: TcpStream,
    pub(super) startup: Vec<u8>,
}

impl Wire {
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        within("room to send", self.socket.write_all(bytes)).await.unwrap();
    }

    /// Sends until the client has gone or the socket takes nothing more for a while.
    pub(super) async fn flood(&mut self, bytes: &[u8]) {
        let quiet = Duration::from_millis(300);
        while let Ok(Ok(())) = tokio::time::timeout(quiet, self.socket.write_all(bytes)).await {}
    }

    /// The next message of the client, `None` at the end of the connection.
    pub(super) async fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        within("the client", async {
            let tag = self.socket.read_u8().await.ok()?;
            let length = self.socket.read_u32().await.ok()?;
            let mut body = vec![0; length as usize - 4];
            self.socket.read_exact(&mut body).await.ok()?;
            Some((tag, body))
        })
        .await
    }

    /// The next status update.
    pub(super) async fn status(&mut self) -> Option<Status> {
        let (tag, body) = self.receive().await?;
        if tag != b'd' {
            return None;
        }
        let lsn = |at: usize| Lsn(u64::from_be_bytes(body[at..at + 8].try_into().unwrap()));
        assert_eq!((body[0], body.len()), (b'r', 34));
        Some(Status {
            write: lsn(1),
            flush: lsn(9),
            apply: lsn(17),
            reply_requested: body[33] != 0,
        })
    }

    async fn answer_queries(&mut self, time_zone: &str) {
        loop {
            let Some((tag, body)) = self.receive().await else { return };
            assert_eq!(tag, b'Q');
            let sql = String::from_utf8(body).unwrap();
            if sql.starts_with("START_REPLICATION") {
                self.send(&message(b'W', &[0, 0, 0])).await;
                return;
            }
            for row in rows_for(&sql, time_zone) {
                let row: Vec<&str> = row.iter().map(String::as_str).collect();
                self.send(&data_row(&row)).await;
            }
            self.send(&[message(b'C', b"SELECT\0"), message(b'Z', b"I")].concat()).await;
        }
    }
}

fn rows_for(sql: &str, time_zone: &str) -> Vec<Vec<String>> {
    let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    if sql.starts_with("IDENTIFY_SYSTEM") {
        vec![row(&["7", "1", "0/2000", "d"])]
    } else if sql.contains("pg_settings") {
        let pinned = cdc_wal::PINNED_SETTINGS.iter().map(|(name, value)| {
            let value = if *name == "TimeZone" { time_zone } else { value };
            row(&[&name.to_lowercase(), value])
        });
        let facts = [row(&["server_version_num", "180004"]), row(&["wal_sender_timeout", "60000"])];
        pinned.chain(facts).collect()
    } else if sql.contains("pg_publication ") {
        vec![row(&["1"])]
    } else {
        vec![row(&["pgoutput", "d", "reserved", "0/1000", "0"])]
    }
}

/// A protocol message.
pub(super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], length.to_be_bytes().as_slice(), body].concat()
}

pub(super) fn authentication(kind: u32, more: &[u8]) -> Vec<u8> {
    message(b'R', &[kind.to_be_bytes().as_slice(), more].concat())
}

fn data_row(cells: &[&str]) -> Vec<u8> {
    let mut body = u16::try_from(cells.len()).unwrap().to_be_bytes().to_vec();
    for cell in cells {
        body.extend_from_slice(&u32::try_from(cell.len()).unwrap().to_be_bytes());
        body.extend_from_slice(cell.as_bytes());
    }
    message(b'D', &body)
}

/// An ErrorResponse (`E`) or NoticeResponse (`N`).
pub(super) fn response(tag: u8, severity: &str, sqlstate: &str, text: &str) -> Vec<u8> {
    let body = format!("S{severity}\0V{severity}\0C{sqlstate}\0M{text}\0\0");
    message(tag, body.as_bytes())
}

pub(super) fn keepalive(wal_end: u64, reply_requested: bool) -> Vec<u8> {
    let mut body = vec![b'k'];
    body.extend_from_slice(&wal_end.to_be_bytes());
    body.extend_from_slice(&[0; 8]);
    body.push(u8::from(reply_requested));
    message(b'd', &body)
}

/// One pgoutput message at a position.
pub(super) fn wal(lsn: u64, payload: &LogicalReplicationMessage) -> Vec<u8> {
    let mut body = vec![b'w'];
    body.extend_from_slice(&lsn.to_be_bytes());
    body.extend_from_slice(&lsn.to_be_bytes());
    body.extend_from_slice(&[0; 8]);
    body.extend_from_slice(&encode_message_to_bytes(payload, 4));
    message(b'd', &body)
}

/// The relation `public.t (id)` with OID 5; its message carries no position.
pub(super) fn relation() -> Vec<u8> {
    let columns = vec![ColumnInfo::new(1, "id".into(), 23, -1)];
    wal(
        0,
        &LogicalReplicationMessage::Relation {
            relation_id: 5,
            namespace: "public".into(),
            relation_name: "t".into(),
            replica_identity: b'd',
            columns,
        },
    )
}

/// A transaction that inserts `ids` and commits at `commit`, ending eight bytes further.
pub(super) fn transaction(commit: u64, ids: &[&str]) -> Vec<u8> {
    let begin = LogicalReplicationMessage::Begin { final_lsn: commit, timestamp: 0, xid: 9 };
    let mut bytes = wal(commit - 8, &begin);
    for id in ids {
        let column = ColumnData::text(id.as_bytes().to_vec());
        let tuple = TupleData::new(vec![column]);
        bytes.extend(wal(commit - 4, &LogicalReplicationMessage::Insert { relation_id: 5, tuple }));
    }
    let end_lsn = commit + 8;
    let end =
        LogicalReplicationMessage::Commit { flags: 0, commit_lsn: commit, end_lsn, timestamp: 0 };
    bytes.extend(wal(end_lsn, &end));
    bytes
}
