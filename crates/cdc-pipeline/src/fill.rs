//! Older rows get the constant that a new column has on the source: all live rows of the table are
//! written anew under its next schema.
//!
//! ```text
//! nothing of the table is open ─> live rows + constants ─> base files, uploaded
//!   ─> t: schema and files in one commit ─> t__changes: the schema ─> key index told
//!   ─> manifest, with the next epoch
//! ```
//! The stream waits, so rows of before and rows behind it cannot mix. The one commit is all that a crash
//! can leave: without it everything is done again, with it the table says under which schema all its
//! rows are, and the next session goes on from there.

use std::sync::Arc;
use std::time::Instant;

use cdc_core::{FieldId, TableSchema, UnrepresentablePolicy, failpoint};
use cdc_iceberg::{CommitKind, NewSchema, TableChange};
use cdc_manifest::schema_record;
use cdc_sink::Constants;
use cdc_sink::index::IdentityHasher;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::commit::CommitState;
use crate::compact::{Moved, Rewrite, Workshop};
use crate::evolve::Fill;
use crate::flush::{Done, reconciled, tell_reconciled};

/// A table whose older rows get values.
#[derive(Clone, Debug)]
pub(crate) struct Filling {
    /// What it becomes.
    pub(crate) schema: Arc<TableSchema>,
    pub(crate) constants: Constants,
    /// Whether rows are told apart as before, so that the key index can be told where they went.
    pub(crate) keeps_index: bool,
    /// The hasher of that index, if there is one.
    pub(crate) hasher: Option<IdentityHasher>,
    /// Free directories that are left out.
    pub(crate) attempts_skipped: u32,
}

impl Filling {
    /// Decodes the constants. A column whose constant the policy replaces is lossy from here on.
    pub(crate) fn of(
        mut schema: TableSchema,
        fills: &[Fill],
        policy: UnrepresentablePolicy,
    ) -> Result<Filling, Error> {
        let texts: Vec<(FieldId, &str)> =
            fills.iter().map(|fill| (fill.column, fill.text.as_str())).collect();
        let constants = Constants::parse(&schema, &texts, policy)?;
        for column in &mut schema.columns {
            if constants.lossy().contains(&column.name) {
                let (table, column_name) = (&schema.table, &column.name);
                tracing::warn!(%table, column = column_name, "values replaced as declared");
                column.lossy = true;
            }
        }
        let schema = Arc::new(schema);
        Ok(Filling { schema, constants, keeps_index: false, hasher: None, attempts_skipped: 0 })
    }
}

/// Does it. A table without any snapshot has no row, and is left as it is.
pub(crate) async fn fill(
    state: &mut CommitState,
    workshop: &Workshop,
    filling: Filling,
    stop: &CancellationToken,
) -> Result<Done, Error> {
    let began = Instant::now();
    let table = filling.schema.table.clone();
    let done = Done::with(state.receipt());
    let Some(job) = workshop.filling(state, &filling, stop) else { return Ok(done) };
    tracing::info!(%table, version = filling.schema.version, "filling older rows");
    let prepared = job.run().await?;
    let prepared = prepared.ok_or_else(|| Error::FillStopped { table: table.clone() })?;
    let Some(rewrite) = prepared.rewrite else { return Ok(done) };
    let told = reconciled(state, std::slice::from_ref(&filling.schema));
    let (rows, files) = (rewrite.rows, rewrite.data_files.len());
    let moved = state.commit_filled(&filling, rewrite).await?;
    tell_reconciled(state, &told);
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(%table, rows, files, duration_ms, "older rows filled");
    Ok(Done { moved, ..done })
}

impl CommitState {
    /// The table with its next schema and all rows under it, then its changelog with the schema.
    async fn commit_filled(
        &mut self,
        filling: &Filling,
        rewrite: Rewrite,
    ) -> Result<Option<Moved>, Error> {
        let schema = &filling.schema;
        let table = &schema.table;
        self.check_generation().await?;
        self.fence_tables(std::iter::once(table)).await?;
        self.kept.refresh(&self.lake).await;
        if failpoint("d3") {
            return Err(Error::StreamEnded);
        }
        let Some(committed) = self.tables.get(table) else { return Ok(None) };
        let current = &committed.pair.current;
        let record = schema_record(schema)?;
        let change = TableChange {
            retention: self.kept.of_current(table, &self.manifest.value),
            schema: Some(NewSchema { schema: Arc::clone(schema), record }),
            ..TableChange::replace_all(
                self.standing_stamp(current, CommitKind::Fill),
                self.lake.branch,
                rewrite.data_files,
            )
        };
        let outcome = self.lake.tables.commit(current, &change).await;
        let current = match self.settle(table, outcome).await {
            Err(Error::ForeignCommit { table, .. }) => {
                self.lake.meters.foreign_commit(&table);
                return Err(Error::TableMoved { table });
            }
            settled => settled?,
        };
        if failpoint("d4") {
            return Err(Error::OutcomeUnknown { table: table.clone() });
        }
        if let Some(committed) = self.tables.get_mut(table) {
            committed.pair.current = current;
            committed.schema = Arc::clone(schema);
            committed.ahead = None;
        }
        let changes = self.evolve_changelog(schema).await?;
        if failpoint("d5") {
            return Err(Error::StreamEnded);
        }
        if let Some(committed) = self.tables.get_mut(table) {
            committed.pair.changes = changes;
        }
        let patch = Some(rewrite.patch).filter(|_| rewrite.is_patch_whole);
        let moved = Moved { table: table.clone(), patch, removed: Vec::new() };
        Ok(filling.keeps_index.then_some(moved))
    }
}
