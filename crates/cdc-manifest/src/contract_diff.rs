//! What changes for a reader when a ref moves from one cut to another. Pure.

use std::collections::{BTreeMap, BTreeSet};

use cdc_core::{Epoch, TableName};
use serde::{Deserialize, Serialize};

use crate::refs::{Cut, RefColumn, TableRef};
use crate::wire;

/// The whole comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContractDiff {
    /// The cut compared from.
    pub from: String,
    /// The cut compared to.
    pub to: String,
    /// The worst that happens to a table.
    pub verdict: Verdict,
    /// Whether a move needs nobody's consent.
    pub promote_safe: bool,
    /// Every table of either cut.
    pub tables: Vec<TableDiff>,
}

/// What a move means for readers, from harmless to harmful.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing differs.
    NoChange,
    /// Only epochs advance.
    Safe,
    /// A schema version differs, or a table is new.
    SchemaChange,
    /// A policy version differs.
    PolicyChange,
    /// Something that readers may rely on is gone or different.
    Breaking,
}

impl Verdict {
    /// Its name, as JSON shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::NoChange => "no_change",
            Verdict::Safe => "safe",
            Verdict::SchemaChange => "schema_change",
            Verdict::PolicyChange => "policy_change",
            Verdict::Breaking => "breaking",
        }
    }

    /// Whether a move needs nobody's consent.
    pub fn is_promote_safe(self) -> bool {
        self <= Verdict::Safe
    }
}

/// What happens to one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiffStatus {
    /// Nothing.
    Unchanged,
    /// Only its epochs advance.
    Additive,
    /// Its schema or key differs.
    SchemaChange,
    /// Its policy differs.
    PolicyChange,
    /// It is new.
    Added,
    /// It is gone.
    Removed,
}

impl DiffStatus {
    /// Its name, as JSON shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            DiffStatus::Unchanged => "unchanged",
            DiffStatus::Additive => "additive",
            DiffStatus::SchemaChange => "schema_change",
            DiffStatus::PolicyChange => "policy_change",
            DiffStatus::Added => "added",
            DiffStatus::Removed => "removed",
        }
    }
}

/// One table in both cuts; what one of them lacks is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the same field of the table, in the one cut and in the other")]
pub struct TableDiff {
    /// `schema.table`.
    pub name: String,
    /// What happens to it.
    pub status: DiffStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version_from: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version_to: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_version_from: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_version_to: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_epoch_from: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_epoch_to: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_delta_epoch_from: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_delta_epoch_to: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::text_option")]
    pub snapshot_id_from: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::text_option")]
    pub snapshot_id_to: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns_added: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns_removed: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns_changed: Vec<ColumnChange>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// A column whose type differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnChange {
    /// Its name.
    pub name: String,
    /// Its type before, as SQL writes it.
    pub from: String,
    /// Its type after.
    pub to: String,
}

impl ContractDiff {
    /// Compares two cuts of one lake. Names are what was asked for, not what it resolved to.
    pub fn between((from, before): (&str, &Cut), (to, after): (&str, &Cut)) -> ContractDiff {
        let names: BTreeSet<&TableName> = before.tables.keys().chain(after.tables.keys()).collect();
        let mut verdict = Verdict::NoChange;
        let mut tables = Vec::with_capacity(names.len());
        for name in names {
            let sides = Sides { from: before.tables.get(name), to: after.tables.get(name) };
            let (table, found) = sides.compare(name, before.epoch, after.epoch);
            verdict = verdict.max(found);
            tables.push(table);
        }
        let promote_safe = verdict.is_promote_safe();
        ContractDiff { from: from.to_owned(), to: to.to_owned(), verdict, promote_safe, tables }
    }
}

/// One table as the two cuts have it.
struct Sides<'c> {
    from: Option<&'c TableRef>,
    to: Option<&'c TableRef>,
}

