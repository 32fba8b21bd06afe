//! Whether the source is ready, before anything is made on it: one check per requirement, each
//! with what to do about it in the words of whoever runs the server.
//!
//! Two probes read what is needed; the checks are pure functions of them and of the discovered
//! tables.

mod objects;
mod probe;
mod remedy;
mod report;
mod server;
mod tables;

use cdc_core::{SourceTable, TypePolicy};

pub use report::{Check, CheckStatus, PreflightReport};

use crate::control::Control;
use crate::error::Result;

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
    /// SQL sessions that are needed at once, for COPY and control.
    pub sessions: u32,
    /// How types map, for the report of types.
    pub types: TypePolicy,
}

impl Control {
    /// Checks everything of the source that init and the stream rely on, and changes nothing.
    ///
    /// # Errors
    /// Only if the source cannot be asked; what is wrong with it is in the report.
    pub async fn preflight(&self, want: &Want) -> Result<PreflightReport> {
        let facts = self.facts().await?;
        let probe = probe::server(self).await?;
        let relations = probe::relations(self, &want.tables).await?;
        let publication = self.publication(&want.publication).await?;
        let slot = self.slot(&want.slot).await?;
        let oldest = self.oldest_writer().await?;
        let mut checks = server::checks(&facts, &probe, want, slot.is_some());
        checks.push(objects::slot(&want.slot, slot.as_ref(), &facts));
        checks.extend(objects::publication(want, publication.as_ref(), &probe, &relations, &facts));
        checks.push(objects::open_transactions(oldest.as_ref()));
        checks.extend(tables::checks(want, &relations, &facts));
        Ok(PreflightReport { checks })
    }
}
