//! Changes to Parquet: buffers, encoding, key index, TOAST carry-over, delta and base files.

mod buffer;
mod chunk;
mod columns;
mod error;
pub mod index;
mod rows;

pub use buffer::ChangeBuffer;
pub use chunk::{Chunk, CommitRun};
pub use error::{Error, Result};
pub use rows::{CHUNK_BYTES_MAX, CHUNK_ROWS_MAX, RowBuilder};
