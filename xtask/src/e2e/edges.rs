//! Edges of tables: identities, keys that change, values stored out of line, TRUNCATE, partitions,
//! odd names.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Env, Scenario};
use crate::lab::{Expected, Lab, Oracle};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("a_megabyte_survives_an_update_beside_it", toast),
    ("every_replica_identity_keeps_the_table_equal", identities),
    ("a_changed_key_is_a_delete_and_an_insert", key_change),
    ("truncate_empties_the_current_state", truncate),
    ("a_table_without_identity_is_skipped_with_a_remedy", no_identity),
    ("replica_identity_nothing_is_refused_by_name", identity_nothing),
    ("partitions_arrive_as_their_root", partitions),
    ("odd_names_of_schemas_tables_and_columns_work", odd_names),
    ("stored_generated_columns_are_never_null_by_accident", generated_columns),
    ("a_database_with_other_session_defaults_reads_the_same", session_defaults),
];

/// Runs `init`, `start`, the changes, and compares lake and source with the oracle's counts.
fn follow(lab: &Lab, changes: &str) -> Result<()> {
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    lab.database().execute(changes)?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    daemon.stop()
}

fn toast(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    // Random hex does not compress, and EXTERNAL keeps PostgreSQL from trying.
    let megabyte =
        "(SELECT string_agg(md5(i::text || random()), '') FROM generate_series(1, 32768) i)";
    for (table, identity) in [
        ("by_default", "DEFAULT"),
        ("by_index", "USING INDEX by_index_code"),
        ("by_full", "FULL"),
        ("by_full_no_key", "FULL"),
    ] {
        let key = if table == "by_full_no_key" { "" } else { "PRIMARY KEY" };
        lab.database().execute(&format!(
            "CREATE TABLE {table} (id int {key}, code text NOT NULL, big text, n int, raw bytea);
             ALTER TABLE {table} ALTER big SET STORAGE EXTERNAL, ALTER raw SET STORAGE EXTERNAL;
             CREATE UNIQUE INDEX {table}_code ON {table} (code);
             ALTER TABLE {table} REPLICA IDENTITY {identity};
             INSERT INTO {table} SELECT 1, 'a', {megabyte}, 0, decode({megabyte}, 'hex');
             INSERT INTO {table} VALUES (2, 'b', 'small', 0, NULL);"
        ))?;
    }
    let mut changes = String::new();
    for table in ["by_default", "by_index", "by_full", "by_full_no_key"] {
        changes += &format!(
            "UPDATE {table} SET n = n + 1;
             UPDATE {table} SET n = n + 1 WHERE id = 1;
             UPDATE {table} SET big = big, n = 7 WHERE id = 1;
             INSERT INTO {table} SELECT 3, 'c', {megabyte}, 0, NULL;
             BEGIN; UPDATE {table} SET n = 8 WHERE id = 3; UPDATE {table} SET n = 9; COMMIT;
             UPDATE {table} SET code = code || '!' WHERE id = 1;
             UPDATE {table} SET raw = NULL WHERE id = 1;
             UPDATE {table} SET n = n + 1 WHERE id = 1;"
        );
    }
    follow(&lab, &changes)?;
    // The changelog holds the carried-over value too, and says that it was carried over.
    let rows = lab.query(&[
        "--sql",
        "SELECT count(*) AS carried FROM public.by_default__changes \
         WHERE __op = 'U' AND length(big) = 1048576 AND array_length(__toast_unchanged) > 0",
        "-f",
        "csv",
    ])?;
    let carried: i64 = rows.lines().nth(1).unwrap_or_default().trim().parse().unwrap_or(0);
    ensure!(carried >= 6, "only {carried} updates in the changelog carry the unsent megabyte");
    Ok(())
}

