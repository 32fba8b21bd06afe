//! The rows of an answer as a stream of batches under a row limit and a deadline.

use datafusion::arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use crate::deadline::Deadline;
use crate::{Error, Result};

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnHeader {
    /// Name.
    pub name: String,
    /// Type in the words of the Iceberg specification.
    pub type_name: String,
}

/// The rows of one answer. Dropping it stops the query.
pub struct Rows {
    schema: SchemaRef,
    stream: SendableRecordBatchStream,
    left: usize,
    truncated: bool,
    deadline: Deadline,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("schema", &self.schema).field("left", &self.left).finish()
    }
}

impl Rows {
    /// At most `limit` rows of a stream that yields one more where there is one more.
    pub(crate) fn new(stream: SendableRecordBatchStream, limit: usize, deadline: Deadline) -> Rows {
        Rows { schema: stream.schema(), stream, left: limit, truncated: false, deadline }
    }

    /// Arrow schema of the batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The columns, for an answer's header.
    pub fn columns(&self) -> Vec<ColumnHeader> {
        self.schema.fields().iter().map(|field| ColumnHeader::of(field)).collect()
    }

    /// Whether rows were left out because of the limit. Final after the last batch.
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// The next batch; `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// [`Error::QueryTimeout`], [`Error::OutOfMemory`], [`Error::Evaluation`], or an error of the
    /// lake.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        if self.truncated {
            return Ok(None);
        }
        let Some(batch) = self.deadline.bound(self.stream.next()).await? else { return Ok(None) };
        let batch = batch.map_err(|error| Error::engine("run", error))?;
        if batch.num_rows() <= self.left {
            self.left -= batch.num_rows();
            return Ok(Some(batch));
        }
        self.truncated = true;
        Ok(Some(batch.slice(0, self.left)))
    }
}

impl ColumnHeader {
    fn of(field: &Field) -> ColumnHeader {
        ColumnHeader { name: field.name().clone(), type_name: type_name(field.data_type()) }
    }
}

/// The Iceberg name of an Arrow type; results of expressions have types that no column has, which
/// get the name of the next wider one.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".into(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
            "int".into()
        }
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "long".into(),
        DataType::Float16 | DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => format!("decimal({p}, {s})"),
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Time32(_) | DataType::Time64(_) => "time".into(),
        DataType::Timestamp(unit, zone) => {
            let nanos = if *unit == TimeUnit::Nanosecond { "_ns" } else { "" };
            let zoned = if zone.is_some() { "tz" } else { "" };
            format!("timestamp{zoned}{nanos}")
        }
        DataType::FixedSizeBinary(16) => "uuid".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "binary".into(),
        DataType::FixedSizeBinary(bytes) => format!("fixed({bytes})"),
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::FixedSizeList(element, _) => {
            format!("list<{}>", type_name(element.data_type()))
        }
        DataType::Dictionary(_, value) => type_name(value),
        _ => "string".into(),
    }
}
