//! The error of this crate: what could not be stored, for which table and column, and what the
//! operator can do about it.

use cdc_core::text::{TextError, Unrepresentable};
use cdc_core::{ErrorKind, TableName};
use parquet::errors::ParquetError;

/// Why a change, a row or a file could not be handled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A legal PostgreSQL value that the column's stored type cannot hold.
    #[error("{table}: column {column}: {value}; hint: {}", accepting(table, column, *value))]
    Unrepresentable {
        /// Table.
        table: TableName,
        /// Column.
        column: String,
        /// What is wrong with the value; never the value itself.
        value: Unrepresentable,
    },
    /// Bytes that are not the text form of the column's type.
    #[error("{table}: column {column}: cannot decode a value")]
    Malformed {
        /// Table.
        table: TableName,
        /// Column.
        column: String,
        /// What was expected.
        source: TextError,
    },
    /// A row with another number of cells than the schema has columns.
    #[error("{table}: a row has {found} cells where the schema has {expected} columns")]
    RowShape {
        /// Table.
        table: TableName,
        /// Columns of the schema.
        expected: usize,
        /// Cells of the row.
        found: usize,
    },
    /// A change without something its kind always has.
    #[error("{table}: {missing}")]
    BadChange {
        /// Table.
        table: TableName,
        /// What the change lacks, in words.
        missing: &'static str,
    },
    /// One column's values of one chunk exceed what a chunk can address.
    #[error("{table}: column {column} holds more than 2 GiB in one chunk")]
    ChunkTooLarge {
        /// Table.
        table: TableName,
        /// Column.
        column: String,
    },
    /// An update or delete of a row that the lake does not have.
    #[error(
        "{table}: an update or delete names a row that the lake does not have; hint: `pgcdc table resync {table}`"
    )]
    MissingRow {
        /// Table.
        table: TableName,
    },
    /// An unchanged value that the old version of the row does not have.
    #[error(
        "{table}: column {column}: the unchanged value is not in {file}; hint: `pgcdc table resync {table}`"
    )]
    MissingValue {
        /// Table.
        table: TableName,
        /// Column.
        column: String,
        /// Key of the file that should have held it.
        file: String,
    },
    /// Building or rearranging columns failed.
    #[error("{table}: cannot {operation}")]
    Arrow {
        /// Table.
        table: TableName,
        /// What was being done.
        operation: &'static str,
        /// Cause.
        source: arrow::error::ArrowError,
    },
    /// Reading or writing Parquet failed.
    #[error("{table}: cannot {operation} {key}")]
    Parquet {
        /// Table.
        table: TableName,
        /// What was being done.
        operation: &'static str,
        /// Key of the file.
        key: String,
        /// Cause.
        source: ParquetError,
    },
    /// A file could not be written to the lake.
    #[error("cannot upload {key}")]
    Upload {
        /// Key of the object.
        key: String,
        /// Cause.
        source: Box<cdc_manifest::Error>,
    },
    /// The key index was made for another row identity than the table has now.
    #[error("{table}: the key index is for {indexed}, the rows are told by {wanted}; rebuild it")]
    IdentityChanged {
        /// Table.
        table: TableName,
        /// Identity of the index's stamp.
        indexed: String,
        /// Identity of the schema.
        wanted: String,
    },
    /// A data file outside the lake.
    #[error("{location} is not a file of this lake")]
    Unlocated {
        /// Absolute location.
        location: String,
    },
    /// More files in an epoch, or epochs, than file references can tell apart.
    #[error("more files in epoch {epoch} than can be told apart")]
    TooManyFiles {
        /// Epoch.
        epoch: cdc_core::Epoch,
    },
    /// A call in the wrong state of a writer.
    #[error("{table}: {operation} while {state}")]
    State {
        /// Table.
        table: TableName,
        /// The call.
        operation: &'static str,
        /// The state it met.
        state: &'static str,
    },
    /// A file of the key index is not what was written; the index must be rebuilt.
    #[error("{path} of the key index is damaged: {detail}")]
    IndexDamaged {
        /// Path of the file.
        path: String,
        /// What is wrong.
        detail: &'static str,
    },
    /// A column whose type cannot be part of an identity.
    #[error("a column of type {data_type} cannot identify rows")]
    IdentityType {
        /// Arrow type.
        data_type: String,
    },
    /// A local file could not be read or written.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// Path of the file.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What the caller does next.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Unrepresentable { .. } => ErrorKind::Invalid,
            Error::Malformed { .. } | Error::MissingRow { .. } | Error::MissingValue { .. } => {
                ErrorKind::Corrupt
            }
            Error::Upload { source, .. } => source.kind(),
            Error::IdentityChanged { .. } => ErrorKind::Corrupt,
            Error::Io { .. } => ErrorKind::Transient,
            Error::Parquet { source: ParquetError::External(source), .. } => {
                match source.downcast_ref::<object_store::Error>() {
                    Some(object_store::Error::NotFound { .. }) => ErrorKind::Corrupt,
                    Some(error) => cdc_manifest::object_kind(error),
                    None => ErrorKind::Transient,
                }
            }
            Error::Parquet { .. } => ErrorKind::Corrupt,
            Error::IndexDamaged { .. } | Error::Unlocated { .. } => ErrorKind::Corrupt,
            Error::TooManyFiles { .. }
            | Error::RowShape { .. }
            | Error::IdentityType { .. }
            | Error::BadChange { .. }
            | Error::ChunkTooLarge { .. }
            | Error::Arrow { .. }
            | Error::State { .. } => ErrorKind::Internal,
        }
    }

    /// Whether what the source sent for one table cannot be stored or does not fit what the lake
    /// has of it. Such an error comes again with every try and stops no other table.
    pub fn is_table_local(&self) -> bool {
        matches!(
            self,
            Error::Unrepresentable { .. }
                | Error::Malformed { .. }
                | Error::BadChange { .. }
                | Error::MissingRow { .. }
                | Error::MissingValue { .. }
        )
    }

    /// The column that the error is about.
    pub fn column(&self) -> Option<&str> {
        match self {
            Error::Unrepresentable { column, .. }
            | Error::Malformed { column, .. }
            | Error::ChunkTooLarge { column, .. }
            | Error::MissingValue { column, .. } => Some(column),
            _ => None,
        }
    }
}

/// The configuration lines that would let the value in.
fn accepting(table: &TableName, column: &str, value: Unrepresentable) -> String {
    let as_string = format!("`types.columns: [{{match: \"{table}.{column}\", as: string}}]`");
    match value {
        Unrepresentable::NotUtf8 => "set `types.unrepresentable: null`".to_owned(),
        Unrepresentable::NotFinite
        | Unrepresentable::TooManyDigits
        | Unrepresentable::ArrayShape => {
            format!("set {as_string} or `types.unrepresentable: null`")
        }
        Unrepresentable::BelowRange | Unrepresentable::AboveRange | Unrepresentable::EndOfDay => {
            format!("set {as_string} or `types.unrepresentable: null` or `clamp`")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unrepresentable_value_names_the_line_that_accepts_it() {
        let error = Error::Unrepresentable {
            table: TableName::new("public", "t"),
            column: "c".into(),
            value: Unrepresentable::NotFinite,
        };
        assert_eq!(
            error.to_string(),
            "public.t: column c: NaN or infinity in a decimal column; hint: set `types.columns: \
             [{match: \"public.t.c\", as: string}]` or `types.unrepresentable: null`"
        );
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}
