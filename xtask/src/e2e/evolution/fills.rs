//! Columns that are added with a constant, which older rows have on the source and which no row brings.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::steps::{Step, step};
use super::{Kept, LIMIT, expect_ids_once, follow, text};
use crate::e2e::Env;
use crate::lab::{Daemon, Expected, Oracle, compare_with_history};
use crate::shell;

const TABLES: &str = "
    CREATE TYPE mood AS ENUM ('glad', 'sad');
    CREATE DOMAIN code AS varchar(10);
    CREATE TABLE f (id int PRIMARY KEY, v text, big text);
    ALTER TABLE f ALTER big SET STORAGE EXTERNAL;
    INSERT INTO f SELECT i, 'v' || i, repeat('big' || i, 1500) FROM generate_series(1, 200) i;
    CREATE TABLE other (id int PRIMARY KEY, v text);
    CREATE TABLE tenants (id int PRIMARY KEY, v text);
    INSERT INTO tenants SELECT i, 'v' || i FROM generate_series(1, 50) i;
    CREATE TABLE parts (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (100);
    CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (100) TO (1000);
    INSERT INTO parts SELECT i * 10, 'v' || i FROM generate_series(1, 30) i;
    CREATE TABLE keyless (a int, b text);
    ALTER TABLE keyless REPLICA IDENTITY FULL;
    INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (2, 'y'), (3, NULL);
    CREATE TABLE empty (id int PRIMARY KEY);";

const STEPS: &[Step] = &[
    step(
        "a constant, and rows behind it",
        "f",
        "UPDATE f SET v = 'before' WHERE id = 1; DELETE FROM f WHERE id = 2;
         ALTER TABLE f ADD COLUMN n int DEFAULT 7; INSERT INTO f (id) VALUES (201);
         UPDATE f SET v = 'behind' WHERE id = 3; UPDATE f SET n = NULL WHERE id = 4;
         DELETE FROM f WHERE id = 5; UPDATE f SET id = 206 WHERE id = 6;",
    ),
    step(
        "a constant and no row",
        "f",
        r#"ALTER TABLE f ADD COLUMN w text DEFAULT 'it''s "so", {a} \x é'"#,
    ),
    step(
        "two constants at once, and one column without",
        "f",
        "INSERT INTO f (id, v) VALUES (202, 'not flushed');
         ALTER TABLE f ADD COLUMN amount numeric(12,4) DEFAULT 12345678.9012, ADD COLUMN plain int,
           ADD COLUMN at timestamptz NOT NULL DEFAULT '2026-02-03 04:05:06.789+05:30';
         UPDATE f SET amount = amount + 1 WHERE id BETWEEN 10 AND 12; DELETE FROM f WHERE id = 13;",
    ),
    step(
        "a constant of every kind",
        "f",
        r#"ALTER TABLE f ADD t_bool bool DEFAULT true, ADD t_i2 smallint DEFAULT -5,
           ADD t_i8 bigint DEFAULT -9223372036854775808, ADD t_f4 real DEFAULT 1.5,
           ADD t_f8 float8 DEFAULT 'NaN', ADD t_num numeric DEFAULT 12345678901234567890.5,
           ADD t_day date DEFAULT '2026-03-04', ADD t_time time DEFAULT '23:59:59.999999',
           ADD t_ts timestamp(3) DEFAULT '1999-12-31 23:59:59.999', ADD t_span interval DEFAULT '1 year 2 days',
           ADD t_uuid uuid DEFAULT 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', ADD t_bytes bytea DEFAULT '\xdead00beef',
           ADD t_json json DEFAULT '{"a": [1,  "x\"y"]}', ADD t_jsonb jsonb DEFAULT '{"b": {"c": null}}',
           ADD t_ints int[] DEFAULT '{1,NULL,3}', ADD t_texts text[] DEFAULT ARRAY['a,b', 'q"q', NULL, ''],
           ADD t_none int[] DEFAULT '{}',
           ADD t_box box DEFAULT '(1,1),(0,0)', ADD t_mood mood DEFAULT 'sad', ADD t_moods mood[] DEFAULT '{sad,glad}',
           ADD t_code code DEFAULT 'x', ADD t_inet inet DEFAULT '10.0.0.1/8', ADD t_range int4range DEFAULT '[1,5)',
           ADD t_char char(5) DEFAULT 'ab', ADD t_empty text DEFAULT '', ADD t_long text DEFAULT repeat('long', 5000)"#,
    ),
    step(
        "rows behind that, older ones among them, large values unchanged",
        "f",
        "UPDATE f SET v = 'late' WHERE id BETWEEN 20 AND 30; UPDATE f SET t_ints = '{9}' WHERE id = 31;
         DELETE FROM f WHERE id BETWEEN 40 AND 45; INSERT INTO f (id, big) VALUES (203, 'small');",
    ),
    step(
        "a constant in one transaction with rows behind it",
        "f",
        "BEGIN; ALTER TABLE f ADD COLUMN x1 int DEFAULT 1; INSERT INTO f (id) VALUES (204), (205);
         UPDATE f SET x1 = 2 WHERE id = 50; UPDATE f SET x1 = x1 + 1 WHERE id IN (50, 51, 204);
         DELETE FROM f WHERE id IN (52, 205); COMMIT;",
    ),
    step(
        "a constant behind rows of another table in the same transaction",
        "f",
        "UPDATE f SET v = 'not flushed' WHERE id = 60;
         BEGIN; INSERT INTO other VALUES (1, 'first'); ALTER TABLE f ADD COLUMN x2 text DEFAULT 'two';
         UPDATE f SET x2 = 'three' WHERE id = 61; INSERT INTO other VALUES (2, 'last');
         DELETE FROM f WHERE id = 62; COMMIT; UPDATE f SET v = 'later' WHERE id = 63;",
    ),
    step(
        "a default that is dropped again, and one that changes",
        "f",
        "ALTER TABLE f ADD COLUMN x3 int DEFAULT 3; ALTER TABLE f ALTER x3 DROP DEFAULT; INSERT INTO f (id) VALUES (207);
         ALTER TABLE f ADD COLUMN x4 int DEFAULT 4; ALTER TABLE f ALTER x4 SET DEFAULT 5; INSERT INTO f (id) VALUES (208);",
    ),
    step(
        "one column goes, another is renamed, a third comes with a constant",
        "f",
        "BEGIN; ALTER TABLE f DROP COLUMN n; ALTER TABLE f RENAME v TO word;
         ALTER TABLE f ADD COLUMN x5 varchar(20) DEFAULT 'five'; COMMIT;
         UPDATE f SET word = 'w' WHERE id = 70; DELETE FROM f WHERE id = 71;",
    ),
    step(
        "a constant that is part of the new key",
        "tenants",
        "UPDATE tenants SET v = 'before' WHERE id = 1;
         ALTER TABLE tenants ADD COLUMN tenant int NOT NULL DEFAULT 9, DROP CONSTRAINT tenants_pkey,
           ADD PRIMARY KEY (tenant, id);
         UPDATE tenants SET v = 'behind' WHERE id = 2; DELETE FROM tenants WHERE id = 3;
         UPDATE tenants SET tenant = 10 WHERE id = 4; INSERT INTO tenants VALUES (1, 'new', 8);",
    ),
    step(
        "a constant of a partitioned table",
        "parts",
        "ALTER TABLE parts ADD COLUMN w int DEFAULT 3; INSERT INTO parts VALUES (5, 'five', 5);
         UPDATE parts SET v = 'x' WHERE id = 10; UPDATE parts SET id = id + 500 WHERE id = 20;
         DELETE FROM parts WHERE id = 200;",
    ),
    step(
        "a constant of a partitioned table and no row",
        "parts",
        "ALTER TABLE parts ADD COLUMN u text DEFAULT 'u'",
    ),
    step(
        "a constant of a table without a key",
        "keyless",
        "ALTER TABLE keyless ADD COLUMN c int DEFAULT 7; INSERT INTO keyless VALUES (4, 'z', 4);
         DELETE FROM keyless WHERE ctid IN (SELECT ctid FROM keyless WHERE a = 1 LIMIT 1);
         UPDATE keyless SET b = 'yy' WHERE a = 2;",
    ),
    step(
        "a constant of a table without a row",
        "empty",
        "ALTER TABLE empty ADD COLUMN c int DEFAULT 7; INSERT INTO empty VALUES (1), (2);",
    ),
];

pub(super) fn constants(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.schema_reconcile_interval_sec", 1.into())?;
    lab.database().execute(TABLES)?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    let mut tags = vec![Kept::of(&lab, "f")?];
    for Step { name, table, sql } in STEPS {
        lab.database().execute(sql).with_context(|| (*name).to_owned())?;
        follow(&lab, &daemon, table)
            .and_then(|()| lab.settle(&daemon).map(|_| ()))
            .and_then(|()| compare_with_history(&lab, &format!("public.{table}")).map(|_| ()))
            .with_context(|| (*name).to_owned())?;
        tags.push(Kept::of(&lab, table)?);
    }
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    lab.expect_confirmed_is_covered()?;
    expect_ids_once(&lab, &tags)?;
    for kept in &tags {
        kept.expect_readable(&lab)?;
    }
    let log = daemon.log();
    let filled = log.lines().filter(|line| line.contains("older rows filled")).count();
    ensure!(filled == 13, "older rows were filled {filled} times");
    lab.pgcdc(&["verify"])?.expect_code(0)?;
    // the key index knows where the rows went, here and behind a restart
    daemon.stop()?;
    let daemon = lab.start()?;
    lab.database().execute(
        "UPDATE f SET word = 'restarted' WHERE id % 10 = 0; DELETE FROM f WHERE id % 10 = 1;
         UPDATE parts SET v = 'restarted' WHERE id % 30 = 0; DELETE FROM keyless WHERE a = 3;
         UPDATE tenants SET v = 'restarted' WHERE id % 3 = 0;",
    )?;
    lab.settle(&daemon)?;
    ensure!(!daemon.log().contains("index rebuilt"), "an index was not right for its table");
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    daemon.stop()
}

pub(super) fn offline(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.schema_reconcile_interval_sec", 1.into())?;
    lab.database().execute(
        "CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t SELECT i, 'a' FROM generate_series(1, 100) i;
         CREATE TABLE quiet (id int PRIMARY KEY, a text); INSERT INTO quiet VALUES (1, 'a');
         CREATE TABLE alone (id int PRIMARY KEY, a text); INSERT INTO alone VALUES (1, 'a');",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    daemon.stop()?;
    // by command, without a daemon
    lab.database().execute("ALTER TABLE alone ADD COLUMN c int DEFAULT 7")?;
    let done = lab.pgcdc(&["reconcile", "--force", "--table", "public.alone"])?.expect_code(0)?;
    done.expect_words(&["public.alone: +c (applied, version 1 to 2)"])?;
    compare_with_history(&lab, "public.alone")?;
    lab.database().execute(
        "UPDATE t SET a = 'b' WHERE id < 10; ALTER TABLE t ADD COLUMN c int DEFAULT 7;
         INSERT INTO t VALUES (101, 'x', 1); UPDATE t SET a = 'c' WHERE id < 5; DELETE FROM t WHERE id = 6;
         ALTER TABLE t ADD COLUMN d text DEFAULT 'd'; UPDATE t SET d = 'e' WHERE id BETWEEN 20 AND 25;
         ALTER TABLE t RENAME c TO e; INSERT INTO t VALUES (102, 'y', 2, 'z');
         ALTER TABLE quiet ADD COLUMN c int DEFAULT 7; ALTER TABLE quiet RENAME a TO b;
         UPDATE alone SET a = 'b';",
    )?;
    let daemon = lab.start()?;
    for table in ["t", "quiet", "alone"] {
        follow(&lab, &daemon, table)?;
    }
    lab.settle(&daemon)?;
    for table in ["public.t", "public.quiet", "public.alone"] {
        compare_with_history(&lab, table)?;
    }
    daemon.stop()
}

pub(super) fn kills(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.schema_reconcile_interval_sec", 1.into())?;
    lab.set("flush.interval_sec", json!(0.2))?;
    lab.expect_orphans();
    lab.database().execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         INSERT INTO t SELECT i, repeat('v', 200) FROM generate_series(1, 20000) i;
         CREATE TABLE quiet (id int PRIMARY KEY, v text); INSERT INTO quiet VALUES (0, 'first');",
    )?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    for life in 0..10_u64 {
        let daemon = lab.start()?;
        lab.database().execute(&format!(
            "INSERT INTO t (id) VALUES (10{life}0001); UPDATE t SET v = '{life}' WHERE id % 97 = {life};
             ALTER TABLE t ADD COLUMN c{life} int DEFAULT {life};
             BEGIN; UPDATE t SET c{life} = -1 WHERE id % 89 = {life}; DELETE FROM t WHERE id % 501 = {life}; COMMIT;
             BEGIN; ALTER TABLE t ADD COLUMN e{life} text DEFAULT 'e{life}'; INSERT INTO t (id) VALUES (10{life}0002);
             UPDATE t SET v = 'e' WHERE id = 10{life}0001; COMMIT;
             ALTER TABLE quiet ADD COLUMN c{life} int DEFAULT {life};"
        ))?;
        // each life ends at another moment of its rewrites
        std::thread::sleep(Duration::from_millis(life * 150));
        daemon.kill()?;
    }
    let daemon = lab.start()?;
    for table in ["t", "quiet"] {
        follow(&lab, &daemon, table)?;
    }
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    let tags = [Kept::of(&lab, "t")?, Kept::of(&lab, "quiet")?];
    for table in ["public.t", "public.quiet"] {
        compare_with_history(&lab, table)?;
    }
    expect_ids_once(&lab, &tags)?;
    lab.expect_confirmed_is_covered()?;
    daemon.stop()
}

/// Rows that the transaction had changed before, and a value that has no place in the lake.
pub(super) fn refused(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.schema_reconcile_interval_sec", 1.into())?;
    let cases = [
        (
            "q_open",
            "BEGIN; UPDATE q_open SET v = 'x' WHERE id = 1; ALTER TABLE q_open ADD COLUMN c int DEFAULT 7;
             INSERT INTO q_open VALUES (2, 'b'); COMMIT",
            "column c was added with a value for older rows inside a transaction",
        ),
        (
            "q_endless",
            "ALTER TABLE q_endless ADD COLUMN c date DEFAULT 'infinity'; INSERT INTO q_endless VALUES (2, 'b')",
            "column c: ",
        ),
    ];
    let mut script = "CREATE TABLE fine (id int PRIMARY KEY, v text);".to_owned();
    for (table, ..) in &cases {
        script += &format!("CREATE TABLE {table} (id int PRIMARY KEY, v text);");
        script += &format!("INSERT INTO {table} VALUES (1, 'a');");
    }
    lab.database().execute(&script)?;
    lab.init()?;
    let daemon = lab.start()?;
    for (number, (table, change, reason)) in cases.iter().enumerate() {
        lab.database()
            .execute(&format!("{change}; INSERT INTO fine VALUES ({number}, '{table}')"))?;
        let name = format!("public.{table}");
        lab.wait_until(&daemon, &format!("{table} to stop"), |manifest| {
            Ok(manifest["tables"][&name]["state"] == "quarantined")
        })?;
        let told = lab.manifest()?["tables"][&name]["reason"].clone();
        ensure!(text(&told).contains(reason), "{table}: the reason is {told}");
        let read = lab.query(&["-t", &name, "-f", "csv"])?;
        ensure!(read == "id,v\n1,a\n", "{table} reads {read:?}");
        lab.pgcdc(&["table", "resync", &name]).map(drop)?;
    }
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    daemon.stop()
}

/// Under manual promotion older rows keep what they had on `main` until it follows.
pub(super) fn promoted(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("promotion.mode", json!("manual"))?;
    lab.set("flush.schema_reconcile_interval_sec", 1.into())?;
    lab.database().execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b');",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database()
        .execute("ALTER TABLE t ADD COLUMN c int DEFAULT 7; UPDATE t SET v = 'x' WHERE id = 2")?;
    lab.settle(&daemon)?;
    let read = |cut: &str| -> Result<String> {
        lab.query(&["-t", "public.t", "--ref", cut, "--order-by", "id", "-f", "csv"])
    };
    let (main, staging) = (read("main")?, read("staging")?);
    ensure!(main == "id,v\n1,a\n2,b\n", "main reads {main:?}");
    ensure!(staging == "id,v,c\n1,a,7\n2,x,7\n", "staging reads {staging:?}");
    lab.pgcdc(&["promote", "--force", "--reason", "a constant"])?.expect_code(0)?;
    let main = read("main")?;
    ensure!(main == staging, "main reads {main:?} after promotion");
    daemon.stop()
}

/// Rewrites of the same table from both sides, under load.
pub(super) fn beside_compaction(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.schema_reconcile_interval_sec", 1.into())?;
    lab.set("flush.interval_sec", json!(0.2))?;
    lab.set("compaction.interval_sec", json!(1))?;
    lab.expect_orphans();
    lab.database().execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         INSERT INTO t SELECT i, repeat('v', 200) FROM generate_series(1, 30000) i;",
    )?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    for round in 0..5 {
        let compact = lab.command("pgcdc", &["compact"]);
        let mut compacting = quiet(compact).spawn()?;
        for part in 0..3 {
            let n = format!("{round}{part}");
            lab.database().execute(&format!(
                "UPDATE t SET v = '{n}' WHERE id % 53 = {round}; ALTER TABLE t ADD COLUMN c{n} int DEFAULT {round};
                 DELETE FROM t WHERE id % 1009 = {round}{part}; UPDATE t SET c{n} = -1 WHERE id % 59 = {part};"
            ))?;
            std::thread::sleep(Duration::from_millis(200));
        }
        ended(&daemon, &mut compacting)?;
    }
    follow(&lab, &daemon, "t")?;
    lab.settle(&daemon)?;
    // it compacts every second
    daemon.stop()?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    lab.pgcdc(&["compact"])?.expect_code(0)?;
    compare_with_history(&lab, "public.t").map(|_| ())
}

fn quiet(mut command: std::process::Command) -> std::process::Command {
    use std::process::Stdio;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Whether it could compact is of no interest: a table that is filled again and again may be skipped.
fn ended(daemon: &Daemon, compacting: &mut std::process::Child) -> Result<()> {
    shell::wait_for("compact to end", LIMIT, || {
        daemon.expect_alive()?;
        Ok(compacting.try_wait()?.map(drop))
    })
}
