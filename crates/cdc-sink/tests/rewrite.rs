//! A rewrite keeps exactly the live rows, in order, and tells the key index where each one went.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray};
use arrow::datatypes::Int64Type;
use cdc_core::*;
use cdc_iceberg::RowSet;
use cdc_sink::index::{
    FileRef, IdentityHasher, IndexBuilder, IndexOptions, KeyIndex, Lookups, Record,
};
use cdc_sink::{
    BaseOptions, BaseTarget, BaseWriter, Constants, FileCompression, PartNumbers, RebuildFile,
    RewriteInput, RewriteOptions, RewriteSpec, Rewritten, RowBuilder, read_identities,
    rebuild_index, rewrite,
};

use crate::support::{self, Lake};

/// Bytes of a body: enough that a run of rows does not stay in memory.
const BODY_BYTES: usize = 600;
const ROWS: i64 = 30_000;

/// The `n`th row of a table whose rows come in no order.
fn scattered(n: i64) -> i64 {
    n * 7919 % ROWS
}

/// Writes rows into files of a base directory of epoch 0, each of `per_file` rows in the order
/// given, and returns their locations.
fn files(lake: &Lake, schema: &Arc<TableSchema>, ids: &[i64], per_file: usize) -> Vec<String> {
    let parts = PartNumbers::new();
    let mut locations = Vec::new();
    for ids in ids.chunks(per_file) {
        let target = BaseTarget {
            schema: Arc::clone(schema),
            epoch: Epoch(0),
            attempt: 0,
            parts: parts.clone(),
            hasher: None,
        };
        let mut writer = BaseWriter::new(target, BaseOptions::default()).unwrap();
        let mut rows = RowBuilder::new(Arc::clone(schema), UnrepresentablePolicy::Error);
        for id in ids {
            let body = format!("{id:0>BODY_BYTES$}");
            let id = id.to_string();
            rows.push(&[Cell::Text(id.as_bytes()), Cell::Text(body.as_bytes()), Cell::Null])
                .unwrap();
        }
        writer.append(rows.finish().unwrap()).unwrap();
        for file in writer.finish().unwrap().files {
            lake.runtime.block_on(file.upload(&lake.store)).unwrap();
            locations.push(lake.store.location().uri(&file.key));
        }
    }
    locations
}

struct Work {
    lake: Lake,
    schema: Arc<TableSchema>,
    constants: Constants,
    dir: tempfile::TempDir,
}

impl Work {
    fn new(identity: Identity) -> Work {
        let dir = tempfile::tempdir().unwrap();
        let (schema, constants) = (support::schema(identity), Constants::default());
        Work { lake: Lake::new(), schema, constants, dir }
    }

    fn rewrite(&self, inputs: Vec<RewriteInput>, hasher: IdentityHasher) -> Rewritten {
        let options = RewriteOptions {
            compression: FileCompression::Zstd,
            file_bytes_max: 256 << 10,
            memory_bytes_max: 1,
            spill_dir: self.dir.path().to_owned(),
            patch_dir: self.dir.path().join("patch"),
        };
        let schema = Arc::clone(&self.schema);
        let spec = RewriteSpec {
            schema,
            constants: self.constants.clone(),
            inputs,
            epoch: Epoch(9),
            attempt: 1,
            hasher,
        };
        let rewritten = rewrite(&self.lake.store, spec, options, || false);
        self.lake.runtime.block_on(rewritten).unwrap().unwrap()
    }

    /// The ids in the new files, file by file.
    fn ids(&self, rewritten: &Rewritten) -> Vec<Vec<i64>> {
        let of_file = |key: &str| {
            let batches = self.lake.rows(key);
            let ids = batches
                .iter()
                .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec());
            ids.collect()
        };
        rewritten.files.iter().map(|file| of_file(&file.key)).collect()
    }

    fn index(&self, name: &str, files: Vec<RebuildFile>) -> KeyIndex {
        let dir = self.dir.path().join(name);
        let builder = IndexBuilder::create(&dir, IndexOptions::default()).unwrap();
        let stamp = support::stamp(&self.schema, Epoch(0));
        let rebuilt = rebuild_index(&self.lake.store, &self.schema, files, builder, stamp);
        self.lake.runtime.block_on(rebuilt).unwrap()
    }
}

