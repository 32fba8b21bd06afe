//! One bad table stops no other: values that a column's type cannot hold, and changes of a table
//! that cannot be followed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Env, Scenario};
use crate::lab::{Daemon, Expected, Lab, Oracle, parse_lsn};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("a_misfit_quarantines_its_table_and_no_other", every_misfit_pauses),
    ("a_declared_null_or_clamp_is_counted_as_lossy", declared_choices),
    ("halt_stops_the_daemon_with_nothing_confirmed_past_the_misfit", halt),
    ("kill_9_around_a_misfit_neither_loses_rows_nor_loops", kill_around_misfit),
    ("a_changed_table_is_quarantined_with_its_reason", changed_tables),
    ("bytes_that_are_not_utf8_never_leave_the_server", not_utf8),
    ("a_bad_row_in_a_large_transaction_takes_out_one_table_only", large_transaction),
];

/// How long the daemon may need to see that it cannot go on.
const HALT_LIMIT: Duration = Duration::from_secs(90);

/// A value that the lake's type cannot hold, and what it becomes where that is declared.
struct Misfit {
    table: &'static str,
    sql: &'static str,
    /// A value that fits.
    good: &'static str,
    bad: &'static str,
    /// What a clamp reads as; none where a clamp is not allowed.
    clamped: Option<&'static str>,
}

const fn misfit(
    table: &'static str,
    sql: &'static str,
    good: &'static str,
    bad: &'static str,
    clamped: Option<&'static str>,
) -> Misfit {
    Misfit { table, sql, good, bad, clamped }
}

const LAST_MOMENT: &str = "9999-12-31T23:59:59.999999";

const MISFITS: &[Misfit] = &[
    misfit("m_nan", "numeric(5,2)", "1.5", "'NaN'", None),
    misfit("m_digits", "numeric", "1.5", "1e30", None),
    misfit("m_date", "date", "'2026-01-01'", "'infinity'", Some("9999-12-31")),
    misfit("m_date_low", "date", "'2026-01-01'", "'-infinity'", Some("0001-01-01")),
    misfit("m_ts", "timestamp", "'2026-01-01'", "'infinity'", Some(LAST_MOMENT)),
    misfit("m_ts_far", "timestamp", "'2026-01-01'", "'294270-01-01'", Some(LAST_MOMENT)),
    misfit("m_tz", "timestamptz", "'2026-01-01'", "'-infinity'", Some("0001-01-01T00:00:00Z")),
    misfit("m_time", "time", "'12:00'", "'24:00:00'", Some("23:59:59.999999")),
    misfit("m_dims", "int4[]", "'{1,2}'", "'{{1,2},{3,4}}'", None),
    misfit("m_bound", "int4[]", "'{1,2}'", "'[0:1]={1,2}'", None),
    misfit("m_list", "date[]", "'{2026-01-01}'", "'{infinity}'", Some("[\"9999-12-31\"]")),
];

/// PostgreSQL 14 and newer have infinite numerics, where no precision forbids them.
const INFINITE: &Misfit = &misfit("m_inf", "numeric", "1.5", "'Infinity'", None);

fn misfits() -> impl Iterator<Item = &'static Misfit> {
    MISFITS.iter().chain([INFINITE])
}

/// A table for each misfit, with a row that fits, and one beside them.
fn create_tables(lab: &mut Lab) -> Result<()> {
    lab.set("types.numeric_unconstrained", json!("decimal(20,4)"))?;
    let mut script = "CREATE TABLE fine (id int PRIMARY KEY, v text);".to_owned();
    for one in misfits() {
        let Misfit { table, sql, good, .. } = one;
        script += &format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, odd {sql});
             INSERT INTO {table} VALUES (1, {good});"
        );
    }
    lab.database().execute(&script).map(|_| ())
}

fn entry(lab: &Lab, table: &str) -> Result<Value> {
    Ok(lab.manifest()?["tables"][format!("public.{table}")].clone())
}

