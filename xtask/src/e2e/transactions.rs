//! Transactions stay whole, however large, and their size costs disk, not memory.

use anyhow::{Result, ensure};

use super::{Env, Scenario};
use crate::lab::{Expected, Oracle};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("a_transaction_is_never_split_over_epochs", atomic),
    ("a_million_changes_in_one_transaction_are_one_epoch_in_bounded_memory", million),
];

/// What the daemon may use at its peak while it takes in a huge transaction.
const PEAK_RSS_MAX: u64 = 512 * 1024 * 1024;

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

fn million(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE big (id bigint PRIMARY KEY, a int, b text, c numeric(12,2), d timestamptz)",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database().execute(
        "BEGIN;
         INSERT INTO big SELECT i, i % 100, md5(i::text), i / 7.0, timestamptz '2026-01-01' + i * interval '1 s'
         FROM generate_series(1, 700000) i;
         UPDATE big SET a = a + 1 WHERE id <= 200000;
         DELETE FROM big WHERE id > 600000;
         COMMIT;",
    )?;
    lab.settle(&daemon)?;
    let peak = daemon.peak_rss()?;
    println!("     peak RSS of the daemon: {} MiB", peak / 1024 / 1024);
    lab.expect_equal(Expected::AnyChanges)?;
    let counted = lab.query(&[
        "--sql",
        "SELECT count(DISTINCT __epoch) AS epochs, count(*) AS changes FROM public.big__changes",
        "-f",
        "csv",
    ])?;
    ensure!(counted.lines().nth(1) == Some("1,1000000"), "epochs and changes are {counted}");
    ensure!(peak < PEAK_RSS_MAX, "the daemon's peak RSS was {peak} bytes");
    daemon.stop()
}
