//! Random histories against a table in memory: the files minus their deletes are the table, and the
//! files in order are the history.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use cdc_core::*;
use cdc_sink::index::{IndexBuilder, IndexOptions};
use cdc_sink::{ChangeBuffer, DeltaOptions, DeltaWriter, RebuildFile, rebuild_index};
use proptest::prelude::*;

use crate::support::{self, Lake};

/// Text of at least this length is stored out of line by the imagined server, which leaves it out
/// of updates that do not touch it.
const TOAST_LENGTH: usize = 8;

#[derive(Clone, Debug)]
enum Step {
    Insert {
        id: i64,
        body: String,
    },
    Update {
        pick: usize,
        id: Option<i64>,
        body: Option<String>,
    },
    Delete {
        pick: usize,
    },
    Truncate,
    EndChunk,
    Commit,
    EndEpoch,
    /// Memory is short.
    Shrink,
    Abandon,
    Rebuild,
}

fn body() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]{0,3}", "[a-z]{8,24}", "[x-y]{3000}"]
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..40i64;
    let new_id = prop::option::weighted(0.2, 0..40i64);
    prop_oneof![
        6 => (id, body()).prop_map(|(id, body)| Step::Insert { id, body }),
        8 => (any::<usize>(), new_id, prop::option::weighted(0.3, body()))
            .prop_map(|(pick, id, body)| Step::Update { pick, id, body }),
        3 => any::<usize>().prop_map(|pick| Step::Delete { pick }),
        1 => Just(Step::Truncate),
        4 => Just(Step::EndChunk),
        4 => Just(Step::Commit),
        2 => Just(Step::EndEpoch),
        2 => Just(Step::Shrink),
        1 => Just(Step::Abandon),
        1 => Just(Step::Rebuild),
    ]
}

