//! One Iceberg snapshot as what a scan needs. The only module that reads Iceberg metadata.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cdc_core::{FieldId, StoredType, TableName};
use cdc_iceberg::{BoundValue, ColumnBounds, DeleteFile, LakeFiles, LiveFiles, ReadColumn};
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::scan::{Deletes, deletes_by_path};
use crate::{Error, Result};

/// The columns and files of a table at one snapshot.
pub(crate) struct TableFiles {
    pub(crate) columns: Vec<ReadColumn>,
    pub(crate) files: Vec<LakeFile>,
    lake: LakeFiles,
    live: LiveFiles,
}

impl std::fmt::Debug for TableFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableFiles").field("files", &self.files.len()).finish()
    }
}

/// A data file.
#[derive(Clone, Debug)]
pub(crate) struct LakeFile {
    pub(crate) path: Path,
    /// URI, as position deletes name it.
    pub(crate) location: String,
    pub(crate) bytes: u64,
    /// Rows in the file, deleted ones included.
    pub(crate) rows: u64,
    /// At least as many rows as are deleted.
    pub(crate) deletes_max: u64,
    /// Where its row groups start; empty if unknown.
    pub(crate) row_group_offsets: Vec<u64>,
    /// By position in the table's columns.
    pub(crate) bounds: Vec<FileBounds>,
}

/// What is known of a column in one file.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileBounds {
    pub(crate) lower: Option<ScalarValue>,
    pub(crate) upper: Option<ScalarValue>,
    pub(crate) nulls: Option<u64>,
}

/// A snapshot of one of a table's two Iceberg tables.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotRef<'a> {
    pub(crate) table: &'a TableName,
    pub(crate) metadata_location: &'a str,
    /// `None` while the table has no snapshot.
    pub(crate) snapshot_id: Option<i64>,
}

impl TableFiles {
    /// The files of a snapshot, with the columns that the table had at the cut: those of the cut's
    /// metadata file, which may be newer than the snapshot where only the schema changed.
    pub(crate) async fn load(lake: &LakeFiles, at: SnapshotRef<'_>) -> Result<TableFiles> {
        let metadata = lake.load_metadata(at.metadata_location).await?;
        let columns = cdc_iceberg::read_columns(&metadata, None)?;
        let live = match at.snapshot_id {
            Some(id) => cdc_iceberg::live_files(lake, &metadata, id).await?,
            None => LiveFiles::default(),
        };
        let mut files = Vec::with_capacity(live.data_files.len());
        for file in &live.data_files {
            let bound = |column: &ReadColumn| {
                let bounds = cdc_iceberg::column_bounds(&file.file, column.field_id);
                file_bounds(bounds, &column.stored)
            };
            let offsets = file.file.split_offsets().unwrap_or_default();
            files.push(LakeFile {
                path: lake.path(&file.location)?,
                location: file.location.clone(),
                bytes: file.size,
                rows: file.record_count,
                deletes_max: live.deletes_of(file).map(|delete| delete.record_count).sum(),
                row_group_offsets: offsets
                    .iter()
                    .filter_map(|at| u64::try_from(*at).ok())
                    .collect(),
                bounds: columns.iter().map(bound).collect(),
            });
        }
        Ok(TableFiles { columns, files, lake: lake.clone(), live })
    }

    /// The files of a base directory as they were written, whatever was deleted of them since.
    /// Columns are those of the snapshot.
    pub(crate) async fn load_base(
        lake: &LakeFiles,
        at: SnapshotRef<'_>,
        base_path: &str,
    ) -> Result<TableFiles> {
        let metadata = lake.load_metadata(at.metadata_location).await?;
        let columns = cdc_iceberg::read_columns(&metadata, None)?;
        let prefix = Path::from(base_path);
        let failed = |source| {
            let location = lake.location().uri(base_path);
            Error::Iceberg(cdc_iceberg::Error::Read { location, source })
        };
        let mut found: Vec<_> =
            lake.objects().list(Some(&prefix)).try_collect().await.map_err(failed)?;
        found
            .retain(|meta: &object_store::ObjectMeta| meta.location.as_ref().ends_with(".parquet"));
        found.sort_by(|a, b| a.location.cmp(&b.location));
        let mut files = Vec::with_capacity(found.len());
        for meta in found {
            let footer = crate::scan::footer(lake.objects(), &meta.location, meta.size).await;
            let footer = footer.map_err(|_| Error::DataFile {
                table: at.table.to_string(),
                detail: "its footer cannot be read".into(),
            })?;
            let starts = footer.row_groups().iter().filter_map(|group| group.file_offset());
            files.push(LakeFile {
                location: lake.location().uri(meta.location.as_ref()),
                path: meta.location,
                bytes: meta.size,
                rows: footer.file_metadata().num_rows().cast_unsigned(),
                deletes_max: 0,
                row_group_offsets: starts.filter_map(|at| u64::try_from(at).ok()).collect(),
                bounds: vec![FileBounds::default(); columns.len()],
            });
        }
        Ok(TableFiles { columns, files, lake: lake.clone(), live: LiveFiles::default() })
    }