fn hashes(ids: &[i64], hasher: IdentityHasher) -> Vec<u128> {
    let ids = arrow::array::Int64Array::from(ids.to_vec());
    hasher.hash_rows(&[Arc::new(ids) as arrow::array::ArrayRef]).unwrap()
}

fn only(found: &Lookups, at: usize) -> cdc_sink::index::Position {
    assert_eq!(found.get(at).len(), 1);
    found.get(at)[0]
}

#[test]
fn scattered_rows_become_few_sorted_files_and_the_index_follows() {
    let work = Work::new(support::by_key());
    let ids: Vec<i64> = (0..ROWS).map(scattered).collect();
    // every file is sorted by its writer, all overlap
    let locations = files(&work.lake, &work.schema, &ids, 1000);
    assert_eq!(locations.len(), 30);
    let deleted: RowSet = (0..1000).filter(|row| row % 3 == 0).collect();
    let rebuild = |location: &String| RebuildFile {
        location: location.clone(),
        deleted: deleted.iter().collect(),
    };
    let mut index = work.index("index", locations.iter().map(rebuild).collect());
    let inputs = locations
        .iter()
        .map(|location| RewriteInput { location: location.clone(), deleted: deleted.clone() });
    let rewritten = work.rewrite(inputs.collect(), index.hasher());
    assert!(rewritten.is_patch_whole);

    let mut live: Vec<i64> = Vec::new();
    for ids in ids.chunks(1000) {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        live.extend(ids.iter().enumerate().filter(|(row, _)| row % 3 != 0).map(|(_, id)| *id));
    }
    live.sort_unstable();
    let found = work.ids(&rewritten);
    assert!(found.len() > 1 && found.len() < 10, "{} files", found.len());
    assert_eq!(found.concat(), live);
    assert_eq!(rewritten.rows, live.len() as u64);
    assert!(rewritten.files[0].key.starts_with("public.t/base/base_000009-01/part-"));

    let wanted = hashes(&live, index.hasher());
    let gone: Vec<i64> = (0..ROWS).filter(|id| live.binary_search(id).is_err()).take(50).collect();
    let gone = hashes(&gone, index.hasher());
    let places = place_of(&work, &rewritten, &found);
    let by_patch = rewritten.patch.lookup_many(&wanted, 1).unwrap();
    // some rows were deleted while the files were written
    let late: Vec<Record> = (0..20)
        .map(|at| Record { hash: wanted[at * 11], position: only(&by_patch, at * 11) })
        .collect();
    assert!(index.adopt(rewritten.patch).unwrap());
    index.apply(Vec::new(), late.clone()).unwrap();
    index.commit(support::stamp(&work.schema, Epoch(9))).unwrap();
    let by_index = index.lookup_many(&wanted, 2).unwrap();
    for (at, id) in live.iter().enumerate() {
        if at % 11 == 0 && at / 11 < 20 {
            assert!(by_index.get(at).is_empty());
        } else {
            assert_eq!(only(&by_index, at), places[id]);
        }
    }
    assert!(index.lookup_many(&gone, 2).unwrap().iter().all(<[_]>::is_empty));
    assert!(index.records() <= 4 * live.len() as u64, "more than old, new and removed");
    assert_eq!(std::fs::read_dir(work.dir.path()).unwrap().count(), 1, "only the index is left");
}

/// Where each id is, as the new files say.
fn place_of(
    work: &Work,
    rewritten: &Rewritten,
    ids: &[Vec<i64>],
) -> BTreeMap<i64, cdc_sink::index::Position> {
    let mut places = BTreeMap::new();
    for (file, ids) in rewritten.files.iter().zip(ids) {
        let file = FileRef::of_key(&work.schema.table, &file.key).unwrap();
        for (row, id) in (0..).zip(ids) {
            places.insert(*id, cdc_sink::index::Position { file, row });
        }
    }
    places
}