/// Waits until a table is quarantined, and gives its entry.
fn quarantined(lab: &Lab, daemon: &Daemon, table: &str) -> Result<Value> {
    let name = format!("public.{table}");
    lab.wait_until(daemon, &format!("{table} to be quarantined"), |manifest| {
        Ok(manifest["tables"][&name]["state"] == "quarantined")
    })?;
    entry(lab, table)
}

fn expect_gap(entry: &Value) -> Result<(u64, u64)> {
    let gaps = entry["gaps"].as_array().context("no gaps")?;
    ensure!(gaps.len() == 1, "not one gap: {entry}");
    ensure!(gaps[0]["reason"] == entry["reason"], "the gap has another reason: {entry}");
    let lsn = |field: &str| parse_lsn(gaps[0][field].as_str().unwrap_or_default());
    let (from, to) = (lsn("lsn_from")?, lsn("lsn_to")?);
    ensure!(from <= to, "the gap runs backwards: {entry}");
    Ok((from, to))
}

fn every_misfit_pauses(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    create_tables(&mut lab)?;
    lab.init()?;
    let daemon = lab.start()?;
    let all: String = misfits()
        .map(|one| format!("INSERT INTO {} VALUES (2, {});", one.table, one.good))
        .collect();
    lab.database().execute(&all)?;
    lab.settle(&daemon)?;
    let before = lab.manifest()?;
    let oracle = Oracle::watch(lab.database())?;
    for one in misfits() {
        // a row that fits stands before the misfit in the same transaction, and others behind it
        lab.database().execute(
            &format!(
            "BEGIN; INSERT INTO {0} VALUES (3, {1}); INSERT INTO fine VALUES (DEFAULT_ID, '{0}');
             INSERT INTO {0} VALUES (4, {2}); INSERT INTO {0} VALUES (5, {1}); COMMIT;
             DELETE FROM {0} WHERE id = 4;",
            one.table, one.good, one.bad
        )
            .replace("DEFAULT_ID", "(SELECT coalesce(max(id), 0) + 1 FROM fine)"),
        )?;
        let entry = quarantined(&lab, &daemon, one.table)?;
        let reason = entry["reason"].as_str().unwrap_or_default();
        ensure!(reason.starts_with("column odd: "), "{}: the reason is {reason:?}", one.table);
        let (from, _) = expect_gap(&entry)?;
        let name = format!("public.{}", one.table);
        let good = parse_lsn(before["tables"][&name]["lsn_to"].as_str().unwrap_or_default())?;
        ensure!(from >= good, "{}: the gap begins before the last good commit", one.table);
        ensure!(
            entry["snapshot_id"] == before["tables"][&name]["snapshot_id"],
            "{}: the table moved",
            one.table
        );
    }
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    let counts = oracle.counts()?;
    ensure!(counts["public.fine"]["I"] == misfits().count() as u64, "the oracle saw {counts:?}");
    expect_told(&lab, &daemon)?;
    expect_readable(&lab, &before)?;
    // one life later nothing is different, and the same rows do not come again
    daemon.stop()?;
    let log_length = std::fs::metadata(lab.dir().join("daemon.log"))?.len();
    let daemon = lab.start()?;
    lab.database()
        .execute("INSERT INTO m_nan VALUES (9, 1); INSERT INTO fine VALUES (900, 'x');")?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    let (_, to) = expect_gap(&entry(&lab, "m_nan")?)?;
    let covered = parse_lsn(lab.manifest()?["covered_lsn"].as_str().unwrap_or_default())?;
    ensure!(to == covered, "the gap was not stretched to {covered:X}: {to:X}");
    let log = daemon.log();
    let later = log.get(usize::try_from(log_length)?..).unwrap_or_default();
    ensure!(!later.contains("table quarantined\""), "a quarantined table stopped again:\n{later}");
    lab.expect_confirmed_is_covered()?;
    daemon.stop()
}

