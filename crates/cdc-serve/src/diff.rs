//! The comparison of two cuts, as the caller may see them.

use cdc_core::TableName;
use cdc_manifest::{ContractDiff, Cut, CutSpec};

use crate::Result;
use crate::caller::{Caller, Decisions};
use crate::evidence::Evidence;
use crate::plane::{CutRequest, ReadPlane};

/// A comparison and what is to be said of the cut compared to.
#[derive(Clone, Debug)]
pub struct DiffAnswer {
    /// The comparison.
    pub diff: ContractDiff,
    /// Of the cut compared to.
    pub evidence: Evidence,
}

impl ReadPlane {
    /// What changes from one ref to another in the tables that the caller may see.
    ///
    /// # Errors
    /// [`cdc_query::Error::NoSuchCut`] for a ref that does not exist or was pruned; see
    /// [`crate::Error::code`].
    pub async fn diff(&self, caller: &Caller, from: &str, to: &str) -> Result<DiffAnswer> {
        let manifest = self.manifest().await?;
        let decisions = self.policy().decide(caller, &manifest)?;
        let at = |name: &str| CutRequest { at: CutSpec::of_ref(name), ..CutRequest::default() };
        let before = visible_part(self.cut(&at(from)).await?, &decisions);
        let after = visible_part(self.cut(&at(to)).await?, &decisions);
        let diff = ContractDiff::between((from, &before), (to, &after));
        let tables: Vec<TableName> = after.tables.keys().cloned().collect();
        let evidence = self.evidence(&after, &tables, caller).await?;
        Ok(DiffAnswer { diff, evidence })
    }
}

/// The cut as the caller may see it: hidden tables and columns are absent, as if they were not there.
fn visible_part(mut cut: Cut, decisions: &Decisions<'_>) -> Cut {
    cut.tables.retain(|table, _| decisions.access(table).is_some());
    for (table, entry) in &mut cut.tables {
        if let (Some(columns), Some(visible)) = (&mut entry.columns, decisions.columns(table)) {
            columns.retain(|column| visible.contains(&column.name));
        }
    }
    cut
}
