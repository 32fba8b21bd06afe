//! Tables through their public API: what manifests hold, how commits end, what readers find.

#![expect(clippy::unwrap_used, reason = "a failed test should panic, in helpers too")]

mod branches;
mod catalogs;
mod commits;
mod outcomes;
mod reading;
mod sample;
mod schemas;
mod vectors;