impl Sides<'_> {
    fn compare(&self, name: &TableName, before: Epoch, after: Epoch) -> (TableDiff, Verdict) {
        let mut diff = self.described(name);
        let (Some(from), Some(to)) = (self.from, self.to) else {
            let verdict = if self.from.is_some() {
                diff.status = DiffStatus::Removed;
                diff.reasons.push("table removed".into());
                Verdict::Breaking
            } else {
                diff.status = DiffStatus::Added;
                diff.reasons.push("table added".into());
                Verdict::SchemaChange
            };
            return (diff, verdict);
        };
        let mut is_breaking = compare_columns(from, to, &mut diff);
        // refs of older builds do not name the key
        let is_key_known = from.identity.is_some() && to.identity.is_some();
        let is_other_key = from.primary_key != to.primary_key || from.identity != to.identity;
        if is_key_known && is_other_key {
            diff.reasons.push(format!("key changed: {} to {}", key_of(from), key_of(to)));
            is_breaking = true;
        }
        let is_other_schema = from.schema_version != to.schema_version || !diff.reasons.is_empty();
        let is_other_policy = from.policy_version != to.policy_version;
        let is_other_state = from.snapshot_id != to.snapshot_id
            || from.latest_delta_epoch != to.latest_delta_epoch
            || from.base_epoch != to.base_epoch;
        if is_other_policy {
            let text = |version: Option<u64>| version.map_or("none".into(), |v| v.to_string());
            let (from, to) = (text(from.policy_version), text(to.policy_version));
            diff.reasons.push(format!("policy version changed: {from} to {to}"));
        }
        diff.status = match (is_breaking || is_other_schema, is_other_policy, is_other_state) {
            (true, false, _) => DiffStatus::SchemaChange,
            (true, true, _) if is_breaking => DiffStatus::SchemaChange,
            (_, true, _) => DiffStatus::PolicyChange,
            (false, false, true) => DiffStatus::Additive,
            (false, false, false) => DiffStatus::Unchanged,
        };
        if after < before && is_other_state {
            diff.reasons.push(format!("goes back from epoch {before} to {after}"));
            is_breaking = true;
        }
        let verdict = match diff.status {
            _ if is_breaking => Verdict::Breaking,
            DiffStatus::PolicyChange => Verdict::PolicyChange,
            DiffStatus::Additive => Verdict::Safe,
            DiffStatus::Unchanged => Verdict::NoChange,
            _ => Verdict::SchemaChange,
        };
        (diff, verdict)
    }

    fn described(&self, name: &TableName) -> TableDiff {
        let (from, to) = (self.from, self.to);
        TableDiff {
            name: name.to_string(),
            status: DiffStatus::Unchanged,
            schema_version_from: from.map(|t| t.schema_version),
            schema_version_to: to.map(|t| t.schema_version),
            policy_version_from: from.and_then(|t| t.policy_version),
            policy_version_to: to.and_then(|t| t.policy_version),
            base_epoch_from: from.map(|t| t.base_epoch.0),
            base_epoch_to: to.map(|t| t.base_epoch.0),
            latest_delta_epoch_from: from.map(|t| t.latest_delta_epoch.0),
            latest_delta_epoch_to: to.map(|t| t.latest_delta_epoch.0),
            snapshot_id_from: from.and_then(|t| t.snapshot_id),
            snapshot_id_to: to.and_then(|t| t.snapshot_id),
            columns_added: Vec::new(),
            columns_removed: Vec::new(),
            columns_changed: Vec::new(),
            reasons: Vec::new(),
        }
    }
}

