//! The effective permission: a pure function of policy, settings, caller, table and time, total and
//! closed on doubt. Nothing else decides what anybody sees.
//!
//! ```text
//! policy unreadable                          -> unavailable
//! table not in the lake, not registered,
//!   of another identity, or restricted by
//!   what cannot be evaluated                 -> not found
//! column not registered, of another identity,
//!   unclassified, lacking a required tag     -> hidden
//! each live SELECT grant that covers it      -> one rule: its filter, its mask
//! no column with a rule                      -> not found
//! ```

use std::collections::BTreeSet;

use cdc_core::FieldId;
use chrono::{DateTime, Utc};

use crate::{
    Caller, CellRule, ColumnAccess, ColumnShape, Grant, Hidden, Identity, Mode, Permission, Policy,
    PolicyLevel, PolicySettings, ResourceId, RowFilter, TableAccess, TableShape, Tags, Target,
    Verdict,
};

/// Decides what a caller may see of a table. `policy` is `None` if it cannot be read, `table` if the
/// lake has none of that name.
pub fn effective(
    policy: Option<&Policy>,
    settings: &PolicySettings,
    caller: &Caller,
    table: Option<&TableShape>,
    now: DateTime<Utc>,
) -> Verdict {
    let Some(policy) = policy else { return Verdict::Unavailable };
    let Some(table) = table else { return Verdict::NotFound(Hidden::Absent) };
    match Case::open(policy, settings, caller, table, now) {
        Ok(case) => case.verdict(),
        Err(hidden) => Verdict::NotFound(hidden),
    }
}

/// What is decided about each column, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The decision.
    pub verdict: Verdict,
    /// Each column with the ids of the grants that show it, or the rule that hides it.
    pub columns: Vec<(String, Result<Vec<String>, Hidden>)>,
}

/// Says why [`effective`] decides as it does.
pub fn explain(
    policy: &Policy,
    settings: &PolicySettings,
    caller: &Caller,
    table: &TableShape,
    now: DateTime<Utc>,
) -> Explanation {
    let case = Case::open(policy, settings, caller, table, now);
    let ids = |grants: Vec<&Grant>| grants.iter().map(|grant| grant.id.clone()).collect();
    let columns = table.columns.iter().map(|column| {
        let granted = case.as_ref().map_err(Hidden::clone);
        (column.name.clone(), granted.and_then(|case| case.grants_for(column).map(ids)))
    });
    let columns = columns.collect();
    let verdict = effective(Some(policy), settings, caller, Some(table), now);
    Explanation { verdict, columns }
}

/// Whether a caller administers a database: a live ADMIN grant on the database itself.
pub fn administers(
    policy: &Policy,
    caller: &Caller,
    database: &ResourceId,
    now: DateTime<Utc>,
) -> bool {
    let names_it = |grant: &Grant| match &grant.terms.target {
        Target::Named { resource, .. } => resource == database,
        Target::TagPolicy { .. } => false,
    };
    let at = now.max(policy.time_high_water);
    let grants = policy.grants_of(&caller.principals());
    grants.iter().any(|g| is_live(g, at) && permits(g, Permission::Admin) && names_it(g))
}

/// When the next grant of the caller begins or ends. Until then, and while the policy version stays,
/// every decision about him stays.
pub(crate) fn next_boundary(
    policy: &Policy,
    caller: &Caller,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let at = now.max(policy.time_high_water);
    let grants = policy.grants_of(&caller.principals());
    let bounds = grants.iter().flat_map(|grant| [grant.terms.not_before, grant.terms.expires_at]);
    bounds.flatten().filter(|bound| *bound > at).min()
}

/// `not_before <= at < expires_at`, and every condition is one we can evaluate.
fn is_live(grant: &Grant, at: DateTime<Utc>) -> bool {
    let terms = &grant.terms;
    grant.unsupported.is_none()
        && terms.not_before.is_none_or(|from| from <= at)
        && terms.expires_at.is_none_or(|until| at < until)
}

