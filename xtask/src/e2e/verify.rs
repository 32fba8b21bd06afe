//! `pgcdc verify`: equal means equal, at one position, while everything runs; and what is not equal is
//! found and named.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::workload::{load_pgbench, load_shop};
use super::{Env, Scenario};
use crate::lab::{Daemon, Lab, parse_lsn};
use crate::pg::Database;
use crate::{setup, shell};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("verify_finds_all_equal_under_load", equal_under_load),
    ("verify_reads_random_values_as_the_server_prints_them", random_values),
    ("verify_names_what_differs", differences),
    ("verify_names_damaged_and_missing_files", damage),
    ("verify_without_a_daemon_needs_a_lake_that_stands_there", without_daemon),
    ("verify_that_is_killed_does_not_stop_the_daemon", killed),
    ("verify_follows_declared_forms", declared_forms),
];

/// How long a condition about verify may take to come true.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs verify and fails unless it finds each of the lake's active tables equal.
pub(super) fn expect_equal(lab: &Lab) -> Result<Value> {
    let report = lab.pgcdc(&["verify", "--json"])?.expect_code(0)?.json()?;
    let tables = report["tables"].as_array().context("no tables in the report")?;
    for table in tables {
        let same = table["source_checksum"] == table["lake_checksum"];
        ensure!(table["result"] == "equal" && same, "not equal: {table}");
    }
    let active = lab.active_tables()?.len();
    ensure!(tables.len() == active, "{} of {active} tables were compared", tables.len());
    Ok(report)
}

fn equal_under_load(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    load_shop(&lab)?;
    load_pgbench(&lab, "1")?;
    lab.init()?;
    let daemon = lab.start()?;
    let mut psql = lab.database().psql()?;
    psql.args(["-c", "CALL shop_business(61, 2000000)"]).stdin(Stdio::null());
    psql.stdout(Stdio::null()).stderr(Stdio::null());
    let mut load = Load::start(psql, lab.database())?;
    let mut last = 0;
    for _ in 0..4 {
        let before = lab.database().number("SELECT count(*) FROM pgbench_history")?;
        lab.database().pgbench(&["-n", "-c", "2", "-t", "100"])?;
        let report = expect_equal(&lab)?;
        let lsn = report["lsn"].as_str().unwrap_or_default().to_owned();
        let position = parse_lsn(&lsn)?;
        ensure!(position > last, "verify went back from {last:X} to {lsn}");
        last = position;
        let history = report["tables"].as_array().into_iter().flatten();
        let rows = history
            .filter(|table| table["name"] == "public.pgbench_history")
            .filter_map(|table| table["source_rows"].as_i64())
            .sum::<i64>();
        ensure!(rows == before + 200, "{rows} rows of history were compared, {before} before");
        let entry = &lab.manifest()?["tables"]["public.pgbench_history"];
        ensure!(entry["verified_through"] == lsn.as_str(), "the manifest says {entry}");
        ensure!(entry["verified_at"].is_string(), "the manifest says {entry}");
        daemon.expect_alive()?;
        ensure!(load.client.try_wait()?.is_none(), "the load ended too early, this proves nothing");
    }
    drop(load);
    let status = lab.pgcdc(&["status", "--json"])?.expect_code(0)?.json()?;
    let tables = status["tables"].as_array().context("status shows no tables")?;
    ensure!(
        tables.iter().any(|table| table["verified_through"].is_string()),
        "status does not show what was verified: {status}"
    );
    daemon.stop()
}

/// A psql that works until it is dropped.
struct Load {
    client: Child,
    database: Database,
}

impl Load {
    fn start(mut psql: Command, database: &Database) -> Result<Self> {
        let client = psql.spawn().context("cannot start the load")?;
        Ok(Self { client, database: database.clone() })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
        // a procedure does not notice that its client is gone, and would run to its end
        let _ = self.database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE application_name = 'psql' AND datname = current_database()
               AND pid <> pg_backend_pid()",
        );
    }
}

