//! The Iceberg tables of a lake.
//!
//! Each source table has two: `t`, the current state, and `t__changes`, all versions of all rows.
//! Both name the same delta files; `t` hides superseded rows by position deletes. [`Committer`] is
//! the type to know: it creates the pair and commits flushes, one snapshot per table and flush.

mod arrow_schema;
mod avro;
mod catalog;
mod change;
mod commit;
mod create;
mod deletes;
mod error;
mod first_metadata;
mod ident;
mod lake_files;
mod live;
mod memory;
mod read_view;
mod schema;
mod snapshot;
mod sqlite;
mod stamp;
mod stats;
mod summary;
mod table;

pub use arrow_schema::{arrow_type, base_arrow_schema, delta_arrow_schema};
pub use catalog::{Catalog, CreateOutcome, SwapOutcome};
pub use change::{CommitOutcome, Conflict, FlushChange, Remove, TableChange, Unresolved};
pub use commit::{Committer, FlushOutcome};
pub use create::InitialContent;
pub use deletes::{PositionDeletes, load_position_deletes, write_position_deletes};
pub use error::{Error, Result};
pub use first_metadata::TableSpec;
pub use iceberg::spec::{DataFile, TableMetadata};
pub use ident::{CHANGES_SUFFIX, TableIdent, TableNaming};
pub use lake_files::LakeFiles;
pub use live::{DeleteFile, LiveFile, LiveFiles, live_files};
pub use memory::MemoryCatalog;
pub use read_view::{BoundValue, ColumnBounds, ReadColumn, column_bounds, read_columns};
pub use schema::{changes_schema, current_schema, iceberg_type};
pub use sqlite::{CATALOG_NAME, SqliteCatalog};
pub use stamp::{CommitKind, Stamp, ancestry, find_batch, newest_lsn_to};
pub use stats::data_file_from_parquet;
pub use table::{Branch, Table, TablePair};