fn permits(grant: &Grant, permission: Permission) -> bool {
    grant.terms.permissions.contains(&permission)
}

/// One table in front of one caller.
struct Case<'a> {
    policy: &'a Policy,
    settings: &'a PolicySettings,
    table: &'a TableShape,
    id: ResourceId,
    /// The grants that count, in the order of their ids.
    live: Vec<&'a Grant>,
    /// The tags of the table, by registry and by what is enforced.
    inherited: Vec<Tags>,
}

impl<'a> Case<'a> {
    fn open(
        policy: &'a Policy,
        settings: &'a PolicySettings,
        caller: &Caller,
        table: &'a TableShape,
        now: DateTime<Utc>,
    ) -> Result<Case<'a>, Hidden> {
        let id = table.resource();
        if policy.is_unsupported(&id) {
            return Err(Hidden::UnsupportedPolicy);
        }
        let item = policy.resource(&id).ok_or(Hidden::Unregistered)?;
        if item.identity != Some(Identity::Relation(table.relation)) {
            return Err(Hidden::OtherIdentity);
        }
        // a clock that was set back extends nothing
        let at = now.max(policy.time_high_water);
        let inherited = policy.views_of(&id);
        let mut case = Case { policy, settings, table, id, live: Vec::new(), inherited };
        let mut live = policy.grants_of(&caller.principals());
        live.retain(|grant| is_live(grant, at) && case.answers(grant));
        case.live = live;
        Ok(case)
    }

    /// A filter that this table cannot answer is a condition we cannot evaluate. A column it reads may
    /// be hidden, but must be the one that was registered under the name, and classified.
    fn answers(&self, grant: &Grant) -> bool {
        let is_known = |name: &str| {
            self.table.column(name).is_some_and(|column| self.classified(column).is_ok())
        };
        grant.terms.row_filter.as_ref().is_none_or(|filter| {
            filter.check(self.table).is_ok() && filter.columns().into_iter().all(is_known)
        })
    }

    fn verdict(&self) -> Verdict {
        let mut used: Vec<&Grant> = Vec::new();
        let mut filters: Vec<RowFilter> = Vec::new();
        let mut columns = Vec::new();
        for column in &self.table.columns {
            let Ok(grants) = self.grants_for(column) else { continue };
            let rules = grants.iter().map(|grant| rule(grant, column, &mut filters)).collect();
            let (name, field_id) = (column.name.clone(), column.field_id);
            columns.push(ColumnAccess { name, field_id, rules });
            used.extend(grants);
        }
        if columns.is_empty() {
            return Verdict::NotFound(Hidden::NoGrant);
        }
        let feeds: Vec<&Grant> =
            self.live.iter().copied().filter(|g| self.feeds_changes(g)).collect();
        let changes = !feeds.is_empty();
        used.extend(feeds);
        let break_glass: BTreeSet<&String> =
            used.iter().filter(|grant| grant.emergency).map(|grant| &grant.id).collect();
        let is_plain = |column: &ColumnAccess| {
            column.rules.iter().all(|rule| rule.filter.is_none() && rule.mask.is_none())
        };
        Verdict::Allow(TableAccess {
            resource: self.id.clone(),
            table: self.table.table.clone(),
            hidden_reads: self.hidden_reads(&columns, &filters),
            changes,
            direct_read: columns.len() == self.table.columns.len()
                && columns.iter().all(is_plain)
                && break_glass.is_empty(),
            not_after: used.iter().filter_map(|grant| grant.terms.expires_at).min(),
            policy_version: self.policy.version,
            break_glass: break_glass.into_iter().cloned().collect(),
            columns,
            filters,
        })
    }

    /// The SELECT grants that show a column.
    fn grants_for(&self, column: &ColumnShape) -> Result<Vec<&'a Grant>, Hidden> {
        let (id, views) = self.classified(column)?;
        if let Some(missing) = self.missing_tag(&views) {
            return Err(missing);
        }
        let shows = |grant: &&&Grant| {
            permits(grant, Permission::Select)
                && covers(grant, &id, column, &views)
                && grant.terms.masks.get(&column.name).is_none_or(|mask| mask.fits(column.kind))
        };
        let grants: Vec<&Grant> = self.live.iter().filter(shows).copied().collect();
        if grants.is_empty() { Err(Hidden::NoGrant) } else { Ok(grants) }
    }

    /// A column that is the registered one, and classified: its path and tags.
    fn classified(&self, column: &ColumnShape) -> Result<(ResourceId, Vec<Tags>), Hidden> {
        let id = self.id.child(&column.name).ok_or(Hidden::Unregistered)?;
        let item = self.policy.resource(&id).ok_or(Hidden::Unregistered)?;
        if item.identity != Some(Identity::Field(column.field_id)) {
            return Err(Hidden::OtherIdentity);
        }
        let views = self.policy.column_views(&self.inherited, item);
        match views.iter().any(Tags::is_unclassified) {
            true => Err(Hidden::Unclassified),
            false => Ok((id, views)),
        }
    }

    fn missing_tag(&self, views: &[Tags]) -> Option<Hidden> {
        if self.settings.mode == Mode::Permissive {
            return None;
        }
        let is_missing = |key: &&_| views.iter().any(|tags| tags.get(key).is_none());
        let missing = self.settings.require_tags.iter().find(is_missing)?;
        Some(Hidden::MissingTag(missing.clone()))
    }

    /// CHANGES is granted on tables: by name on the table or above it, by tags on those of the table.
    fn feeds_changes(&self, grant: &Grant) -> bool {
        permits(grant, Permission::Changes)
            && match &grant.terms.target {
                Target::Named { resource, .. } => resource.contains(&self.id),
                Target::TagPolicy { level: PolicyLevel::Database, .. } => false,
                Target::TagPolicy { level: PolicyLevel::Table, expression } => {
                    self.inherited.iter().all(|tags| expression.matches(tags))
                }
            }
    }

    /// Columns of filters and of the merge key that are not visible themselves, in table order.
    fn hidden_reads(&self, visible: &[ColumnAccess], filters: &[RowFilter]) -> Vec<FieldId> {
        let key = self.table.merge_key.iter().map(String::as_str);
        let read: BTreeSet<&str> = filters.iter().flat_map(RowFilter::columns).chain(key).collect();
        let is_hidden = |column: &&ColumnShape| {
            read.contains(column.name.as_str())
                && !visible.iter().any(|seen| seen.field_id == column.field_id)
        };
        self.table.columns.iter().filter(is_hidden).map(|column| column.field_id).collect()
    }
}

/// Whether a grant's target holds the column.
fn covers(grant: &Grant, id: &ResourceId, column: &ColumnShape, views: &[Tags]) -> bool {
    match &grant.terms.target {
        Target::Named { resource, columns } => resource.contains(id) && columns.admit(&column.name),
        Target::TagPolicy { level: PolicyLevel::Database, .. } => false,
        Target::TagPolicy { level: PolicyLevel::Table, expression } => {
            views.iter().all(|tags| expression.matches(tags))
        }
    }
}

/// The rule that a grant gives for a column. Its filter goes to the others unless it is there.
fn rule(grant: &Grant, column: &ColumnShape, filters: &mut Vec<RowFilter>) -> CellRule {
    let filter = grant.terms.row_filter.as_ref().map(|filter| {
        filters.iter().position(|known| known == filter).unwrap_or_else(|| {
            filters.push(filter.clone());
            filters.len() - 1
        })
    });
    let mask = grant.terms.masks.get(&column.name).cloned();
    CellRule { filter, mask, grant: grant.id.clone() }
}
