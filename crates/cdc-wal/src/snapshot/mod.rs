//! The rows of the tables as they were at the slot's consistent point: COPY in text form, in
//! parallel ranges of blocks, all under one exported snapshot.
//!
//! ```text
//! create_slot -> SlotSnapshot{snapshot_name, lease}
//!                     |            plan_copy(tables) -> [CopyJob]
//!                     v                                     |
//!   open_snapshot(name) x workers: SnapshotReader::copy(job) -> CopyRows -> CopyBatch -> &[Cell]
//! ```

mod batch;
mod plan;
mod reader;

pub use batch::CopyBatch;
pub use plan::{BlockRange, CopyJob, CopyPlanOptions, CopyTable, block_ranges};
pub use reader::{CopyRows, SnapshotReader};
