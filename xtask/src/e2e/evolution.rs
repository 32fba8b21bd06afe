//! Tables that change while they are followed: columns, types, keys and replica identities, one after
//! the other and several in one transaction, with rows between and without.

mod fills;
mod steps;

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use self::steps::{ORDERS, STEPS, Step, step};
use super::{Env, Scenario};
use crate::lab::{Daemon, Expected, Lab, Oracle, compare_with_history, parse_lsn};
use crate::shell;

pub(super) const SCENARIOS: &[Scenario] = &[
    ("tables_that_change_stay_equal_without_a_restart", script),
    ("changes_of_a_key_are_followed", keys),
    ("unchanged_values_are_carried_over_changes_of_their_table", toast),
    ("what_older_rows_have_is_never_guessed", unknown_rows),
    ("changes_that_were_made_while_nobody_followed_are_caught_up", offline),
    ("kill_9_around_changes_loses_nothing_and_gives_no_id_twice", kills),
    ("a_change_that_others_do_not_see_yet_is_followed", unseen),
    ("reconcile_plans_and_applies", reconcile),
    ("older_rows_get_the_constant_of_a_new_column", fills::constants),
    ("constants_of_columns_that_were_added_while_nobody_followed_arrive", fills::offline),
    ("kill_9_around_a_constant_fills_older_rows_once", fills::kills),
    ("a_constant_that_cannot_be_given_to_older_rows_stops_its_table", fills::refused),
    ("a_constant_waits_for_promotion_with_its_rows", fills::promoted),
    ("a_constant_beside_compaction_loses_no_row", fills::beside_compaction),
];

/// How long a change may take to arrive.
const LIMIT: Duration = Duration::from_secs(60);

fn script(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.schema_reconcile_interval_sec", 1.into())?;
    lab.database().execute(ORDERS)?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    let pid = daemon.pid();
    let mut tags = Vec::new();
    for Step { name, table, sql } in STEPS {
        lab.database().execute(sql).with_context(|| (*name).to_owned())?;
        follow(&lab, &daemon, table)
            .and_then(|()| lab.settle(&daemon).map(|_| ()))
            .and_then(|()| compare_with_history(&lab, &format!("public.{table}")).map(|_| ()))
            .with_context(|| (*name).to_owned())?;
        tags.push(Kept::of(&lab, table)?);
    }
    if env.cluster.major() < 18 {
        generated(&lab, &daemon)?;
    }
    daemon.expect_alive()?;
    ensure!(daemon.pid() == pid, "another process follows");
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    lab.expect_confirmed_is_covered()?;
    expect_ids_once(&lab, &tags)?;
    for kept in &tags {
        kept.expect_readable(&lab)?;
    }
    expect_told(&lab, &daemon)?;
    daemon.stop()
}

/// A stored generated column is left out, and says so.
fn generated(lab: &Lab, daemon: &Daemon) -> Result<()> {
    lab.database().execute(
        "ALTER TABLE orders ADD COLUMN twice bigint GENERATED ALWAYS AS (order_id * 2) STORED;
         INSERT INTO orders (order_id) VALUES (30002);",
    )?;
    lab.wait_until(daemon, "the generated column to be named", |manifest| {
        Ok(manifest["schemas"]["public.orders"]["omitted"][0]["name"] == "twice")
    })?;
    lab.settle(daemon)?;
    compare_with_history(lab, "public.orders").map(|_| ())
}

