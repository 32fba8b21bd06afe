//! The Iceberg tables of a lake.
//!
//! Each source table has two: `t`, the current state, and `t__changes`, all versions of all rows.
//! Both name the same delta files; `t` hides superseded rows by position deletes or deletion vectors.
//! [`Committer`] is the type to know: it creates the pair and commits flushes, one snapshot per table
//! and flush.
//!
//! ```
//! use std::sync::Arc;
//!
//! use cdc_core::{Epoch, Identity, LakeLocation, Lsn, FieldId, SystemClock, TableName, TableSchema};
//! use cdc_iceberg::{
//!     Branch, CommitKind, Committer, DeleteEncoding, FlushChange, InitialContent, LakeFiles,
//!     MemoryCatalog, Remove, Stamp, TableNaming, TableSpec,
//! };
//! use object_store::memory::InMemory;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> cdc_iceberg::Result<()> {
//! let files = LakeFiles::new(Arc::new(InMemory::new()), LakeLocation::from_uri("mem://lake"));
//! let committer =
//!     Committer::new(files, Arc::new(MemoryCatalog::new()), Arc::new(SystemClock));
//! let schema = TableSchema {
//!     table: TableName::new("public", "orders"),
//!     version: 1,
//!     columns: Vec::new(),
//!     identity: Identity::Full,
//!     next_field_id: FieldId::FIRST_USER,
//!     omitted: Vec::new(),
//! };
//! let spec = TableSpec {
//!     schema: &schema,
//!     namespace: "lake",
//!     naming: TableNaming::Bare,
//!     lake_id: "example",
//!     codec: "zstd",
//!     generation: 1,
//!     deletes: DeleteEncoding::Position,
//! };
//! let init = Stamp {
//!     kind: CommitKind::Init,
//!     epoch: Epoch(0),
//!     lsn_from: Lsn(0),
//!     lsn_to: Lsn(100),
//!     commit_ts: None,
//!     batch_id: uuid::Uuid::new_v4(),
//!     generation: 1,
//! };
//! let flush = Stamp { kind: CommitKind::Flush, epoch: Epoch(1), lsn_to: Lsn(200), ..init.clone() };
//! let content =
//!     InitialContent { stamp: init, branch: Branch::Main, base_files: Vec::new() };
//! let pair = committer.create_tables(&spec, &content).await?;
//! let outcome = committer
//!     .commit_flush(
//!         &pair,
//!         FlushChange {
//!             stamp: Stamp { batch_id: uuid::Uuid::new_v4(), ..flush },
//!             branch: Branch::Main,
//!             current_files: Vec::new(),
//!             delete_files: Vec::new(),
//!             remove: Remove::Nothing,
//!             changes_files: Vec::new(),
//!         },
//!     )
//!     .await?;
//! let pair = outcome.into_pair().expect("nobody else commits");
//! assert_eq!(pair.current.newest_lsn_to(Branch::Main), Some(Lsn(200)));
//! # Ok(())
//! # }
//! ```

mod arrow_schema;
mod avro;
mod catalog;
mod change;
mod commit;
mod create;
mod deleted_rows;
mod deletes;
mod encoding;
mod error;
mod expire;
mod first_metadata;
mod ident;
mod lake_files;
mod live;
mod manifest_cache;
mod memory;
mod read_view;
mod references;
mod row_set;
mod schema;
mod snapshot;
mod sqlite;
mod stamp;
mod stats;
mod summary;
mod table;
mod vector;
mod vectors;

pub use arrow_schema::{arrow_type, base_arrow_schema, delta_arrow_schema};
pub use catalog::{Catalog, CreateOutcome, SwapOutcome};
pub use change::{
    CommitOutcome, Conflict, EntryRef, FlushChange, NewSchema, Remove, TableChange, Unresolved,
};
pub use commit::{Committer, FlushOutcome};
pub use create::InitialContent;
pub use deleted_rows::{DeletedRows, load_deleted_rows};
pub use deletes::{PositionDeletes, load_position_deletes, write_position_deletes};
pub use encoding::DeleteEncoding;
pub use error::{Error, Result};
pub use expire::{Expired, Retention};
pub use first_metadata::{LAKE_PROPERTY, SOURCE_PROPERTY, TableSpec};
pub use iceberg::spec::{DataFile, TableMetadata};
pub use ident::{CHANGES_SUFFIX, TableIdent, TableNaming};
pub use lake_files::LakeFiles;
pub use live::{BlobRange, DeleteFile, LiveFile, LiveFiles, live_deletes, live_files};
pub use memory::MemoryCatalog;
pub use read_view::{BoundValue, ColumnBounds, ReadColumn, column_bounds, read_columns};
pub use references::{OfSnapshots, referenced_files};
pub use row_set::RowSet;
pub use schema::{changes_schema, current_schema, iceberg_type};
pub use sqlite::{CATALOG_NAME, SqliteCatalog};
pub use stamp::{CommitKind, Stamp, ancestry, find_batch, newest_lsn_to};
pub use stats::data_file_from_parquet;
pub use table::{Branch, Table, TablePair};
pub use vectors::{DeletionVectors, write_deletion_vectors};