/// The log, `live.json` and `status` name the tables, and no value.
fn expect_told(lab: &Lab, daemon: &Daemon) -> Result<()> {
    let log = daemon.log();
    for one in misfits() {
        let line = log
            .lines()
            .find(|line| line.contains("table quarantined") && line.contains(one.table))
            .with_context(|| format!("the log does not name {}:\n{log}", one.table))?;
        for word in ["ERROR", "odd", "pgcdc table resync", "table-quarantined"] {
            ensure!(line.contains(word), "{}: no {word:?} in {line}", one.table);
        }
        let value = one.bad.trim_matches('\'');
        // the one value that a time cannot hold is the reason itself
        let is_told = value.len() < 5 || one.table == "m_time";
        ensure!(is_told || !line.contains(value), "the log shows a value: {line}");
    }
    let status = lab.pgcdc(&["status", "--json"])?.expect_code(0)?.json()?;
    for one in misfits() {
        let name = format!("public.{}", one.table);
        let tables = status["tables"].as_array().context("no tables")?;
        let table = tables.iter().find(|table| table["name"] == name.as_str());
        let table = table.with_context(|| format!("status does not name {name}"))?;
        ensure!(table["state"] == "quarantined" && table["status"] == "active", "status: {table}");
        ensure!(table["reason"].is_string(), "status has no reason: {table}");
    }
    let text = lab.pgcdc(&["status"])?.expect_code(0)?;
    text.expect_words(&[&format!("{} quarantined", misfits().count()), "public.m_nan"])?;
    crate::shell::wait_for("live.json to tell", Duration::from_secs(30), || {
        let live: Value = serde_json::from_slice(&std::fs::read(lab.lake().join("live.json"))?)?;
        let error = live["last_error"].as_str().unwrap_or_default();
        Ok((live["state"] == "streaming" && error.contains("quarantined")).then_some(()))
    })
}

/// A quarantined table reads as it was, and its changes say where they end.
fn expect_readable(lab: &Lab, before: &Value) -> Result<()> {
    for one in misfits() {
        let name = format!("public.{}", one.table);
        let ids = lab.query(&["-t", &name, "-c", "id", "--order-by", "id", "-f", "csv"])?;
        ensure!(ids == "id\n1\n2\n", "{name} reads {ids:?}");
        let since = before["epoch"].as_u64().context("no epoch")?.to_string();
        for since in ["0", since.as_str()] {
            let args = ["query", "-t", &name, "--changes-since", since];
            lab.run("pgcdc-serve", &args)?.expect_code(4)?.expect_words(&["since epoch"])?;
        }
        let now = lab.manifest()?["epoch"].to_string();
        let rows = lab.query(&["-t", &name, "--changes-since", &now, "-f", "ndjson"])?;
        ensure!(rows.is_empty(), "changes behind the newest epoch: {rows}");
    }
    let fine = lab.query(&["-t", "public.fine", "--changes-since", "0", "-f", "ndjson"])?;
    ensure!(fine.lines().count() == misfits().count(), "the changes of fine read {fine}");
    Ok(())
}

