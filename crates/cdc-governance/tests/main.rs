//! This crate through its public interface.

mod conformance;
mod filters;
mod laws;
mod registry_file;
mod table_rules;
mod world;
