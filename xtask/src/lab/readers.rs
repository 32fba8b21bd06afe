//! Comparing lake and source through Iceberg readers that we did not write.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::{Mutex, PoisonError};

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
    compare_chosen(lab, expected, None)
}

/// Compares one table, and reads every snapshot that it ever had.
pub(crate) fn compare_with_history(lab: &Lab, table: &str) -> Result<u64> {
    compare_chosen(lab, Expected::AnyChanges, Some(table))
}

fn compare_chosen(lab: &Lab, expected: Expected<'_>, only: Option<&str>) -> Result<u64> {
    let manifest = lab.manifest()?;
    let dumps = lab.dir().join("dumps");
    fs::create_dir_all(&dumps)?;
    let mut tables = Vec::new();
    let chosen = written_tables(&manifest)?
        .into_iter()
        .filter(|table| only.is_none_or(|only| only == table.name));
    for (number, table) in chosen.enumerate() {
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
            "history": only.is_some(),
        }));
    }
    let request = json!({
        "catalog": lab.state_dir().join("catalog.db"),
        "extensions": setup::duckdb_extensions()?,
        "root": lab.storage().root(),
        "s3": lab.storage().reader_settings(),
        "orphans": lab.may_have_orphans,
        "tables": tables,
    });
    verdict(&ask(&request)?)
}

/// A Python with the readers loaded, which takes a second or two; it answers one request a line.
struct Reader {
    python: Child,
    answers: BufReader<ChildStdout>,
    talk: tempfile::NamedTempFile,
}

/// Readers that wait for their next request.
static IDLE_READERS: Mutex<Vec<Reader>> = Mutex::new(Vec::new());

impl Reader {
    fn start() -> Result<Self> {
        let script = repo::root().join("xtask/readers/compare.py");
        let talk = tempfile::NamedTempFile::new()?;
        let mut python = shell::command(setup::interpreter()?);
        python.arg("-B").arg(&script).arg(setup::duckdb_extensions()?);
        python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(talk.reopen()?);
        let mut python = python.spawn().context("cannot start Python")?;
        let answers = BufReader::new(python.stdout.take().context("Python has no stdout")?);
        Ok(Self { python, answers, talk })
    }

    fn ask(&mut self, request: &Value) -> Result<Value> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let stdin = self.python.stdin.as_mut().context("Python has no stdin")?;
        stdin.write_all(&line)?;
        stdin.flush()?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        serde_json::from_str(&answer).with_context(|| {
            let talk = fs::read_to_string(self.talk.path()).unwrap_or_default();
            format!("the comparison printed no report:\n{answer}{talk}")
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.python.kill();
        let _ = self.python.wait();
    }
}

/// Asks a reader that is free, or a new one; one that failed is not asked again.
fn ask(request: &Value) -> Result<Value> {
    let idle = || IDLE_READERS.lock().unwrap_or_else(PoisonError::into_inner);
    let waiting = idle().pop();
    let mut reader = match waiting {
        Some(reader) => reader,
        None => Reader::start()?,
    };
    let answer = reader.ask(request)?;
    idle().push(reader);
    Ok(answer)
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
