//! What a caller may see of a table: the decision without which nothing is scanned.

use std::collections::BTreeSet;

use cdc_core::{FieldId, TableName};

/// The decision about one table for one caller and request, the required argument of every scan.
///
/// Today there are two: everything, and a set of columns. The policy engine will add row filters,
/// masks and an end of validity and will then be the only maker. A table without a visible column
/// has no `TableAccess`: it does not exist for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableAccess {
    table: TableName,
    columns: Columns,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Columns {
    All,
    Only(BTreeSet<FieldId>),
}

impl TableAccess {
    /// Every column and row, unmasked, changes included.
    pub fn full(table: TableName) -> TableAccess {
        TableAccess { table, columns: Columns::All }
    }

    /// Every row of these columns; `None` without any.
    pub fn of_columns(
        table: TableName,
        columns: impl IntoIterator<Item = FieldId>,
    ) -> Option<TableAccess> {
        let columns: BTreeSet<FieldId> = columns.into_iter().collect();
        let visible = !columns.is_empty();
        visible.then_some(TableAccess { table, columns: Columns::Only(columns) })
    }

    /// The table it was decided for.
    pub fn table(&self) -> &TableName {
        &self.table
    }

    /// Whether the column is visible. Metadata columns belong to the row, not to the source table,
    /// and are visible wherever the table is.
    pub fn shows(&self, column: FieldId) -> bool {
        match &self.columns {
            Columns::All => true,
            Columns::Only(visible) => column < FieldId::FIRST_USER || visible.contains(&column),
        }
    }
}
