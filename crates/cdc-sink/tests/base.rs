//! Base files: sorted as promised, whole, and in the index row by row.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use cdc_core::*;
use cdc_sink::index::{IndexBuilder, IndexOptions, Position};
use cdc_sink::{
    BaseOptions, BaseStep, BaseTarget, BaseWriter, EncodedFile, PartNumbers, RebuildFile,
    RowBuilder, rebuild_index,
};

use crate::support::{self, Lake};

fn rows(schema: &Arc<TableSchema>, ids: &[i64]) -> arrow::array::RecordBatch {
    let mut rows = RowBuilder::new(Arc::clone(schema), UnrepresentablePolicy::Error);
    for id in ids {
        let (id, body) = (id.to_string(), format!("body {id}"));
        rows.push(&[Cell::Text(id.as_bytes()), Cell::Text(body.as_bytes()), Cell::Null]).unwrap();
    }
    rows.finish().unwrap()
}

fn write(target: BaseTarget, options: BaseOptions, runs: &[Vec<i64>]) -> BaseStep {
    let schema = Arc::clone(&target.schema);
    let mut writer = BaseWriter::new(target, options).unwrap();
    let mut all = BaseStep::default();
    for run in runs {
        let step = writer.append(rows(&schema, run)).unwrap();
        all.files.extend(step.files);
        all.indexed.extend(step.indexed);
    }
    let step = writer.finish().unwrap();
    all.files.extend(step.files);
    all.indexed.extend(step.indexed);
    all
}

fn target(schema: &Arc<TableSchema>) -> BaseTarget {
    let parts = PartNumbers::new();
    BaseTarget { schema: Arc::clone(schema), epoch: Epoch(0), attempt: 0, parts, hasher: None }
}

fn ids(file: &EncodedFile) -> Vec<i64> {
    let bytes = file.body.range(0, file.body.size() as usize).unwrap();
    let batches = support::read(bytes);
    batches.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

/// Each batch is a run of its own.
fn one_run_each() -> BaseOptions {
    BaseOptions { run_bytes_max: 1, ..BaseOptions::default() }
}

#[test]
fn runs_that_follow_on_each_other_share_a_file() {
    let schema = support::schema(support::by_key());
    let runs = [vec![3, 1, 2], vec![4, 6, 5], vec![0, 9], vec![9, 10]];
    for spill_dir in [None, Some(std::env::temp_dir())] {
        let step = write(target(&schema), BaseOptions { spill_dir, ..one_run_each() }, &runs);
        let found: Vec<Vec<i64>> = step.files.iter().map(ids).collect();
        assert_eq!(found, [vec![1, 2, 3, 4, 5, 6], vec![0, 9, 9, 10]]);
        let keys: Vec<&str> = step.files.iter().map(|file| file.key.as_str()).collect();
        let dir = "public.t/base/base_000000";
        assert_eq!(
            keys,
            [format!("{dir}/part-00000.parquet"), format!("{dir}/part-00001.parquet")]
        );
    }
}

#[test]
fn a_full_file_ends_and_rows_without_a_key_keep_their_order() {
    let keyed = support::schema(support::by_key());
    let options = BaseOptions { file_bytes_max: 1, ..one_run_each() };
    let step = write(target(&keyed), options, &[vec![1, 2], vec![3]]);
    assert_eq!(step.files.iter().map(ids).collect::<Vec<_>>(), [vec![1, 2], vec![3]]);
    let unkeyed = support::schema(Identity::Full);
    let step = write(target(&unkeyed), BaseOptions::default(), &[vec![2, 1], vec![3, 1]]);
    assert_eq!(step.files.iter().map(ids).collect::<Vec<_>>(), [vec![2, 1, 3, 1]]);
}

#[test]
fn keys_of_several_columns_sort_column_by_column() {
    let identity = Identity::PrimaryKey(vec!["body".into(), "id".into()]);
    let schema = support::schema(identity);
    let step = write(target(&schema), BaseOptions::default(), &[vec![20, 3], vec![100, 1]]);
    // "body 1" < "body 100" < "body 20" < "body 3"
    assert_eq!(ids(&step.files[0]), [1, 100, 20, 3]);
}

#[test]
fn the_index_finds_every_row_where_it_is_also_after_a_rebuild() {
    let schema = support::schema(support::by_key());
    let lake = Lake::new();
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut builder = IndexBuilder::create(first.path(), IndexOptions::default()).unwrap();
    let target = BaseTarget { hasher: Some(builder.hasher()), ..target(&schema) };
    let runs = [vec![5, 1, 3], vec![2, 4]];
    let step = write(target, one_run_each(), &runs);
    step.index_into(&mut builder).unwrap();
    let stamp = support::stamp(&schema, Epoch(0));
    let built = builder.finish(stamp.clone()).unwrap();
    let mut files = Vec::new();
    for file in &step.files {
        lake.runtime.block_on(file.upload(&lake.store)).unwrap();
        let location = lake.store.location().uri(&file.key);
        // the row of id 3 is deleted
        let deleted = if files.is_empty() { vec![1] } else { vec![] };
        files.push(RebuildFile { location, deleted });
    }
    let builder = IndexBuilder::create(second.path(), IndexOptions::default()).unwrap();
    let rebuilt = rebuild_index(&lake.store, &schema, files, builder, stamp);
    let rebuilt = lake.runtime.block_on(rebuilt).unwrap();
    let expected = [(1, 0, 0), (3, 0, 1), (5, 0, 2), (2, 1, 0), (4, 1, 1)];
    for index in [&built, &rebuilt] {
        let ids: Vec<i64> = expected.iter().map(|(id, ..)| *id).collect();
        let hashes = index.hasher().hash_rows(&rows(&schema, &ids).columns()[..1]).unwrap();
        let found = index.lookup_many(&hashes, 2).unwrap();
        for (at, (id, part, row)) in expected.iter().enumerate() {
            let position = Position { file: step.files[*part].file, row: *row };
            let is_deleted = *id == 3 && std::ptr::eq(index, &rebuilt);
            let wanted = if is_deleted { vec![] } else { vec![position] };
            assert_eq!(found.get(at), wanted, "id {id}");
        }
    }
}
