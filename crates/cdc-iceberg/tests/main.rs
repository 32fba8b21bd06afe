//! Tables through their public API: what manifests hold, how commits end, what readers find.

mod branches;
mod catalogs;
mod commits;
mod outcomes;
mod reading;
mod sample;
mod schemas;