fn declared_choices(env: &Env<'_>) -> Result<()> {
    for choice in ["null", "clamp"] {
        let mut lab = Lab::new(
            env.bins,
            &env.dir.join(choice),
            env.cluster.create_database(&format!("declared_{choice}"))?,
        )?;
        lab.create_sentinel()?;
        create_tables(&mut lab)?;
        lab.set("types.unrepresentable", json!(choice))?;
        let allowed = |one: &&Misfit| choice == "null" || one.clamped.is_some();
        // half of them are copied, all are streamed
        let copied: String = misfits()
            .filter(allowed)
            .map(|one| format!("INSERT INTO {} VALUES (2, {});", one.table, one.bad))
            .step_by(2)
            .collect();
        lab.database().execute(&copied)?;
        lab.init()?;
        for (at, one) in misfits().filter(allowed).enumerate() {
            ensure!(
                is_lossy(&lab, one)? == (at % 2 == 0),
                "{choice} {}: lossy after init",
                one.table
            );
        }
        let daemon = lab.start()?;
        let streamed: String = misfits()
            .map(|one| format!("INSERT INTO {} VALUES (7, {});", one.table, one.bad))
            .collect();
        lab.database().execute(&streamed)?;
        lab.settle(&daemon)?;
        for one in misfits() {
            expect_choice(&lab, &daemon, one, choice)?;
        }
        daemon.stop()?;
    }
    Ok(())
}

fn expect_choice(lab: &Lab, daemon: &Daemon, one: &Misfit, choice: &str) -> Result<()> {
    let name = format!("public.{}", one.table);
    if choice == "clamp" && one.clamped.is_none() {
        quarantined(lab, daemon, one.table)?;
        return Ok(());
    }
    ensure!(entry(lab, one.table)?["state"] == "streaming", "{choice} {name} stopped");
    ensure!(is_lossy(lab, one)?, "{choice} {name}: the column is not marked as lossy");
    let rows = lab.query(&["-t", &name, "-w", "id:eq:7", "-f", "json"])?;
    let rows: Value = serde_json::from_str(&rows)?;
    let expected = match one.clamped.filter(|_| choice == "clamp") {
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        // an element that does not fit is NULL by itself
        None if one.table == "m_list" => json!([null]),
        None => Value::Null,
    };
    ensure!(rows[0]["odd"] == expected, "{choice} {name} reads {rows}, not {expected}");
    Ok(())
}

fn is_lossy(lab: &Lab, one: &Misfit) -> Result<bool> {
    let schema = &lab.manifest()?["schemas"][format!("public.{}", one.table)];
    Ok(schema["columns"][1]["lossy"] == true)
}

