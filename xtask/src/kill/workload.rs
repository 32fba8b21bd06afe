//! The work that goes on around a death: small, but of every kind, and counted by itself.

use anyhow::Result;

use crate::lab::{Counts, Daemon, Lab, SENTINEL};
use crate::pg::{Cluster, Database};

/// The database that each trial's own is a copy of.
const BASE: &str = "kill_base";
/// The same with rows that make files of several upload parts.
const BASE_IN_PARTS: &str = "kill_base_in_parts";

/// Rows of the large table; each is about 1 MB that does not compress.
const LARGE_ROWS: u64 = 10;

/// Makes the databases that trials copy. Nobody may be connected to them afterwards.
pub(super) fn make_bases(cluster: &Cluster) -> Result<()> {
    let small = cluster.create_database(BASE)?;
    small.execute(&format!(
        "CREATE TABLE {SENTINEL} (id int PRIMARY KEY, n bigint NOT NULL);
         INSERT INTO {SENTINEL} VALUES (1, 0);
         CREATE TABLE accounts (id int PRIMARY KEY, owner text, balance numeric(12,2), note text);
         ALTER TABLE accounts ALTER note SET STORAGE EXTERNAL;
         INSERT INTO accounts
           SELECT i, 'owner ' || i, i * 10, repeat('note ' || i, 2000) FROM generate_series(1, 5) i;
         CREATE TABLE orders (id bigint PRIMARY KEY, account int, state text, placed timestamptz);
         INSERT INTO orders SELECT i, 1, 'new', '2026-01-01' FROM generate_series(1, 5) i;
         CREATE TABLE ledger (entry text, amount int);
         ALTER TABLE ledger REPLICA IDENTITY FULL;
         INSERT INTO ledger VALUES ('opening', 1), ('opening', 1);
         CREATE TABLE scratch (id int PRIMARY KEY, v text);
         INSERT INTO scratch VALUES (1, 'x');
         CREATE TABLE large (id bigint PRIMARY KEY, data bytea);"
    ))?;
    let copy = format!("CREATE DATABASE {BASE_IN_PARTS} TEMPLATE {BASE}");
    cluster.database("postgres").execute(&copy)?;
    cluster.database(BASE_IN_PARTS).execute(&format!(
        "ALTER TABLE large ALTER data SET STORAGE EXTERNAL;
         INSERT INTO large SELECT i,
           (SELECT decode(string_agg(md5(random()::text || i || j), ''), 'hex')
            FROM generate_series(1, 65536) j)
         FROM generate_series(1, {LARGE_ROWS}) i"
    ))?;
    Ok(())
}

/// A fresh copy of the base.
pub(super) fn copy_base(cluster: &Cluster, name: &str, in_parts: bool) -> Result<Database> {
    let base = if in_parts { BASE_IN_PARTS } else { BASE };
    cluster.database("postgres").execute(&format!("CREATE DATABASE {name} TEMPLATE {base}"))?;
    Ok(cluster.database(name))
}

/// The work on one source, and what it has done so far.
pub(super) struct Workload {
    database: Database,
    in_parts: bool,
    rounds: u64,
    counts: Counts,
}

impl Workload {
    pub(super) fn new(lab: &Lab, in_parts: bool) -> Self {
        let database = lab.database().clone();
        Self { database, in_parts, rounds: 0, counts: Counts::new() }
    }

    /// The changes by table and operation, as the changelog should hold them.
    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Rounds of work so far.
    pub(super) fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Some transactions: inserts, updates that leave large values alone, changes of keys with and
    /// without such values, deletes, a truncate, rows that are told by all their columns.
    pub(super) fn round(&mut self) -> Result<()> {
        self.rounds += 1;
        let n = self.rounds * 10;
        self.database.execute(&format!(
            "BEGIN;
             INSERT INTO accounts
               SELECT {n} + i, 'owner', i, repeat('n{n}', 3000) FROM generate_series(0, 3) i;
             INSERT INTO orders SELECT {n} + i, {n}, 'new', now() FROM generate_series(0, 4) i;
             INSERT INTO ledger VALUES ('twin', {n}), ('twin', {n}), ('single', {n});
             COMMIT;
             UPDATE accounts SET balance = balance + 1 WHERE id IN (1, 2, {n});
             BEGIN;
             UPDATE accounts SET id = {n} + 7 WHERE id = {n} + 1;
             UPDATE accounts SET note = repeat('new {n}', 2000) WHERE id = 3;
             UPDATE orders SET state = 'paid' WHERE id = {n} + 1;
             COMMIT;
             BEGIN;
             DELETE FROM accounts WHERE id = {n} + 2;
             DELETE FROM orders WHERE id = {n};
             DELETE FROM ledger WHERE ctid = (SELECT min(ctid) FROM ledger WHERE amount = {n});
             UPDATE ledger SET entry = 'changed' WHERE entry = 'single' AND amount = {n};
             COMMIT;
             BEGIN;
             TRUNCATE scratch;
             INSERT INTO scratch VALUES (1, '{n}'), (2, 'y');
             UPDATE scratch SET id = 3 WHERE id = 2;
             COMMIT;"
        ))?;
        self.count("accounts", &[("I", 5), ("U", 4), ("D", 2)]);
        self.count("orders", &[("I", 5), ("U", 1), ("D", 1)]);
        self.count("ledger", &[("I", 3), ("U", 1), ("D", 1)]);
        self.count("scratch", &[("T", 1), ("I", 3), ("D", 1)]);
        if self.in_parts {
            self.database.execute(&format!(
                "INSERT INTO large SELECT {n}00 + id, data FROM large WHERE id <= {LARGE_ROWS}"
            ))?;
            self.count("large", &[("I", LARGE_ROWS)]);
        }
        Ok(())
    }

    /// Waits until all of it is in the lake.
    pub(super) fn settle(&mut self, lab: &Lab, daemon: &Daemon) -> Result<()> {
        // counted first: the change is made even if the daemon dies while we wait
        self.count(SENTINEL, &[("U", 1)]);
        lab.settle(daemon).map(|_| ())
    }

    fn count(&mut self, table: &str, changes: &[(&str, u64)]) {
        let counted = self.counts.entry(format!("public.{table}")).or_default();
        for (op, n) in changes {
            *counted.entry((*op).to_owned()).or_default() += n;
        }
    }
}
