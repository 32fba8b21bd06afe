//! Comparing lake and source through Iceberg readers that we did not write.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Lab;
use super::lake::{quote, split_name, written_tables};
use super::oracle::Counts;
use crate::{repo, setup, shell};

/// What the changelogs should hold.
#[derive(Clone, Copy)]
pub(crate) enum Expected<'a> {
    /// Whatever they hold, each change once.
    AnyChanges,
    /// Exactly these counts, for every table that is compared.
    Changes(&'a Counts),
}

/// Compares all active tables but quarantined ones and returns how many rows were compared.
///
/// The source must be at rest and the lake settled.
pub(crate) fn compare(lab: &Lab, expected: Expected<'_>) -> Result<u64> {
    let manifest = lab.manifest()?;
    let dumps = lab.dir().join("dumps");
    fs::create_dir_all(&dumps)?;
    let mut tables = Vec::new();
    for (number, table) in written_tables(&manifest)?.into_iter().enumerate() {
        let (schema, name) = split_name(table.name)?;
        let columns: Vec<String> = table.columns.iter().map(|name| quote(name)).collect();
        let file = dumps.join(format!("{number}.copy"));
        let query =
            format!("SELECT {} FROM {}.{}", columns.join(", "), quote(&schema), quote(&name));
        lab.database().copy_to_file(&query, &file)?;
        let counts = match expected {
            Expected::AnyChanges => Value::Null,
            Expected::Changes(all) => json!(all.get(table.name).cloned().unwrap_or_default()),
        };
        tables.push(json!({
            "name": table.name,
            "path": table.entry["path"],
            "current": table.entry["iceberg_table"],
            "changes": table.entry["changes_iceberg_table"],
            "metadata_location": table.entry["metadata_location"],
            "changes_metadata_location": table.entry["changes_metadata_location"],
            "columns": table.columns,
            "source": file,
            "changes_expected": counts,
        }));
    }
    let request = json!({
        "catalog": lab.state_dir().join("catalog.db"),
        "extensions": setup::duckdb_extensions()?,
        "root": lab.storage().root(),
        "s3": lab.storage().reader_settings(),
        "tables": tables,
    });
    verdict(&ask(&request)?)
}

fn ask(request: &Value) -> Result<Value> {
    let script = repo::root().join("xtask/readers/compare.py");
    let mut python = shell::command(setup::interpreter()?);
    python.arg("-B").arg(&script);
    python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = python.spawn().context("cannot start Python")?;
    let mut stdin = child.stdin.take().context("Python has no stdin")?;
    // The script reads all of its stdin before it prints anything.
    stdin.write_all(&serde_json::to_vec(request)?)?;
    drop(stdin);
    let out = child.wait_with_output()?;
    if !out.status.success() {
        bail!("the comparison failed: {}", shell::talk(&out));
    }
    serde_json::from_slice(&out.stdout).context("the comparison printed no report")
}

fn verdict(report: &Value) -> Result<u64> {
    let tables = report.as_object().context("the report of the comparison is no mapping")?;
    let mut problems = Vec::new();
    for (name, table) in tables {
        for problem in table["problems"].as_array().into_iter().flatten() {
            problems.push(format!("{name}: {}", problem.as_str().unwrap_or_default()));
        }
    }
    if !problems.is_empty() {
        bail!("lake and source differ:\n  {}", problems.join("\n  "));
    }
    Ok(tables.values().filter_map(|table| table["rows"].as_u64()).sum())
}
