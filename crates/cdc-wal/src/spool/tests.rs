//! Random histories of interleaved transactions, once as a server sends them without streaming and
//! once with: the events must be the same.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use cdc_core::{Cell, Lsn, RowChange};
use pg_walstream::protocol::{ColumnData, ColumnInfo, TupleData};
use pg_walstream::{
    LogicalReplicationMessage as Message, StreamingReplicationMessage,
    encode_streaming_message_to_bytes,
};
use proptest::prelude::*;

use super::Spool;
use crate::pgoutput::RelationCache;
use crate::session::Splitter;
use crate::stream::{Block, Event, SpoolOptions};

/// The relation that all transactions write to; each has one of its own besides.
const SHARED: u32 = 99;
const TRANSACTIONS: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Action {
    Row {
        shared: bool,
    },
    Message,
    Savepoint,
    Release,
    Rollback,
    /// ALTER TABLE of the own relation.
    Reshape,
    /// The server streams what it has.
    Flush,
    Commit,
    Abort,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        10 => any::<bool>().prop_map(|shared| Action::Row { shared }),
        1 => Just(Action::Message),
        4 => Just(Action::Savepoint),
        2 => Just(Action::Release),
        3 => Just(Action::Rollback),
        2 => Just(Action::Reshape),
        5 => Just(Action::Flush),
        1 => Just(Action::Commit),
        1 => Just(Action::Abort),
    ]
}

#[derive(Clone, Debug)]
enum Change {
    Row { relation: u32, columns: usize },
    Message,
}

/// One change that is not rolled back, with the transaction or subtransaction it belongs to.
#[derive(Clone, Debug)]
struct Entry {
    xid: u32,
    lsn: u64,
    change: Change,
}

#[derive(Debug)]
struct Open {
    xid: u32,
    own: u32,
    columns: usize,
    /// Open savepoints: the id once it has written, ids of what was released into it, and the
    /// number of columns when it began.
    savepoints: Vec<Savepoint>,
    /// Everything that has not been rolled back.
    kept: Vec<Entry>,
    /// Of these, what has not been streamed.
    pending: Vec<Entry>,
    /// Columns of the relations that were described in this streamed transaction.
    described: BTreeMap<u32, usize>,
    streamed: bool,
}

#[derive(Debug)]
struct Savepoint {
    xid: Option<u32>,
    released: Vec<u32>,
    columns: usize,
}

/// Both tapes in the making.
#[derive(Debug, Default)]
struct Server {
    lsn: u64,
    next_xid: u32,
    open: BTreeMap<usize, Open>,
    plain: Vec<u8>,
    streamed: Vec<u8>,
    /// Columns of each relation as the two clients know it.
    known_plain: BTreeMap<u32, usize>,
    known_streamed: BTreeMap<u32, usize>,
    /// Positions of keepalives that were sent while a streamed transaction was open.
    busy: BTreeSet<u64>,
}

impl Server {
    fn act(&mut self, number: usize, action: Action) {
        self.lsn += 8;
        let own = 100 + u32::try_from(number).unwrap();
        if !self.open.contains_key(&number) {
            let xid = self.new_xid();
            let columns = self.known_plain.get(&own).copied().unwrap_or(1);
            let open = Open {
                xid,
                own,
                columns,
                savepoints: Vec::new(),
                kept: Vec::new(),
                pending: Vec::new(),
                described: BTreeMap::new(),
                streamed: false,
            };
            self.open.insert(number, open);
        }
        let mut open = self.open.remove(&number).unwrap();
        match action {
            Action::Row { shared } => {
                let (relation, columns) =
                    if shared { (SHARED, 2) } else { (open.own, open.columns) };
                self.write(&mut open, Change::Row { relation, columns });
            }
            Action::Message => self.write(&mut open, Change::Message),
            Action::Savepoint => {
                let columns = open.columns;
                open.savepoints.push(Savepoint { xid: None, released: Vec::new(), columns });
            }
            Action::Release => release(&mut open),
            Action::Rollback => self.roll_back(&mut open),
            Action::Reshape => {
                open.columns = open.columns % 5 + 1;
            }
            Action::Flush => self.flush(&mut open),
            Action::Commit => {
                self.commit(open);
                return;
            }
            Action::Abort => {
                if open.streamed {
                    self.send_streamed(&abort(open.xid, open.xid), None);
                }
                return;
            }
        }
        self.open.insert(number, open);
    }

