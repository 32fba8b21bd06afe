//! Position delete files: Parquet with `file_path` and `pos`, sorted by both (Iceberg spec,
//! position delete files). One file per commit names all data files that lose rows. What is read here
//! may be deletion vectors as well.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use bytes::Bytes;
use cdc_core::TableName;
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY, ProjectionMask};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use uuid::Uuid;

use crate::first_metadata::METADATA_FOLDER;
use crate::live::{BlobRange, DELETE_PATH_ID, DELETE_POS_ID, DeleteFile, LiveFiles};
use crate::vector::decode_vector;
use crate::{Error, LakeFiles, Result};

const PATH: &str = "file_path";
const POS: &str = "pos";
/// Rows per Arrow batch while encoding and decoding.
const BATCH_ROWS: usize = 8192;
/// How many delete files are read at a time.
pub(crate) const DELETE_READS_MAX: usize = 8;

/// Positions to delete, by the exact location of their data file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PositionDeletes {
    by_file: BTreeMap<String, Vec<u64>>,
}

impl PositionDeletes {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one row: `position` counts from 0 in file order.
    pub fn add(&mut self, location: &str, position: u64) {
        match self.by_file.get_mut(location) {
            Some(positions) => positions.push(position),
            None => {
                self.by_file.insert(location.to_owned(), vec![position]);
            }
        }
    }

    /// Adds rows of one file.
    pub fn extend(&mut self, location: &str, positions: impl IntoIterator<Item = u64>) {
        let mut positions = positions.into_iter().peekable();
        if positions.peek().is_some() {
            self.by_file.entry(location.to_owned()).or_default().extend(positions);
        }
    }

    /// Whether there is nothing to delete.
    pub fn is_empty(&self) -> bool {
        self.by_file.is_empty()
    }

    /// Positions added, with repetitions.
    pub fn len(&self) -> usize {
        self.by_file.values().map(Vec::len).sum()
    }

    /// The files that lose rows, with their positions as added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u64])> {
        self.by_file.iter().map(|(location, positions)| (location.as_str(), positions.as_slice()))
    }

    fn normalize(&mut self) {
        for positions in self.by_file.values_mut() {
            positions.sort_unstable();
            positions.dedup();
        }
    }
}

/// Writes one position delete file into the metadata folder of the table and returns it as an entry
/// for the commit's `delete_files`; `None` if there is nothing to delete.
pub async fn write_position_deletes(
    files: &LakeFiles,
    table: &TableName,
    mut deletes: PositionDeletes,
) -> Result<Option<DataFile>> {
    if deletes.is_empty() {
        return Ok(None);
    }
    let key =
        format!("{}/{METADATA_FOLDER}/{}-deletes.parquet", table.key_segment(), Uuid::new_v4());
    let location = files.location().uri(&key);
    let encode = move || {
        deletes.normalize();
        encode(&deletes).map(|bytes| (deletes, bytes))
    };
    let encoded = tokio::task::spawn_blocking(encode).await;
    let (deletes, bytes) = encoded
        .map_err(|_| Error::Cancelled { what: "delete file encoding" })?
        .map_err(|source| Error::DeleteFile { location: location.clone(), source })?;
    let entry = describe(&location, bytes.len() as u64, &deletes)
        .map_err(|source| Error::format(&location, "delete file")(source))?;
    files.write_new(&location, bytes).await?;
    Ok(Some(entry))
}

/// Loads the deletes that reach the data files of a snapshot: sorted positions by data file
/// location. Files without deletes are not in the map.
pub async fn load_position_deletes(
    files: &LakeFiles,
    live: &LiveFiles,
) -> Result<HashMap<String, Vec<u64>>> {
    let sequence_of: HashMap<&str, i64> =
        live.data_files.iter().map(|file| (file.location.as_str(), file.sequence_number)).collect();
    let loads: Vec<_> = live.delete_files.iter().map(|delete| load_one(files, delete)).collect();
    let mut loaded = stream::iter(loads).buffer_unordered(DELETE_READS_MAX);
    let mut by_file: HashMap<String, Vec<u64>> = HashMap::new();
    while let Some((sequence, deletes)) = loaded.try_next().await? {
        for (location, positions) in deletes {
            // a delete file reaches data files that are not newer than itself
            if sequence_of.get(location.as_str()).is_some_and(|data| *data <= sequence) {
                by_file.entry(location).or_default().extend(positions);
            }
        }
    }
    for positions in by_file.values_mut() {
        positions.sort_unstable();
        positions.dedup();
    }
    Ok(by_file)
}

/// Reads one delete file or deletion vector: its sequence number, and positions by data file.
pub(crate) async fn load_one(
    files: &LakeFiles,
    delete: &DeleteFile,
) -> Result<(i64, BTreeMap<String, Vec<u64>>)> {
    if let (Some(blob), Some(file)) = (delete.blob, &delete.referenced) {
        let positions = load_vector(files, delete, blob).await?;
        return Ok((delete.sequence_number, BTreeMap::from([(file.clone(), positions)])));
    }
    let bytes = files.read(&delete.location).await?;
    let decoded = tokio::task::spawn_blocking(move || decode(bytes)).await;
    let deletes = decoded
        .map_err(|_| Error::Cancelled { what: "delete file decoding" })?
        .map_err(|source| Error::DeleteFile { location: delete.location.clone(), source })?;
    Ok((delete.sequence_number, deletes))
}

async fn load_vector(files: &LakeFiles, delete: &DeleteFile, blob: BlobRange) -> Result<Vec<u64>> {
    let part = blob.offset..blob.offset.saturating_add(blob.length);
    let bytes = files.read_part(&delete.location, part).await?;
    let rows = delete.record_count;
    let decoded = tokio::task::spawn_blocking(move || decode_vector(&bytes, rows)).await;
    let decoded = decoded.map_err(|_| Error::Cancelled { what: "deletion vector decoding" })?;
    decoded.map_err(|source| Error::Vector {
        location: delete.location.clone(),
        offset: blob.offset,
        source: Box::new(source),
    })
}

