//! `pgcdc query`: formats, filters, changes, time travel, and its refusals.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Env, Scenario};
use crate::lab::Lab;

pub(super) const SCENARIOS: &[Scenario] = &[
    ("query_prints_every_format", formats),
    ("query_filters_orders_and_limits", filters),
    ("query_reads_changes_and_older_cuts", time_travel),
    ("query_refuses_with_the_right_exit_code", refusals),
    ("status_and_discover_print_one_json_document", operator_json),
];

/// A lab with one table of three rows, initialised.
fn shelf(env: &Env<'_>) -> Result<Lab> {
    shelf_in(env.lab()?)
}

/// The same in a lab with nothing in it yet.
pub(super) fn shelf_in(lab: Lab) -> Result<Lab> {
    lab.database().execute(
        "CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(8,2), at timestamptz);
         INSERT INTO items VALUES (1, 'one', 1.10, '2026-01-01 00:00:00+00'), (2, 'two, \"2\"', 2.20, NULL),
                                  (3, NULL, 3.30, '2026-01-03 12:00:00.5+00');",
    )?;
    lab.init()?;
    Ok(lab)
}

const ITEMS: [&str; 2] = ["-t", "public.items"];

fn ask(lab: &Lab, args: &[&str]) -> Result<String> {
    let mut words = ITEMS.to_vec();
    words.extend(args);
    lab.query(&words)
}

fn formats(env: &Env<'_>) -> Result<()> {
    let lab = shelf(env)?;
    let tables = lab.query(&[])?;
    ensure!(tables.contains("public.items"), "the list of tables is {tables}");
    let expected = json!([
        {"id": 1, "name": "one", "price": "1.10", "at": "2026-01-01T00:00:00Z"},
        {"id": 2, "name": "two, \"2\"", "price": "2.20", "at": null},
        {"id": 3, "name": null, "price": "3.30", "at": "2026-01-03T12:00:00.500Z"},
    ]);
    let array: Value = serde_json::from_str(&ask(&lab, &["-f", "json", "--order-by", "id"])?)?;
    same_items(&array, &expected)?;
    let lines = ask(&lab, &["-f", "ndjson", "--order-by", "id"])?;
    let lines: Result<Vec<Value>, _> = lines.lines().map(serde_json::from_str).collect();
    same_items(&Value::Array(lines?), &expected)?;
    let csv = ask(&lab, &["-f", "csv", "--order-by", "id", "-c", "id,name,price"])?;
    ensure!(
        csv == "id,name,price\n1,one,1.10\n2,\"two, \"\"2\"\"\",2.20\n3,,3.30\n",
        "CSV reads {csv:?}"
    );
    let table = ask(&lab, &["--order-by", "id"])?;
    ensure!(table.contains("name") && table.contains("one"), "the table reads {table}");
    let through = lab.pgcdc(&["query", "-t", "public.items", "-f", "json", "-n", "1"])?;
    ensure!(through.expect_code(0)?.json()?.as_array().map(Vec::len) == Some(1), "dispatch");
    Ok(())
}

/// Equal but for trailing zeros of fractional seconds.
fn same_items(got: &Value, expected: &Value) -> Result<()> {
    let text = got.to_string().replace(".500000Z", ".5Z").replace(".000000Z", "Z");
    let got: Value = serde_json::from_str(&text)?;
    ensure!(got == *expected, "got {got}, expected {expected}");
    Ok(())
}

fn filters(env: &Env<'_>) -> Result<()> {
    let lab = shelf(env)?;
    for (args, expected) in [
        (vec!["-w", "id:gt:1"], "2,3"),
        (vec!["-w", "id:gte:2", "-w", "price:lt:3"], "2"),
        (vec!["-w", "name:isnull:"], "3"),
        (vec!["-w", "name:notnull"], "1,2"),
        (vec!["-w", "name:like:o%"], "1"),
        (vec!["-w", "id:in:1|3"], "1,3"),
        (vec!["-w", "id:ne:2"], "1,3"),
        (vec!["-w", "at:eq:2026-01-01T00:00:00Z"], "1"),
        (vec!["-w", "price:eq:2.20"], "2"),
        (vec!["-n", "2"], "1,2"),
    ] {
        let mut words = args.clone();
        words.extend(["-c", "id", "-f", "csv", "--order-by", "id"]);
        let ids: Vec<_> = ask(&lab, &words)?.lines().skip(1).map(str::to_owned).collect();
        ensure!(ids.join(",") == expected, "{args:?} gave {ids:?}");
    }
    let ids = ask(&lab, &["-c", "id", "-f", "csv", "--order-by", "-id"])?;
    ensure!(ids == "id\n3\n2\n1\n", "descending order gave {ids:?}");
    let sum = lab.query(&[
        "--sql",
        "SELECT sum(price) AS total, count(name) AS named FROM public.items",
        "-f",
        "csv",
    ])?;
    ensure!(sum == "total,named\n6.60,2\n", "the aggregate reads {sum:?}");
    Ok(())
}