/// Waits until the lake has the columns that a table has on the source.
fn follow(lab: &Lab, daemon: &Daemon, table: &str) -> Result<()> {
    let wanted = source_columns(lab, table)?;
    let name = format!("public.{table}");
    let columns = |manifest: &Value| -> Vec<String> {
        let columns = manifest["schemas"][&name]["columns"].as_array().cloned().unwrap_or_default();
        let text = |column: &Value| {
            let nullable = if column["nullable"] == true { "" } else { " not null" };
            format!("{} {}{nullable}", text(&column["name"]), text(&column["pg_type_full"]))
        };
        columns.iter().map(text).collect()
    };
    shell::wait_for("the schema to follow", LIMIT, || {
        daemon.expect_alive()?;
        let manifest = lab.manifest()?;
        let entry = &manifest["tables"][&name];
        ensure!(entry["state"] == "streaming", "{name} stopped: {}", entry["reason"]);
        Ok((columns(&manifest) == wanted).then_some(()))
    })
    .with_context(|| {
        let found = lab.manifest().map(|manifest| columns(&manifest)).unwrap_or_default();
        format!("the source has {wanted:?}, the lake {found:?}\n{}", daemon.log_end())
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The published columns of a table, as the manifest writes them.
fn source_columns(lab: &Lab, table: &str) -> Result<Vec<String>> {
    let query = format!(
        "SET search_path = '';
         SELECT attname || ' ' || format_type(atttypid, atttypmod) ||
           CASE WHEN attnotnull THEN ' not null' ELSE '' END
         FROM pg_attribute WHERE attrelid = 'public.{table}'::regclass AND attnum > 0
         AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"
    );
    Ok(lab.database().execute(&query)?.lines().map(str::to_owned).collect())
}

/// A cut by its raw tag, with what a table read then.
struct Kept {
    tag: String,
    table: &'static str,
    header: String,
    rows: usize,
    ids: Vec<(String, i64, String)>,
}

impl Kept {
    fn of(lab: &Lab, table: &'static str) -> Result<Kept> {
        let name = format!("public.{table}");
        let read = lab.query(&["-t", &name, "-n", "100000", "-f", "csv"])?;
        let refs: Value =
            serde_json::from_slice(&lab.object("refs.json")?.context("there is no refs.json")?)?;
        let columns = lab.manifest()?["schemas"][&name]["columns"].clone();
        let column = |column: &Value| {
            let id = column["field_id"].as_i64().unwrap_or_default();
            (text(&column["name"]).to_owned(), id, column["attnum"].to_string())
        };
        Ok(Kept {
            tag: text(&refs["raw"]["newest"]).to_owned(),
            table,
            header: read.lines().next().unwrap_or_default().to_owned(),
            rows: read.lines().count(),
            ids: columns.as_array().into_iter().flatten().map(column).collect(),
        })
    }

    fn expect_readable(&self, lab: &Lab) -> Result<()> {
        let name = format!("public.{}", self.table);
        let read = lab.query(&["-t", &name, "--ref", &self.tag, "-n", "100000", "-f", "csv"])?;
        let (header, rows) = (read.lines().next().unwrap_or_default(), read.lines().count());
        ensure!(
            (header, rows) == (self.header.as_str(), self.rows),
            "{} reads {rows} lines of {header:?}, not {} of {:?}",
            self.tag,
            self.rows,
            self.header
        );
        Ok(())
    }
}

/// No field id ever stood for two attributes of a table.
fn expect_ids_once(lab: &Lab, tags: &[Kept]) -> Result<()> {
    let mut owners = std::collections::BTreeMap::new();
    for kept in tags {
        for (name, id, attnum) in &kept.ids {
            let owner = owners.entry((kept.table, *id)).or_insert_with(|| attnum.clone());
            ensure!(owner == attnum, "field id {id} of {} was {owner}, now {name}", kept.table);
        }
    }
    let manifest = lab.manifest()?;
    for kept in tags {
        let name = format!("public.{}", kept.table);
        let version = &manifest["schemas"][&name]["version"];
        ensure!(*version == manifest["tables"][&name]["schema_version"], "{name}: two versions");
    }
    Ok(())
}

/// The log and the metrics name the changes.
fn expect_told(lab: &Lab, daemon: &Daemon) -> Result<()> {
    let log = daemon.log();
    let told = log.lines().filter(|line| line.contains("schema reconciled")).count();
    let version = lab.manifest()?["schemas"]["public.orders"]["version"].as_u64();
    let version = version.context("no version")?;
    ensure!(version > 20 && told as u64 >= version - 1, "{told} changes told, version {version}");
    let metrics = daemon.metrics()?;
    for kind in ["add", "drop", "rename", "type", "nullability"] {
        let series =
            format!("pgcdc_schema_reconciles_total{{table=\"public.orders\",kind=\"{kind}\"}}");
        ensure!(metrics.get(&series) >= 1.0, "{series} was not counted");
    }
    ensure!(metrics.get("pgcdc_reconcile_staleness_seconds") < 30.0, "no look at the catalog");
    Ok(())
}

/// Changes of keys and identities.
const KEY_STEPS: &[Step] = &[
    step(
        "another column becomes the key",
        "k",
        "INSERT INTO k VALUES (11, 111, 'x'); ALTER TABLE k DROP CONSTRAINT k_pkey, ADD PRIMARY KEY (b);
         UPDATE k SET a = 1000 WHERE b = 103; DELETE FROM k WHERE b = 104; UPDATE k SET b = 999 WHERE b = 105;",
    ),
    step(
        "the key gets two columns",
        "k",
        "ALTER TABLE k DROP CONSTRAINT k_pkey, ADD PRIMARY KEY (b, a);
         UPDATE k SET v = 'two' WHERE b = 106; DELETE FROM k WHERE b = 107;",
    ),
    step(
        "the whole row beside a key",
        "k",
        "ALTER TABLE k REPLICA IDENTITY FULL; UPDATE k SET v = 'full' WHERE b = 108; DELETE FROM k WHERE b = 109;",
    ),
    step(
        "an index instead of the key",
        "k",
        "CREATE UNIQUE INDEX k_v ON k (a); ALTER TABLE k REPLICA IDENTITY USING INDEX k_v;
         UPDATE k SET v = 'index' WHERE b = 110; DELETE FROM k WHERE b = 111; UPDATE k SET a = 77 WHERE b = 102;",
    ),
    step(
        "the key again",
        "k",
        "ALTER TABLE k REPLICA IDENTITY DEFAULT; UPDATE k SET v = 'again' WHERE b = 102; INSERT INTO k VALUES (50, 50, 'f');",
    ),
    step(
        "no key, and the whole row",
        "k",
        "ALTER TABLE k REPLICA IDENTITY FULL; ALTER TABLE k DROP CONSTRAINT k_pkey; DROP INDEX k_v;
         INSERT INTO k VALUES (50, 50, 'f'), (50, 50, 'f');
         DELETE FROM k WHERE ctid IN (SELECT ctid FROM k WHERE a = 50 LIMIT 1);
         UPDATE k SET v = 'whole' WHERE b = 102;",
    ),
    step(
        "a key for a table that had none",
        "k",
        "DELETE FROM k WHERE a = 50; ALTER TABLE k ADD PRIMARY KEY (b), REPLICA IDENTITY DEFAULT;
         UPDATE k SET v = 'keyed' WHERE b = 101; DELETE FROM k WHERE b = 102;",
    ),
    step(
        "the key changes in a transaction that begins with it",
        "k",
        "BEGIN; ALTER TABLE k DROP CONSTRAINT k_pkey, ADD PRIMARY KEY (a); INSERT INTO k VALUES (60, 60, 's');
         UPDATE k SET b = 61 WHERE a = 60; UPDATE k SET a = 62 WHERE a = 60; COMMIT;",
    ),
];

fn keys(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.schema_reconcile_interval_sec", 1.into())?;
    lab.database().execute(
        "CREATE TABLE k (a int NOT NULL, b int NOT NULL, v text, PRIMARY KEY (a));
         INSERT INTO k SELECT i, 100 + i, 'v' || i FROM generate_series(1, 10) i;",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    for Step { name, table, sql } in KEY_STEPS {
        lab.database().execute(sql).with_context(|| (*name).to_owned())?;
        follow(&lab, &daemon, table)
            .and_then(|()| lab.settle(&daemon).map(|_| ()))
            .and_then(|()| compare_with_history(&lab, "public.k").map(|_| ()))
            .with_context(|| (*name).to_owned())?;
        expect_identity(&lab, &daemon).with_context(|| (*name).to_owned())?;
    }
    // the same behind a restart: index and manifest agree
    daemon.stop()?;
    let daemon = lab.start()?;
    lab.database().execute("UPDATE k SET v = 'restarted' WHERE b = 103")?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    daemon.stop()
}

/// The manifest and the table's property name the source's key.
fn expect_identity(lab: &Lab, daemon: &Daemon) -> Result<()> {
    let key = "SELECT coalesce(string_agg(attname, ',' ORDER BY k.n), '') FROM pg_index i
        CROSS JOIN unnest(i.indkey) WITH ORDINALITY k(attnum, n)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        JOIN pg_class c ON c.oid = i.indrelid
        WHERE c.relname = 'k' AND CASE c.relreplident WHEN 'i' THEN indisreplident ELSE indisprimary END";
    let wanted = lab.database().value(key)?;
    let found = |manifest: &Value| {
        let entry = &manifest["tables"]["public.k"];
        let listed = entry["primary_key"].as_array().or(entry["identity_columns"].as_array());
        let names: Vec<&str> = listed.into_iter().flatten().map(text).collect();
        names.join(",")
    };
    shell::wait_for("the key to follow", LIMIT, || {
        daemon.expect_alive()?;
        Ok((found(&lab.manifest()?) == wanted).then_some(()))
    })
    .with_context(|| {
        format!("the source has {wanted}, the lake {:?}", lab.manifest().map(|m| found(&m)))
    })
}

fn toast(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE t (id int PRIMARY KEY, big text, n int);
         ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
         INSERT INTO t SELECT i, repeat('big' || i, 2000), i FROM generate_series(1, 10) i;",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    let changes = [
        "ALTER TABLE t ADD COLUMN a int; UPDATE t SET a = 1 WHERE id = 1; UPDATE t SET id = 102 WHERE id = 2;",
        "ALTER TABLE t RENAME big TO large; UPDATE t SET n = 0 WHERE id = 3; UPDATE t SET id = 104 WHERE id = 4;",
        "BEGIN; UPDATE t SET n = 7 WHERE id = 5; ALTER TABLE t DROP COLUMN a; UPDATE t SET n = 8 WHERE id = 5;
         INSERT INTO t VALUES (11, repeat('new', 3000), 1); ALTER TABLE t ADD COLUMN b bigint;
         UPDATE t SET b = 5 WHERE id = 11; UPDATE t SET b = 6 WHERE id = 5; UPDATE t SET id = 111 WHERE id = 11; COMMIT;",
        "ALTER TABLE t ALTER n TYPE bigint; UPDATE t SET n = 9 WHERE id = 6;",
    ];
    for change in changes {
        lab.database().execute(change)?;
        lab.settle(&daemon)?;
        compare_with_history(&lab, "public.t").with_context(|| change.to_owned())?;
    }
    daemon.stop()
}

/// With synchronous replication a transaction is in the log, and sent, long before the catalog has it
/// for others. Read by the catalog of before, an exchanged column is a renamed one.
fn unseen(env: &Env<'_>) -> Result<()> {
    let cluster = env.own_cluster("")?;
    let lab = env.lab_on(&cluster)?;
    lab.database()
        .execute("CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'old');")?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    let changes = [
        "ALTER TABLE t DROP COLUMN a; ALTER TABLE t ADD COLUMN b text; INSERT INTO t VALUES (2, 'b');",
        "CREATE TYPE mood AS ENUM ('fine'); ALTER TABLE t ADD COLUMN m mood;
         INSERT INTO t VALUES (3, 'c', 'fine');",
    ];
    let set = |standby: &str| -> Result<()> {
        let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{standby}'");
        lab.database().execute(&set)?;
        lab.database().execute("SELECT pg_reload_conf()")?;
        shell::wait_for("the server to know its standbys", LIMIT, || {
            Ok((lab.database().value("SHOW synchronous_standby_names")? == standby).then_some(()))
        })
    };
    for change in changes {
        set("nobody")?;
        let mut psql = lab.database().psql()?;
        psql.args(["-c", "SET synchronous_commit = on"]);
        psql.args(["-c", &format!("BEGIN; {change} COMMIT;")]);
        let mut changing = psql.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE wait_event = 'SyncRep' AND query LIKE '%ALTER TABLE t%'";
        shell::wait_for("the change to wait for its standby", LIMIT, || {
            Ok((lab.database().number(waiting)? == 1).then_some(()))
        })?;
        std::thread::sleep(Duration::from_secs(3));
        ensure!(lab.database().number(waiting)? == 1, "the change did not wait");
        set("")?;
        ensure!(changing.wait()?.success(), "the change failed");
        lab.settle(&daemon)?;
        compare_with_history(&lab, "public.t").with_context(|| change.to_owned())?;
        let manifest = lab.manifest()?;
        ensure!(manifest["tables"]["public.t"]["state"] == "streaming", "{change}: t stopped");
    }
    daemon.stop()
}

/// Changes after which older rows have on the source what was never sent: the table stops, is still
/// readable as it was, and the others go on.
fn unknown_rows(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.schema_reconcile_interval_sec", 1.into())?;
    lab.set("replication.heartbeat_interval_sec", 1.into())?;
    let cases = [
        ("q_retyped", "ALTER TABLE q_retyped ALTER n TYPE text", "no longer integer but text"),
        (
            "q_narrowed",
            "ALTER TABLE q_narrowed ALTER v TYPE varchar(3) USING left(v, 3)",
            "older rows may differ",
        ),
        (
            "q_json",
            "ALTER TABLE q_json ALTER v TYPE jsonb USING to_jsonb(v)",
            "older rows may differ",
        ),
        (
            "q_random",
            "ALTER TABLE q_random ADD COLUMN u float8 DEFAULT random()",
            "values for older rows",
        ),
        ("q_serial", "ALTER TABLE q_serial ADD COLUMN s serial", "values for older rows"),
        (
            "q_again",
            "ALTER TABLE q_again DROP COLUMN n; ALTER TABLE q_again ADD COLUMN n int",
            "dropped and added again",
        ),
        (
            "q_again_with_rows",
            "ALTER TABLE q_again_with_rows DROP COLUMN n; ALTER TABLE q_again_with_rows ADD COLUMN n int;
             INSERT INTO q_again_with_rows VALUES (0, 'value1', 7)",
            "column n was dropped and added again",
        ),
        ("q_reserved", "ALTER TABLE q_reserved ADD COLUMN __op text", "reserved column name"),
        ("q_keyless", "ALTER TABLE q_keyless DROP CONSTRAINT q_keyless_pkey", "replica identity"),
        ("q_nothing", "ALTER TABLE q_nothing REPLICA IDENTITY NOTHING", "NOTHING"),
        ("q_moved", "ALTER TABLE q_moved RENAME TO q_elsewhere", "now named public.q_elsewhere"),
    ];
    let mut script = "CREATE TABLE fine (id int PRIMARY KEY, v text);".to_owned();
    for (table, ..) in &cases {
        script += &format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, v text, n int);
             INSERT INTO {table} SELECT i, 'value' || i, i FROM generate_series(1, 5) i;"
        );
    }
    lab.database().execute(&script)?;
    lab.init()?;
    let daemon = lab.start()?;
    // the first look has seen where the rows lie
    shell::wait_for("the first look at the catalog", LIMIT, || {
        lab.settle(&daemon)?;
        let manifest = lab.manifest()?;
        let of =
            |name: &str| manifest["tables"][format!("public.{name}")]["source_filenode"].is_u64();
        Ok(cases.iter().all(|(table, ..)| of(table)).then_some(()))
    })?;
    for (number, (table, change, reason)) in cases.iter().enumerate() {
        lab.database()
            .execute(&format!("{change}; INSERT INTO fine VALUES ({number}, '{table}')"))?;
        let name = format!("public.{table}");
        lab.wait_until(&daemon, &format!("{table} to stop"), |manifest| {
            Ok(manifest["tables"][&name]["state"] == "quarantined")
        })?;
        let entry = lab.manifest()?["tables"][&name].clone();
        ensure!(
            text(&entry["reason"]).contains(reason),
            "{table}: the reason is {}",
            entry["reason"]
        );
        let read =
            lab.query(&["-t", &name, "-c", "id,v,n", "--order-by", "id", "-n", "1", "-f", "csv"])?;
        ensure!(read == "id,v,n\n1,value1,1\n", "{table} reads {read:?}");
        let gap = &entry["gaps"][0];
        ensure!(parse_lsn(text(&gap["lsn_from"]))? > 0, "{table} has no gap");
    }
    let log = daemon.log();
    for (table, ..) in &cases {
        let told =
            log.lines().find(|line| line.contains("table quarantined") && line.contains(table));
        ensure!(
            told.is_some_and(|line| line.contains("pgcdc table resync")),
            "{table}: no remedy in the log"
        );
    }
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    daemon.stop()
}

