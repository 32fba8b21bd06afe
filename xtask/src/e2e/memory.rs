//! What a daemon uses at its peak, whatever the source throws at it: `VmHWM` under a bound at default
//! settings. With `PGCDC_E2E_FULL=1` in the environment the scenarios run at the sizes that
//! the limits are promised for, which takes minutes and 15 GB of disk.

use anyhow::{Result, ensure};

use super::{Env, Scenario};
use crate::lab::{Daemon, Lab};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("rows_of_5_megabytes_in_one_transaction_stay_within_memory", rows_in_one),
    ("rows_of_5_megabytes_in_many_transactions_stay_within_memory", rows_in_many),
    ("forty_tables_in_one_transaction_share_the_memory", forty_tables),
    ("a_row_of_many_megabytes_passes_alone", huge_row),
];

/// What the daemon may use at its peak.
pub(super) const PEAK_RSS_MAX: u64 = 512 * 1024 * 1024;

/// Whether to run at full size.
pub(super) fn is_full() -> bool {
    std::env::var_os("PGCDC_E2E_FULL").is_some_and(|value| value == "1")
}

/// Fails when the daemon has used more than `most` bytes of memory.
pub(super) fn expect_peak(daemon: &Daemon, most: u64) -> Result<()> {
    let peak = daemon.peak_rss()?;
    println!("     peak RSS of the daemon: {} MiB", peak / 1024 / 1024);
    ensure!(peak < most, "the daemon's peak RSS was {peak} bytes");
    Ok(())
}

/// A table of documents that do not compress, and a function that makes different ones fast.
fn create_documents(lab: &Lab, megabytes: u32) -> Result<()> {
    lab.database().execute(&format!(
        "CREATE TABLE docs (id int PRIMARY KEY, doc jsonb NOT NULL);
         ALTER TABLE docs ALTER doc SET STORAGE EXTERNAL;
         CREATE UNLOGGED TABLE noise AS SELECT string_agg(md5(i::text), '') AS hex
           FROM generate_series(1, {megabytes} * 32768) i;
         CREATE FUNCTION doc(i int) RETURNS jsonb LANGUAGE sql AS $$
           SELECT jsonb_build_object('id', i, 'hex', substr(hex, i) || left(hex, i)) FROM noise $$;"
    ))?;
    Ok(())
}

/// Compares what can be told about documents without holding them all.
fn expect_documents(lab: &Lab) -> Result<()> {
    let ours = lab.query(&[
        "--sql",
        "SELECT count(*) AS n, sum(length(doc)) AS bytes, count(DISTINCT substr(doc, 1, 90)) AS d
         FROM public.docs",
        "-f",
        "csv",
    ])?;
    let source = lab.database().value(
        "SELECT concat_ws(',', count(*), sum(length(doc::text)), \
         count(DISTINCT left(doc::text, 90))) FROM docs",
    )?;
    ensure!(ours.lines().nth(1) == Some(source.trim()), "the lake has {ours}, the source {source}");
    Ok(())
}

fn rows_in_one(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    create_documents(&lab, 5)?;
    lab.init()?;
    let daemon = lab.start()?;
    let rows = if is_full() { 1000 } else { 100 };
    lab.database().execute(&format!(
        "BEGIN; INSERT INTO docs SELECT i, doc(i) FROM generate_series(1, {rows}) i;
         UPDATE docs SET id = -id WHERE id % 10 = 0; COMMIT;"
    ))?;
    lab.settle(&daemon)?;
    expect_peak(&daemon, PEAK_RSS_MAX)?;
    expect_documents(&lab)?;
    daemon.stop()
}

fn rows_in_many(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    create_documents(&lab, 5)?;
    lab.init()?;
    let daemon = lab.start()?;
    let rows = if is_full() { 1000 } else { 100 };
    lab.database().execute(&format!(
        "DO $$ BEGIN FOR i IN 1 .. {rows} LOOP
           INSERT INTO docs SELECT i, doc(i); COMMIT;
         END LOOP; END $$;
         UPDATE docs SET id = -id WHERE id % 10 = 0;"
    ))?;
    lab.settle(&daemon)?;
    expect_peak(&daemon, PEAK_RSS_MAX)?;
    expect_documents(&lab)?;
    daemon.stop()
}

fn forty_tables(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(
        "CREATE UNLOGGED TABLE noise AS SELECT string_agg(md5(i::text), '') AS hex
           FROM generate_series(1, 3300) i;
         DO $$ BEGIN FOR t IN 1 .. 40 LOOP
           EXECUTE format('CREATE TABLE wide_%s (id int PRIMARY KEY, v text)', t);
           EXECUTE format('ALTER TABLE wide_%s ALTER v SET STORAGE EXTERNAL', t);
         END LOOP; END $$;",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    let rounds = if is_full() { 250 } else { 25 };
    // Round by round, so that all tables have rows in the making at once.
    lab.database().execute(&format!(
        "DO $$ BEGIN FOR r IN 1 .. {rounds} LOOP FOR t IN 1 .. 40 LOOP
           EXECUTE format('INSERT INTO wide_%s SELECT {rounds} * i + %s, substr(hex, i + %s) ||
             left(hex, %s) FROM noise, generate_series(1, 4) i', t, r, r, r);
         END LOOP; END LOOP; END $$;"
    ))?;
    lab.settle(&daemon)?;
    expect_peak(&daemon, PEAK_RSS_MAX)?;
    for table in [1, 20, 40] {
        let ours = lab.query(&[
            "--sql",
            &format!("SELECT count(*) AS n, sum(length(v)) AS bytes FROM public.wide_{table}"),
            "-f",
            "csv",
        ])?;
        let source = lab
            .database()
            .value(&format!("SELECT concat_ws(',', count(*), sum(length(v))) FROM wide_{table}"))?;
        let ours = ours.lines().nth(1).unwrap_or_default().to_owned();
        ensure!(ours == source.trim(), "table {table}: the lake has {ours}, the source {source}");
    }
    let epochs = lab.query(&[
        "--sql",
        "SELECT count(DISTINCT __epoch) AS n FROM public.wide_7__changes",
        "-f",
        "csv",
    ])?;
    ensure!(epochs.lines().nth(1) == Some("1"), "one transaction became {epochs} epochs");
    daemon.stop()
}

/// A row cannot be written in parts, so it costs a multiple of its size; how many is bounded too.
fn huge_row(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    let megabytes: u32 = if is_full() { 200 } else { 60 };
    lab.database().execute(
        "CREATE TABLE docs (id int PRIMARY KEY, doc text);
         ALTER TABLE docs ALTER doc SET STORAGE EXTERNAL;",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database().execute(&format!(
        "INSERT INTO docs SELECT 1, repeat(md5('x'), {megabytes} * 32768);
         INSERT INTO docs VALUES (2, 'small');
         UPDATE docs SET id = 3 WHERE id = 1;"
    ))?;
    lab.settle(&daemon)?;
    expect_peak(&daemon, PEAK_RSS_MAX.max(7 * u64::from(megabytes) * 1024 * 1024))?;
    expect_documents(&lab)?;
    daemon.stop()
}