    fn new_xid(&mut self) -> u32 {
        self.next_xid += 1;
        700 + self.next_xid
    }

    /// Ids are handed out when a transaction writes, to those around it first.
    fn write(&mut self, open: &mut Open, change: Change) {
        for savepoint in &mut open.savepoints {
            if savepoint.xid.is_none() {
                self.next_xid += 1;
                savepoint.xid = Some(700 + self.next_xid);
            }
        }
        let xid = open.savepoints.last().and_then(|savepoint| savepoint.xid).unwrap_or(open.xid);
        let entry = Entry { xid, lsn: self.lsn, change };
        open.kept.push(entry.clone());
        open.pending.push(entry);
    }

    fn roll_back(&mut self, open: &mut Open) {
        let Some(savepoint) = open.savepoints.pop() else { return };
        open.columns = savepoint.columns;
        let dead: Vec<u32> = savepoint.released.into_iter().chain(savepoint.xid).collect();
        open.kept.retain(|entry| !dead.contains(&entry.xid));
        open.pending.retain(|entry| !dead.contains(&entry.xid));
        if open.streamed {
            // the server forgets what it has described when anything of a transaction aborts
            open.described.clear();
            for xid in dead {
                self.send_streamed(&abort(open.xid, xid), None);
            }
        }
    }

    fn flush(&mut self, open: &mut Open) {
        if open.pending.is_empty() {
            return;
        }
        let first_segment = !open.streamed;
        self.send_streamed(&Message::StreamStart { xid: open.xid, first_segment }, None);
        open.streamed = true;
        for entry in std::mem::take(&mut open.pending) {
            if let Change::Row { relation, columns } = entry.change
                && open.described.insert(relation, columns) != Some(columns)
            {
                self.send_at(0, &described(relation, columns), Some(entry.xid));
            }
            self.send_at(entry.lsn, &message(&entry), Some(entry.xid));
        }
        self.send_streamed(&Message::StreamStop, None);
        self.keepalive(true);
    }

    fn commit(&mut self, mut open: Open) {
        if open.streamed {
            self.flush(&mut open);
        }
        self.lsn += 8;
        let (commit_lsn, end_lsn) = (self.lsn, self.lsn + 4);
        let begin = Message::Begin { final_lsn: commit_lsn, timestamp: 5, xid: open.xid };
        let commit = Message::Commit { flags: 0, commit_lsn, end_lsn, timestamp: 5 };
        let mut whole = frame(end_lsn, &begin, None);
        for entry in &open.kept {
            whole.extend(self.describe_for(true, entry));
            whole.extend(frame(entry.lsn, &message(entry), None));
        }
        whole.extend(frame(end_lsn, &commit, None));
        self.plain.extend(&whole);
        if open.streamed {
            let (xid, flags) = (open.xid, 0);
            let commit = Message::StreamCommit { xid, flags, commit_lsn, end_lsn, timestamp: 5 };
            self.streamed.extend(frame(end_lsn, &commit, None));
            for entry in &open.kept {
                // what the client knows now
                self.describe_for(false, entry);
            }
        } else {
            self.streamed.extend(frame(end_lsn, &begin, None));
            for entry in &open.kept {
                let description = self.describe_for(false, entry);
                self.streamed.extend(description);
                self.streamed.extend(frame(entry.lsn, &message(entry), None));
            }
            self.streamed.extend(frame(end_lsn, &commit, None));
        }
        self.keepalive(false);
    }

    /// The description that must stand before a row, empty if the client knows it.
    fn describe_for(&mut self, plain: bool, entry: &Entry) -> Vec<u8> {
        let Change::Row { relation, columns } = entry.change else { return Vec::new() };
        let known = if plain { &mut self.known_plain } else { &mut self.known_streamed };
        match known.insert(relation, columns) {
            Some(before) if before == columns => Vec::new(),
            _ => frame(0, &described(relation, columns), None),
        }
    }