fn halt(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("types.on_error", json!("halt"))?;
    lab.database().execute(
        "CREATE TABLE odd_one (id int PRIMARY KEY, odd date);
         CREATE TABLE fine (id int PRIMARY KEY, v text);",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database().execute("INSERT INTO fine VALUES (1, 'before')")?;
    lab.settle(&daemon)?;
    lab.database().execute(
        "BEGIN; INSERT INTO fine VALUES (2, 'with'); INSERT INTO odd_one VALUES (1, 'infinity'); COMMIT",
    )?;
    let behind = lab.position()?;
    lab.database().execute("INSERT INTO fine VALUES (3, 'behind')")?;
    ensure!(daemon.wait_for_end(HALT_LIMIT)? == 1, "halt is not exit 1");
    let daemon = lab.spawn()?;
    ensure!(daemon.wait_for_end(HALT_LIMIT)? == 1, "the next life got past the misfit");
    let log = daemon.log();
    ensure!(log.contains("column odd") && log.contains("hint"), "the log does not say why:\n{log}");
    let confirmed = parse_lsn(&lab.database().value(&format!(
        "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{}'",
        lab.slot()
    ))?)?;
    ensure!(confirmed < behind, "confirmed past the misfit: {confirmed:X} >= {behind:X}");
    lab.expect_confirmed_is_covered()?;
    let ids = lab.query(&["-t", "public.fine", "-c", "id", "-f", "csv"])?;
    ensure!(ids == "id\n1\n", "rows of or behind the halted transaction are in: {ids}");
    let manifest = lab.manifest()?;
    ensure!(manifest["tables"]["public.odd_one"]["state"] == "streaming", "halt quarantined");
    lab.set("types.on_error", json!("pause"))?;
    let daemon = lab.start()?;
    quarantined(&lab, &daemon, "odd_one")?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    daemon.stop()
}

fn kill_around_misfit(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.interval_sec", 0.2.into())?;
    lab.database().execute(
        "CREATE TABLE odd_one (id int PRIMARY KEY, odd date);
         CREATE TABLE fine (id int PRIMARY KEY, v text);
         INSERT INTO odd_one VALUES (1, '2026-01-01');",
    )?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    lab.database().execute(
        "INSERT INTO fine SELECT i, 'a' FROM generate_series(1, 500) i;
         INSERT INTO odd_one VALUES (2, '2026-01-02');
         BEGIN; INSERT INTO fine VALUES (1000, 'with'); INSERT INTO odd_one VALUES (3, 'infinity');
         UPDATE fine SET v = 'b' WHERE id <= 10; COMMIT;
         INSERT INTO fine SELECT i, 'c' FROM generate_series(2000, 2500) i;",
    )?;
    // each life ends a little further: while it reads, while it flushes, once it has committed
    for told in [false, true] {
        let daemon = lab.start()?;
        crate::shell::wait_for("the misfit to be seen", HALT_LIMIT, || {
            let seen = match told {
                false => daemon.log().contains("table quarantined"),
                true => entry(&lab, "odd_one")?["state"] == "quarantined",
            };
            Ok(seen.then_some(()))
        })?;
        daemon.kill()?;
        lab.expect_confirmed_is_covered()?;
        lab.database()
            .execute("INSERT INTO odd_one SELECT max(id) + 1, 'infinity' FROM odd_one")?;
    }
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    let counts = oracle.counts()?;
    lab.expect_equal(Expected::Changes(&counts))?;
    expect_gap(&quarantined(&lab, &daemon, "odd_one")?)?;
    daemon.stop()
}

fn changed_tables(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    let changes: [(&str, &str, &str); 4] = [
        (
            "t_typed",
            "ALTER TABLE t_typed ALTER n TYPE text",
            "column n is no longer integer but text",
        ),
        (
            "t_filled",
            "ALTER TABLE t_filled ADD COLUMN u float8 DEFAULT random()",
            "column u was added with values for older rows",
        ),
        (
            "t_moved",
            "ALTER TABLE t_moved RENAME TO t_elsewhere",
            "it is now named public.t_elsewhere",
        ),
        (
            "t_nothing",
            "ALTER TABLE t_nothing REPLICA IDENTITY NOTHING",
            "replica identity is now NOTHING",
        ),
    ];
    let mut script = "CREATE TABLE fine (id int PRIMARY KEY, v text);".to_owned();
    let names = changes.iter().map(|(table, ..)| *table).chain(["t_anew", "t_index"]);
    for table in names {
        script += &format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, v text NOT NULL, n int);
             INSERT INTO {table} VALUES (1, 'a', 1);"
        );
    }
    lab.database().execute(&script)?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    for (number, (table, change, reason)) in changes.iter().enumerate() {
        let name = if *table == "t_moved" { "t_elsewhere" } else { table };
        lab.database().execute(&format!(
            "INSERT INTO {table} VALUES (2, 'b', 2);
             {change}; INSERT INTO {name} VALUES (3, 'c'); INSERT INTO fine VALUES ({number}, '{table}');"
        ))?;
        let entry = quarantined(&lab, &daemon, table)?;
        let found = entry["reason"].as_str().unwrap_or_default();
        ensure!(found.contains(reason), "{table}: the reason is {found:?}");
        expect_gap(&entry)?;
    }
    // a table of the same name and shape, in the publication again, seen first by another life
    let publication = lab.publication();
    daemon.stop()?;
    lab.database().execute(&format!(
        "DROP TABLE t_anew; CREATE TABLE t_anew (id int PRIMARY KEY, v text NOT NULL, n int);
         ALTER PUBLICATION {publication} ADD TABLE t_anew; INSERT INTO t_anew VALUES (7, 'x', 7);"
    ))?;
    let daemon = lab.start()?;
    let reason = quarantined(&lab, &daemon, "t_anew")?["reason"].to_string();
    ensure!(reason.contains("created again"), "t_anew: the reason is {reason}");
    // an identity by other columns, in a transaction that had changed the table before
    lab.database().execute(
        "CREATE UNIQUE INDEX t_index_v ON t_index (v);
         BEGIN; INSERT INTO t_index VALUES (8, 'y', 8);
         ALTER TABLE t_index REPLICA IDENTITY USING INDEX t_index_v;
         DELETE FROM t_index WHERE id = 1; COMMIT;",
    )?;
    let reason = quarantined(&lab, &daemon, "t_index")?["reason"].to_string();
    ensure!(reason.contains("row identity changed"), "t_index: the reason is {reason}");
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    daemon.stop()
}

