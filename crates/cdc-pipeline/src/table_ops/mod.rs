//! Table operations on a running daemon: add, resync, pause, resume and remove, while all other tables
//! go on.
//!
//! ```text
//! pgcdc table resync t ──control──> ingest loop ── flush ──> manifest: resyncing ──> copy task
//!   stream ─────────────────────────> deferred changes <── planned, go ────────────── │ schema
//!                                     │                                               │ slot, snapshot at L
//!                                     │                                               │ COPY, base files
//!                                     │ <───────────────────────── copied at L ────── │ Iceberg, key index
//!   everything below L has come ────> lane: the deferred changes above L
//!   next flush: base at L and the changes above L in one cut ──> manifest: streaming
//! ```
//! The state of a table is in the manifest and nowhere else. A copy belongs to its session: what ends
//! the session ends the copy, and the next session begins it anew because the manifest names it. A
//! daemon that is not running is no other case: the command writes the state, the next start copies.

mod command;
mod copies;
mod copy;
mod deferred;
mod form;
mod handover;
mod publish;
#[cfg(test)]
mod state_tests;
mod transition;

pub use command::{TableChanged, TableOpSettings, change_table};
pub(crate) use copies::{Copies, CopyEvent, CopyNews, Planned};
pub(crate) use copy::{Copied, CopyContext};
pub(crate) use deferred::Deferred;
pub(crate) use handover::Handover;
pub use transition::TableAction;
pub(crate) use transition::{StateChange, Transition, to_copy};
