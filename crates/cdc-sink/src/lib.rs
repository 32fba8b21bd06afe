//! Changes to Parquet: buffers, encoding, key index, TOAST carry-over, delta and base files.
//!
//! The type to know is [`DeltaWriter`]: it makes the delta files of a table's epoch and says which
//! older rows they supersede. It is fed by a [`ChangeBuffer`], which turns PostgreSQL's cells into
//! columns; [`RowBuilder`] and [`BaseWriter`] do the same for a snapshot.
//!
//! ```text
//! RowChange -> ChangeBuffer -> Chunk -> DeltaWriter -> DeltaOutput { files, deletes, truncate }
//!              (ingest loop)            (blocking)      upload, publish, commit -> committed()
//! cells     -> RowBuilder   -> batch -> BaseWriter  -> files, index records
//! ```
//!
//! ```
//! use std::sync::Arc;
//! use cdc_core::*;
//! use cdc_manifest::{LakeStore, StorageSpec};
//! use cdc_sink::index::{IndexBuilder, IndexOptions, IndexStamp};
//! use cdc_sink::{ChangeBuffer, DeltaContext, DeltaOptions, DeltaWriter, index_identity};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let column = Column { name: "id".into(), field_id: FieldId(100), element_id: None, attnum: 1,
//! #     pg_type: PgType::base(oid::INT8, "bigint"), stored: StoredType::Int64, nullable: false,
//! #     lossy: false };
//! # let schema = Arc::new(TableSchema { table: TableName::new("public", "t"), version: 1,
//! #     columns: vec![column], identity: Identity::PrimaryKey(vec!["id".into()]),
//! #     next_field_id: FieldId(101), omitted: vec![] });
//! # let dir = tempfile::tempdir()?;
//! # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
//! # let lake = LakeStore::open(&StorageSpec::Memory)?;
//! # let stamp = |epoch| IndexStamp { lake_id: "l".into(), identity: index_identity(&schema),
//! #     snapshot_id: None, lsn_to: Lsn(0), epoch };
//! let index = IndexBuilder::create(dir.path(), IndexOptions::default())?.finish(stamp(Epoch(0)))?;
//! let context =
//!     DeltaContext { table: schema.table.clone(), lake: lake.clone(), runtime: runtime.handle().clone() };
//! let mut writer = DeltaWriter::new(index, context, DeltaOptions::default());
//! let mut buffer = ChangeBuffer::new(schema.clone(), UnrepresentablePolicy::Error);
//!
//! let at = ChangePosition { lsn: Lsn(10), commit_micros: 0, xid: 7, seq: 0 };
//! buffer.push(&RowChange::Insert { new: &[Cell::Text(b"1")] }, &at, Epoch(1))?;
//! buffer.commit(Lsn(20));
//!
//! writer.begin_epoch(Epoch(1), 0)?;
//! writer.append(buffer.take_chunk()?)?;
//! let output = writer.finish_epoch()?.expect("a row was appended");
//! assert_eq!(output.files[0].key, "public.t/deltas/epoch=000001.parquet");
//! runtime.block_on(output.upload(&lake))?;
//! writer.committed(stamp(Epoch(1)))?;
//! # Ok(())
//! # }
//! ```

mod base;
mod body;
mod buffer;
mod chunk;
mod columns;
mod constants;
mod delta;
mod encoded;
mod encoding;
mod error;
mod fetch;
mod identities;
pub mod index;
mod rebuild;
mod rewrite;
mod rows;

pub use base::{BaseOptions, BaseStep, BaseTarget, BaseWriter, IndexedRows, PartNumbers};
pub use body::Body;
pub use buffer::ChangeBuffer;
pub use chunk::{Chunk, CommitRun, chunks_after};
pub use constants::Constants;
pub use delta::{DeltaContext, DeltaOptions, DeltaOutput, DeltaWriter, OpCounts, index_identity};
pub use encoded::EncodedFile;
pub use encoding::FileCompression;
pub use error::{Error, Result};
pub use fetch::LakeFile;
pub use identities::read_identities;
pub use rebuild::{RebuildFile, rebuild_index};
pub use rewrite::{NewFile, RewriteInput, RewriteOptions, RewriteSpec, Rewritten, rewrite};
pub use rows::{CHUNK_BYTES_MAX, CHUNK_ROWS_MAX, RowBuilder};
