//! Checks of the tables: what may be read, what identifies a row, and what will not be replicated.

use cdc_core::{Generated, Identity, ReplicaIdentity, SourceTable, TableKind, TableName};

use super::Want;
use super::objects::replicable;
use super::probe::RelationProbe;
use super::remedy::listed;
use super::report::Check;
use crate::control::SourceFacts;

/// The first server that can publish stored generated columns.
const PUBLISHES_GENERATED_FROM: u32 = 180_000;

pub(super) fn checks(want: &Want, relations: &[RelationProbe], facts: &SourceFacts) -> Vec<Check> {
    let tables = replicable(&want.tables);
    let read: Vec<&RelationProbe> = relations
        .iter()
        .filter(|relation| tables.iter().any(|table| table.oid == relation.root))
        .collect();
    let mut checks = vec![select(&read, facts)];
    checks.extend(row_security(&read, facts));
    checks.extend(identity(&want.tables));
    checks.extend(not_replicated(&want.tables));
    checks.extend(partitions(&tables, &read));
    checks.extend(generated(&tables, facts));
    checks.extend(generated_keys(&tables, facts));
    checks.push(types(&tables, want));
    checks
}

fn select(relations: &[&RelationProbe], facts: &SourceFacts) -> Check {
    let check = "select privilege";
    let user = cdc_core::quote_ident(&facts.user);
    let denied = |relation: &&&RelationProbe| !relation.select || !relation.schema_usage;
    let denied: Vec<&&RelationProbe> = relations.iter().filter(denied).collect();
    if denied.is_empty() {
        return Check::pass(check, format!("{} relations", relations.len()));
    }
    let mut schemas: Vec<String> = denied
        .iter()
        .filter(|relation| !relation.schema_usage)
        .map(|relation| cdc_core::quote_ident(&relation.name.schema))
        .collect();
    schemas.dedup();
    let mut grants = Vec::new();
    if !schemas.is_empty() {
        grants.push(format!("GRANT USAGE ON SCHEMA {} TO {user}", schemas.join(", ")));
    }
    let tables: Vec<String> =
        denied.iter().filter(|r| !r.select).map(|r| r.name.to_sql()).collect();
    if !tables.is_empty() {
        grants.push(format!("GRANT SELECT ON {} TO {user}", tables.join(", ")));
    }
    let names = listed(denied.iter().map(|relation| relation.name.to_string()));
    Check::fail(check, format!("{} may not read {names}", facts.user), grants.join("; "))
}

/// A policy that hides rows from our role would make the snapshot silently smaller than the stream.
fn row_security(relations: &[&RelationProbe], facts: &SourceFacts) -> Option<Check> {
    let hidden: Vec<String> = relations
        .iter()
        .filter(|relation| relation.hides_rows)
        .map(|relation| relation.name.to_string())
        .collect();
    let user = cdc_core::quote_ident(&facts.user);
    (!hidden.is_empty()).then(|| {
        Check::fail(
            "row security",
            format!("policies hide rows of {} from the snapshot", listed(hidden)),
            format!("ALTER ROLE {user} BYPASSRLS"),
        )
    })
}

fn identity(tables: &[SourceTable]) -> Vec<Check> {
    let check = "replica identity";
    let own: Vec<&SourceTable> = tables
        .iter()
        .filter(|table| matches!(table.kind, TableKind::Table | TableKind::PartitionRoot))
        .collect();
    let missing: Vec<&&SourceTable> =
        own.iter().filter(|table| Identity::of(table).is_none()).collect();
    let whole: Vec<&&SourceTable> =
        own.iter().filter(|table| Identity::of(table) == Some(Identity::Full)).collect();
    let mut checks = Vec::new();
    let fine = own.len() - missing.len() - whole.len();
    if fine > 0 || own.is_empty() {
        checks.push(Check::pass(check, format!("{fine} tables with a key")));
    }
    checks.extend(missing.into_iter().map(|table| without_identity(table)));
    checks.extend(nothing_partitions(tables));
    if !whole.is_empty() {
        checks.push(Check::warn(
            check,
            format!("whole rows identify {}", listed(whole.iter().map(|t| t.name.to_string()))),
            "updates and deletes cost more than with a primary key",
        ));
    }
    checks
}