    fn send_streamed(&mut self, message: &Message, xid: Option<u32>) {
        self.send_at(self.lsn, message, xid);
    }

    fn send_at(&mut self, lsn: u64, message: &Message, xid: Option<u32>) {
        self.streamed.extend(frame(lsn, message, xid));
    }

    fn keepalive(&mut self, this_is_open: bool) {
        self.lsn += 8;
        if this_is_open || self.open.values().any(|open| open.streamed) {
            self.busy.insert(self.lsn);
        }
        let mut body = vec![b'k'];
        body.extend(self.lsn.to_be_bytes());
        body.extend([0; 9]);
        self.streamed.extend(copy_data(&body));
    }
}

fn release(open: &mut Open) {
    let Some(savepoint) = open.savepoints.pop() else { return };
    if let Some(around) = open.savepoints.last_mut() {
        around.released.extend(savepoint.released.into_iter().chain(savepoint.xid));
    }
}

fn abort(xid: u32, subtransaction_xid: u32) -> Message {
    Message::StreamAbort { xid, subtransaction_xid, abort_lsn: None, abort_timestamp: None }
}

fn described(relation_id: u32, columns: usize) -> Message {
    let column = |at: usize| ColumnInfo::new(0, format!("c{at}"), 23, -1);
    Message::Relation {
        relation_id,
        namespace: "public".into(),
        relation_name: format!("r{relation_id}").into(),
        replica_identity: b'd',
        columns: (0..columns).map(column).collect(),
    }
}

fn message(entry: &Entry) -> Message {
    match entry.change {
        Change::Row { relation, columns } => {
            let cell = |at: usize| ColumnData::text(format!("{}.{at}", entry.lsn).into_bytes());
            let tuple = TupleData::new((0..columns).map(cell).collect());
            Message::Insert { relation_id: relation, tuple }
        }
        Change::Message => Message::Message {
            flags: 1,
            lsn: entry.lsn,
            prefix: "p".into(),
            content: Bytes::from(entry.lsn.to_string()),
        },
    }
}

fn frame(lsn: u64, message: &Message, xid: Option<u32>) -> Vec<u8> {
    let message = message.clone();
    let message = StreamingReplicationMessage { message, is_streaming: xid.is_some(), xid };
    let mut body = vec![b'w'];
    body.extend(lsn.to_be_bytes());
    body.extend(lsn.to_be_bytes());
    body.extend([0; 8]);
    body.extend_from_slice(&encode_streaming_message_to_bytes(&message, 4));
    copy_data(&body)
}

fn copy_data(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[b'd'][..], &length.to_be_bytes(), body].concat()
}

/// What a consumer is told, and the idle positions among it.
#[derive(Debug, Default, PartialEq)]
struct Told {
    lines: Vec<String>,
    idles: Vec<u64>,
}

impl Told {
    fn take(&mut self, splitter: &mut Splitter, relations: &mut RelationCache) {
        while splitter.see().unwrap().is_some() {}
        splitter.discard_seen();
        while splitter.has_block() {
            let expected = splitter.next_len();
            let (data, idle) = splitter.take().unwrap();
            assert_eq!(data.len(), expected);
            let mut block = Block::new(data, idle, None);
            let mut events = block.events(relations);
            while let Some(event) = events.next().unwrap() {
                match event {
                    Event::Idle(mark) => self.idles.push(mark.wal_end.0),
                    other => self.lines.push(line(&other)),
                }
            }
        }
    }
}

fn line(event: &Event<'_>) -> String {
    match event {
        Event::Relation(relation) => format!("{} {}", relation.oid, relation.columns.len()),
        Event::Change { relation, lsn, change: RowChange::Insert { new } } => {
            let text = |cell: &Cell<'_>| match cell {
                Cell::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                other => format!("{other:?}"),
            };
            let cells: Vec<String> = new.iter().map(text).collect();
            format!("{relation} {lsn} {}", cells.join(" "))
        }
        other => format!("{other:?}"),
    }
}

