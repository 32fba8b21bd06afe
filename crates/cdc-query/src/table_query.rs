//! A structured request over one table: columns, conditions, order, limit.

use std::str::FromStr;

use datafusion::common::Column;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{Expr, SortExpr};

use crate::condition::Condition;
use crate::table::GovernedTable;
use crate::{Error, Result};

/// What of a table is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableQuery {
    /// Columns in order of the answer; empty is all.
    pub columns: Vec<String>,
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// Sort keys, the first decides first.
    pub order_by: Vec<OrderKey>,
    /// Rows at most.
    pub limit: usize,
}

impl Default for TableQuery {
    fn default() -> Self {
        Self { columns: Vec::new(), conditions: Vec::new(), order_by: Vec::new(), limit: 100 }
    }
}

/// A sort key; NULLs come last ascending and first descending, as in PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderKey {
    /// Column.
    pub column: String,
    /// Greatest first.
    pub descending: bool,
}

impl FromStr for OrderKey {
    type Err = Error;

    /// `column`, or `-column` for descending.
    fn from_str(text: &str) -> Result<Self> {
        let (descending, column) = match text.strip_prefix('-') {
            Some(column) => (true, column),
            None => (false, text),
        };
        if column.is_empty() {
            return Err(Error::BadRequest("order-by has an empty column name".into()));
        }
        Ok(OrderKey { column: column.to_owned(), descending })
    }
}

impl TableQuery {
    /// Puts the request on a scan of `table`. Yields one row more than the limit where there is one.
    pub(crate) fn build(&self, table: &GovernedTable, scan: DataFrame) -> Result<DataFrame> {
        let engine = |error| Error::engine("plan", error);
        let mut frame = scan;
        for condition in &self.conditions {
            let column = table.column(&condition.column)?;
            let filter = condition.to_expr(named(&column.name), &column.stored)?;
            frame = frame.filter(filter).map_err(engine)?;
        }
        if !self.order_by.is_empty() {
            let key = |key: &OrderKey| {
                let column = table.column(&key.column)?;
                let nulls_first = key.descending;
                Ok(SortExpr::new(named(&column.name), !key.descending, nulls_first))
            };
            let keys = self.order_by.iter().map(key).collect::<Result<Vec<_>>>()?;
            frame = frame.sort(keys).map_err(engine)?;
        }
        frame = frame.limit(0, Some(self.limit.saturating_add(1))).map_err(engine)?;
        if self.columns.is_empty() {
            return Ok(frame);
        }
        let column = |name: &String| table.column(name).map(|column| named(&column.name));
        let columns = self.columns.iter().map(column).collect::<Result<Vec<_>>>()?;
        frame.select(columns).map_err(engine)
    }
}

/// A column by its exact name: no case folding, no dots taken for qualifiers.
pub(crate) fn named(column: &str) -> Expr {
    Expr::Column(Column::from_name(column))
}
