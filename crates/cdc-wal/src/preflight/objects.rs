//! Checks of the objects on the source that are ours to make: publication and slot.

use std::time::Duration;

use cdc_core::{Identity, SourceTable, TableKind};

use super::probe::{RelationProbe, ServerProbe};
use super::report::Check;
use super::{Want, remedy};
use crate::control::{OldestTransaction, SourceFacts};
use crate::publication::{PublicationState, compare};
use crate::slot::SlotState;

/// A transaction open longer than this is worth a warning: the slot waits for it.
const OPEN_TRANSACTION_WARN: Duration = Duration::from_secs(60);

/// The tables that init would publish.
pub(super) fn replicable(tables: &[SourceTable]) -> Vec<SourceTable> {
    let fits = |table: &&SourceTable| {
        matches!(table.kind, TableKind::Table | TableKind::PartitionRoot)
            && Identity::of(table).is_some()
    };
    tables.iter().filter(fits).cloned().collect()
}

pub(super) fn slot(name: &str, state: Option<&SlotState>, facts: &SourceFacts) -> Check {
    let check = "slot";
    let Some(state) = state else {
        return Check::pass(check, format!("{name} will be created"));
    };
    let drop = format!("SELECT pg_drop_replication_slot({})", cdc_core::quote_literal(name));
    if state.plugin != "pgoutput" || state.database.as_deref() != Some(&facts.database) {
        return Check::fail(
            check,
            format!("{name} belongs to another database or plugin"),
            "choose another name in replication.slot",
        );
    }
    if state.is_lost() {
        let reason = state.invalidation_reason.as_deref().unwrap_or("its wal was removed");
        return Check::fail(
            check,
            format!("{name} is lost: {reason}"),
            format!("{drop}; then init"),
        );
    }
    let activity = match state.active_pid {
        Some(pid) if state.active => format!("read by process {pid}"),
        _ => "not read by anyone".to_owned(),
    };
    Check::pass(check, format!("{name} exists, {activity}"))
}

pub(super) fn publication(
    want: &Want,
    state: Option<&PublicationState>,
    probe: &ServerProbe,
    relations: &[RelationProbe],
    facts: &SourceFacts,
) -> Vec<Check> {
    let check = "publication";
    let name = &want.publication;
    let tables = replicable(&want.tables);
    let Some(state) = state else {
        let mut checks = vec![Check::pass(check, format!("{name} will be created"))];
        checks.extend(create_privileges(&tables, probe, relations, facts));
        return checks;
    };
    let difference = compare(state, &tables);
    if !difference.is_empty() {
        let detail = format!("{name} exists and differs: {difference}");
        return vec![Check::fail(check, detail, difference.remedy(name))];
    }
    if state.open_ended {
        let detail = format!("{name} exists and fits, but takes in new tables by itself");
        let remedy = "publish FOR TABLE …, or expect differences when a table is created";
        return vec![Check::warn(check, detail, remedy)];
    }
    vec![Check::pass(check, format!("{name} exists and fits"))]
}

/// What `CREATE PUBLICATION … FOR TABLE` needs.
fn create_privileges(
    tables: &[SourceTable],
    probe: &ServerProbe,
    relations: &[RelationProbe],
    facts: &SourceFacts,
) -> Vec<Check> {
    let user = cdc_core::quote_ident(&facts.user);
    let database = cdc_core::quote_ident(&facts.database);
    let create = match probe.create_on_database {
        true => Check::pass("create privilege", format!("on database {}", facts.database)),
        false => Check::fail(
            "create privilege",
            format!("{} may not create a publication in {}", facts.user, facts.database),
            format!(
                "GRANT CREATE ON DATABASE {database} TO {user}, or create the publication as its owner"
            ),
        ),
    };
    let foreign: Vec<&RelationProbe> = relations
        .iter()
        .filter(|relation| relation.is_root && !relation.owned)
        .filter(|relation| tables.iter().any(|table| table.oid == relation.root))
        .collect();
    let name = "table ownership";
    let ownership = match foreign.as_slice() {
        [] => Check::pass(name, format!("{} tables", tables.len())),
        [first, ..] => Check::fail(
            name,
            format!("not owner of {}", remedy::listed(foreign.iter().map(|r| r.name.to_string()))),
            format!(
                "GRANT {} TO {user}, or create the publication as the owner of the tables",
                cdc_core::quote_ident(&first.owner)
            ),
        ),
    };
    vec![create, ownership]
}

pub(super) fn open_transactions(oldest: Option<&OldestTransaction>) -> Check {
    let check = "open transactions";
    let Some(oldest) = oldest else {
        return Check::pass(check, "none that has written");
    };
    let who = match oldest.pid {
        0 => format!("prepared transaction {}", oldest.application),
        pid => format!("transaction of process {pid}"),
    };
    match oldest.age {
        Some(age) if age < OPEN_TRANSACTION_WARN => {
            Check::pass(check, format!("{who}, open for {} s", age.as_secs()))
        }
        Some(age) => Check::warn(
            check,
            format!("{who} has written and is open for {} s: the slot waits for it", age.as_secs()),
            "end it before init",
        ),
        None => Check::pass(check, format!("{who}, age hidden")),
    }
}
