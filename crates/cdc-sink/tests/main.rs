//! What the crate promises, through its public interface and read back with the parquet crate.

mod base;
mod carry;
mod model;
mod support;
mod values;
