//! The audit trail: one JSON line per event, each holding the hash of the one before, so that a line
//! that was changed, removed or put in shows.

mod chain;
mod log;
mod record;
mod verify;

pub(crate) use chain::{Head, follow, seal};
pub use log::AuditLog;
pub(crate) use record::timestamp;
pub use record::{AuditRecord, Decision, Event, Phase, Surface};
pub use verify::{ChainReport, verify_chain};
