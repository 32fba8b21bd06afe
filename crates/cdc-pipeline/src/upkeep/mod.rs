//! What keeps a lake small: snapshots that are forgotten, changes past their retention, objects that
//! nobody refers to any more.
//!
//! ```text
//! each commit ─> forgets snapshots in the same step        (kept: newest, parent, named by a ref)
//! each run    ─> changes past retention leave the changelog ─> sweep: unreferenced for the grace ─> gone
//! ```
//! A snapshot or a changelog that lets a file go never removes it. Only the sweep does, by what all
//! tables, refs and the manifest name, and by time.

mod kept;
mod orphans;
mod sightings;
mod tombstones;

pub(crate) use kept::Kept;
pub(crate) use orphans::{Sweep, Swept};
pub(crate) use tombstones::{PurgePlan, plan_purge};
