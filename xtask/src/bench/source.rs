//! The table that benchmarks copy and change: ten columns of the types that real tables have.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::lab::Lab;
use crate::pg::{Cluster, Database};

/// The table's name, as SQL takes it.
pub(super) const TABLE: &str = "orders";

/// The id of the row that ends a workload.
pub(super) const LAST_ID: i64 = -1;

/// Makes the empty table.
pub(super) fn create(database: &Database) -> Result<()> {
    database
        .execute(&format!(
            "CREATE TABLE {TABLE} (
                 id bigint PRIMARY KEY, account int, quantity int, amount numeric(12,2),
                 status varchar(16), note text, made_at timestamptz, payload jsonb, ok bool, token uuid)"
        ))
        .map(|_| ())
}

/// SQL that inserts the rows `from ..= to`.
pub(super) fn insert(from: u64, to: u64) -> String {
    format!(
        "INSERT INTO {TABLE} SELECT i, (i * 7919 % 100000)::int, (i % 50)::int, (i % 1000000) / 100.0,
             (ARRAY['new', 'paid', 'shipped', 'returned'])[1 + (i % 4)::int],
             CASE WHEN i % 3 <> 0 THEN md5(i::text) || md5((i + 1)::text) END,
             timestamptz '2026-01-01' + i * interval '1.000123 s',
             jsonb_build_object('k', i % 1000, 'tags', jsonb_build_array('a', i % 7)),
             i % 5 = 0, CASE WHEN i % 10 <> 0 THEN md5((i * 3)::text)::uuid END
         FROM generate_series({from}::bigint, {to}) i;\n"
    )
}

/// A lab in `dir` over a database of this name with `rows` rows in the table, not initialised yet.
pub(super) fn lab(
    cluster: &Cluster,
    bins: &Path,
    dir: &Path,
    name: &str,
    rows: u64,
) -> Result<Lab> {
    let database = cluster.create_database(name)?;
    create(&database)?;
    database.execute(&insert(1, rows))?;
    let lab = Lab::new(bins, dir, database)?;
    lab.create_sentinel()?;
    Ok(lab)
}

/// `psql` with one command in a session with pinned settings, ready to be measured.
pub(super) fn psql(database: &Database, command: &str) -> Result<Command> {
    let mut psql = database.psql()?;
    psql.args(["-c", command]);
    Ok(psql)
}

/// How many bytes a command writes to its stdout.
pub(super) fn count_bytes(command: &mut Command) -> Result<u64> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().context("no stdout")?;
    let mut buffer = vec![0; 1 << 16];
    let mut total = 0;
    loop {
        match stdout.read(&mut buffer)? {
            0 => break,
            read => total += read as u64,
        }
    }
    ensure!(child.wait()?.success(), "a command whose output was counted failed");
    Ok(total)
}