impl Step {
    /// Six rows are possible, so that equal ones are common.
    fn with_few_values(self) -> Step {
        let few =
            |body: String| (if body.len() < TOAST_LENGTH { "a" } else { "a long body" }).into();
        match self {
            Step::Insert { id, body } => Step::Insert { id: id % 3, body: few(body) },
            Step::Update { pick, id, body } => {
                Step::Update { pick, id: id.map(|id| id % 3), body: body.map(few) }
            }
            other => other,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    id: Option<i64>,
    body: Option<String>,
    n: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Logged {
    op: String,
    row: Row,
    epoch: i64,
    lsn: i64,
    commit_lsn: i64,
    commit_micros: i64,
    seq: i64,
    xid: i64,
    unchanged: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// REPLICA IDENTITY DEFAULT with a primary key.
    Key,
    /// REPLICA IDENTITY FULL with a primary key.
    KeyAndFull,
    /// REPLICA IDENTITY FULL without a key.
    Full,
}

/// What stands once an epoch is committed.
#[derive(Clone, Default)]
struct Durable {
    table: Vec<Row>,
    log: Vec<Logged>,
}

struct World {
    source: Source,
    schema: Arc<TableSchema>,
    lake: Lake,
    dir: tempfile::TempDir,
    writer: Option<DeltaWriter>,
    buffer: ChangeBuffer,
    durable: Durable,
    table: Vec<Row>,
    log: Vec<Logged>,
    /// Entries of `log` without a commit LSN, and rows of the open transaction.
    open_from: usize,
    seq: u64,
    xid: u32,
    epoch: Epoch,
    clock: u64,
    files: Vec<String>,
    deletes: BTreeMap<String, Vec<u64>>,
    live: Vec<String>,
}

impl World {
    fn new(source: Source, options: DeltaOptions) -> Self {
        let schema = support::schema(match source {
            Source::Key | Source::KeyAndFull => support::by_key(),
            Source::Full => Identity::Full,
        });
        let dir = tempfile::tempdir().unwrap();
        let lake = Lake::new();
        let index = support::empty_index(dir.path(), &schema);
        let mut writer = lake.writer(&schema, index, options);
        writer.begin_epoch(Epoch(1), 0).unwrap();
        Self {
            source,
            buffer: ChangeBuffer::new(Arc::clone(&schema), UnrepresentablePolicy::Error),
            schema,
            lake,
            dir,
            writer: Some(writer),
            durable: Durable::default(),
            table: Vec::new(),
            log: Vec::new(),
            open_from: 0,
            seq: 0,
            xid: 1,
            epoch: Epoch(1),
            clock: 1,
            files: Vec::new(),
            deletes: BTreeMap::new(),
            live: Vec::new(),
        }
    }

    fn writer(&mut self) -> &mut DeltaWriter {
        self.writer.as_mut().unwrap()
    }

    fn run(&mut self, step: Step) {
        match if self.source == Source::Full { step.with_few_values() } else { step } {
            Step::Insert { id, body } => self.insert(id, body),
            Step::Update { pick, id, body } => self.update(pick, id, body),
            Step::Delete { pick } => self.delete(pick),
            Step::Truncate => {
                self.table.clear();
                self.push("T", Row { id: None, body: None, n: None }, &RowChange::Truncate, vec![]);
            }
            Step::EndChunk => self.end_chunk(),
            Step::Commit => self.commit(),
            Step::EndEpoch => self.end_epoch(),
            Step::Shrink => self.writer().shrink().unwrap(),
            Step::Abandon => self.abandon(),
            Step::Rebuild => self.rebuild(),
        }
    }

    fn insert(&mut self, id: i64, body: String) {
        let is_taken = self.table.iter().any(|row| row.id == Some(id));
        if is_taken && self.source != Source::Full {
            return;
        }
        let n = if self.source == Source::Full { 0 } else { self.clock as i32 };
        let row = Row { id: Some(id), body: Some(body), n: Some(n) };
        self.table.push(row.clone());
        let text = Text::of(&row);
        self.push("I", row, &RowChange::Insert { new: &text.cells() }, vec![]);
    }

    fn update(&mut self, pick: usize, id: Option<i64>, body: Option<String>) {
        if self.table.is_empty() {
            return;
        }
        let at = pick % self.table.len();
        let old = self.table[at].clone();
        let id = id.map(Some).filter(|id| {
            self.source == Source::Full || !self.table.iter().any(|row| row.id == *id)
        });
        let n = if self.source == Source::Full { 0 } else { self.clock as i32 };
        let is_unsent = body.is_none() && old.body.as_ref().unwrap().len() >= TOAST_LENGTH;
        let new = Row {
            id: id.unwrap_or(old.id),
            body: body.map(Some).unwrap_or(old.body.clone()),
            n: Some(n),
        };
        self.table[at] = new.clone();
        let (old_text, new_text) = (Text::of(&old), Text::of(&new));
        let mut new_cells = new_text.cells();
        if is_unsent {
            new_cells[1] = Cell::Unchanged;
        }
        let full = old_text.cells();
        let key = [full[0], Cell::Null, Cell::Null];
        let moves = new.id != old.id && self.source != Source::Full;
        let tuple = match self.source {
            Source::Key if moves => OldTuple::Key(&key),
            Source::Key => OldTuple::None,
            Source::KeyAndFull | Source::Full => OldTuple::Full(&full),
        };
        let change = RowChange::Update { old: tuple, new: &new_cells };
        let unchanged = if is_unsent { vec!["body".to_owned()] } else { vec![] };
        if moves {
            let gone = match self.source {
                Source::Key => Row { id: old.id, body: None, n: None },
                _ => old,
            };
            self.note("D", gone, vec![]);
            self.seq += 1;
            self.note("I", new, unchanged);
            self.seq -= 1;
            self.send(&change);
        } else {
            self.push("U", new, &change, unchanged);
        }
    }

    fn delete(&mut self, pick: usize) {
        if self.table.is_empty() {
            return;
        }
        let old = self.table.swap_remove(pick % self.table.len());
        let text = Text::of(&old);
        let full = text.cells();
        let key = [full[0], Cell::Null, Cell::Null];
        let (tuple, row) = match self.source {
            Source::Key => (OldTuple::Key(&key[..]), Row { id: old.id, body: None, n: None }),
            _ => (OldTuple::Full(&full[..]), old.clone()),
        };
        self.push("D", row, &RowChange::Delete { old: tuple }, vec![]);
    }

    fn push(&mut self, op: &str, row: Row, change: &RowChange<'_>, unchanged: Vec<String>) {
        self.note(op, row, unchanged);
        self.send(change);
    }

    fn note(&mut self, op: &str, row: Row, unchanged: Vec<String>) {
        self.log.push(Logged {
            op: op.to_owned(),
            row,
            epoch: self.epoch.0 as i64,
            lsn: self.clock as i64,
            commit_lsn: 0,
            commit_micros: i64::from(self.xid) * 1000,
            seq: self.seq as i64,
            xid: i64::from(self.xid),
            unchanged,
        });
    }

    fn send(&mut self, change: &RowChange<'_>) {
        let at = ChangePosition {
            lsn: Lsn(self.clock),
            commit_micros: i64::from(self.xid) * 1000,
            xid: self.xid,
            seq: self.seq,
        };
        self.seq += self.buffer.push(change, &at, self.epoch).unwrap();
        self.clock += 1;
    }

    fn end_chunk(&mut self) {
        if !self.buffer.is_empty() {
            let chunk = self.buffer.take_chunk().unwrap();
            self.writer().append(chunk).unwrap();
        }
    }

    fn commit(&mut self) {
        let end_lsn = 1_000_000 + self.clock;
        self.buffer.commit(Lsn(end_lsn));
        for logged in &mut self.log[self.open_from..] {
            logged.commit_lsn = end_lsn as i64;
        }
        self.open_from = self.log.len();
        self.xid += 1;
        self.seq = 0;
        self.clock += 1;
    }

    fn end_epoch(&mut self) {
        self.commit();
        self.end_chunk();
        if let Some(output) = self.writer().finish_epoch().unwrap() {
            // a flush that is tried again uploads again
            for _ in 0..2 {
                self.lake.runtime.block_on(output.upload(&self.lake.store)).unwrap();
            }
            let rows: u64 = output.files.iter().map(|file| file.rows).sum();
            assert_eq!(rows, output.counts.rows());
            if output.truncate {
                self.live.clear();
                self.deletes.clear();
            }
            for file in &output.files {
                self.files.push(file.key.clone());
                self.live.push(file.key.clone());
            }
            for (file, rows) in &output.deletes {
                assert!(rows.is_sorted_by(|a, b| a < b));
                let key = file.key(&self.schema.table).unwrap();
                assert!(self.live.contains(&key), "a delete of a file that is not live");
                let deletes = self.deletes.entry(key).or_default();
                deletes.extend(rows.iter().map(|row| u64::from(*row)));
                deletes.sort_unstable();
                assert!(deletes.is_sorted_by(|a, b| a < b), "a row was deleted twice");
            }
            let stamp = support::stamp(&self.schema, self.epoch);
            self.writer().committed(stamp).unwrap();
        }
        self.durable = Durable { table: self.table.clone(), log: self.log.clone() };
        self.epoch = self.epoch.next();
        let epoch = self.epoch;
        self.writer().begin_epoch(epoch, 0).unwrap();
    }

    /// The flush is given up and the daemon starts again from what is durable.
    fn abandon(&mut self) {
        self.writer().abandon();
        let policy = UnrepresentablePolicy::Error;
        self.buffer = ChangeBuffer::new(Arc::clone(&self.schema), policy);
        self.table = self.durable.table.clone();
        self.log = self.durable.log.clone();
        self.open_from = self.log.len();
        self.seq = 0;
        let epoch = self.epoch;
        self.writer().begin_epoch(epoch, 0).unwrap();
    }

    /// The index is lost and made again from the lake.
    fn rebuild(&mut self) {
        self.end_epoch();
        let files = self.live.iter().map(|key| RebuildFile {
            location: self.lake.store.location().uri(key),
            deleted: self.deletes.get(key).cloned().unwrap_or_default(),
        });
        let builder = IndexBuilder::create(self.dir.path(), IndexOptions::default()).unwrap();
        let stamp = support::stamp(&self.schema, self.epoch);
        let rebuilt =
            rebuild_index(&self.lake.store, &self.schema, files.collect(), builder, stamp);
        let index = self.lake.runtime.block_on(rebuilt).unwrap();
        let epoch = self.epoch;
        let writer = self.writer();
        writer.abandon();
        writer.replace_index(index).unwrap();
        writer.begin_epoch(epoch, 0).unwrap();
    }

    fn check(&self) {
        let mut live = Vec::new();
        for key in &self.live {
            let none = Vec::new();
            let deleted = self.deletes.get(key).unwrap_or(&none);
            let rows = self.lake.rows(key).iter().flat_map(rows).collect::<Vec<_>>();
            let kept =
                rows.into_iter().enumerate().filter(|(at, _)| !deleted.contains(&(*at as u64)));
            live.extend(kept.map(|(_, row)| row));
        }
        let mut expected = self.durable.table.clone();
        expected.sort();
        live.sort();
        assert_eq!(live, expected);
        let log: Vec<Logged> = self
            .files
            .iter()
            .flat_map(|key| self.lake.rows(key))
            .flat_map(|b| logged(&b))
            .collect();
        assert_eq!(log, self.durable.log);
    }
}

/// A row in PostgreSQL's text form.
struct Text(Vec<Option<String>>);

impl Text {
    fn of(row: &Row) -> Self {
        let id = row.id.map(|id| id.to_string());
        Self(vec![id, row.body.clone(), row.n.map(|n| n.to_string())])
    }

    fn cells(&self) -> Vec<Cell<'_>> {
        let cells = self.0.iter().map(|text| match text {
            Some(text) => Cell::Text(text.as_bytes()),
            None => Cell::Null,
        });
        cells.collect()
    }
}

fn rows(batch: &RecordBatch) -> Vec<Row> {
    let id = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
    let body = batch.column_by_name("body").unwrap().as_string::<i32>();
    let n = batch.column_by_name("n").unwrap().as_primitive::<Int32Type>();
    let row = |at: usize| Row {
        id: id.is_valid(at).then(|| id.value(at)),
        body: body.is_valid(at).then(|| body.value(at).to_owned()),
        n: n.is_valid(at).then(|| n.value(at)),
    };
    (0..batch.num_rows()).map(row).collect()
}

fn logged(batch: &RecordBatch) -> Vec<Logged> {
    let long = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
    let op = batch.column_by_name("__op").unwrap().as_string::<i32>();
    let commit_ts = batch.column_by_name("__commit_ts").unwrap();
    let commit_ts = commit_ts.as_primitive::<TimestampMicrosecondType>();
    let unchanged = batch.column_by_name("__toast_unchanged").unwrap().as_list::<i32>();
    let (epoch, lsn, commit_lsn) = (long("__epoch"), long("__lsn"), long("__commit_lsn"));
    let (seq, xid) = (long("__seq"), long("__xid"));
    rows(batch)
        .into_iter()
        .enumerate()
        .map(|(at, row)| Logged {
            op: op.value(at).to_owned(),
            row,
            epoch: epoch.value(at),
            lsn: lsn.value(at),
            commit_lsn: commit_lsn.value(at),
            commit_micros: commit_ts.value(at),
            seq: seq.value(at),
            xid: xid.value(at),
            unchanged: unchanged
                .value(at)
                .as_string::<i32>()
                .iter()
                .map(|name| name.unwrap().to_owned())
                .collect(),
        })
        .collect()
}

fn options() -> impl Strategy<Value = DeltaOptions> {
    let bounds = (1..20u32, 1..4000u64, 1..40usize, any::<bool>());
    bounds.prop_map(|(group_rows_max, file_bytes_max, tracked_rows_max, spills)| DeltaOptions {
        group_rows_max,
        file_bytes_max,
        tracked_rows_max,
        staged_bytes_max: 0,
        spill_dir: spills.then(std::env::temp_dir),
        ..DeltaOptions::default()
    })
}

fn history(source: Source, options: DeltaOptions, steps: Vec<Step>) {
    let mut world = World::new(source, options);
    for step in steps {
        world.run(step);
    }
    world.end_epoch();
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn files_minus_deletes_are_the_table(
        options in options(), steps in prop::collection::vec(step(), 1..150),
    ) {
        history(Source::Key, options, steps);
    }

    #[test]
    fn old_rows_of_a_table_with_a_key_change_nothing(
        options in options(), steps in prop::collection::vec(step(), 1..150),
    ) {
        history(Source::KeyAndFull, options, steps);
    }

    #[test]
    fn rows_without_a_key_are_removed_one_occurrence_each(
        options in options(), steps in prop::collection::vec(step(), 1..150),
    ) {
        history(Source::Full, options, steps);
    }
}
