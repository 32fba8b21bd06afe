//! Transactions stay whole, however large, and their size costs disk, not memory.

use anyhow::{Result, ensure};

use super::memory::{PEAK_RSS_MAX, expect_peak, is_full};
use super::{Env, Scenario};
use crate::lab::{Expected, Oracle};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("a_transaction_is_never_split_over_epochs", atomic),
    ("a_million_changes_in_one_transaction_are_one_epoch_in_bounded_memory", million_streamed),
    ("a_million_changes_are_one_epoch_where_the_server_keeps_them", million_kept),
];

fn atomic(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    // Small limits, so that flushes fall due inside of transactions.
    lab.set("flush.max_rows", 50.into())?;
    lab.set("flush.interval_sec", 0.1.into())?;
    lab.database().execute(
        "CREATE TABLE debit (id int PRIMARY KEY, amount int NOT NULL);
         CREATE TABLE credit (id int PRIMARY KEY, amount int NOT NULL);
         INSERT INTO debit SELECT i, 1000 FROM generate_series(1, 10) i;
         INSERT INTO credit SELECT i, 1000 FROM generate_series(1, 10) i;
         CREATE PROCEDURE transfer(rounds int) LANGUAGE plpgsql AS $$ BEGIN
           FOR n IN 1 .. rounds LOOP
             UPDATE debit SET amount = amount - n WHERE id <= 1 + n % 10;
             UPDATE credit SET amount = amount + n WHERE id <= 1 + n % 10;
             COMMIT;
           END LOOP; END $$;",
    )?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    lab.database().execute("CALL transfer(1500)")?;
    lab.settle(&daemon)?;
    let counts = oracle.counts()?;
    lab.expect_equal(Expected::Changes(&counts))?;
    // In every epoch both tables have the same number of changes, as in every transaction.
    let uneven = lab.query(&[
        "--sql",
        "SELECT count(*) AS n FROM
           (SELECT __epoch AS e, count(*) AS n FROM public.debit__changes GROUP BY __epoch) d
           FULL JOIN
           (SELECT __epoch AS e, count(*) AS n FROM public.credit__changes GROUP BY __epoch) c
           ON d.e = c.e WHERE d.n IS DISTINCT FROM c.n",
        "-f",
        "csv",
    ])?;
    ensure!(uneven.lines().nth(1) == Some("0"), "epochs split a transaction: {uneven}");
    let epochs = lab.manifest()?["epoch"].as_i64().unwrap_or(0);
    ensure!(epochs > 1, "everything came in one epoch, so this proves nothing");
    daemon.stop()
}

fn million_streamed(env: &Env<'_>) -> Result<()> {
    million(env, "auto")
}

fn million_kept(env: &Env<'_>) -> Result<()> {
    million(env, "off")
}

fn million(env: &Env<'_>, streaming: &str) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("replication.streaming", streaming.into())?;
    lab.database().execute(
        "CREATE TABLE big (id bigint PRIMARY KEY, a int, b text, c numeric(12,2), d timestamptz)",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    let part: u32 = if is_full() { 500_000 } else { 100_000 };
    lab.database().execute(&format!(
        "BEGIN;
         INSERT INTO big SELECT i, i % 100, md5(i::text), i / 7.0, timestamptz '2026-01-01' + i * interval '1 s'
         FROM generate_series(1, 7 * {part}) i;
         UPDATE big SET a = a + 1 WHERE id <= 2 * {part};
         DELETE FROM big WHERE id > 6 * {part};
         COMMIT;"
    ))?;
    lab.settle(&daemon)?;
    expect_peak(&daemon, PEAK_RSS_MAX)?;
    lab.expect_equal(Expected::AnyChanges)?;
    let counted = lab.query(&[
        "--sql",
        "SELECT count(DISTINCT __epoch) AS epochs, count(*) AS changes FROM public.big__changes",
        "-f",
        "csv",
    ])?;
    let expected = format!("1,{}", 10 * part);
    ensure!(counted.lines().nth(1) == Some(&*expected), "epochs and changes are {counted}");
    daemon.stop()
}
