//! The audit trail: one JSON line per event, each holding the hash of the one before, so that a line
//! that was changed, removed or put in shows.

mod log;
mod record;
mod verify;

pub use log::AuditLog;
pub use record::{AuditRecord, Decision, Event, Phase, Surface};
pub use verify::{ChainReport, verify_chain};

/// What the first record of a chain names as the hash before it.
pub(crate) const FIRST_PREVIOUS: &str = "";

/// The hash of a record as text: the canonical line without its own `hash`.
pub(crate) fn hash_of(canonical: &str) -> String {
    format!("b3:{}", blake3::hash(canonical.as_bytes()).to_hex())
}
