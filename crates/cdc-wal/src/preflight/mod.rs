//! Whether the source is ready, before anything is made on it: one check per requirement, each
//! with what to do about it in the words of whoever runs the server.

mod report;

pub use report::{Check, CheckStatus, PreflightReport};

use cdc_core::{SourceTable, TypePolicy};

/// What the deployment wants of the source.
#[derive(Clone, Debug)]
pub struct Want {
    /// The tables to replicate, as discovered and decided by the configuration. Those that cannot
    /// be replicated may be among them: they are warned of, and left out by init.
    pub tables: Vec<SourceTable>,
    /// Publication.
    pub publication: String,
    /// Slot.
    pub slot: String,
    /// Whether a failover slot is asked for by the configuration.
    pub failover: bool,
    /// Whether logins use IAM tokens.
    pub iam_auth: bool,
    /// Sessions that COPY and control need at once.
    pub sessions: u32,
    /// How types map, for the report of types.
    pub types: TypePolicy,
}