fn tell(tape: &[u8], spool: Option<Spool>, cuts: &[usize]) -> (Told, u64) {
    let mut splitter = Splitter::new(BytesMut::new(), Lsn(0), spool);
    let (mut relations, mut told) = (RelationCache::new(), Told::default());
    let mut rest = tape;
    for cut in cuts.iter().cycle() {
        let (chunk, later) = rest.split_at((*cut).min(rest.len()));
        rest = later;
        splitter.room().extend_from_slice(chunk);
        told.take(&mut splitter, &mut relations);
        if rest.is_empty() {
            break;
        }
    }
    (told, splitter.spooled())
}

fn spool(memory_bytes: usize) -> Spool {
    let directory = std::env::temp_dir();
    Spool::new(SpoolOptions { directory, memory_bytes, disk_bytes: u64::MAX })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn streamed_transactions_are_told_like_any_others(
        script in prop::collection::vec((0..TRANSACTIONS, action()), 1..120),
        cuts in prop::collection::vec(1usize..300, 1..20),
        memory_bytes in prop::sample::select(vec![0usize, 100, 3000, 1 << 20]),
    ) {
        let mut server = Server::default();
        for (number, action) in script {
            server.act(number, action);
        }
        for number in 0..TRANSACTIONS {
            server.act(number, Action::Commit);
        }
        let (expected, _) = tell(&server.plain, None, &[4096]);
        let (found, left) = tell(&server.streamed, Some(spool(memory_bytes)), &cuts);
        prop_assert_eq!(found.lines, expected.lines);
        prop_assert_eq!(left, 0, "everything is given back");
        let told_too_early = found.idles.iter().find(|lsn| server.busy.contains(lsn));
        prop_assert_eq!(told_too_early, None, "a streamed transaction was open");
    }

    #[test]
    fn a_broken_tape_is_an_error_and_never_a_panic(
        script in prop::collection::vec((0..TRANSACTIONS, action()), 1..40),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut server = Server::default();
        for (number, action) in script {
            server.act(number, action);
        }
        for number in 0..TRANSACTIONS {
            server.act(number, Action::Commit);
        }
        let mut tape = server.streamed;
        let at = at.index(tape.len());
        tape[at] = byte;
        tape.truncate(cut.index(tape.len()).max(at));
        let mut splitter = Splitter::new(BytesMut::new(), Lsn(0), Some(spool(100)));
        splitter.room().extend_from_slice(&tape);
        while let Ok(Some(_)) = splitter.see() {}
        let mut relations = RelationCache::new();
        while splitter.has_block() {
            let Ok((data, idle)) = splitter.take() else { break };
            let mut block = Block::new(data, idle, None);
            let mut events = block.events(&mut relations);
            while let Ok(Some(_)) = events.next() {}
        }
    }
}

#[test]
fn parts_that_do_not_fit_together_are_errors() {
    let start = |xid, first_segment| frame(8, &Message::StreamStart { xid, first_segment }, None);
    let stop = || frame(8, &Message::StreamStop, None);
    let commit = frame(
        8,
        &Message::StreamCommit { xid: 1, flags: 0, commit_lsn: 8, end_lsn: 9, timestamp: 0 },
        None,
    );
    let begin = frame(8, &Message::Begin { final_lsn: 8, timestamp: 0, xid: 1 }, None);
    let broken = [
        vec![start(1, false)],
        vec![start(1, true), stop(), start(1, true)],
        vec![start(1, true), start(2, true)],
        vec![start(1, true), begin],
        vec![stop()],
        vec![commit],
    ];
    for frames in broken {
        let mut splitter = Splitter::new(BytesMut::new(), Lsn(0), Some(spool(100)));
        splitter.room().extend_from_slice(&frames.concat());
        let error = loop {
            match splitter.see() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{frames:?} was accepted"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, crate::Error::Protocol { .. }), "{error}");
    }
}
