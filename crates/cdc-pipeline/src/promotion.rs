//! What a change of `promotion.mode` does to the branches of the tables.

use cdc_iceberg::{Branch, TablePair};
use cdc_manifest::PromotionMode;
use futures::FutureExt;

use crate::Error;
use crate::commit::{CommitState, point_at};

/// Under automatic promotion nothing waits: commits that a daemon under manual promotion left on
/// `staging` become `main`. Under manual promotion `staging` begins where `main` stands, so there is
/// nothing to do.
pub(crate) async fn adopt_staging(state: &mut CommitState) -> Result<(), Error> {
    if state.lake.promotion() == PromotionMode::Manual {
        return Ok(());
    }
    let this = &*state;
    let is_waiting = |table: &cdc_iceberg::Table| {
        table.metadata.snapshot_for_ref(Branch::Staging.as_str()).is_some()
    };
    let adopting: Vec<_> = this
        .tables
        .iter()
        .filter(|(_, table)| is_waiting(&table.pair.current) || is_waiting(&table.pair.changes))
        .map(|(name, table)| {
            async move {
                let current = this.lake.tables.adopt_staging(&table.pair.current).await;
                let current = this.settle(name, current).await?;
                let changes = this.lake.tables.adopt_staging(&table.pair.changes).await;
                let changes = this.settle(name, changes).await?;
                tracing::info!(table = %name, "staging became main");
                Ok((name.clone(), TablePair { current, changes }))
            }
            .boxed()
        })
        .collect();
    if adopting.is_empty() {
        return Ok(());
    }
    let adopted = state.side_by_side(adopting).await;
    state.keep(adopted)?;
    // the manifest names the metadata in which `main` stands there
    let mut next = state.manifest.value.clone();
    for (name, table) in &state.tables {
        if let Some(entry) = next.tables.get_mut(name)
            && entry.snapshot_id == table.head_id()
        {
            point_at(entry, &table.pair, table.branch);
        }
    }
    next.updated_at = state.lake.clock.now();
    state.swap_manifest(next).await
}
