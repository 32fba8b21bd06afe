//! The changelog of a table: every version of every row, in the order of its commits.

use cdc_core::{Epoch, meta};
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{SortExpr, lit};

use crate::table::GovernedTable;
use crate::table_query::{TableQuery, named};
use crate::{Error, Result};

/// The metadata columns that stand in front of the table's own.
const LEADING: [meta::MetaColumn; 5] =
    [meta::OP, meta::EPOCH, meta::COMMIT_LSN, meta::COMMIT_TS, meta::SEQ];
/// The metadata columns that stand behind them.
const TRAILING: [meta::MetaColumn; 3] = [meta::XID, meta::LSN, meta::TOAST_UNCHANGED];

/// Rows of the epochs behind `since`, ordered unless the request has an order of its own.
///
/// Without columns in the request: `__op, __epoch, __commit_lsn, __commit_ts, __seq`, the table's
/// columns, `__xid, __lsn, __toast_unchanged`. With columns: the first five and those.
pub(crate) fn build(
    table: &GovernedTable,
    scan: DataFrame,
    since: Epoch,
    query: &TableQuery,
) -> Result<DataFrame> {
    let engine = |error| Error::engine("plan", error);
    let since = i64::try_from(since.0).unwrap_or(i64::MAX);
    let mut frame = scan.filter(named(meta::EPOCH.name).gt(lit(since))).map_err(engine)?;
    let mut query = query.clone();
    query.columns = columns(table, &query.columns);
    if query.order_by.is_empty() {
        // the sort of the request below keeps this order, having no keys of its own
        let key = |column: meta::MetaColumn| SortExpr::new(named(column.name), true, false);
        let keys = [meta::EPOCH, meta::COMMIT_LSN, meta::XID, meta::SEQ].map(key).to_vec();
        for condition in std::mem::take(&mut query.conditions) {
            let column = table.column(&condition.column)?;
            let filter = condition.to_expr(named(&column.name), &column.stored)?;
            frame = frame.filter(filter).map_err(engine)?;
        }
        frame = frame.sort(keys).map_err(engine)?;
    }
    query.build(table, frame)
}

fn columns(table: &GovernedTable, wanted: &[String]) -> Vec<String> {
    let is_meta = |name: &str| meta::DELTA_COLUMNS.iter().any(|column| column.name == name);
    let own = table.columns().iter().map(|column| column.name.as_str());
    let own: Vec<&str> = own.filter(|name| !is_meta(name)).collect();
    let leading = LEADING.iter().map(|column| column.name);
    let names: Vec<&str> = if wanted.is_empty() {
        leading.chain(own).chain(TRAILING.iter().map(|column| column.name)).collect()
    } else {
        let is_leading = |name: &&str| LEADING.iter().any(|column| column.name == *name);
        let wanted = wanted.iter().map(String::as_str).filter(|name| !is_leading(name));
        leading.chain(wanted).collect()
    };
    names.into_iter().map(str::to_owned).collect()
}
