//! Tests of the crate through its public interface; one binary so that it links once.

#![expect(clippy::unwrap_used, reason = "a failed test should panic, in helpers too")]

mod conformance;
mod failing;
mod fixtures;
mod kill;
mod lake;
mod manifest_store;
mod merging;
mod odd_names;
mod refs;
mod remote;
mod weed;
