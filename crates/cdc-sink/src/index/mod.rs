//! The key index: where the live versions of a row are, by a hash of the row's identity.
//!
//! ```text
//! insert            -> apply(adds)                       nothing is looked up
//! update, delete    -> lookup_many(hashes) -> position deletes -> apply(adds, removes)
//! after the commit  -> commit(stamp)                     index.json names runs and stamp
//! start             -> open(dir, stamp): Ready, Stale, Absent; then catch up or rebuild
//! ```
//!
//! It is local, rebuildable from the key columns of the live files, and bounded in memory: sorted
//! immutable runs on disk with sparse fences in memory, merged so that each run is at least four
//! times as large as all newer ones together. A damaged or outdated index is never read: every
//! block carries a checksum, and the stamp says for which snapshot of the table the index is right.

mod builder;
mod cursor;
mod file_ref;
mod hasher;
mod key_index;
mod merge;
mod patch;
mod record;
mod run;
mod sorter;
mod stamp;

pub use builder::IndexBuilder;
pub use file_ref::FileRef;
pub use hasher::IdentityHasher;
pub use key_index::{IndexOptions, KeyIndex, Lookups, Opened};
pub use patch::{IndexPatch, IndexPatchBuilder};
pub use record::{Position, Record};
pub use stamp::IndexStamp;

#[cfg(test)]
mod model_tests;