/// Values all over the ranges of their types, floats by random bits among them.
const RANDOM_VALUES: &str = "
    SELECT setseed(0.42);
    CREATE FUNCTION random_bits(n int) RETURNS bytea LANGUAGE sql VOLATILE AS
      $$ SELECT decode(string_agg(lpad(to_hex((random() * 255)::int), 2, '0'), ''), 'hex')
         FROM generate_series(1, n) $$;
    CREATE TABLE numbers (id int PRIMARY KEY, d float8, f float4, n numeric(30,9), plain numeric,
      i2 int2, i8 int8, ds float8[], ns numeric(12,3)[]);
    INSERT INTO numbers
      SELECT i,
        CASE i % 4
          WHEN 0 THEN (random() * 10 ^ (random() * 40 - 20))::float8
          WHEN 1 THEN ((random() * 999)::int)::float8 * (10::float8 ^ (i % 60 - 30))
          WHEN 2 THEN 2::float8 ^ (i % 2000 - 1000)
          ELSE (i * 7919)::float8 * (1 - 2 * (i % 8 / 4)) END,
        CASE i % 4
          WHEN 0 THEN (random() * 10 ^ (random() * 40 - 20))::float4
          WHEN 1 THEN (((random() * 999)::int)::float8 * (10::float8 ^ (i % 40 - 20)))::float4
          WHEN 2 THEN (2::float8 ^ (i % 250 - 125))::float4
          ELSE (i * 7919)::float4 END,
        ((random() - 0.5) * 10 ^ (i % 20))::numeric, ((random() - 0.5) * 10 ^ (i % 20))::numeric,
        (random() * 60000 - 30000)::int2, ((random() - 0.5) * 1e18)::int8,
        ARRAY[random(), NULL, i * 1e15::float8], ARRAY[random()::numeric, NULL, -i]
      FROM generate_series(1, 40000) i;
    CREATE TABLE times (id int PRIMARY KEY, d date, t time, ts timestamp, tz timestamptz,
      ds date[], tzs timestamptz[]);
    INSERT INTO times
      SELECT i, d, ('00:00'::time + (random() * 86399999999)::int8 * interval '1 microsecond'),
        d + interval '1 microsecond' * (random() * 1e15)::int8,
        d::timestamptz + interval '1 microsecond' * (random() * 1e15)::int8,
        ARRAY[d, NULL], ARRAY[d::timestamptz, NULL, d::timestamptz + interval '0.5 s']
      FROM (SELECT i, '4713-01-01 BC'::date + (random() * 10000000)::int AS d
            FROM generate_series(1, 20000) i) days;
    CREATE TABLE texts (id int PRIMARY KEY, b bytea, u uuid, ts text[], bs bytea[], js jsonb, c char(9));
    INSERT INTO texts
      SELECT i, random_bits(i % 40 + 1), md5(i::text)::uuid,
        ARRAY[chr(i % 900 + 32), E'\\\\' || chr(34), NULL, '', 'null', 'a b', chr(i % 13 + 9), '{', ','],
        ARRAY[random_bits(3), NULL], jsonb_build_object('k', chr(i % 900 + 161), 'n', random()),
        left(md5(i::text), i % 9)
      FROM generate_series(1, 10000) i;";

fn random_values(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(RANDOM_VALUES)?;
    lab.init()?;
    expect_equal(&lab)?;
    let daemon = lab.start()?;
    lab.database().execute(
        "UPDATE numbers SET d = -d, f = f / 3 WHERE id % 3 = 0;
         UPDATE times SET ts = ts - interval '1234 years 0.000001 s' WHERE id % 5 = 0 AND ts > '0001-01-01';
         DELETE FROM texts WHERE id % 7 = 0;
         UPDATE texts SET id = -id WHERE id % 11 = 0;",
    )?;
    expect_equal(&lab)?;
    daemon.stop()
}

/// A lake of one table whose daemon is stopped and has nothing to do.
fn resting_lab(env: &Env<'_>) -> Result<Lab> {
    let lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE items (id int PRIMARY KEY, v text);
         INSERT INTO items SELECT i, 'value ' || i FROM generate_series(1, 1000) i;",
    )?;
    lab.init()?;
    Ok(lab)
}

/// The data files of `public.items`.
fn data_files(lab: &Lab) -> Result<Vec<PathBuf>> {
    let dir = lab.lake().join("public.items/base");
    let mut files = Vec::new();
    let mut dirs = vec![dir];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("{}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|ext| ext == "parquet") {
                files.push(path);
            }
        }
    }
    ensure!(!files.is_empty(), "public.items has no base file");
    Ok(files)
}

/// Writes a data file anew after a Python expression over `t`, its rows as an Arrow table.
fn rewrite(file: &PathBuf, expression: &str) -> Result<()> {
    let script = format!(
        "import sys, pyarrow as pa, pyarrow.parquet as pq
t = pq.read_table(sys.argv[1], partitioning=None)
def change(t, row, value):
    v = t.column('v').to_pylist()
    v[row] = value
    return t.set_column(t.schema.get_field_index('v'), t.schema.field('v'), pa.array(v, t.schema.field('v').type))
t = {expression}
pq.write_table(t, sys.argv[1])"
    );
    let mut python = shell::command(setup::interpreter()?);
    shell::stdout(python.args(["-B", "-c", &script]).arg(file)).map(drop)
}

