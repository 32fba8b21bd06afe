//! The outcome of a decision: what one caller may see of one table. Only [`crate::effective`] makes
//! a [`TableAccess`], and without one nothing is scanned.

use cdc_core::{FieldId, TableName};
use chrono::{DateTime, Utc};

use crate::{Mask, ResourceId, RowFilter, TagWord};

/// One way in which a caller sees a column: for the rows of a filter, behind a mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellRule {
    /// Place of the filter in [`TableAccess::filters`]; every row when absent.
    pub filter: Option<usize>,
    /// What is shown instead of the value.
    pub mask: Option<Mask>,
    /// The grant.
    pub grant: String,
}

/// A visible column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnAccess {
    /// Name.
    pub name: String,
    /// Field id, by which it is read.
    pub field_id: FieldId,
    /// How it is seen; never empty, and in order of the grants' ids.
    pub rules: Vec<CellRule>,
}

/// What is shown of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellView<'a> {
    /// A typed NULL.
    Hidden,
    /// What the mask makes of the value.
    Masked(&'a Mask),
    /// The value.
    Clear,
}

impl ColumnAccess {
    /// What is shown of a cell in a row for which the filters of the access gave `truths`. An
    /// unmasked rule wins, then the most revealing mask, then the first grant by id.
    pub fn cell(&self, truths: &[Option<bool>]) -> CellView<'_> {
        let applies = |rule: &&CellRule| is_true(rule.filter, truths);
        let best = self.rules.iter().filter(applies).min_by_key(|rule| rule.rank());
        match best {
            None => CellView::Hidden,
            Some(CellRule { mask: Some(mask), .. }) => CellView::Masked(mask),
            Some(CellRule { mask: None, .. }) => CellView::Clear,
        }
    }
}

impl CellRule {
    fn rank(&self) -> u8 {
        self.mask.as_ref().map_or(0, |mask| mask.rank() + 1)
    }
}

/// Unknown is not true, and neither is a filter without a truth.
fn is_true(filter: Option<usize>, truths: &[Option<bool>]) -> bool {
    filter.is_none_or(|at| truths.get(at) == Some(&Some(true)))
}

/// What one caller may see of one table under one policy version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableAccess {
    pub(crate) resource: ResourceId,
    pub(crate) table: TableName,
    pub(crate) columns: Vec<ColumnAccess>,
    pub(crate) filters: Vec<RowFilter>,
    pub(crate) hidden_reads: Vec<FieldId>,
    pub(crate) changes: bool,
    pub(crate) direct_read: bool,
    pub(crate) not_after: Option<DateTime<Utc>>,
    pub(crate) policy_version: u64,
    pub(crate) break_glass: Vec<String>,
}

impl TableAccess {
    /// The table's resource.
    pub fn resource(&self) -> &ResourceId {
        &self.resource
    }

    /// The table it was decided for.
    pub fn table(&self) -> &TableName {
        &self.table
    }

    /// The visible columns in table order; never empty.
    pub fn columns(&self) -> &[ColumnAccess] {
        &self.columns
    }

    /// A visible column.
    pub fn column(&self, name: &str) -> Option<&ColumnAccess> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The filters that the rules name by place, each text once.
    pub fn filters(&self) -> &[RowFilter] {
        &self.filters
    }

    /// Whether a row for which the filters gave `truths` is visible, whatever is asked of it.
    pub fn shows_row(&self, truths: &[Option<bool>]) -> bool {
        let rules = self.columns.iter().flat_map(|column| &column.rules);
        rules.into_iter().any(|rule| is_true(rule.filter, truths))
    }

    /// Columns that are read for filters and for the merge key, and never returned.
    pub fn hidden_reads(&self) -> &[FieldId] {
        &self.hidden_reads
    }

    /// Whether the feed of changes may be read.
    pub fn changes(&self) -> bool {
        self.changes
    }

    /// Whether the files may be read as they are.
    pub fn direct_read(&self) -> bool {
        self.direct_read
    }

    /// When the first of the grants behind it ends; nothing is sent from then on.
    pub fn not_after(&self) -> Option<DateTime<Utc>> {
        self.not_after
    }

    /// The deployment's policy version at the decision.
    pub fn policy_version(&self) -> u64 {
        self.policy_version
    }

    /// Ids of the emergency grants behind it.
    pub fn break_glass(&self) -> &[String] {
        &self.break_glass
    }

    /// Whether everything that `before` shows is shown by this one too, so that an answer planned
    /// with `before` may go on. Says no when in doubt.
    pub fn includes(&self, before: &TableAccess) -> bool {
        let keeps_column = |old: &ColumnAccess| {
            let new = self.columns.iter().find(|new| new.field_id == old.field_id);
            new.is_some_and(|new| old.rules.iter().all(|rule| self.keeps(new, before, rule)))
        };
        (self.changes || !before.changes)
            && (self.direct_read || !before.direct_read)
            && before.columns.iter().all(keeps_column)
    }

    fn keeps(&self, column: &ColumnAccess, before: &TableAccess, rule: &CellRule) -> bool {
        let filter = rule.filter.and_then(|at| before.filters.get(at));
        column.rules.iter().any(|new| {
            new.filter.and_then(|at| self.filters.get(at)) == filter && new.mask == rule.mask
        })
    }
}

/// Why something is not visible. Never shown to the caller; for `explain` and the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// It is not in the lake.
    Absent,
    /// It has no entry in the registry.
    Unregistered,
    /// The entry is of another table or column that had the same name.
    OtherIdentity,
    /// It is quarantined.
    Unclassified,
    /// A required tag is missing.
    MissingTag(TagWord),
    /// A restriction lies on it that cannot be evaluated.
    UnsupportedPolicy,
    /// No grant shows it.
    NoGrant,
}

impl Hidden {
    /// The reason code of audit records.
    pub fn code(&self) -> &'static str {
        match self {
            Hidden::Absent => "absent",
            Hidden::Unregistered => "unregistered",
            Hidden::OtherIdentity => "other_identity",
            Hidden::Unclassified => "unclassified",
            Hidden::MissingTag(_) => "missing_tag",
            Hidden::UnsupportedPolicy => "unsupported_policy",
            Hidden::NoGrant => "no_grant",
        }
    }
}

/// The decision about one table for one caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The policy cannot be read; said before anything else, so that an outage reveals no names.
    Unavailable,
    /// There is no such table for this caller. The reason is for the audit trail alone.
    NotFound(Hidden),
    /// What he may see.
    Allow(TableAccess),
}
