//! Unchanged values that were not sent: found wherever the last version of the row is, or missed
//! loudly.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Decimal128Type, Int64Type};
use cdc_core::*;
use cdc_sink::index::{FileRef, IndexBuilder, IndexOptions};
use cdc_sink::{
    BaseOptions, BaseTarget, BaseWriter, ChangeBuffer, DeltaOptions, DeltaWriter, Error,
    PartNumbers, RowBuilder,
};

use crate::support::{self, Lake};

const POLICY: UnrepresentablePolicy = UnrepresentablePolicy::Error;

struct Lane {
    lake: Lake,
    writer: DeltaWriter,
    buffer: ChangeBuffer,
    epoch: Epoch,
    seq: u64,
    _dir: tempfile::TempDir,
}

impl Lane {
    fn new(schema: &Arc<TableSchema>) -> Self {
        let (dir, lake) = (tempfile::tempdir().unwrap(), Lake::new());
        let index = support::empty_index(dir.path(), schema);
        let options = DeltaOptions { group_rows_max: 64, ..DeltaOptions::default() };
        let writer = lake.writer(schema, index, options);
        let buffer = ChangeBuffer::new(Arc::clone(schema), POLICY);
        Self { lake, writer, buffer, epoch: Epoch(0), seq: 0, _dir: dir }
    }

    fn begin(&mut self) {
        self.epoch = self.epoch.next();
        self.writer.begin_epoch(self.epoch, 0).unwrap();
    }

    fn push(&mut self, change: &RowChange<'_>) {
        let at = ChangePosition { lsn: Lsn(1), commit_micros: 0, xid: 1, seq: self.seq };
        self.seq += self.buffer.push(change, &at, self.epoch).unwrap();
    }

    fn insert(&mut self, id: usize, body: &str) {
        let id = id.to_string();
        let new = [Cell::Text(id.as_bytes()), Cell::Text(body.as_bytes()), Cell::Null];
        self.push(&RowChange::Insert { new: &new });
    }

    fn touch(&mut self, id: usize, n: usize) {
        let (id, n) = (id.to_string(), n.to_string());
        let new = [Cell::Text(id.as_bytes()), Cell::Unchanged, Cell::Text(n.as_bytes())];
        self.push(&RowChange::Update { old: OldTuple::None, new: &new });
    }

    fn end_chunk(&mut self) -> Result<(), Error> {
        self.writer.append(self.buffer.take_chunk().unwrap())
    }

    /// Ends the epoch and gives the bodies of its rows.
    fn end(&mut self) -> Vec<String> {
        self.buffer.commit(Lsn(100));
        self.end_chunk().unwrap();
        let output = self.writer.finish_epoch().unwrap().unwrap();
        self.lake.runtime.block_on(output.upload(&self.lake.store)).unwrap();
        let schema = Arc::clone(&output.files[0].schema);
        self.writer.committed(support::stamp(&schema, self.epoch)).unwrap();
        let batches = output.files.iter().flat_map(|file| self.lake.rows(&file.key));
        batches
            .flat_map(|batch| {
                let body = batch.column_by_name("body").unwrap().as_string::<i32>().clone();
                (0..batch.num_rows()).map(move |at| body.value(at).to_owned())
            })
            .collect()
    }
}

#[test]
fn values_come_from_chunk_group_epoch_and_lake() {
    let mut lane = Lane::new(&support::schema(support::by_key()));
    let body = |id: usize| format!("{id}").repeat(2000);
    lane.begin();
    (0..100).for_each(|id| lane.insert(id, &body(id)));
    lane.end();

    lane.begin();
    // two updates of one row in one chunk, of rows in the lake
    (0..50).for_each(|id| lane.touch(id, 1));
    (0..50).for_each(|id| lane.touch(id, 2));
    lane.end_chunk().unwrap();
    // of rows in complete row groups and in the one in progress
    (0..70).for_each(|id| lane.touch(id, 3));
    lane.insert(100, &body(100));
    lane.end_chunk().unwrap();
    (60..=100).for_each(|id| lane.touch(id, 4));
    let found = lane.end();
    let ids = (0..50).chain(0..50).chain(0..70).chain([100]).chain(60..=100);
    let expected: Vec<String> = ids.map(body).collect();
    assert_eq!(found, expected);
}