fn time_travel(env: &Env<'_>) -> Result<()> {
    time_travel_in(&shelf(env)?)
}

/// Reads a shelf as it was and as it is.
pub(super) fn time_travel_in(lab: &Lab) -> Result<()> {
    let daemon = lab.start()?;
    lab.database().execute("UPDATE items SET price = 9 WHERE id = 1")?;
    lab.settle(&daemon)?;
    let epoch = lab.manifest()?["epoch"].as_i64().context("no epoch")?;
    let raw = newest_raw_tag(lab)?;
    lab.database().execute("DELETE FROM items WHERE id = 1")?;
    lab.settle(&daemon)?;
    let count = |args: &[&str]| -> Result<usize> {
        let mut words = vec!["-f", "csv", "-c", "id"];
        words.extend(args);
        Ok(ask(lab, &words)?.lines().count() - 1)
    };
    ensure!(count(&[])? == 2, "the newest state has another number of rows");
    ensure!(count(&["--epoch", &epoch.to_string()])? == 3, "--epoch reads another cut");
    ensure!(count(&["--ref", &raw])? == 3, "--ref reads another cut");
    ensure!(count(&["--no-deltas"])? == 3, "--no-deltas reads more than the base");
    let since = ask(lab, &["--changes-since", &epoch.to_string(), "-f", "json"])?;
    let since: Value = serde_json::from_str(&since)?;
    ensure!(since.as_array().map(Vec::len) == Some(1), "changes since {epoch}: {since}");
    ensure!(since[0]["__op"] == "D" && since[0]["id"] == 1, "the change reads {since}");
    let all = ask(lab, &["--changes-since", "0", "-f", "csv"])?;
    ensure!(all.lines().count() == 3, "all changes: {all}");
    let refs = refs_of(lab)?;
    let newest = lab.manifest()?["epoch"].clone();
    for branch in ["main", "staging"] {
        let at = &refs["refs"][branch]["epoch"];
        ensure!(*at == newest, "{branch} is at epoch {at}, the lake at {newest}");
    }
    daemon.stop()
}

fn refs_of(lab: &Lab) -> Result<Value> {
    let text = lab.object("refs.json")?.context("there is no refs.json")?;
    Ok(serde_json::from_slice(&text)?)
}

/// The newest of the raw tags that refs.json repeats.
fn newest_raw_tag(lab: &Lab) -> Result<String> {
    let refs = refs_of(lab)?;
    let newest = refs["raw"]["newest"].as_str().context("refs.json names no raw tag")?;
    Ok(newest.to_owned())
}

fn refusals(env: &Env<'_>) -> Result<()> {
    let lab = shelf(env)?;
    let run = |args: &[&str]| {
        let mut words = vec!["query"];
        words.extend(args);
        lab.run("pgcdc-serve", &words)
    };
    run(&["-t", "public.missing"])?.expect_code(4)?;
    run(&["-t", "public.items", "--ref", "raw@2001-01-01T00:00:00.000000000Z"])?.expect_code(4)?;
    run(&["-t", "public.items", "-w", "id:eq:many"])?.expect_code(2)?.expect_words(&["id"])?;
    run(&["-t", "public.items", "-w", "nope:eq:1"])?.expect_code(2)?.expect_words(&["nope"])?;
    run(&["-t", "public.items", "--epoch", "1", "--ref", "main"])?.expect_code(2)?;
    for sql in [
        "DELETE FROM public.items",
        "CREATE TABLE x AS SELECT 1",
        "COPY public.items TO '/tmp/x'",
        "SELECT 1; SELECT 2",
    ] {
        run(&["--sql", sql])?.expect_code(2)?;
    }
    // a file and a catalog are no tables of the lake: absent, like any other name
    for sql in ["SELECT * FROM '/etc/passwd'", "SELECT * FROM information_schema.tables"] {
        run(&["--sql", sql])?.expect_code(4)?;
    }
    Ok(())
}

fn operator_json(env: &Env<'_>) -> Result<()> {
    let lab = shelf(env)?;
    let status = lab.pgcdc(&["status", "--json"])?.expect_code(0)?.json()?;
    ensure!(status["replication"]["slot"] == lab.slot().as_str(), "status: {status}");
    ensure!(status["epochs"]["committed"] == 0, "status: {status}");
    lab.pgcdc(&["discover", "--json"])?.expect_code(0)?.json()?;
    lab.pgcdc(&["preflight", "--json"])?.expect_code(0)?.json()?;
    lab.pgcdc(&["config", "check"])?.expect_code(0)?.expect_words(&["ok"])?;
    lab.pgcdc(&["config", "show", "--json"])?.expect_code(0)?.json()?;
    let version = lab.pgcdc(&["version", "--json"])?.expect_code(0)?.json()?;
    ensure!(version["version"].is_string(), "version: {version}");
    let shown = lab.pgcdc(&["config", "show"])?.expect_code(0)?;
    ensure!(!shown.stdout.contains("postgresql://"), "config show prints the URL");
    Ok(())
}