fn identities(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE by_key (b int, a text, v int, PRIMARY KEY (a, b));
         CREATE TABLE by_index (code uuid NOT NULL, part int NOT NULL, v text);
         CREATE UNIQUE INDEX by_index_id ON by_index (code, part);
         ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_id;
         CREATE TABLE by_full_key (id bigint PRIMARY KEY, v text);
         ALTER TABLE by_full_key REPLICA IDENTITY FULL;
         CREATE TABLE by_full (a int, b text, c numeric);
         ALTER TABLE by_full REPLICA IDENTITY FULL;
         INSERT INTO by_key SELECT i, 'k' || i % 3, i FROM generate_series(1, 30) i;
         INSERT INTO by_index SELECT md5(i::text)::uuid, i, 'v' FROM generate_series(1, 30) i;
         INSERT INTO by_full_key SELECT i, 'v' FROM generate_series(1, 30) i;
         INSERT INTO by_full SELECT i % 5, NULL, 1.50 FROM generate_series(1, 30) i;",
    )?;
    follow(
        &lab,
        // by_full has equal rows: each delete and update takes exactly one or all of them.
        "UPDATE by_key SET v = v + 1 WHERE b % 2 = 0;
         DELETE FROM by_key WHERE a = 'k1' AND b < 20;
         UPDATE by_index SET v = 'w' WHERE part % 3 = 0;
         UPDATE by_index SET part = part + 1000 WHERE part % 10 = 0;
         DELETE FROM by_index WHERE part = 5;
         UPDATE by_full_key SET v = NULL WHERE id % 4 = 0;
         DELETE FROM by_full_key WHERE id % 7 = 0;
         DELETE FROM by_full WHERE ctid = (SELECT min(ctid) FROM by_full WHERE a = 1);
         UPDATE by_full SET b = 'x' WHERE ctid = (SELECT min(ctid) FROM by_full WHERE a = 2);
         UPDATE by_full SET c = c * 2 WHERE a = 3;
         INSERT INTO by_full VALUES (1, NULL, 1.50), (1, NULL, 1.50);
         DELETE FROM by_full WHERE a = 4;
         INSERT INTO by_full VALUES (4, NULL, NULL);
         BEGIN; INSERT INTO by_full VALUES (8, '', 0); DELETE FROM by_full WHERE a = 8; COMMIT;",
    )
}

fn key_change(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE items (id int PRIMARY KEY, v text);
         INSERT INTO items SELECT i, 'v' || i FROM generate_series(1, 20) i;",
    )?;
    follow(
        &lab,
        "UPDATE items SET id = id + 100 WHERE id <= 3;
         BEGIN; UPDATE items SET id = 1000 WHERE id = 4; UPDATE items SET v = 'moved' WHERE id = 1000;
                UPDATE items SET id = 4 WHERE id = 1000; COMMIT;
         DELETE FROM items WHERE id = 101;
         INSERT INTO items VALUES (1, 'back');
         -- A chain inside one transaction: each key becomes its neighbour's.
         BEGIN; UPDATE items SET id = -id; UPDATE items SET id = 1 - id; COMMIT;",
    )?;
    let lines = lab.query(&["-t", "public.items", "--changes-since", "0", "-f", "ndjson"])?;
    let mut rows = Vec::new();
    for line in lines.lines() {
        rows.push(serde_json::from_str::<Value>(line)?);
    }
    let is = |row: &Value, op: &str, id: i64| row["__op"] == op && row["id"] == id;
    let pair = rows.windows(2).find(|pair| is(&pair[0], "D", 1) && is(&pair[1], "I", 101));
    let pair = pair.context("no delete of key 1 with an insert of key 101 behind it")?;
    let seq = |row: &Value| row["__seq"].as_i64();
    ensure!(pair[0]["__xid"] == pair[1]["__xid"], "the two are of two transactions: {pair:?}");
    ensure!(seq(&pair[1]) == seq(&pair[0]).map(|n| n + 1), "__seq is not consecutive: {pair:?}");
    ensure!(pair[1]["v"] == "v1", "the insert is not the whole row: {pair:?}");
    Ok(())
}

fn truncate(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE a (id int PRIMARY KEY, v text);
         CREATE TABLE b (id int PRIMARY KEY, a_id int REFERENCES a);
         CREATE TABLE c (id int, v text); ALTER TABLE c REPLICA IDENTITY FULL;
         INSERT INTO a SELECT i, 'x' FROM generate_series(1, 100) i;
         INSERT INTO b SELECT i, i FROM generate_series(1, 50) i;
         INSERT INTO c SELECT i % 3, 'x' FROM generate_series(1, 50) i;",
    )?;
    follow(
        &lab,
        "UPDATE a SET v = 'y' WHERE id < 10;
         TRUNCATE a CASCADE;
         INSERT INTO a VALUES (1, 'after'), (2, 'after');
         BEGIN; INSERT INTO c VALUES (9, 'gone'); TRUNCATE c; INSERT INTO c VALUES (9, 'stays');
         UPDATE c SET v = 'changed'; COMMIT;
         TRUNCATE b;",
    )
}