fn offline(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.schema_reconcile_interval_sec", 1.into())?;
    lab.database().execute(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b int); INSERT INTO t SELECT i, 'a', i FROM generate_series(1, 10) i;
         CREATE TABLE quiet (id int PRIMARY KEY, a text, b int); INSERT INTO quiet VALUES (1, 'a', 1);",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    daemon.stop()?;
    lab.database().execute(
        "INSERT INTO t VALUES (11, 'x', 1); ALTER TABLE t ADD COLUMN c int; INSERT INTO t VALUES (12, 'x', 1, 2);
         ALTER TABLE t RENAME c TO d; INSERT INTO t VALUES (13, 'y', 1, 3); ALTER TABLE t DROP COLUMN b;
         INSERT INTO t VALUES (14, 'z', 4); ALTER TABLE t RENAME d TO e; ALTER TABLE t ADD COLUMN f date;
         UPDATE t SET e = 7 WHERE id < 3; ALTER TABLE t ALTER e TYPE bigint; INSERT INTO t VALUES (15, 'w', 5);
         ALTER TABLE quiet ADD COLUMN c int; ALTER TABLE quiet DROP COLUMN b;",
    )?;
    let daemon = lab.start()?;
    follow(&lab, &daemon, "t")?;
    follow(&lab, &daemon, "quiet")?;
    lab.settle(&daemon)?;
    for table in ["public.t", "public.quiet"] {
        compare_with_history(&lab, table)?;
    }
    daemon.stop()
}

