//! Base files: the rows of a snapshot, sorted by identity as far as memory allows.
//!
//! ```text
//! COPY text -> RowBuilder -> batch ->  BaseWriter: gather a run, sort it, encode   -> files
//!              (receiving thread)      (its own thread; several per table)         -> index records
//! ```

pub(crate) mod sort;
mod writer;

pub use writer::{BaseOptions, BaseStep, BaseTarget, BaseWriter, IndexedRows, PartNumbers};
