//! The replication slot: created together with the snapshot that it continues, looked at, dropped.

mod create;
mod state;

pub use create::{SlotSnapshot, SlotSpec, SnapshotLease};
pub use state::{SlotState, WalStatus};
