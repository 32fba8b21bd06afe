//! What must hold of every manifest, and between two that follow each other. Checked where a
//! manifest becomes durable; a violation is a defect of ours and nothing is written.

use std::collections::HashSet;

use cdc_core::{FieldId, TableName};

use super::{MANIFEST_VERSION, Manifest, SchemaEntry, TableEntry, TableState, TableStatus};
use crate::layout;

/// The first rule that a manifest breaks by itself.
pub(super) fn check(manifest: &Manifest) -> Result<(), String> {
    ensure(manifest.version == MANIFEST_VERSION, || "version is not 1".into())?;
    ensure(!manifest.lake_id.is_empty(), || "lake_id is empty".into())?;
    ensure(manifest.covered_lsn >= manifest.commit_lsn, || {
        let (covered, commit) = (manifest.covered_lsn, manifest.commit_lsn);
        format!("covered_lsn {covered} is below commit_lsn {commit}")
    })?;
    ensure(manifest.commit_lsn >= manifest.source.init_lsn, || {
        let (commit, init) = (manifest.commit_lsn, manifest.source.init_lsn);
        format!("commit_lsn {commit} is below init_lsn {init}")
    })?;
    for (table, entry) in &manifest.tables {
        check_table(manifest, table, entry).map_err(|rule| format!("table {table}: {rule}"))?;
    }
    for (table, schema) in &manifest.schemas {
        check_schema(schema).map_err(|rule| format!("schema of {table}: {rule}"))?;
    }
    layout::check_table_dirs(manifest.active_tables().map(|(table, _)| table))
        .map_err(|error| error.to_string())
}

/// The first rule that the step from `old` to `new` breaks.
pub(super) fn check_step(old: &Manifest, new: &Manifest) -> Result<(), String> {
    ensure(old.lake_id == new.lake_id, || "lake_id changed".into())?;
    ensure(new.generation >= old.generation, || {
        format!("generation went from {} to {}", old.generation, new.generation)
    })?;
    ensure(new.epoch == old.epoch || new.epoch == old.epoch.next(), || {
        format!("epoch went from {} to {}", old.epoch, new.epoch)
    })?;
    ensure(new.commit_lsn >= old.commit_lsn, || {
        format!("commit_lsn went from {} to {}", old.commit_lsn, new.commit_lsn)
    })?;
    ensure(new.covered_lsn >= old.covered_lsn, || {
        format!("covered_lsn went from {} to {}", old.covered_lsn, new.covered_lsn)
    })?;
    ensure(new.epoch != old.epoch || new.commit_lsn == old.commit_lsn, || {
        format!("commit_lsn moved to {} within epoch {}", new.commit_lsn, new.epoch)
    })?;
    for (table, before) in &old.schemas {
        if let Some(after) = new.schemas.get(table) {
            ensure(after.version >= before.version, || {
                format!("schema of {table}: version fell to {}", after.version)
            })?;
            ensure(after.next_field_id >= before.next_field_id, || {
                format!("schema of {table}: next_field_id fell to {}", after.next_field_id.0)
            })?;
        }
    }
    Ok(())
}

fn check_table(manifest: &Manifest, table: &TableName, entry: &TableEntry) -> Result<(), String> {
    ensure(entry.path == layout::table_dir(table), || format!("path is `{}`", entry.path))?;
    if entry.status == TableStatus::Excluded {
        return ensure(entry.reason.is_some(), || "excluded without a reason".into());
    }
    ensure(entry.base_epoch <= manifest.epoch, || {
        format!("base_epoch {} is above epoch {}", entry.base_epoch, manifest.epoch)
    })?;
    ensure(entry.latest_delta_epoch <= manifest.epoch, || {
        format!("latest_delta_epoch {} is above epoch {}", entry.latest_delta_epoch, manifest.epoch)
    })?;
    ensure(entry.lsn_to.is_none_or(|lsn_to| lsn_to <= manifest.covered_lsn), || {
        format!("lsn_to is above covered_lsn {}", manifest.covered_lsn)
    })?;
    check_gaps(manifest, entry)?;
    let Some(schema) = manifest.schemas.get(table) else {
        return Err("active without a schema".into());
    };
    ensure(entry.schema_version == Some(schema.version), || {
        format!("schema_version is {:?}, the schema's is {}", entry.schema_version, schema.version)
    })
}

/// What a quarantined table lacks must be told, and nothing beyond what is known.
fn check_gaps(manifest: &Manifest, entry: &TableEntry) -> Result<(), String> {
    for gap in &entry.gaps {
        ensure(gap.lsn_from <= gap.lsn_to && gap.lsn_to <= manifest.covered_lsn, || {
            let (from, to, covered) = (gap.lsn_from, gap.lsn_to, manifest.covered_lsn);
            format!("a gap from {from} to {to} under covered_lsn {covered}")
        })?;
    }
    if entry.state != Some(TableState::Quarantined) {
        return Ok(());
    }
    let open = entry.gaps.last().filter(|gap| gap.lsn_to == manifest.covered_lsn);
    ensure(open.is_some(), || "quarantined without a gap up to covered_lsn".into())?;
    ensure(entry.reason.is_some(), || "quarantined without a reason".into())
}

fn check_schema(schema: &SchemaEntry) -> Result<(), String> {
    let mut ids = HashSet::new();
    let mut names = HashSet::new();
    for column in &schema.columns {
        ensure(names.insert(column.name.as_str()), || format!("two columns {}", column.name))?;
        for id in [Some(column.field_id), column.element_id].into_iter().flatten() {
            ensure(ids.insert(id), || format!("field id {} is given twice", id.0))?;
            ensure(id >= FieldId::FIRST_USER && id < schema.next_field_id, || {
                format!("field id {} is outside the allocated range", id.0)
            })?;
        }
    }
    Ok(())
}

fn ensure(holds: bool, rule: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule()) }
}