fn no_identity(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE keyless (v text); INSERT INTO keyless VALUES ('a');
         CREATE TABLE late_key (id int, UNIQUE (id) DEFERRABLE); INSERT INTO late_key VALUES (1);",
    )?;
    let preflight = lab.pgcdc(&["preflight"])?.expect_code(0)?;
    preflight.expect_words(&["public.keyless", "REPLICA IDENTITY"])?;
    lab.init()?.expect_words(&["skip: public.keyless (no replica identity)"])?;
    let manifest = lab.manifest()?;
    for table in ["public.keyless", "public.late_key"] {
        ensure!(manifest["tables"][table]["status"] == "excluded", "{table} is not excluded");
        ensure!(manifest["tables"][table]["reason"] == "no replica identity", "{table}: reason");
    }
    // In a publication it would make the application's own updates fail.
    lab.database()
        .execute("UPDATE keyless SET v = 'b'; DELETE FROM keyless; DELETE FROM late_key")?;
    expect_published(&lab, "heartbeat")
}

fn expect_published(lab: &Lab, expected: &str) -> Result<()> {
    let published = lab.database().value(&format!(
        "SELECT string_agg(tablename, ',' ORDER BY tablename) FROM pg_publication_tables
         WHERE pubname = '{}'",
        lab.publication()
    ))?;
    ensure!(published == expected, "the publication has {published}");
    Ok(())
}

/// NOTHING was set on purpose; whether such a table may be left out is for the configuration to say.
fn identity_nothing(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
         CREATE TABLE root (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
         CREATE TABLE leaf PARTITION OF root FOR VALUES FROM (0) TO (100);
         INSERT INTO nothing VALUES (1); INSERT INTO root VALUES (1, 'a');",
    )?;
    let refused = |lab: &Lab, table: &str| -> Result<()> {
        let remedy = format!("ALTER TABLE \"public\".\"{table}\" REPLICA IDENTITY DEFAULT");
        let table = format!("public.{table}");
        let words = ["NOTHING", table.as_str(), remedy.as_str(), "exclude"];
        lab.pgcdc(&["preflight"])?.expect_code(1)?.expect_words(&words)?.expect_words(&["FAIL"])?;
        lab.pgcdc(&["init"])?.expect_code(1)?.expect_words(&words)?.expect_words(&["hint"])?;
        ensure!(!lab.lake().join("manifest.json").exists(), "a refused init left a manifest");
        lab.expect_nothing_on_source()
    };
    refused(&lab, "nothing")?;
    lab.set("tables.exclude", json!(["public.nothing"]))?;
    lab.database().execute("ALTER TABLE leaf REPLICA IDENTITY NOTHING")?;
    refused(&lab, "leaf")?;
    lab.database().execute("ALTER TABLE leaf REPLICA IDENTITY DEFAULT")?;
    lab.pgcdc(&["preflight"])?.expect_code(0)?;
    lab.init()?.expect_words(&["skip: public.nothing (explicit exclude)"])?;
    lab.database().execute("UPDATE nothing SET id = 2; DELETE FROM nothing;")?;
    lab.database().execute("UPDATE root SET v = 'b'")?;
    expect_published(&lab, "heartbeat,root")
}

