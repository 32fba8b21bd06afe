//! Tests of the crate through its public interface; one binary so that it links once.

mod conformance;
mod fixtures;
mod kill;
mod lake;
mod manifest_store;
mod odd_names;
mod refs;