/// Runs verify, which must find `public.items` different and nothing else.
fn expect_different(lab: &Lab) -> Result<Value> {
    let run = lab.pgcdc(&["verify", "--json"])?.expect_code(3)?;
    let report = run.json()?;
    let tables = report["tables"].as_array().context("no tables in the report")?;
    let other = tables
        .iter()
        .find(|table| (table["result"] == "different") != (table["name"] == "public.items"));
    ensure!(other.is_none(), "wrong verdict: {report}");
    ensure!(!run.stdout.contains("value ") && !run.stderr.contains("value "), "a value was told");
    let found = tables.iter().find(|table| table["name"] == "public.items");
    found.cloned().context("public.items is not in the report")
}

fn differences(env: &Env<'_>) -> Result<()> {
    let lab = resting_lab(env)?;
    let file = data_files(&lab)?.remove(0);
    let sound = fs::read(&file)?;
    for (what, expression, rows) in [
        ("a changed value", "change(t, 500, 'other')", 1000),
        ("a value that became NULL", "change(t, 500, None)", 1000),
        ("a missing row", "pa.concat_tables([t.slice(0, 500), t.slice(501)])", 999),
        ("a row twice", "pa.concat_tables([t, t.slice(500, 1)])", 1001),
    ] {
        fs::write(&file, &sound)?;
        rewrite(&file, expression)?;
        let table = expect_different(&lab)?;
        let buckets = table["buckets"].as_array().map_or(0, Vec::len);
        ensure!(buckets == 1, "{what} shows in {buckets} buckets: {table}");
        ensure!(table["lake_rows"] == rows && table["source_rows"] == 1000, "{what}: {table}");
        let bucket = table["buckets"][0]["bucket"].to_string();
        lab.pgcdc(&["verify"])?.expect_code(3)?.expect_words(&[
            "public.items: bucket ",
            &bucket,
            "different",
        ])?;
        let entry = &lab.manifest()?["tables"]["public.items"];
        ensure!(entry["verified_through"].is_null(), "{what} was recorded as equal");
    }
    // order is not a difference
    fs::write(&file, &sound)?;
    rewrite(&file, "pa.concat_tables([t.slice(500), t.slice(0, 500)])")?;
    expect_equal(&lab)?;
    fs::write(&file, &sound)?;
    let only =
        lab.pgcdc(&["verify", "--json", "--table", "public.items"])?.expect_code(0)?.json()?;
    ensure!(only["tables"].as_array().map_or(0, Vec::len) == 1, "--table compared {only}");
    lab.pgcdc(&["verify", "--table", "public.nothing"])?
        .expect_code(2)?
        .expect_words(&["public.nothing", "hint"])?;
    Ok(())
}

fn damage(env: &Env<'_>) -> Result<()> {
    let lab = resting_lab(env)?;
    let file = data_files(&lab)?.remove(0);
    let sound = fs::read(&file)?;
    let name = file.file_name().and_then(|name| name.to_str()).context("odd file name")?;
    // the data pages come first, behind the magic number
    let (mut told, mut different) = (0, 0);
    for at in (4..sound.len().min(1200)).step_by(97) {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x55;
        fs::write(&file, &bytes)?;
        let run = lab.pgcdc(&["verify", "--json"])?;
        ensure!(run.code == 3 || run.code == 0, "byte {at}: exit {}\n{}", run.code, run.stderr);
        let report = run.json()?;
        let tables = report["tables"].as_array().context("no tables")?;
        let items = tables.iter().find(|table| table["name"] == "public.items");
        let items = items.context("public.items is not in the report")?;
        match run.code {
            3 if items["damage"]["file"].as_str().is_some_and(|file| file.ends_with(name)) => {
                told += 1
            }
            3 if !items["buckets"].is_null() => different += 1,
            3 => anyhow::bail!("byte {at}: {report}"),
            // a byte that carries no value, as of a statistic
            _ => {}
        }
    }
    println!("     bytes changed: {told} told as damage, {different} as a difference");
    ensure!(told + different >= 8, "only {told} + {different} changed bytes were found");
    fs::write(&file, &sound[..sound.len() / 2])?;
    let cut = expect_different(&lab)?;
    ensure!(cut["damage"]["file"].as_str().is_some_and(|f| f.ends_with(name)), "{cut}");
    fs::remove_file(&file)?;
    let missing = expect_different(&lab)?;
    ensure!(missing["damage"]["file"].as_str().is_some_and(|f| f.ends_with(name)), "{missing}");
    lab.pgcdc(&["verify"])?.expect_code(3)?.expect_words(&["public.items: damaged file", name])?;
    fs::write(&file, &sound)?;
    expect_equal(&lab).map(drop)
}

