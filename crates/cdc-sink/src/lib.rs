//! Changes to Parquet: buffers, encoding, key index, TOAST carry-over, delta and base files.

mod base;
mod body;
mod buffer;
mod chunk;
mod columns;
mod delta;
mod encoded;
mod encoding;
mod error;
mod fetch;
pub mod index;
mod rebuild;
mod rows;

pub use base::{BaseOptions, BaseStep, BaseTarget, BaseWriter, IndexedRows, PartNumbers};
pub use body::Body;
pub use buffer::ChangeBuffer;
pub use chunk::{Chunk, CommitRun};
pub use delta::{DeltaContext, DeltaOptions, DeltaOutput, DeltaWriter, OpCounts, index_identity};
pub use encoded::{EncodedFile, UPLOAD_PART_BYTES};
pub use encoding::FileCompression;
pub use error::{Error, Result};
pub use rebuild::{RebuildFile, rebuild_index};
pub use rows::{CHUNK_BYTES_MAX, CHUNK_ROWS_MAX, RowBuilder};