#[test]
fn rows_without_a_key_keep_their_order_and_their_twins() {
    let work = Work::new(Identity::Full);
    let locations = files(&work.lake, &work.schema, &[3, 1, 3, 2, 3], 3);
    let inputs: Vec<RewriteInput> = locations
        .iter()
        .map(|location| RewriteInput { location: location.clone(), deleted: RowSet::default() })
        .collect();
    let hasher = IdentityHasher::random();
    let rewritten = work.rewrite(inputs, hasher);
    assert_eq!(work.ids(&rewritten).concat(), [3, 1, 3, 2, 3]);
    let read = read_identities(&work.lake.store, &work.schema, &locations[0], &[0, 2], hasher);
    let twins = work.lake.runtime.block_on(read).unwrap();
    assert_eq!(twins[0], twins[1]);
    let found = rewritten.patch.lookup_many(&twins[..1], 9).unwrap();
    assert_eq!(found.get(0).len(), 3);
    // another index does not take it
    let mut other = work.index("other", Vec::new());
    assert!(!other.adopt(rewritten.patch).unwrap());
}

#[test]
fn a_rewrite_of_nothing_live_has_no_file() {
    let work = Work::new(support::by_key());
    let locations = files(&work.lake, &work.schema, &[1, 2], 2);
    let deleted: RowSet = (0..2).collect();
    let inputs = vec![RewriteInput { location: locations[0].clone(), deleted }];
    let rewritten = work.rewrite(inputs, IdentityHasher::random());
    assert!(rewritten.files.is_empty());
    assert_eq!(rewritten.rows, 0);
}

#[test]
fn a_column_that_a_file_lacks_is_its_constant_and_one_that_it_has_is_kept() {
    let mut work = Work::new(support::by_key());
    let older = files(&work.lake, &work.schema, &[4, 2], 2);
    let mut wider = (*work.schema).clone();
    let word = |id| Column {
        name: format!("c{id}"),
        field_id: FieldId(id),
        ..work.schema.columns[1].clone()
    };
    wider.columns.push(word(200));
    let middle = Arc::new(wider.clone());
    let newer = {
        let target = BaseTarget {
            schema: Arc::clone(&middle),
            epoch: Epoch(1),
            attempt: 0,
            parts: PartNumbers::new(),
            hasher: None,
        };
        let mut writer = BaseWriter::new(target, BaseOptions::default()).unwrap();
        let mut rows = RowBuilder::new(middle, UnrepresentablePolicy::Error);
        let cells = |id, c| [Cell::Text(id), Cell::Null, Cell::Null, c];
        rows.push(&cells(b"1", Cell::Null)).unwrap();
        rows.push(&cells(b"3", Cell::Text(b"own"))).unwrap();
        writer.append(rows.finish().unwrap()).unwrap();
        let file = writer.finish().unwrap().files.remove(0);
        work.lake.runtime.block_on(file.upload(&work.lake.store)).unwrap();
        work.lake.store.location().uri(&file.key)
    };
    wider.columns.push(word(201));
    wider.columns.push(word(202));
    work.schema = Arc::new(wider);
    let texts = [(FieldId(200), "old"), (FieldId(202), "new")];
    work.constants = Constants::parse(&work.schema, &texts, UnrepresentablePolicy::Error).unwrap();
    let inputs = older.into_iter().chain([newer]);
    let inputs =
        inputs.map(|location| RewriteInput { location, deleted: RowSet::default() }).collect();
    let rewritten = work.rewrite(inputs, IdentityHasher::random());
    let mut found = Vec::new();
    for batch in work.lake.rows(&rewritten.files[0].key) {
        let text = |at: usize, row: usize| {
            let column = batch.column(at).as_string::<i32>();
            column.is_valid(row).then(|| column.value(row).to_owned())
        };
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let row = |row| (ids.value(row), text(3, row), text(4, row), text(5, row));
        found.extend((0..batch.num_rows()).map(row));
    }
    let row = |id, c: Option<&str>| (id, c.map(str::to_owned), None, Some("new".to_owned()));
    let expected = [row(1, None), row(2, Some("old")), row(3, Some("own")), row(4, Some("old"))];
    assert_eq!(found, expected);
}