/// Notes the columns that differ; returns whether one of the differences breaks readers. Cuts that
/// name no columns cannot be compared by them.
fn compare_columns(from: &TableRef, to: &TableRef, diff: &mut TableDiff) -> bool {
    let (Some(from), Some(to)) = (&from.columns, &to.columns) else { return false };
    let after: BTreeMap<&str, &RefColumn> = to.iter().map(|c| (c.name.as_str(), c)).collect();
    let before: BTreeSet<&str> = from.iter().map(|c| c.name.as_str()).collect();
    let mut is_breaking = false;
    for column in from {
        let name = &column.name;
        let Some(new) = after.get(name.as_str()) else {
            diff.reasons.push(format!("column removed: {name}"));
            diff.columns_removed.push(name.clone());
            is_breaking = true;
            continue;
        };
        let (old_type, new_type) = (type_of(column), type_of(new));
        if old_type == new_type {
            continue;
        }
        let is_wider = holds_all_of(new, column);
        is_breaking |= !is_wider;
        let word = if is_wider { "changed" } else { "broken" };
        diff.reasons.push(format!("column {word}: {name} from {old_type} to {new_type}"));
        let change = ColumnChange { name: name.clone(), from: old_type, to: new_type };
        diff.columns_changed.push(change);
    }
    for column in to.iter().filter(|column| !before.contains(column.name.as_str())) {
        diff.reasons.push(format!("column added: {}", column.name));
        diff.columns_added.push(column.name.clone());
    }
    is_breaking
}

/// The type of a column as SQL writes it.
fn type_of(column: &RefColumn) -> String {
    let numbers = match (column.precision, column.scale) {
        (Some(precision), Some(scale)) => format!("({precision},{scale})"),
        (Some(precision), None) => format!("({precision})"),
        _ => String::new(),
    };
    let not_null = if column.nullable { "" } else { " not null" };
    format!("{}{numbers}{not_null}", column.pg_type)
}

/// Whether every value of the old column is a value of the new one, of a type that readers of the
/// old one can go on with.
fn holds_all_of(new: &RefColumn, old: &RefColumn) -> bool {
    if new.pg_type == old.pg_type {
        return match (old.precision, new.precision) {
            (Some(before), Some(after)) => after >= before && new.scale == old.scale,
            (before, after) => before == after,
        };
    }
    matches!(
        (old.pg_type.as_str(), new.pg_type.as_str()),
        ("smallint", "integer" | "bigint")
            | ("integer", "bigint")
            | ("real", "double precision")
            | ("character varying", "text")
    )
}

fn key_of(table: &TableRef) -> String {
    match (&table.primary_key, &table.identity) {
        (Some(key), _) => format!("({})", key.join(", ")),
        (None, Some(identity)) => identity.clone(),
        (None, None) => "none".into(),
    }
}

#[cfg(test)]
mod tests {
    use cdc_core::Lsn;
    use chrono::DateTime;

    use super::*;
    use crate::json::Extra;

    fn column(name: &str, pg_type: &str) -> RefColumn {
        RefColumn {
            name: name.into(),
            pg_type: pg_type.into(),
            precision: None,
            scale: None,
            nullable: true,
            extra: Extra::new(),
        }
    }

    fn table() -> TableRef {
        TableRef {
            snapshot_id: Some(1),
            base_epoch: Epoch(0),
            latest_delta_epoch: Epoch(1),
            schema_version: 1,
            policy_version: Some(1),
            manifest_updated_at: DateTime::UNIX_EPOCH,
            confirmed_lsn: None,
            primary_key: Some(vec!["id".into()]),
            identity: Some("primary_key".into()),
            columns: Some(vec![column("id", "integer"), column("name", "character varying")]),
            metadata_location: None,
            changes_snapshot_id: None,
            changes_metadata_location: None,
            extra: Extra::new(),
        }
    }

    fn cut(epoch: u64, tables: &[(&str, TableRef)]) -> Cut {
        let named =
            |(name, table): &(&str, TableRef)| (TableName::new("public", *name), table.clone());
        Cut {
            name: "x".into(),
            is_live: true,
            epoch: Epoch(epoch),
            commit_lsn: Lsn(1),
            commit_ts: DateTime::UNIX_EPOCH,
            tables: tables.iter().map(named).collect(),
        }
    }

    fn diff(from: &[(&str, TableRef)], to: &[(&str, TableRef)]) -> ContractDiff {
        ContractDiff::between(("main", &cut(1, from)), ("staging", &cut(2, to)))
    }

    /// The verdict over one table that changes so, with its reasons.
    fn of_change(change: impl FnOnce(&mut TableRef)) -> (Verdict, DiffStatus, Vec<String>) {
        let mut after = table();
        change(&mut after);
        let found = diff(&[("t", table())], &[("t", after)]);
        assert_eq!(found.promote_safe, found.verdict <= Verdict::Safe);
        let [table] = &found.tables[..] else { panic!("{found:?}") };
        (found.verdict, table.status, table.reasons.clone())
    }

