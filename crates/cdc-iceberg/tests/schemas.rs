//! Field ids and types on their way from the lake's schema through metadata and Parquet files.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_core::{Column, FieldId, StoredType};
use cdc_iceberg::{
    Branch, CommitKind, NewSchema, TableChange, TablePair, base_arrow_schema, changes_schema,
    current_schema, delta_arrow_schema,
};
use iceberg::spec::Schema;
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::LogicalType;

use crate::sample::{committed, in_memory, schema, stamp, upsert};

fn ids(schema: &Schema) -> BTreeMap<i32, String> {
    schema.field_id_to_name_map().iter().map(|(id, name)| (*id, name.clone())).collect()
}

#[tokio::test]
async fn field_ids_survive_creation() {
    let sample = in_memory().await;
    let (current, changes) = (&sample.pair.current.metadata, &sample.pair.changes.metadata);
    assert_eq!(ids(current.current_schema()), ids(&current_schema(&sample.schema).unwrap()));
    assert_eq!(ids(changes.current_schema()), ids(&changes_schema(&sample.schema).unwrap()));
    assert_eq!(current.current_schema().name_by_field_id(100), Some("id"));
    assert_eq!(current.current_schema().name_by_field_id(115), Some("tags"));
    assert_eq!(current.current_schema().name_by_field_id(116), Some("tags.element"));
    assert_eq!(current.last_column_id(), 116);
    assert_eq!(changes.current_schema().name_by_field_id(9), Some("__toast_unchanged.element"));
}

#[test]
fn every_column_is_optional_and_metadata_columns_come_last() {
    let schema = changes_schema(&schema()).unwrap();
    let fields = schema.as_struct().fields();
    assert!(fields.iter().all(|field| !field.required));
    let last: Vec<_> = fields[fields.len() - 8..].iter().map(|f| (f.id, f.name.as_str())).collect();
    let expected = [
        (1, "__op"),
        (2, "__epoch"),
        (3, "__lsn"),
        (4, "__commit_lsn"),
        (5, "__commit_ts"),
        (6, "__seq"),
        (7, "__xid"),
        (8, "__toast_unchanged"),
    ];
    assert_eq!(last, expected);
}

#[test]
fn parquet_files_carry_ids_and_logical_types() {
    let schema = schema();
    let arrow = delta_arrow_schema(&schema);
    assert_eq!(arrow.fields().len(), base_arrow_schema(&schema).fields().len() + 8);
    let parquet = ArrowSchemaConverter::new().convert(&arrow).unwrap();
    let leaf = |path: &str| {
        let found = parquet.columns().iter().find(|column| column.path().string() == path);
        found.unwrap_or_else(|| panic!("no column {path}")).clone()
    };
    let id = |path: &str| leaf(path).self_type().get_basic_info().id();
    assert_eq!((id("id"), id("ref"), id("__seq")), (100, 112, 6));
    assert_eq!((id("tags.list.element"), id("__toast_unchanged.list.element")), (116, 9));
    assert_eq!(leaf("ref").logical_type_ref(), Some(&LogicalType::Uuid));
}

#[tokio::test]
async fn properties_tell_engines_to_leave_files_alone() {
    let sample = in_memory().await;
    let current = sample.pair.current.metadata.properties();
    let expected = [
        ("gc.enabled", "false"),
        ("write.parquet.compression-codec", "zstd"),
        ("pgcdc.source-table", "public.Order Items"),
        ("pgcdc.identity", "[\"id\"]"),
        ("pgcdc.changes-table", "lake.public_Order Items__changes"),
        ("pgcdc.lake-id", "sample"),
        ("pgcdc.generation", "1"),
    ];
    for (key, value) in expected {
        assert_eq!(current.get(key).map(String::as_str), Some(value), "{key}");
    }
    let changes = sample.pair.changes.metadata.properties();
    assert_eq!(changes["pgcdc.current-table"], "lake.public_Order Items");
    let folder = "mem://lake/public.Order!20Items/changes_metadata";
    assert_eq!(changes["write.metadata.path"], folder);
    assert_eq!(changes["gc.enabled"], "false");
}

