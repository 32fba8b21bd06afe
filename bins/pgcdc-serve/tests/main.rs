//! The real binary over a lake on disk: what it prints, and how it ends.

#![expect(clippy::unwrap_used, reason = "a failed test should panic, in helpers too")]

#[path = "../../../crates/cdc-query/tests/lake/mod.rs"]
#[expect(dead_code, reason = "the tests of cdc-query use more of it")]
mod lake;

mod answers;
mod failures;
mod formats;
mod shop;