/// A table that has no key is left out. NOTHING was set on purpose, by somebody who may not know
/// that the table is wanted here, so leaving it out is a decision that the configuration must make.
fn without_identity(table: &SourceTable) -> Check {
    let check = "replica identity";
    let (name, to) = (&table.name, table.name.to_sql());
    let is_root = table.kind == TableKind::PartitionRoot;
    if table.replica_identity == ReplicaIdentity::Nothing && !is_root {
        let usual = match table.primary_key.is_empty() {
            true => "FULL",
            false => "DEFAULT",
        };
        return Check::fail(
            check,
            format!("{name} has REPLICA IDENTITY NOTHING, or its index is gone"),
            format!(
                "ALTER TABLE {to} REPLICA IDENTITY {usual}, or exclude it with `tables.exclude`"
            ),
        );
    }
    let (why, on) = match is_root {
        true => ("its partitions share none", " on each partition"),
        false => ("there is no primary key that is not deferrable", ""),
    };
    Check::warn(
        check,
        format!("{name} is left out: {why}"),
        format!(
            "ALTER TABLE {to} ADD PRIMARY KEY (…), or ALTER TABLE {to} REPLICA IDENTITY FULL{on}"
        ),
    )
}

/// Partitions with NOTHING whose root is wanted: they keep the whole root out.
fn nothing_partitions(tables: &[SourceTable]) -> Option<Check> {
    let is_wanted = |root: &TableName| tables.iter().any(|table| table.name == *root);
    let nothing: Vec<&SourceTable> = tables
        .iter()
        .filter(|table| table.kind == TableKind::Partition)
        .filter(|table| table.replica_identity == ReplicaIdentity::Nothing)
        .filter(|table| table.partition_root.as_ref().is_some_and(is_wanted))
        .collect();
    let first = nothing.first()?;
    Some(Check::fail(
        "replica identity",
        format!(
            "partitions with REPLICA IDENTITY NOTHING: {}",
            listed(nothing.iter().map(|table| table.name.to_string()))
        ),
        format!(
            "ALTER TABLE {} REPLICA IDENTITY DEFAULT on each, or exclude the partitioned table",
            first.name.to_sql()
        ),
    ))
}

fn not_replicated(tables: &[SourceTable]) -> Vec<Check> {
    let check = "not replicated";
    let of = |kind: TableKind| -> Vec<String> {
        let names = tables.iter().filter(|table| table.kind == kind);
        names.map(|table| table.name.to_string()).collect()
    };
    let mut checks = Vec::new();
    let unlogged = of(TableKind::Unlogged);
    if !unlogged.is_empty() {
        let remedy = "ALTER TABLE … SET LOGGED, or exclude them";
        checks.push(Check::warn(check, format!("unlogged: {}", listed(unlogged)), remedy));
    }
    let foreign = of(TableKind::Foreign);
    if !foreign.is_empty() {
        let remedy = "exclude them, or replicate them from where they live";
        checks.push(Check::warn(check, format!("foreign: {}", listed(foreign)), remedy));
    }
    let orphans: Vec<String> = tables
        .iter()
        .filter(|table| table.kind == TableKind::Partition)
        .filter(|table| {
            !tables.iter().any(|root| Some(&root.name) == table.partition_root.as_ref())
        })
        .map(|table| table.name.to_string())
        .collect();
    if !orphans.is_empty() {
        let remedy = "include the partition root";
        let detail = format!("partitions without their root: {}", listed(orphans));
        checks.push(Check::warn(check, detail, remedy));
    }
    checks
}