#[tokio::test]
async fn an_added_column_gets_its_id_in_both_tables_and_old_snapshots_keep_theirs() {
    let mut sample = in_memory().await;
    sample.flush(&[upsert(3)]).await;
    let old = sample.pair.current.head(Branch::Main).unwrap().clone();
    let mut schema = sample.schema.clone();
    schema.version += 1;
    schema.columns.push(Column {
        name: "note".into(),
        field_id: FieldId(117),
        element_id: None,
        stored: StoredType::String,
        ..schema.columns[1].clone()
    });
    schema.next_field_id = FieldId(118);
    let (committer, pair) = (&sample.committer, &sample.pair);
    let current = committer.evolve_current(&pair.current, &schema, "record 2").await.unwrap();
    let changes = committer.evolve_changes(&pair.changes, &schema, "record 2").await.unwrap();
    sample.pair = TablePair { current: committed(current), changes: committed(changes) };
    for table in [&sample.pair.current, &sample.pair.changes] {
        assert_eq!(table.metadata.current_schema().name_by_field_id(117), Some("note"));
        assert_eq!(table.metadata.last_column_id(), 117);
        assert_eq!(table.schema_record(), Some("record 2"));
        assert_eq!(table.metadata.snapshots().len(), 2, "a schema is no snapshot");
    }
    let metadata = &sample.pair.current.metadata;
    assert_eq!(old.schema(metadata).unwrap().field_by_id(117), None);

    sample.schema = schema;
    sample.flush(&[upsert(4)]).await;
    let head = sample.pair.current.head(Branch::Main).unwrap();
    assert!(head.schema(&sample.pair.current.metadata).unwrap().field_by_id(117).is_some());
    assert_eq!(crate::reading::rows(&sample, &sample.pair.current).await, sample.rows);
}

#[tokio::test]
async fn a_schema_and_the_rows_that_need_it_are_one_commit() {
    let mut sample = in_memory().await;
    sample.flush(&[upsert(3)]).await;
    let before = sample.pair.current.clone();
    let mut schema = sample.schema.clone();
    schema.version += 1;
    schema.columns.remove(1);
    let change = TableChange {
        schema: Some(NewSchema { schema: Arc::new(schema.clone()), record: "record 2".into() }),
        ..TableChange::replace_all(stamp(CommitKind::Fill, 1), Branch::Main, Vec::new())
    };
    let after = committed(sample.committer.commit(&before, &change).await.unwrap());
    let (old, new) = (&before.metadata, &after.metadata);
    assert_eq!(new.metadata_log().len(), old.metadata_log().len() + 1);
    assert_eq!(new.snapshots().len(), old.snapshots().len() + 1);
    let head = after.head(Branch::Main).unwrap();
    assert_eq!(head.schema(new).unwrap().field_by_id(101), None);
    assert_eq!(new.current_schema().field_by_id(101), None);
    let parent = before.head(Branch::Main).unwrap();
    assert!(parent.schema(new).unwrap().field_by_id(101).is_some());
    assert_eq!(
        (after.schema_record(), after.filled_record()),
        (Some("record 2"), Some("record 2"))
    );
    assert_eq!(after.live_rows(Branch::Main), Some(0));
    assert_eq!(after.newest_lsn_to(Branch::Main), before.newest_lsn_to(Branch::Main));

    // what comes without rows leaves the record of those
    let later = sample.committer.evolve_current(&after, &sample.schema, "record 3").await;
    let later = committed(later.unwrap());
    assert_eq!(
        (later.schema_record(), later.filled_record()),
        (Some("record 3"), Some("record 2"))
    );
}

#[tokio::test]
async fn evolving_to_the_same_schema_changes_nothing() {
    let sample = in_memory().await;
    let (committer, schema) = (&sample.committer, &sample.schema);
    let table = &sample.pair.current;
    let once = committed(committer.evolve_current(table, schema, "record").await.unwrap());
    assert_ne!(once.metadata_location, table.metadata_location, "the record is new");
    let twice = committed(committer.evolve_current(&once, schema, "record").await.unwrap());
    assert_eq!(twice.metadata_location, once.metadata_location);
}

#[tokio::test]
async fn bounds_hold_for_every_value() {
    use iceberg::spec::Datum;
    let mut sample = in_memory().await;
    let change = sample.prepare(&[upsert(3), upsert(-9), upsert(5)]).await;
    let file = &change.current_files[0];
    let bounds = |id: i32| (file.lower_bounds().get(&id), file.upper_bounds().get(&id));
    assert_eq!(bounds(100), (Some(&Datum::long(-9)), Some(&Datum::long(5))));
    assert_eq!(bounds(101), (Some(&Datum::string("new -9")), Some(&Datum::string("new 5"))));
    let amount = |unscaled: i64| {
        let decimal = iceberg::spec::PrimitiveType::Decimal { precision: 12, scale: 2 };
        Datum::try_from_bytes(&unscaled.to_be_bytes(), decimal).unwrap()
    };
    assert_eq!(bounds(102), (Some(&amount(-959)), Some(&amount(455))));
    // uuid, binary and lists have none
    for id in [112, 113, 115, 116] {
        assert_eq!(bounds(id), (None, None), "{id}");
    }
    assert_eq!(file.null_value_counts()[&101], 0);
    assert_eq!(file.value_counts().get(&116), None);
    // the metadata columns are not columns of t, but of the changelog
    assert_eq!(file.column_sizes().get(&2), None);
    assert_eq!(change.changes_files[0].lower_bounds().get(&2), Some(&Datum::long(1)));
}
