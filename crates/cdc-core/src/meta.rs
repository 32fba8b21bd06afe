//! The metadata columns of delta files and of the changelog: names and field ids.
//!
//! They have field ids of their own and are not in the schema of the current-state table; Iceberg
//! readers resolve columns by id and so ignore them there.

use crate::FieldId;

/// One metadata column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaColumn {
    /// Column name, starting with two underscores.
    pub name: &'static str,
    /// Reserved field id below 100.
    pub field_id: FieldId,
}

/// `I` insert, `U` update, `D` delete, `T` truncate.
pub const OP: MetaColumn = MetaColumn { name: "__op", field_id: FieldId(1) };
/// Epoch number.
pub const EPOCH: MetaColumn = MetaColumn { name: "__epoch", field_id: FieldId(2) };
/// LSN of the change as a signed 64-bit number.
pub const LSN: MetaColumn = MetaColumn { name: "__lsn", field_id: FieldId(3) };
/// End LSN of the transaction.
pub const COMMIT_LSN: MetaColumn = MetaColumn { name: "__commit_lsn", field_id: FieldId(4) };
/// Commit time on the source.
pub const COMMIT_TS: MetaColumn = MetaColumn { name: "__commit_ts", field_id: FieldId(5) };
/// Position of the change in its transaction, over all tables.
pub const SEQ: MetaColumn = MetaColumn { name: "__seq", field_id: FieldId(6) };
/// Transaction id.
pub const XID: MetaColumn = MetaColumn { name: "__xid", field_id: FieldId(7) };
/// Columns whose value was carried over because PostgreSQL did not send it.
pub const TOAST_UNCHANGED: MetaColumn =
    MetaColumn { name: "__toast_unchanged", field_id: FieldId(8) };
/// Element of [`TOAST_UNCHANGED`].
pub const TOAST_UNCHANGED_ELEMENT: FieldId = FieldId(9);
/// Commit time of the delete, only with soft delete.
pub const DELETED_AT: MetaColumn = MetaColumn { name: "__deleted_at", field_id: FieldId(10) };

/// The metadata columns of a delta file in file order, behind the user columns.
pub const DELTA_COLUMNS: [MetaColumn; 8] =
    [OP, EPOCH, LSN, COMMIT_LSN, COMMIT_TS, SEQ, XID, TOAST_UNCHANGED];

/// Whether a user column of this name would collide with a metadata column.
pub fn is_reserved(column: &str) -> bool {
    column == DELETED_AT.name
        || column.starts_with("__pgcdc_")
        || DELTA_COLUMNS.iter().any(|meta| meta.name == column)
}
