//! Compaction: small files and files with many deletes become sorted base files, beside the stream.
//!
//! ```text
//! background   snapshot S: live files, deletes ─> which files ─> rewrite ─> new files, uploaded
//! commit owner flush boundary: rows deleted since S ─> where they are now ─> one replace commit
//!              ─> manifest ─> key index told ─> lane goes on
//! ```
//! The rewrite holds nobody up and commits nothing. Only the owner of the commits, between two
//! flushes, puts the new files in the place of the old ones; no delete can come between, because the
//! table's encoder waits for that commit as it waits for a flush. A rewrite whose files are gone by
//! then, by a truncate or by somebody else, is dropped.

mod command;
mod compactor;
mod prepare;
mod remap;
mod replace;
mod report;
mod select;
mod settings;

pub(crate) use command::clear_patches;
pub use command::{CompactRequest, compact};
pub(crate) use compactor::{Compactor, Finish, Order, RunState, Step, Workshop};
pub(crate) use prepare::Rewrite;
pub(crate) use replace::{Finished, Moved};
pub use report::{CompactReport, TableOutcome, TableResult};
pub use settings::{CompactSettings, CompactionSettings};
