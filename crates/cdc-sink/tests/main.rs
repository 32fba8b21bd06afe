//! What the crate promises, through its public interface and read back with the parquet crate.

#![expect(clippy::unwrap_used, reason = "a failed test should panic, in helpers too")]

mod base;
mod carry;
mod chunks;
mod model;
mod rewrite;
mod support;
mod values;