/// In a database of no encoding PostgreSQL itself checks what it sends, and refuses: there is no row
/// that a table could be quarantined for, so everything stops before it, copy and stream alike.
fn not_utf8(env: &Env<'_>) -> Result<()> {
    let name = format!("ascii_{}", env.cluster.major());
    env.cluster.database("postgres").execute(&format!(
        "CREATE DATABASE {name} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    ))?;
    let lab = Lab::new(env.bins, &env.dir, env.cluster.database(&name))?;
    lab.create_sentinel()?;
    let odd = r"INSERT INTO odd_one VALUES (2, E'gr\xfc\xdfe')";
    lab.database()
        .execute(&format!("CREATE TABLE odd_one (id int PRIMARY KEY, odd text); {odd};"))?;
    let words = ["invalid byte sequence", "22021"];
    let init = lab.pgcdc(&["init"])?;
    ensure!(init.code == 1 || init.code == 2, "init ended with {}", init.code);
    init.expect_words(&words)?;
    lab.expect_nothing_on_source()?;
    lab.database().execute("UPDATE odd_one SET odd = 'plain'")?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    lab.database().execute(&odd.replace("(2", "(3"))?;
    let behind = lab.position()?;
    ensure!(daemon.wait_for_end(HALT_LIMIT)? == 1, "the daemon went on");
    let log = daemon.log();
    ensure!(words.iter().all(|word| log.contains(word)), "the log does not say why:\n{log}");
    lab.expect_confirmed_is_covered()?;
    let covered = parse_lsn(lab.manifest()?["covered_lsn"].as_str().unwrap_or_default())?;
    ensure!(covered < behind, "covered past the row: {covered:X} >= {behind:X}");
    let ids = lab.query(&["-t", "public.odd_one", "-c", "id", "-f", "csv"])?;
    ensure!(ids == "id\n2\n", "the lake has {ids:?}");
    Ok(())
}

fn large_transaction(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE odd_one (id int PRIMARY KEY, odd date, v text);
         CREATE TABLE fine (id int PRIMARY KEY, v text);
         INSERT INTO odd_one VALUES (1, '2026-01-01', 'a');",
    )?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    // the encoder has had several chunks of both tables when the misfit comes
    lab.database().execute(
        "BEGIN;
         INSERT INTO odd_one SELECT i, '2026-01-01', repeat('x', 20) FROM generate_series(2, 60000) i;
         INSERT INTO fine SELECT i, repeat('y', 20) FROM generate_series(1, 60000) i;
         INSERT INTO odd_one VALUES (0, 'infinity', 'z');
         INSERT INTO odd_one SELECT -i, '2026-01-01', 'q' FROM generate_series(1, 20000) i;
         UPDATE fine SET v = 'z' WHERE id % 100 = 0;
         COMMIT;",
    )?;
    let entry = quarantined(&lab, &daemon, "odd_one")?;
    ensure!(entry["row_count"] == 1, "rows of the stopped table are in: {entry}");
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    let log = daemon.log();
    ensure!(log.matches("table quarantined").count() == 1, "told more than once:\n{log}");
    daemon.stop()
}