fn kills(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.schema_reconcile_interval_sec", 1.into())?;
    lab.set("flush.interval_sec", json!(0.2))?;
    lab.expect_orphans();
    lab.database().execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (0, 'first');
         CREATE TABLE quiet (id int PRIMARY KEY, v text); INSERT INTO quiet VALUES (0, 'first');",
    )?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let mut tags = Vec::new();
    for life in 0..8_u64 {
        let daemon = lab.start()?;
        if let Some(before) = life.checked_sub(1) {
            // what is dropped was followed first: a column that came and went unseen has no number
            lab.settle(&daemon)?;
            follow(&lab, &daemon, "quiet")?;
            lab.database().execute(&format!(
                "ALTER TABLE t DROP COLUMN d{before}1; DELETE FROM t WHERE id % 5 = 0;
                 ALTER TABLE quiet DROP COLUMN d{before}1"
            ))?;
        }
        for round in 0..4 {
            let n = format!("{life}{round}");
            lab.database().execute(&format!(
                "BEGIN; INSERT INTO t (id, v) VALUES (1{n}1, 'a'); ALTER TABLE t ADD COLUMN c{n} int;
                 INSERT INTO t (id, c{n}) VALUES (1{n}2, {life}); COMMIT;
                 ALTER TABLE t RENAME c{n} TO d{n}; UPDATE t SET d{n} = -1 WHERE id % 3 = 0;
                 ALTER TABLE quiet ADD COLUMN c{n} int; ALTER TABLE quiet RENAME c{n} TO d{n};"
            ))?;
        }
        // each life ends at another moment of its flushes
        std::thread::sleep(Duration::from_millis(life * 90));
        daemon.kill()?;
    }
    let daemon = lab.start()?;
    for table in ["t", "quiet"] {
        follow(&lab, &daemon, table)?;
    }
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    for table in ["t", "quiet"] {
        tags.push(Kept::of(&lab, table)?);
        compare_with_history(&lab, &format!("public.{table}"))?;
    }
    expect_ids_once(&lab, &tags)?;
    lab.expect_confirmed_is_covered()?;
    daemon.stop()
}

