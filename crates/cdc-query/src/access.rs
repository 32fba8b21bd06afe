//! What a caller may see of a table: the decision without which nothing is scanned.

use cdc_core::TableName;

/// The decision about one table for one caller and request, the required argument of every scan.
///
/// Today the only decision is full access, made where no governance is configured. The policy
/// engine will make the others (visible columns, row filters, masks, end of validity) and will then
/// be the only maker; a table for which it gives no `TableAccess` does not exist for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableAccess {
    table: TableName,
    policy_version: i64,
}

impl TableAccess {
    /// Every column and row, unmasked, changes included. For deployments without governance.
    pub fn full(table: TableName) -> TableAccess {
        TableAccess { table, policy_version: 1 }
    }

    /// The table it was decided for.
    pub fn table(&self) -> &TableName {
        &self.table
    }

    /// The policy version it was decided under; 1 without a registry.
    pub fn policy_version(&self) -> i64 {
        self.policy_version
    }

    /// Whether the column of this field id is visible.
    pub fn shows(&self, _field_id: i32) -> bool {
        true
    }
}