fn arrow_schema() -> SchemaRef {
    let field = |name: &str, data_type, id: i32| {
        let metadata = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]);
        Field::new(name, data_type, false).with_metadata(metadata)
    };
    Arc::new(Schema::new(vec![
        field(PATH, DataType::Utf8, DELETE_PATH_ID),
        field(POS, DataType::Int64, DELETE_POS_ID),
    ]))
}

fn encode(deletes: &PositionDeletes) -> Result<Bytes, ParquetError> {
    let pos = ColumnPath::from(POS);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_column_dictionary_enabled(pos.clone(), false)
        .set_column_encoding(pos, Encoding::DELTA_BINARY_PACKED)
        // readers prune row groups by whole paths
        .set_statistics_truncate_length(None)
        .set_column_index_truncate_length(None)
        .build();
    let schema = arrow_schema();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?;
    for (location, positions) in &deletes.by_file {
        for chunk in positions.chunks(BATCH_ROWS) {
            let paths = StringArray::from_iter_values(chunk.iter().map(|_| location));
            let positions = Int64Array::from_iter_values(chunk.iter().map(|p| p.cast_signed()));
            let columns: Vec<Arc<dyn Array>> = vec![Arc::new(paths), Arc::new(positions)];
            writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
        }
    }
    writer.into_inner().map(Bytes::from)
}

fn decode(bytes: Bytes) -> Result<BTreeMap<String, Vec<u64>>, ParquetError> {
    // without Arrow's own schema a string column has one type, whoever wrote the file
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), [PATH, POS]);
    let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()?;
    let mut by_file: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for batch in reader {
        let batch = batch?;
        let paths = batch.column_by_name(PATH).and_then(|column| column.as_string_opt::<i32>());
        let positions =
            batch.column_by_name(POS).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let (Some(paths), Some(positions)) = (paths, positions) else {
            return Err(ParquetError::General(
                "file_path or pos is missing or not typed so".into(),
            ));
        };
        group(paths, positions, &mut by_file);
    }
    Ok(by_file)
}

/// Adds the rows of a batch; the file is sorted by path, so a path is looked up once per run.
fn group(paths: &StringArray, positions: &Int64Array, by_file: &mut BTreeMap<String, Vec<u64>>) {
    let mut start = 0;
    while start < paths.len() {
        let path = paths.value(start);
        let run = (start..paths.len()).take_while(|row| paths.value(*row) == path).count();
        let values = positions.values()[start..start + run].iter();
        let target = by_file.entry(path.to_owned()).or_default();
        target.extend(values.map(|position| position.cast_unsigned()));
        start += run;
    }
}

/// The manifest entry of a delete file, with bounds of both columns so that readers prune.
fn describe(
    location: &str,
    size: u64,
    deletes: &PositionDeletes,
) -> Result<DataFile, iceberg::spec::DataFileBuilderError> {
    let rows = deletes.len() as u64;
    let mut builder = DataFileBuilder::default();
    builder
        .content(DataContentType::PositionDeletes)
        .file_path(location.to_owned())
        .file_format(DataFileFormat::Parquet)
        .record_count(rows)
        .file_size_in_bytes(size)
        .value_counts([(DELETE_PATH_ID, rows), (DELETE_POS_ID, rows)].into())
        .null_value_counts([(DELETE_PATH_ID, 0), (DELETE_POS_ID, 0)].into())
        .partition_spec_id(0);
    let all = || deletes.by_file.values().flatten();
    let files = (deletes.by_file.keys().next(), deletes.by_file.keys().next_back());
    if let ((Some(least), Some(greatest)), Some(first), Some(last)) =
        (files, all().min(), all().max())
    {
        let bounds = |path: &String, pos: &u64| {
            [(DELETE_PATH_ID, Datum::string(path)), (DELETE_POS_ID, Datum::long(pos.cast_signed()))]
        };
        builder.lower_bounds(bounds(least, first).into());
        builder.upper_bounds(bounds(greatest, last).into());
        if least == greatest {
            builder.referenced_data_file(Some(least.clone()));
        }
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delete_files_round_trip_sorted_and_without_repetitions() {
        let mut deletes = PositionDeletes::new();
        deletes.extend("file:///lake/b", (0..20_000).rev());
        deletes.add("file:///lake/a", 7);
        deletes.add("file:///lake/a", 7);
        deletes.normalize();
        let decoded = decode(encode(&deletes).unwrap()).unwrap();
        assert_eq!(decoded, deletes.by_file);
        assert_eq!(decoded["file:///lake/a"], [7]);
        assert_eq!(decoded["file:///lake/b"].len(), 20_000);
    }

    #[test]
    fn bounds_and_referenced_file_are_stated() {
        let mut deletes = PositionDeletes::new();
        deletes.extend("file:///lake/a", [5, 3]);
        let one = describe("file:///lake/d", 10, &deletes).unwrap();
        assert_eq!(one.referenced_data_file().as_deref(), Some("file:///lake/a"));
        assert_eq!(one.lower_bounds()[&DELETE_POS_ID], Datum::long(3));
        deletes.add("file:///lake/b", 9);
        let two = describe("file:///lake/d", 10, &deletes).unwrap();
        assert_eq!(two.referenced_data_file(), None);
        assert_eq!(two.upper_bounds()[&DELETE_PATH_ID], Datum::string("file:///lake/b"));
        assert_eq!(two.record_count(), 3);
    }
}