#[test]
fn large_values_are_carried_a_few_at_a_time() {
    let mut lane = Lane::new(&support::schema(support::by_key()));
    let body = |id: usize| format!("{id:04}").repeat(1 << 18);
    lane.begin();
    for id in 0..40 {
        lane.insert(id, &body(id));
        if id % 7 == 0 {
            lane.end_chunk().unwrap();
        }
    }
    lane.end();
    lane.begin();
    (0..40).for_each(|id| lane.touch(id, 1));
    lane.end_chunk().unwrap();
    // the values were written in slices, so the writer holds compressed groups, not 40 MiB twice
    (0..40).for_each(|id| lane.touch(id, 2));
    let found = lane.end();
    assert_eq!(found.len(), 80);
    for (at, found) in found.iter().enumerate() {
        assert!(*found == body(at % 40), "row {at}");
    }
}

#[test]
fn a_change_of_an_unknown_row_is_refused() {
    let mut lane = Lane::new(&support::schema(support::by_key()));
    lane.begin();
    lane.insert(1, "x");
    lane.touch(2, 1);
    lane.buffer.commit(Lsn(9));
    let error = lane.end_chunk().unwrap_err();
    assert!(matches!(error, Error::MissingRow { .. }), "{error}");
    assert!(error.to_string().ends_with("hint: `pgcdc table resync public.t`"));
    lane.writer.abandon();
    lane.begin();
    lane.insert(1, "x");
    assert_eq!(lane.end(), ["x"]);
}

/// `id bigint, c <stored>` with the field id of `c` given.
fn two_columns(stored: StoredType, field_id: i32) -> Arc<TableSchema> {
    let mut schema = TableSchema::clone(&support::schema(support::by_key()));
    schema.columns.truncate(1);
    let mut column = support::column(1, "c", PgType::base(oid::NUMERIC, "numeric"), stored);
    column.field_id = FieldId(field_id);
    schema.columns.push(column);
    Arc::new(schema)
}

/// A base file with the row `(1, 12.50)` and a lane over it.
fn lane_over_base(written: &Arc<TableSchema>, now: &Arc<TableSchema>) -> Lane {
    let mut lane = Lane::new(now);
    let dir = tempfile::tempdir().unwrap();
    let mut builder = IndexBuilder::create(dir.path(), IndexOptions::default()).unwrap();
    let target = BaseTarget {
        schema: Arc::clone(written),
        epoch: Epoch(0),
        attempt: 0,
        parts: PartNumbers::new(),
        hasher: Some(builder.hasher()),
    };
    let mut rows = RowBuilder::new(Arc::clone(written), POLICY);
    rows.push(&[Cell::Text(b"1"), Cell::Text(b"12.50")]).unwrap();
    let mut base = BaseWriter::new(target, BaseOptions::default()).unwrap();
    base.append(rows.finish().unwrap()).unwrap();
    let step = base.finish().unwrap();
    step.index_into(&mut builder).unwrap();
    assert_eq!(Some(step.files[0].file), FileRef::base(Epoch(0), 0, 0));
    lane.lake.runtime.block_on(step.files[0].upload(&lane.lake.store)).unwrap();
    let index = builder.finish(support::stamp(now, Epoch(0))).unwrap();
    lane.writer.replace_index(index).unwrap();
    lane._dir = dir;
    lane
}

#[test]
fn a_value_from_before_a_widening_is_carried_in_the_wider_type() {
    let written = two_columns(StoredType::Decimal { precision: 6, scale: 2 }, 102);
    let now = two_columns(StoredType::Decimal { precision: 20, scale: 2 }, 102);
    let mut lane = lane_over_base(&written, &now);
    lane.begin();
    let new = [Cell::Text(b"1"), Cell::Unchanged];
    lane.push(&RowChange::Update { old: OldTuple::None, new: &new });
    lane.buffer.commit(Lsn(7));
    lane.end_chunk().unwrap();
    let output = lane.writer.finish_epoch().unwrap().unwrap();
    assert_eq!((output.carried, output.counts.updates), (1, 1));
    assert_eq!(output.deletes[&FileRef::base(Epoch(0), 0, 0).unwrap()], [0]);
    lane.lake.runtime.block_on(output.upload(&lane.lake.store)).unwrap();
    let batch = &lane.lake.rows(&output.files[0].key)[0];
    let column = batch.column_by_name("c").unwrap().as_primitive::<Decimal128Type>();
    assert_eq!((column.value(0), column.precision()), (1250, 20));
}

