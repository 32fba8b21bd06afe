//! `pgcdc discover`: the tables of the source, with tags and the decision about each.

use anyhow::{Result, bail};
use cdc_core::{ReplicaIdentity, SourceTable};
use cdc_governance::TableDecision;
use cdc_pipeline::TypeSettings;
use cdc_runtime::{Config, ExitCode, SourceUse};
use serde_json::{Value, json};

use crate::cli::DiscoverArgs;
use crate::context::{self, Context, block_on};
use crate::failure::Stop;
use crate::{render, settings};

/// A table and what was decided about it.
struct Discovered {
    source: SourceTable,
    decision: TableDecision,
}

pub(crate) fn run(context: &Context, args: &DiscoverArgs) -> Result<ExitCode> {
    let config = context.load(SourceUse::Needed)?;
    if args.acl {
        bail!(Stop::usage("`pgcdc discover --acl` is not available yet"));
    }
    let tables = block_on(discover(&config))?;
    let types = settings::types(&config)?;
    if args.json.json {
        render::json(&to_json(&tables, &types))?;
        return Ok(ExitCode::Ok);
    }
    render::print(&table(&tables))?;
    for Discovered { source, decision } in tables.iter().filter(|t| t.decision.included()) {
        for (column, note) in type_notes(source, &types) {
            eprintln!("note: {}.{column}: {note}", decision.table);
        }
    }
    Ok(ExitCode::Ok)
}

async fn discover(config: &Config) -> Result<Vec<Discovered>> {
    let rules = settings::rules(config)?;
    let control = context::source(config)?.connect().await?;
    let mut sources = control.discover(&settings::schemas(config)).await?;
    control.close().await;
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    let mut decisions = cdc_governance::decide(&sources, &rules);
    let naming = settings::naming(config);
    cdc_governance::exclude_collisions(&mut decisions, |table| naming.current("", table).name);
    let pairs = sources.into_iter().zip(decisions);
    Ok(pairs.map(|(source, decision)| Discovered { source, decision }).collect())
}

fn table(tables: &[Discovered]) -> String {
    let row = |Discovered { decision, .. }: &Discovered| {
        let tags = match decision.tags.as_slice() {
            [] => "-".to_owned(),
            tags => tags.join(","),
        };
        let reason = decision.excluded.clone().unwrap_or_default();
        vec![decision.table.to_string(), status(decision).to_owned(), tags, reason]
    };
    let rows: Vec<Vec<String>> = tables.iter().map(row).collect();
    let (included, excluded) = counts(tables);
    let listed = render::columns(&["TABLE", "STATUS", "TAGS", "REASON"], &rows);
    format!("{listed}{included} included, {excluded} excluded, {} total\n", tables.len())
}

fn status(decision: &TableDecision) -> &'static str {
    if decision.included() { "included" } else { "excluded" }
}

fn counts(tables: &[Discovered]) -> (usize, usize) {
    let included = tables.iter().filter(|table| table.decision.included()).count();
    (included, tables.len() - included)
}

/// Columns whose stored form is not the natural one, with what it is.
fn type_notes(source: &SourceTable, types: &TypeSettings) -> Vec<(String, String)> {
    let note = |column: &cdc_core::SourceColumn| {
        let declared = types.declared(&source.name, &column.name);
        let mapped = types.policy.map(&column.pg_type, declared);
        let stored = mapped.stored.iceberg_name();
        let text = match (mapped.lossy, mapped.by_text, declared) {
            (true, _, _) => format!("{} is stored as {stored}, lossy", column.pg_type.name),
            (_, true, _) => format!("{} is stored as its text", column.pg_type.name),
            (_, _, Some(_)) => {
                format!("{} is stored as {stored} by types.columns", column.pg_type.name)
            }
            _ => return None,
        };
        Some((column.name.clone(), text))
    };
    source.columns.iter().filter_map(note).collect()
}

fn to_json(tables: &[Discovered], types: &TypeSettings) -> Value {
    let (included, excluded) = counts(tables);
    let one = |Discovered { source, decision }: &Discovered| {
        let notes = type_notes(source, types);
        let notes: Vec<Value> =
            notes.iter().map(|(column, note)| json!({"column": column, "note": note})).collect();
        let mut entry = json!({
            "name": decision.table.to_string(),
            "status": status(decision),
            "tags": decision.tags,
            "replica_identity": identity(&source.replica_identity),
            "primary_key": source.primary_key,
            "estimated_rows": u64::try_from(source.estimated_rows).ok(),
            "type_notes": notes,
        });
        if let Some(reason) = &decision.excluded {
            entry["reason"] = json!(reason);
        }
        entry
    };
    json!({
        "tables": tables.iter().map(one).collect::<Vec<_>>(),
        "included": included,
        "excluded": excluded,
        "total": tables.len(),
    })
}

fn identity(identity: &ReplicaIdentity) -> String {
    match identity {
        ReplicaIdentity::Default => "default".into(),
        ReplicaIdentity::Full => "full".into(),
        ReplicaIdentity::Nothing => "nothing".into(),
        ReplicaIdentity::Index { name, .. } => format!("index:{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cdc_core::{TableKind, TableName};

    fn discovered(name: &str, tags: &[&str], excluded: Option<&str>) -> Discovered {
        let source = SourceTable {
            oid: 1,
            name: TableName::new("public", name),
            kind: TableKind::Table,
            partition_root: None,
            columns: Vec::new(),
            primary_key: vec!["id".into()],
            replica_identity: ReplicaIdentity::Default,
            estimated_rows: -1,
            heap_bytes: 0,
        };
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let table = source.name.clone();
        Discovered {
            source,
            decision: TableDecision { table, tags, excluded: excluded.map(str::to_owned) },
        }
    }

    #[test]
    fn decisions_are_listed_and_counted() {
        let tables = [
            discovered("orders", &["core", "pii"], None),
            discovered("tmp", &[], Some("explicit exclude")),
        ];
        assert_eq!(
            table(&tables),
            "TABLE          STATUS    TAGS      REASON\n\
             public.orders  included  core,pii\n\
             public.tmp     excluded  -         explicit exclude\n\
             1 included, 1 excluded, 2 total\n"
        );
        let json = to_json(&tables, &TypeSettings::default());
        assert_eq!(json["tables"][1]["reason"], "explicit exclude");
        assert_eq!(json["tables"][0]["estimated_rows"], Value::Null);
    }
}
