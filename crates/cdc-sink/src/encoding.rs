//! How our Parquet files are written: compression, dictionaries, encodings, statistics.
//!
//! Dictionaries stand where values repeat; numbers and keys go plain into zstd, which costs less
//! than hashing them. `__lsn` and `__seq` grow by small steps, so they are delta-packed.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use cdc_core::meta;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::Result as ParquetResult;
use parquet::file::properties::{
    EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion,
};
use parquet::schema::types::ColumnPath;

/// Compression of the files (`iceberg.compression`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileCompression {
    /// Zstandard, level 1.
    #[default]
    Zstd,
    /// Snappy.
    Snappy,
    /// None.
    None,
}

impl FileCompression {
    fn codec(self) -> Compression {
        match self {
            FileCompression::Zstd => Compression::ZSTD(ZstdLevel::default()),
            FileCompression::Snappy => Compression::SNAPPY,
            FileCompression::None => Compression::UNCOMPRESSED,
        }
    }
}

/// The properties of a file with these columns. The caller ends row groups.
pub(crate) fn properties(schema: &Schema, compression: FileCompression) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("pgcdc ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(compression.codec())
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(None);
    for field in schema.fields() {
        builder = column(builder, field);
    }
    builder.build()
}

fn column(builder: WriterPropertiesBuilder, field: &Field) -> WriterPropertiesBuilder {
    let (path, data_type) = match field.data_type() {
        DataType::List(element) => {
            let parts = [field.name(), "list", element.name()].map(str::to_owned);
            (ColumnPath::new(parts.to_vec()), element.data_type())
        }
        other => (ColumnPath::new(vec![field.name().clone()]), other),
    };
    let name = field.name();
    if name == meta::LSN.name || name == meta::SEQ.name {
        return builder
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    let is_repetitive = [meta::EPOCH, meta::COMMIT_LSN, meta::COMMIT_TS, meta::XID]
        .iter()
        .any(|repetitive| repetitive.name == name);
    let has_dictionary =
        is_repetitive || matches!(data_type, DataType::Utf8 | DataType::Int32 | DataType::Date32);
    builder.set_column_dictionary_enabled(path, has_dictionary)
}

/// Bytes that one write puts into the columns before the encoder looks at its pages again.
const WRITE_BYTES: usize = 1 << 20;
/// Rows at which the encoder looks at its pages in any case.
const ENCODER_BATCH_ROWS: usize = 1024;

/// Writes a batch of `raw_bytes` bytes, big rows few at a time: the encoder ends a page only between
/// writes, and a reader of one value has to decode its whole page.
pub(crate) fn write_batch<W: Write + Send>(
    writer: &mut ArrowWriter<W>,
    batch: &RecordBatch,
    raw_bytes: usize,
) -> ParquetResult<()> {
    let rows = batch.num_rows();
    let step = WRITE_BYTES.saturating_mul(rows) / raw_bytes.max(1);
    if step >= ENCODER_BATCH_ROWS {
        return writer.write(batch);
    }
    let step = step.max(1);
    (0..rows)
        .step_by(step)
        .try_for_each(|start| writer.write(&batch.slice(start, step.min(rows - start))))
}