    /// Forgets all other columns; nothing can then read them.
    pub(crate) fn keep_columns(&mut self, keep: impl Fn(&ReadColumn) -> bool) {
        let kept: Vec<bool> = self.columns.iter().map(keep).collect();
        let mut marks = kept.iter();
        self.columns.retain(|_| marks.next().copied().unwrap_or_default());
        for file in &mut self.files {
            let mut marks = kept.iter();
            file.bounds.retain(|_| marks.next().copied().unwrap_or_default());
        }
    }

    /// Puts a column behind all others.
    pub(crate) fn move_last(&mut self, at: usize) {
        let column = self.columns.remove(at);
        self.columns.push(column);
        for file in &mut self.files {
            let bounds = file.bounds.remove(at);
            file.bounds.push(bounds);
        }
    }

    /// The lake's store.
    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        self.lake.objects()
    }

    /// Deleted positions of some of the files; only delete files that may name one of them are read.
    pub(crate) async fn deletes(&self, kept: &[&LakeFile]) -> Result<Deletes> {
        if self.live.delete_files.is_empty() {
            return Ok(Deletes::default());
        }
        let wanted: HashMap<&str, &Path> = kept
            .iter()
            .filter(|file| file.deletes_max > 0)
            .map(|file| (file.location.as_str(), &file.path))
            .collect();
        let mut part = LiveFiles::default();
        let mut touching = HashSet::new();
        for file in &self.live.data_files {
            if wanted.contains_key(file.location.as_str()) {
                let names = self.live.deletes_of(file).map(DeleteFile::id);
                touching.extend(names);
                part.data_files.push(file.clone());
            }
        }
        let all = self.live.delete_files.iter();
        part.delete_files = all.filter(|delete| touching.contains(&delete.id())).cloned().collect();
        let loaded = cdc_iceberg::load_position_deletes(&self.lake, &part).await?;
        let by_path = loaded
            .into_iter()
            .filter_map(|(location, rows)| Some(((*wanted.get(location.as_str())?).clone(), rows)))
            .collect();
        Ok(deletes_by_path(by_path))
    }
}

fn file_bounds(bounds: ColumnBounds, stored: &StoredType) -> FileBounds {
    FileBounds {
        lower: bounds.lower.and_then(|value| scalar(value, stored)),
        upper: bounds.upper.and_then(|value| scalar(value, stored)),
        nulls: bounds.nulls,
    }
}

/// A bound in the column's Arrow type; `None` for types whose bounds are not used.
fn scalar(value: BoundValue, stored: &StoredType) -> Option<ScalarValue> {
    Some(match (stored, value) {
        (StoredType::Boolean, BoundValue::Boolean(v)) => ScalarValue::Boolean(Some(v)),
        (StoredType::Int32, BoundValue::Int32(v)) => ScalarValue::Int32(Some(v)),
        (StoredType::Int64, BoundValue::Int64(v)) => ScalarValue::Int64(Some(v)),
        (StoredType::Int64, BoundValue::Int32(v)) => ScalarValue::Int64(Some(v.into())),
        (StoredType::Date, BoundValue::Int32(v)) => ScalarValue::Date32(Some(v)),
        (StoredType::Time, BoundValue::Int64(v)) => ScalarValue::Time64Microsecond(Some(v)),
        (StoredType::Timestamp, BoundValue::Int64(v)) => {
            ScalarValue::TimestampMicrosecond(Some(v), None)
        }
        (StoredType::TimestampTz, BoundValue::Int64(v)) => {
            ScalarValue::TimestampMicrosecond(Some(v), Some("UTC".into()))
        }
        (StoredType::Decimal { precision, scale }, BoundValue::Decimal(v)) => {
            ScalarValue::Decimal128(Some(v), *precision, scale.cast_signed())
        }
        (StoredType::String, BoundValue::Text(v)) => ScalarValue::Utf8View(Some(v)),
        _ => return None,
    })
}

/// The position of a column by field id.
pub(crate) fn position(columns: &[ReadColumn], id: FieldId) -> Option<usize> {
    columns.iter().position(|column| column.field_id == id)
}