fn without_daemon(env: &Env<'_>) -> Result<()> {
    let lab = resting_lab(env)?;
    let report = expect_equal(&lab)?;
    let entry = &lab.manifest()?["tables"]["public.items"];
    ensure!(entry["verified_through"] == report["lsn"], "the manifest says {entry}");
    // what is not ours does not keep it from comparing
    lab.database().execute("CREATE TABLE elsewhere (id int); INSERT INTO elsewhere VALUES (1)")?;
    expect_equal(&lab)?;
    lab.database().execute("INSERT INTO items VALUES (2000, 'late')")?;
    lab.pgcdc(&["verify"])?.expect_code(2)?.expect_words(&["hint: start the daemon"])?;
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'pgcdc_verify%'";
    ensure!(lab.database().number(slots)? == 0, "a slot of verify was left behind");
    let daemon = lab.start()?;
    expect_equal(&lab)?;
    daemon.stop()?;
    expect_equal(&lab).map(drop)
}

/// Waits until verify has made the daemon hold its intake.
fn wait_for_hold(lab: &Lab, daemon: &Daemon, verify: &mut Child) -> Result<()> {
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE query LIKE 'CREATE_REPLICATION_SLOT \"pgcdc_verify%' AND state = 'active'";
    shell::wait_for("verify to wait for its snapshot", LIMIT, || {
        daemon.expect_alive()?;
        ensure!(verify.try_wait()?.is_none(), "verify ended before it could be killed");
        Ok((lab.database().number(waiting)? > 0).then_some(()))
    })
}

fn killed(env: &Env<'_>) -> Result<()> {
    let lab = resting_lab(env)?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    // a transaction that has written keeps the snapshot of verify from being made
    let mut psql = lab.database().psql()?;
    psql.args(["-c", "BEGIN; INSERT INTO items VALUES (-1, 'open'); SELECT pg_sleep(300)"]);
    psql.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let open = Load::start(psql, lab.database())?;
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(300)%'
        AND wait_event = 'PgSleep'";
    shell::wait_for("the open transaction", LIMIT, || {
        Ok((lab.database().number(sleeping)? > 0).then_some(()))
    })?;
    let mut verify = lab.command("pgcdc", &["verify"]);
    let mut verify =
        verify.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    wait_for_hold(&lab, &daemon, &mut verify)?;
    let killed = Instant::now();
    verify.kill()?;
    verify.wait()?;
    let took = lab.settle(&daemon)?;
    ensure!(daemon.log().contains("intake goes on"), "the hold did not end by itself");
    println!(
        "     went on {:.1} s after the kill ({:.1} s)",
        took.as_secs_f64(),
        killed.elapsed().as_secs_f64()
    );
    // one that lives is told who is in its way
    lab.pgcdc(&["verify"])?.expect_code(2)?.expect_words(&["process", "hint"])?;
    lab.settle(&daemon)?;
    lab.database().execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(300)%'
         AND pid <> pg_backend_pid()",
    )?;
    drop(open);
    expect_equal(&lab)?;
    daemon.stop()
}

fn declared_forms(env: &Env<'_>) -> Result<()> {
    for policy in ["null", "clamp"] {
        let mut lab = Lab::new(
            env.bins,
            &env.dir.join(policy),
            env.cluster.create_database(&format!("verify_forms_{policy}"))?,
        )?;
        lab.create_sentinel()?;
        lab.set("types.unrepresentable", json!(policy))?;
        lab.set("types.numeric_unconstrained", json!("decimal(20,4)"))?;
        lab.set(
            "types.columns",
            json!([{"match": "public.odd.price", "as": "decimal(12,2)"},
                   {"match": "public.odd.lossy", "as": "double"},
                   {"match": "public.odd.tags", "as": "string"}]),
        )?;
        lab.database().execute(
            "CREATE TABLE odd (id int PRIMARY KEY, day date, at timestamptz, t time, n numeric,
               price money, lossy numeric, tags text[], days date[]);
             INSERT INTO odd VALUES
               (1, 'infinity', '-infinity', '24:00:00', 1.5, '-1234.50', 0.1, '{a,b}', '{infinity,NULL}'),
               (2, '2024-01-01', now(), '12:00', 0, '0', 123456789012345678901234567890, '{}', '{}'),
               (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);",
        )?;
        if policy == "null" {
            lab.database().execute(
                "INSERT INTO odd (id, n, days) VALUES (4, 'NaN', '{{2024-01-01}}'), (5, 1.23456, NULL)",
            )?;
        }
        lab.init()?;
        let daemon = lab.start()?;
        lab.database().execute(
            "INSERT INTO odd (id, day, at, t) VALUES (10, '-infinity', 'infinity', '24:00:00')",
        )?;
        let report = expect_equal(&lab)?;
        ensure!(report.to_string().contains("lossy_columns"), "{report}");
        daemon.stop()?;
    }
    Ok(())
}
