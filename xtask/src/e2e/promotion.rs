//! Refs under manual promotion: `main` stands still for every engine until somebody promotes, and
//! goes back when somebody says so.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Env, Scenario, verify};
use crate::lab::{Expected, Lab};
use crate::{setup, shell};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("manual_promotion_holds_main_for_every_engine", held),
    ("a_dropped_column_is_promoted_by_force_only", breaking),
    ("promotions_beside_the_stream_disturb_nothing", beside),
    ("promote_refuses_what_it_cannot_do", refused),
];

/// Rows of `public.items` that pyiceberg finds on a branch.
fn rows_on(lab: &Lab, branch: &str) -> Result<i64> {
    let rows = "table.scan(snapshot_id=snapshot.snapshot_id).to_arrow().num_rows";
    Ok(ask(lab, rows, branch)?.parse()?)
}

/// What pyiceberg says of `public.items`: an expression over `table`, and `snapshot`, the head of a
/// branch.
fn ask(lab: &Lab, expression: &str, branch: &str) -> Result<String> {
    let script = format!(
        "import sys
from pyiceberg.catalog.sql import SqlCatalog
catalog = SqlCatalog('pgcdc', uri='sqlite:///' + sys.argv[1])
table = catalog.load_table(sys.argv[2])
snapshot = table.snapshot_by_name(sys.argv[3])
print({expression})"
    );
    let manifest = lab.manifest()?;
    let ident = manifest["tables"]["public.items"]["iceberg_table"].as_str();
    let mut python = shell::command(setup::interpreter()?);
    python.args(["-B", "-c", &script]).arg(lab.state_dir().join("catalog.db"));
    let said = shell::stdout(python.args([ident.context("no iceberg_table")?, branch]))?;
    Ok(said.trim().to_owned())
}

/// Rows of `public.items` that our own reader finds at a ref.
fn rows_at(lab: &Lab, cut: &str) -> Result<i64> {
    let sql = "SELECT count(*) AS n FROM public.items";
    let answer = lab.query(&["--sql", sql, "--ref", cut, "-f", "csv"])?;
    Ok(answer.lines().nth(1).context("no row")?.parse()?)
}

fn expect_rows(lab: &Lab, main: i64, staging: i64) -> Result<()> {
    for (name, expected) in [("main", main), ("staging", staging)] {
        let (theirs, ours) = (rows_on(lab, name)?, rows_at(lab, name)?);
        ensure!(theirs == expected, "pyiceberg finds {theirs} rows on {name}, not {expected}");
        ensure!(ours == expected, "query finds {ours} rows at {name}, not {expected}");
    }
    Ok(())
}

fn manual_lab(env: &Env<'_>) -> Result<Lab> {
    let mut lab = env.lab()?;
    lab.set("promotion.mode", json!("manual"))?;
    lab.database().execute(
        "CREATE TABLE items (id int PRIMARY KEY, v text); INSERT INTO items VALUES (1), (2), (3);",
    )?;
    lab.init()?;
    Ok(lab)
}

fn refs(lab: &Lab) -> Result<Vec<u8>> {
    lab.object("refs.json")?.context("there is no refs.json")
}

