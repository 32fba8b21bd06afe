//! The suite that every backend runs. A test bears the id of its case in docs/governance.md.

mod break_glass;
mod lifecycle;
mod model;
mod reconcile;
