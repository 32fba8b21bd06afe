//! The encode side of a table's lane: chunks to delta files, and what they supersede.
//!
//! ```text
//! begin_epoch -> append(chunk) … -> finish_epoch = DeltaOutput -> upload, publish, manifest commit
//!                    |   hashes -> key index -> deletes               |
//!                    |   unchanged values -> carried over             +-> committed(stamp)
//!                    +-> row groups, encoded, `__commit_lsn` later     or abandon()
//! ```

mod assemble;
mod carry;
mod file;
mod group;
mod live;
mod output;
mod track;
mod writer;

pub use file::DeltaOptions;
pub use output::{DeltaOutput, OpCounts};
pub(crate) use track::identity_columns;
pub use track::index_identity;
pub use writer::{DeltaContext, DeltaWriter};