fn reconcile(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    // nobody looks by himself
    lab.set("flush.schema_reconcile_interval_sec", 86_400.into())?;
    lab.database().execute(
        "CREATE TABLE a (id int PRIMARY KEY, v text, n int); INSERT INTO a VALUES (1, 'x', 1);
         CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b VALUES (1, 'x');",
    )?;
    lab.init()?;
    let change = "ALTER TABLE a ADD COLUMN more int; ALTER TABLE a DROP COLUMN v; ALTER TABLE a ALTER n TYPE bigint";
    lab.database().execute(change)?;
    let before = lab.manifest()?;
    let plan = lab.pgcdc(&["reconcile"])?.expect_code(0)?;
    let plan = plan.expect_words(&[
        "public.a: -v ~n integer to bigint +more",
        "1 to 2",
        "public.b: no change",
    ])?;
    ensure!(lab.manifest()? == before, "a plan changed the manifest: {}", plan.stdout);
    let unknown = lab.pgcdc(&["reconcile", "--table", "public.none"])?;
    ensure!(unknown.code != 0, "an unknown table is no error");
    // without a daemon
    let only = lab.pgcdc(&["reconcile", "--table", "public.b", "--force"])?.expect_code(0)?;
    only.expect_words(&["public.b: no change"])?;
    let done = lab.pgcdc(&["reconcile", "--force", "--json"])?.expect_code(0)?.json()?;
    let of_a = &done["tables"][0];
    ensure!(of_a["applied"] == true && of_a["to_version"] == 2, "reconcile says {done}");
    ensure!(lab.manifest()?["schemas"]["public.a"]["version"] == 2, "the version did not rise");
    compare_with_history(&lab, "public.a")?;
    let again = lab.pgcdc(&["reconcile", "--force"])?.expect_code(0)?;
    again.expect_words(&["public.a: no change"])?;
    // rows that nobody has followed yet come first
    lab.database().execute("INSERT INTO a VALUES (2, 2, 2); ALTER TABLE a ADD COLUMN late int")?;
    lab.pgcdc(&["reconcile", "--force"])?.expect_words(&["start the daemon"])?;
    // beside a daemon
    let daemon = lab.start()?;
    let done = lab.pgcdc(&["reconcile", "--table", "public.a", "--force"])?.expect_code(0)?;
    done.expect_words(&["public.a: +late (applied, version 2 to 3)"])?;
    lab.settle(&daemon)?;
    compare_with_history(&lab, "public.a")?;
    daemon.stop()?;
    // both at once
    lab.database().execute("ALTER TABLE b ADD COLUMN raced int")?;
    let racing = lab.spawn_reconcile()?;
    let daemon = lab.start()?;
    ensure!(racing.wait_for_end(LIMIT)? == 0, "reconcile beside a start: {}", racing.log_end());
    follow(&lab, &daemon, "b")?;
    lab.settle(&daemon)?;
    compare_with_history(&lab, "public.b")?;
    daemon.stop()
}