#[test]
fn a_value_that_the_lake_never_had_is_missed_loudly() {
    let written = two_columns(StoredType::String, 102);
    let now = two_columns(StoredType::String, 104);
    let mut lane = lane_over_base(&written, &now);
    lane.begin();
    let new = [Cell::Text(b"1"), Cell::Unchanged];
    lane.push(&RowChange::Update { old: OldTuple::None, new: &new });
    lane.buffer.commit(Lsn(7));
    let error = lane.end_chunk().unwrap_err();
    assert!(matches!(&error, Error::MissingValue { column, .. } if column == "c"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn an_epoch_does_not_end_inside_a_transaction() {
    let mut lane = Lane::new(&support::schema(support::by_key()));
    lane.begin();
    lane.insert(1, "x");
    lane.end_chunk().unwrap();
    assert!(matches!(lane.writer.finish_epoch(), Err(Error::State { .. })));
    assert_eq!(lane.end(), ["x"]);
}

#[test]
fn a_schema_change_inside_a_transaction_begins_a_file_and_its_commit_ends_both() {
    let narrow = support::schema(support::by_key());
    let mut lane = Lane::new(&narrow);
    lane.begin();
    let body = "b".repeat(5000);
    lane.insert(1, &body);
    let mut wide = TableSchema::clone(&narrow);
    wide.version = 2;
    let text = PgType::base(oid::TEXT, "text");
    wide.columns.push(support::column(3, "more", text, StoredType::String));
    let unused = ChangeBuffer::new(Arc::clone(&narrow), POLICY);
    let buffer = std::mem::replace(&mut lane.buffer, unused);
    let (chunk, buffer) = buffer.evolve(Arc::new(wide)).unwrap();
    lane.writer.append(chunk).unwrap();
    lane.buffer = buffer;
    let new = [Cell::Text(b"1"), Cell::Unchanged, Cell::Null, Cell::Text(b"more")];
    lane.push(&RowChange::Update { old: OldTuple::None, new: &new });
    lane.end_chunk().unwrap();
    assert_eq!(lane.end(), [body.clone(), body]);
    for key in ["public.t/deltas/epoch=000001.parquet", "public.t/deltas/epoch=000001-01.parquet"] {
        let batch = &lane.lake.rows(key)[0];
        let commit_lsn = batch.column_by_name("__commit_lsn").unwrap();
        assert_eq!(commit_lsn.as_primitive::<Int64Type>().values(), &[100]);
    }
}

#[test]
fn rows_told_by_other_columns_need_another_index() {
    let mut lane = Lane::new(&support::schema(support::by_key()));
    let other = support::schema(Identity::PrimaryKey(vec!["n".into()]));
    lane.buffer = ChangeBuffer::new(other, POLICY);
    lane.begin();
    lane.insert(1, "x");
    assert!(matches!(lane.end_chunk(), Err(Error::IdentityChanged { .. })));
}

#[test]
fn a_row_that_cannot_be_stored_leaves_the_buffer_as_it_was() {
    let mut lane = Lane::new(&support::schema(support::by_key()));
    lane.begin();
    lane.insert(1, "one");
    let at = ChangePosition { lsn: Lsn(1), commit_micros: 0, xid: 1, seq: 9 };
    let key = [Cell::Text(b"1"), Cell::Null, Cell::Null];
    // the D of the old key is taken back with the I that fails
    let new = [Cell::Text(b"2"), Cell::Unchanged, Cell::Text(b"no number")];
    let change = RowChange::Update { old: OldTuple::Key(&key), new: &new };
    assert!(lane.buffer.push(&change, &at, lane.epoch).is_err());
    let unsent = [Cell::Text(b"3"), Cell::Unchanged, Cell::Null];
    let change = RowChange::Insert { new: &unsent };
    assert!(matches!(lane.buffer.push(&change, &at, lane.epoch), Err(Error::BadChange { .. })));
    // old rows without the key: the replica identity is another one now
    let other = [Cell::Null, Cell::Text(b"old"), Cell::Null];
    let new = [Cell::Text(b"1"), Cell::Text(b"x"), Cell::Null];
    let changes = [
        RowChange::Delete { old: OldTuple::Key(&other) },
        RowChange::Update { old: OldTuple::Key(&other), new: &new },
        RowChange::Update { old: OldTuple::Full(&other), new: &new },
    ];
    for change in changes {
        let error = lane.buffer.push(&change, &at, lane.epoch).unwrap_err();
        assert!(error.is_table_local(), "{error}");
        assert!(error.to_string().contains("replica identity"), "{error}");
    }
    assert_eq!(lane.buffer.rows(), 1);
    lane.touch(1, 1);
    assert_eq!(lane.end(), ["one", "one"]);
}