/// The records of promotions, oldest first.
fn audit(lab: &Lab) -> Result<Vec<Value>> {
    let text = fs::read_to_string(lab.state_dir().join("audit/cli.ndjson"))?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn held(env: &Env<'_>) -> Result<()> {
    let mut lab = manual_lab(env)?;
    let daemon = lab.start()?;
    lab.database().execute("INSERT INTO items VALUES (4)")?;
    lab.settle(&daemon)?;
    expect_rows(&lab, 3, 4)?;
    let diff = lab.pgcdc(&["diff", "--json", "--exit-code"])?.expect_code(0)?.json()?;
    ensure!(diff["verdict"] == "safe" && diff["promote_safe"] == true, "{diff}");
    let before = refs(&lab)?;
    let dry = lab.pgcdc(&["promote", "--dry-run", "--json"])?.expect_code(0)?.json()?;
    ensure!(dry["tables"] == diff["tables"], "a dry run says {dry}, diff says {diff}");
    ensure!(refs(&lab)? == before, "a dry run changed refs.json");
    lab.pgcdc(&["promote", "--reason", "release 12"])?.expect_code(0)?;
    expect_rows(&lab, 4, 4)?;
    lab.database().execute("UPDATE items SET v = 'x'; INSERT INTO items VALUES (5)")?;
    lab.settle(&daemon)?;
    expect_rows(&lab, 4, 5)?;
    restore(&lab)?;
    let records = audit(&lab)?;
    let told: Vec<(&str, &str)> = records
        .iter()
        .map(|r| {
            let text = |key: &str| r[key].as_str().unwrap_or_default();
            (text("phase"), text("decision"))
        })
        .collect();
    let expected = [
        ("plan", "allow"),
        ("outcome", "allow"),
        ("outcome", "deny"),
        ("plan", "allow"),
        ("outcome", "allow"),
    ];
    ensure!(told == expected, "the audit trail says {told:?}");
    ensure!(records[1]["reason"] == "release 12", "{}", records[1]);
    daemon.stop()?;
    // back to automatic: main is what staging was
    lab.set("promotion.mode", json!("auto"))?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    daemon.stop()?;
    ensure!(rows_on(&lab, "main")? == 5, "main did not follow");
    lab.expect_equal(Expected::AnyChanges).map(drop)
}

/// `main` back to the oldest cut that is kept, which nobody calls safe.
fn restore(lab: &Lab) -> Result<()> {
    let refs_json: Value = serde_json::from_slice(&refs(lab)?)?;
    let tag = refs_json["raw"]["oldest"].as_str().context("no raw tag")?.to_owned();
    let before = refs(lab)?;
    lab.pgcdc(&["promote", "--from", &tag, "--reason", "bad release"])?
        .expect_code(3)?
        .expect_words(&["breaking", "goes back", "hint"])?;
    ensure!(refs(lab)? == before, "a refused promotion changed refs.json");
    lab.pgcdc(&["promote", "--from", &tag, "--reason", "bad release", "--force"])?
        .expect_code(0)?;
    expect_rows(lab, 3, 5)
}

/// A column that readers of `main` may use is gone on `staging`.
fn breaking(env: &Env<'_>) -> Result<()> {
    let lab = manual_lab(env)?;
    let daemon = lab.start()?;
    lab.database().execute("ALTER TABLE items DROP COLUMN v; INSERT INTO items VALUES (4)")?;
    lab.settle(&daemon)?;
    let diff = lab.pgcdc(&["diff", "--json", "--exit-code"])?.expect_code(3)?.json()?;
    ensure!(diff["verdict"] == "breaking" && diff["promote_safe"] == false, "{diff}");
    let before = refs(&lab)?;
    lab.pgcdc(&["promote", "--reason", "release 13"])?.expect_code(3)?.expect_words(&[
        "breaking",
        "public.items",
        "hint",
    ])?;
    ensure!(refs(&lab)? == before, "a refused promotion changed refs.json");
    expect_rows(&lab, 3, 4)?;
    let columns = |cut: &str| -> Result<String> {
        let sql = "SELECT * FROM public.items ORDER BY id LIMIT 1";
        let read = lab.query(&["--sql", sql, "--ref", cut, "-f", "csv"])?;
        Ok(read.lines().next().unwrap_or_default().to_owned())
    };
    ensure!(columns("main")? == "id,v" && columns("staging")? == "id", "other columns");
    lab.pgcdc(&["promote", "--reason", "v is not used", "--force"])?.expect_code(0)?;
    expect_rows(&lab, 4, 4)?;
    ensure!(columns("main")? == "id", "main has {}", columns("main")?);
    let records = audit(&lab)?;
    let last = records.last().context("no audit record")?;
    ensure!(last["decision"] == "allow" && last["reason"] == "v is not used", "{last}");
    ensure!(records.iter().any(|record| record["decision"] == "deny"), "no refusal is told");
    daemon.stop()
}

/// Promotion after promotion under load: the daemon's commits go on over them.
fn beside(env: &Env<'_>) -> Result<()> {
    let mut lab = manual_lab(env)?;
    lab.set("flush.interval_sec", json!(0.1))?;
    lab.set("flush.min_interval_ms", json!(0))?;
    lab.database().execute(
        "CREATE PROCEDURE work(rounds int) LANGUAGE plpgsql AS $$ BEGIN
           FOR n IN 1 .. rounds LOOP
             INSERT INTO items VALUES (100 + n, 'x');
             UPDATE items SET v = v || 'y' WHERE id = 100 + n / 2;
             COMMIT; PERFORM pg_sleep(0.002);
           END LOOP; END $$;",
    )?;
    let daemon = lab.start()?;
    let mut psql = lab.database().psql()?;
    psql.args(["-c", "CALL work(3000)"]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut load = psql.spawn().context("cannot start the load")?;
    let mut promotions = 0;
    while load.try_wait()?.is_none() {
        lab.pgcdc(&["promote", "--reason", "on and on", "--force"])?.expect_code(0)?;
        daemon.expect_alive()?;
        promotions += 1;
    }
    ensure!(load.wait()?.success() && promotions >= 3, "{promotions} promotions");
    lab.settle(&daemon)?;
    ensure!(!daemon.log().contains("\"reconnecting\""), "{}", daemon.log_end());
    verify::expect_equal(&lab)?;
    daemon.stop()?;
    lab.pgcdc(&["promote", "--reason", "the last one", "--force"])?.expect_code(0)?;
    expect_rows(&lab, 3003, 3003)?;
    let refs_json: Value = serde_json::from_slice(&refs(&lab)?)?;
    let named = &refs_json["refs"]["main"]["tables"]["public.items"]["metadata_location"];
    let theirs = ask(&lab, "table.metadata_location", "main")?;
    ensure!(named.as_str() == Some(theirs.as_str()), "refs.json names {named}, not {theirs}");
    println!("     {promotions} promotions beside the stream");
    Ok(())
}

fn refused(env: &Env<'_>) -> Result<()> {
    let mut lab = manual_lab(env)?;
    lab.pgcdc(&["promote"])?.expect_code(2)?.expect_words(&["--reason"])?;
    lab.pgcdc(&["promote", "--reason", " "])?.expect_code(2)?.expect_words(&["hint"])?;
    lab.pgcdc(&["promote", "--reason", "x", "--to", "staging"])?.expect_code(2)?;
    lab.pgcdc(&["promote", "--reason", "x", "--from", "nothing"])?.expect_code(4)?;
    lab.pgcdc(&["diff", "--from", "raw@2020-01-01T00:00:00.000000000Z"])?.expect_code(4)?;
    lab.set("promotion.mode", json!("auto"))?;
    lab.pgcdc(&["promote", "--reason", "x"])?.expect_code(2)?.expect_words(&["promotion.mode"])?;
    lab.pgcdc(&["diff", "--json"])?.expect_code(0).map(drop)
}
