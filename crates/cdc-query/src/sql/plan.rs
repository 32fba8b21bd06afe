//! The last gate: a plan holds only operators that compute rows from rows, over governed tables.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::LogicalPlan;

use super::gate::refused;
use crate::table::GovernedTable;
use crate::{Error, Result};

/// Refuses every plan node that is not on the list, subqueries included.
///
/// # Errors
/// [`Error::Refused`] with rule `plan`.
pub(crate) fn check_plan(plan: &LogicalPlan) -> Result<()> {
    let mut found = Ok(());
    let visited = plan.apply_with_subqueries(|node| {
        found = check_node(node);
        Ok(if found.is_ok() { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    found.and(visited.map(|_| ()).map_err(|error| Error::engine("plan", error)))
}

fn check_node(node: &LogicalPlan) -> Result<()> {
    match node {
        LogicalPlan::TableScan(scan) => {
            let governed = source_as_provider(&scan.source)
                .is_ok_and(|provider| provider.as_any().is::<GovernedTable>());
            if governed { Ok(()) } else { refused("plan", "rows come from lake tables only") }
        }
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Distinct(_) => Ok(()),
        _ => refused("plan", "only SELECT is available"),
    }
}