fn partitions(tables: &[SourceTable], relations: &[&RelationProbe]) -> Vec<Check> {
    let check = "partitions";
    let roots: Vec<&SourceTable> =
        tables.iter().filter(|table| table.kind == TableKind::PartitionRoot).collect();
    let mut checks = Vec::new();
    if roots.is_empty() {
        return checks;
    }
    let foreign: Vec<String> = relations
        .iter()
        .filter(|relation| relation.foreign && !relation.is_root)
        .map(|relation| relation.name.to_string())
        .collect();
    if !foreign.is_empty() {
        checks.push(Check::fail(
            check,
            format!("foreign partitions are not replicated: {}", listed(foreign)),
            "detach them, or exclude the partitioned table",
        ));
    }
    let whole = roots.iter().filter(|root| root.replica_identity == ReplicaIdentity::Full);
    let whole: Vec<String> = whole.map(|root| root.name.to_string()).collect();
    if !whole.is_empty() {
        checks.push(Check::warn(
            check,
            format!("new partitions of {} do not inherit REPLICA IDENTITY FULL", listed(whole)),
            "ALTER TABLE … REPLICA IDENTITY FULL on each new partition before it is written to",
        ));
    }
    let names = listed(roots.iter().map(|root| root.name.to_string()));
    checks.push(Check::warn(
        check,
        format!("TRUNCATE of a single partition of {names} is not replicated"),
        "DELETE its rows instead, or resync the table afterwards",
    ));
    checks
}

fn columns_where(
    tables: &[SourceTable],
    fits: impl Fn(&SourceTable, &cdc_core::SourceColumn) -> bool,
) -> Vec<String> {
    let mut names = Vec::new();
    for table in tables {
        let found = table.columns.iter().filter(|column| fits(table, column));
        names.extend(found.map(|column| format!("{}.{}", table.name, column.name)));
    }
    names
}

fn is_published(generated: Generated, facts: &SourceFacts) -> bool {
    match generated {
        Generated::No => true,
        Generated::Stored => facts.server_version_num >= PUBLISHES_GENERATED_FROM,
        Generated::Virtual => false,
    }
}

fn generated(tables: &[SourceTable], facts: &SourceFacts) -> Option<Check> {
    let left_out = columns_where(tables, |_, column| !is_published(column.generated, facts));
    (!left_out.is_empty()).then(|| {
        Check::warn(
            "generated columns",
            format!("not published by this server: {}", listed(left_out)),
            "compute them in queries; PostgreSQL 18 publishes stored ones",
        )
    })
}

fn generated_keys(tables: &[SourceTable], facts: &SourceFacts) -> Option<Check> {
    let keys = columns_where(tables, |table, column| {
        let identity = Identity::of(table);
        let key = identity.as_ref().is_some_and(|key| key.columns().contains(&column.name));
        key && !is_published(column.generated, facts)
    });
    (!keys.is_empty()).then(|| {
        Check::fail(
            "replica identity",
            format!("generated columns that are not published: {}", listed(keys)),
            "choose a replica identity without them, or exclude the tables",
        )
    })
}

fn types(tables: &[SourceTable], want: &Want) -> Check {
    let check = "types";
    let mut by_text = Vec::new();
    let mut lossy = Vec::new();
    let mut columns = 0;
    for table in tables {
        columns += table.columns.len();
        for column in &table.columns {
            let mapped = want.types.map(&column.pg_type, None);
            let name = || format!("{}.{} ({})", table.name, column.name, column.pg_type.name);
            if mapped.by_text {
                by_text.push(name());
            }
            if mapped.lossy {
                lossy.push(name());
            }
        }
    }
    if !lossy.is_empty() {
        let remedy = "declare another form in types.columns";
        return Check::warn(check, format!("may lose digits: {}", listed(lossy)), remedy);
    }
    if !by_text.is_empty() {
        let detail = format!("{columns} columns, kept as text: {}", listed(by_text));
        return Check::pass(check, detail);
    }
    Check::pass(check, format!("{columns} columns"))
}