    fn columns(table: &mut TableRef) -> &mut Vec<RefColumn> {
        table.columns.get_or_insert_default()
    }

    #[test]
    fn the_same_cut_is_no_change() {
        let found = of_change(|_| {});
        assert_eq!(found, (Verdict::NoChange, DiffStatus::Unchanged, vec![]));
    }

    #[test]
    fn new_epochs_alone_are_safe() {
        let found = of_change(|t| (t.snapshot_id, t.latest_delta_epoch) = (Some(2), Epoch(2)));
        assert_eq!(found, (Verdict::Safe, DiffStatus::Additive, vec![]));
    }

    #[test]
    fn a_new_or_wider_column_and_a_new_table_are_schema_changes() {
        let schema = |reason: &str| {
            (Verdict::SchemaChange, DiffStatus::SchemaChange, vec![reason.to_owned()])
        };
        let found = of_change(|t| columns(t).push(column("note", "text")));
        assert_eq!(found, schema("column added: note"));
        let found = of_change(|t| columns(t)[0].pg_type = "bigint".into());
        assert_eq!(found, schema("column changed: id from integer to bigint"));
        let found = of_change(|t| columns(t)[1].pg_type = "text".into());
        assert_eq!(found, schema("column changed: name from character varying to text"));
        let found = of_change(|t| t.schema_version = 2);
        assert_eq!((found.0, found.1), (Verdict::SchemaChange, DiffStatus::SchemaChange));
        let found = diff(&[("t", table())], &[("t", table()), ("u", table())]);
        assert_eq!(found.verdict, Verdict::SchemaChange);
        assert_eq!(found.tables[1].status, DiffStatus::Added);
    }

    #[test]
    fn another_policy_version_is_a_policy_change_whatever_else_is_new() {
        let found = of_change(|t| {
            (t.policy_version, t.schema_version) = (Some(2), 2);
            columns(t).push(column("note", "text"));
        });
        assert_eq!((found.0, found.1), (Verdict::PolicyChange, DiffStatus::PolicyChange));
    }

    #[test]
    fn what_readers_may_rely_on_cannot_go_without_breaking_them() {
        let breaking = |change: fn(&mut TableRef), reason: &str| {
            let (verdict, _, reasons) = of_change(change);
            assert_eq!(verdict, Verdict::Breaking, "{reason}");
            assert!(reasons.iter().any(|found| found == reason), "{reasons:?}");
        };
        breaking(|t| drop(columns(t).pop()), "column removed: name");
        let narrower = |t: &mut TableRef| columns(t)[0].pg_type = "smallint".into();
        breaking(narrower, "column broken: id from integer to smallint");
        let other_key = |t: &mut TableRef| t.primary_key = Some(vec!["name".into()]);
        breaking(other_key, "key changed: (id) to (name)");
        let both = |t: &mut TableRef| {
            columns(t).clear();
            t.policy_version = Some(2);
        };
        breaking(both, "column removed: id");
        let found = diff(&[("t", table()), ("u", table())], &[("t", table())]);
        assert_eq!(
            (found.verdict, found.tables[1].status),
            (Verdict::Breaking, DiffStatus::Removed)
        );
    }

    #[test]
    fn going_back_is_breaking() {
        let mut older = table();
        older.snapshot_id = Some(0);
        let found = ContractDiff::between(
            ("main", &cut(5, &[("t", table())])),
            ("raw", &cut(2, &[("t", older)])),
        );
        assert_eq!(found.verdict, Verdict::Breaking);
        assert_eq!(found.tables[0].reasons, ["goes back from epoch 5 to 2"]);
    }

    #[test]
    fn refs_without_columns_or_keys_are_compared_by_their_versions() {
        let found = of_change(|t| (t.columns, t.primary_key, t.identity) = (None, None, None));
        assert_eq!(found.0, Verdict::NoChange);
    }
}