fn partitions(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE logs (id int, day date, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
         -- Another physical order of columns than the root's, and a second level.
         CREATE TABLE logs_2 (v text, gone int, day date NOT NULL, id int NOT NULL);
         ALTER TABLE logs_2 DROP COLUMN gone;
         ALTER TABLE logs ATTACH PARTITION logs_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
         CREATE TABLE logs_3 PARTITION OF logs FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')
             PARTITION BY LIST (id);
         CREATE TABLE logs_3a PARTITION OF logs_3 DEFAULT;
         INSERT INTO logs SELECT i, date '2026-01-01' + i % 89, 'x' FROM generate_series(1, 200) i;",
    )?;
    follow(
        &lab,
        "UPDATE logs SET v = 'y' WHERE id % 3 = 0;
         UPDATE logs SET day = day + 31 WHERE day < '2026-01-10';
         DELETE FROM logs WHERE id % 10 = 0;
         INSERT INTO logs SELECT i, date '2026-01-01' + i % 89, 'z' FROM generate_series(500, 600) i;
         CREATE TABLE logs_4 PARTITION OF logs FOR VALUES FROM ('2026-04-01') TO ('2026-05-01');
         INSERT INTO logs VALUES (9000, '2026-04-02', 'new partition');",
    )?;
    let manifest = lab.manifest()?;
    ensure!(manifest["tables"]["public.logs"]["status"] == "active", "the root is not active");
    ensure!(manifest["tables"]["public.logs_1"]["status"] != "active", "a leaf is active");
    Ok(())
}

fn odd_names(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("source.postgres.schemas", json!(["public", "Odd Schema"]))?;
    lab.database().execute(
        r#"CREATE SCHEMA "Odd Schema";
           CREATE TABLE "Mixed" ("Id" int PRIMARY KEY, "select" text, "a b" int, "ünï""q" text);
           CREATE TABLE "Odd Schema"."dotted.name" ("ID" int PRIMARY KEY, v text);
           CREATE TABLE "weiß table" (id int PRIMARY KEY, "x.y" text);
           INSERT INTO "Mixed" VALUES (1, 's', 1, 'u'), (2, NULL, NULL, NULL);
           INSERT INTO "Odd Schema"."dotted.name" VALUES (1, 'a');
           INSERT INTO "weiß table" VALUES (1, 'b');"#,
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database().execute(
        r#"UPDATE "Mixed" SET "a b" = 7 WHERE "Id" = 2; INSERT INTO "Mixed" VALUES (3);
           UPDATE "Odd Schema"."dotted.name" SET v = 'b';
           DELETE FROM "weiß table"; INSERT INTO "weiß table" VALUES (5, 'c');"#,
    )?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    let manifest = lab.manifest()?;
    for name in ["public.Mixed", "Odd Schema.\"dotted.name\"", "public.weiß table"] {
        ensure!(manifest["tables"][name]["status"] == "active", "no active table {name}");
    }
    daemon.stop()
}

fn generated_columns(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE items (id int PRIMARY KEY, n int,
                             double_n int GENERATED ALWAYS AS (n * 2) STORED, v text);
         INSERT INTO items (id, n, v) VALUES (1, 1, 'a'), (2, NULL, 'b');",
    )?;
    // Compares the columns that the manifest names: all of them, or all but the omitted one.
    follow(&lab, "UPDATE items SET n = 5; INSERT INTO items (id, n, v) VALUES (3, 3, 'c');")?;
    let schema = &lab.manifest()?["schemas"]["public.items"];
    let has = |list: &str| {
        schema[list].as_array().is_some_and(|all| all.iter().any(|c| c["name"] == "double_n"))
    };
    ensure!(
        has("columns") != has("omitted"),
        "double_n is neither replicated nor omitted: {schema}"
    );
    Ok(())
}

fn session_defaults(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    let name = lab.database().name();
    lab.database().execute(&format!(
        "ALTER DATABASE \"{name}\" SET DateStyle = 'SQL, DMY';
         ALTER DATABASE \"{name}\" SET IntervalStyle = 'sql_standard';
         ALTER DATABASE \"{name}\" SET TimeZone = 'Asia/Kolkata';
         ALTER DATABASE \"{name}\" SET bytea_output = 'escape';
         ALTER DATABASE \"{name}\" SET extra_float_digits = 0;
         CREATE TABLE items (id int PRIMARY KEY, at timestamptz, day date, span interval,
                             raw bytea, real_number float8);
         INSERT INTO items VALUES (1, '2026-03-04 05:06:07.000008+00', '2026-03-04',
                                   '1 year 2 days 3.5 seconds', '\\x00ff', 0.1 + 0.2::float8);"
    ))?;
    follow(&lab, "INSERT INTO items SELECT 2, at, day, span, raw, real_number FROM items;")
}
