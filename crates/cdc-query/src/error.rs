//! What can go wrong between a request and its rows, and what the caller does next.

use cdc_core::{ErrorKind, Lsn};
use datafusion::error::DataFusionError;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the read path. Absent and forbidden objects give the same variant and text; no text
/// holds a path, a hidden name or a value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The lake has no manifest.
    #[error("no lake here: manifest.json does not exist; hint: run `pgcdc init` first")]
    NoLake,
    /// The table does not exist or is not visible.
    #[error("no such table `{0}`")]
    NoSuchTable(String),
    /// A table name without schema that more than one schema has.
    #[error("table name `{0}` is ambiguous; hint: write schema.table")]
    AmbiguousTable(String),
    /// The ref, epoch, LSN or time names no cut that is kept.
    #[error("no such cut: {0}")]
    NoSuchCut(String),
    /// Changes were asked for across a range that the changelog lacks.
    #[error(
        "changes of `{table}` since then are not complete; hint: read its current state, then ask for changes since epoch {oldest_epoch}"
    )]
    Expired {
        /// The table.
        table: String,
        /// Changes since this epoch are complete.
        oldest_epoch: u64,
    },
    /// The table has no complete base yet.
    #[error("table `{0}` has no complete base")]
    NoBase(String),
    /// A column does not exist or is not visible.
    #[error("unknown column `{column}` of table `{table}`")]
    NoSuchColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// A condition that is not `column:operator:value`, or whose value is not of the column's type.
    #[error("condition `{condition}`: {reason}")]
    BadCondition {
        /// Column and operator, without the value.
        condition: String,
        /// What is wrong, with the form that is right.
        reason: String,
    },
    /// A request that contradicts itself.
    #[error("{0}")]
    BadRequest(String),
    /// Text that is not SQL.
    #[error("the SQL cannot be parsed: {0}")]
    Syntax(String),
    /// SQL that the gate does not let through.
    #[error("{message}")]
    Refused {
        /// Stable name of the rule, for `details.rule`.
        rule: &'static str,
        /// The rule in words.
        message: String,
    },
    /// SQL that parses but does not fit the tables.
    #[error("the SQL does not fit the tables: {0}")]
    Unplannable(String),
    /// An expression of the caller failed on a visible row.
    #[error("an expression of the query failed: {0}")]
    Evaluation(String),
    /// The memory of a query is used up.
    #[error("the query needs more memory than query.memory_bytes; hint: add a filter or a limit")]
    OutOfMemory,
    /// The time of a query is used up.
    #[error("the query took longer than {seconds} s")]
    QueryTimeout {
        /// `query.timeout_sec`.
        seconds: u64,
    },
    /// The wait for `min_lsn` ran out.
    #[error("waited in vain for {wanted}, the lake covers {reached}; hint: is the daemon running?")]
    WaitTimeout {
        /// Position asked for.
        wanted: Lsn,
        /// Position reached.
        reached: Lsn,
    },
    /// A durable file of the lake could not be read.
    #[error(transparent)]
    Manifest(#[from] cdc_manifest::Error),
    /// Iceberg metadata could not be read.
    #[error(transparent)]
    Iceberg(#[from] cdc_iceberg::Error),
    /// A data file is not what its table says.
    #[error("data file of table `{table}` cannot be used: {detail}")]
    DataFile {
        /// The table.
        table: String,
        /// What is wrong.
        detail: String,
    },
    /// The engine failed for a reason that is not the caller's.
    #[error("the query engine failed to {operation}")]
    Engine {
        /// plan, run.
        operation: &'static str,
        /// The engine's error, for the log only.
        source: DataFusionError,
    },
}

impl Error {
    /// What the caller does next.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::NoLake | Error::NoSuchTable(_) | Error::NoSuchCut(_) | Error::NoBase(_) => {
                ErrorKind::NotFound
            }
            Error::Expired { .. } => ErrorKind::Gap,
            Error::AmbiguousTable(_)
            | Error::NoSuchColumn { .. }
            | Error::BadCondition { .. }
            | Error::BadRequest(_)
            | Error::Syntax(_)
            | Error::Refused { .. }
            | Error::Unplannable(_)
            | Error::Evaluation(_) => ErrorKind::Invalid,
            Error::OutOfMemory | Error::QueryTimeout { .. } | Error::WaitTimeout { .. } => {
                ErrorKind::Transient
            }
            Error::Manifest(source) => source.kind(),
            Error::Iceberg(source) => source.kind(),
            Error::DataFile { .. } => ErrorKind::Corrupt,
            Error::Engine { .. } => ErrorKind::Internal,
        }
    }

    /// Sorts an error of the engine by who can mend it. `operation` is `plan` or `run`.
    ///
    /// The texts kept are about the caller's own SQL over columns he sees; everything else stays in
    /// the source, which only the log prints.
    pub(crate) fn engine(operation: &'static str, error: DataFusionError) -> Error {
        if let Some(ours) = own(&error) {
            return ours;
        }
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => Error::OutOfMemory,
            DataFusionError::SQL(parse, _) => Error::Syntax(first_line(parse)),
            DataFusionError::SchemaError(schema, _) => Error::Unplannable(first_line(schema)),
            DataFusionError::Plan(text) | DataFusionError::NotImplemented(text) => {
                Error::Unplannable(first_line(text))
            }
            DataFusionError::ArrowError(arrow, _) if operation == "run" => {
                Error::Evaluation(first_line(arrow))
            }
            DataFusionError::Execution(text) if operation == "run" => {
                Error::Evaluation(first_line(text))
            }
            _ => Error::Engine { operation, source: error },
        }
    }
}

/// An error of ours that travelled through the engine as `DataFusionError::External`.
fn own(error: &DataFusionError) -> Option<Error> {
    let DataFusionError::External(source) = error.find_root() else { return None };
    let carried = source.downcast_ref::<Carried>()?;
    carried.0.lock().ok()?.take()
}

/// Takes an error of ours through the engine; it is taken out again by [`Error::engine`].
#[derive(Debug, thiserror::Error)]
#[error("error of the lake")]
struct Carried(std::sync::Mutex<Option<Error>>);

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        DataFusionError::External(Box::new(Carried(std::sync::Mutex::new(Some(error)))))
    }
}

fn first_line(text: impl std::fmt::Display) -> String {
    let text = text.to_string();
    text.lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}
