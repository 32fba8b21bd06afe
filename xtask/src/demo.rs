//! `cargo xtask demo`: the whole product on one screen, with nothing installed by hand.
//!
//! A private PostgreSQL gets pgbench's tables and the shop of testdata; pgcdc snapshots it, follows
//! it while it changes, and answers questions; in the end source and lake are counted side by side.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::{Daemon, Expected, Lab, SENTINEL, parse_lsn};
use crate::pg::{Cluster, Tuning};
use crate::repo::{self, Profile};
use crate::setup::{self, Majors};

/// How the demo runs.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The PostgreSQL major of the source
    #[arg(long, default_value_t = 18)]
    pg: u32,
    /// Seconds of changes to watch
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Keep the lake and its configuration, and say where they are
    #[arg(long)]
    keep: bool,
    /// Leave out the comparison by pyiceberg and DuckDB
    #[arg(long)]
    no_python: bool,
}

/// Runs the demo; an error means that source and lake differ or a step failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    say("Getting ready: PostgreSQL, readers, binaries (the first time takes some minutes)");
    setup::ensure(&Majors::one(args.pg))?;
    let readers = !args.no_python && readers_are_there();
    let bins = repo::build_binaries(Profile::Dev)?;

    say(&format!("A private PostgreSQL {} with pgbench's tables and a small shop", args.pg));
    let cluster = Cluster::start(args.pg, Tuning::Tests, "")?;
    let dir = tempfile::Builder::new().prefix("pgcdc-demo-").tempdir()?;
    let mut lab = Lab::new(&bins, dir.path(), cluster.create_database("shop")?)?;
    lab.set("flush.interval_sec", 1.into())?;
    load(&lab)?;

    say("Snapshot: all tables at one position of the write-ahead log");
    show(&lab, &["init"])?;

    say("Follow: the daemon streams while the shop is open and pgbench runs");
    println!("$ pgcdc start &");
    let daemon = lab.start()?;
    let before = lab.manifest()?["epoch"].as_i64().context("no epoch")?;
    watch_changes(&lab, &daemon, Duration::from_secs(args.seconds))?;
    let took = lab.settle(&daemon)?;
    println!("  at rest: everything committed was in the lake {:.1} s later", took.as_secs_f64());

    ask_questions(&lab, before)?;

    say("Stop: the daemon drains and ends");
    daemon.stop()?;
    println!("$ kill -TERM %1    # exit 0");

    say("Source and lake, side by side");
    count_side_by_side(&lab)?;
    if readers {
        let rows = lab.expect_equal(Expected::AnyChanges)?;
        println!("  pyiceberg and DuckDB read all {rows} rows with exactly the source's values");
    }
    say("Clean up: slot and publication leave the source");
    show(&lab, &["teardown"])?;
    lab.expect_nothing_on_source()?;
    if args.keep {
        println!("  kept: {}", dir.keep().display());
    }
    Ok(())
}

fn say(text: &str) {
    println!("\n== {text}");
}

/// The foreign readers need Python; the demo is worth watching without them.
fn readers_are_there() -> bool {
    let there = setup::ensure_readers();
    if let Err(error) = &there {
        println!("  without pyiceberg and DuckDB: {error:#}");
    }
    there.is_ok()
}

fn load(lab: &Lab) -> Result<()> {
    let started = Instant::now();
    lab.database().pgbench(&["-i", "-q", "-s", "1"])?;
    lab.database().execute("ALTER TABLE pgbench_history REPLICA IDENTITY FULL")?;
    lab.database().execute(&fs::read_to_string(repo::root().join("testdata/shop.sql"))?)?;
    lab.create_sentinel()?;
    println!("  loaded in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Runs a command as its reader would and shows both.
fn show(lab: &Lab, args: &[&str]) -> Result<()> {
    let shown: Vec<String> = args.iter().map(|word| shell_word(word)).collect();
    println!("$ pgcdc {}", shown.join(" "));
    let run = lab.pgcdc(args)?.expect_code(0)?;
    for line in run.stdout.lines() {
        println!("  {line}");
    }
    if args.contains(&"--evidence") {
        println!("  {}", run.stderr.trim_end());
    }
    Ok(())
}

fn shell_word(word: &str) -> String {
    let is_plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.,:@/=".contains(c));
    if is_plain { word.to_owned() } else { format!("\"{word}\"") }
}

/// Changes the source for a while and shows each second how far the lake is.
fn watch_changes(lab: &Lab, daemon: &Daemon, duration: Duration) -> Result<()> {
    let mut shop = lab.database().psql()?;
    shop.args(["-c", "CALL shop_business(61, 4000)"]).stdin(Stdio::null());
    let mut shop = shop.spawn().context("cannot open the shop")?;
    let database = lab.database().clone();
    let seconds = duration.as_secs().to_string();
    let bench = std::thread::spawn(move || {
        database.pgbench(&["-n", "-c", "2", "-R", "200", "-T", &seconds])
    });
    let started = Instant::now();
    while started.elapsed() < duration {
        std::thread::sleep(Duration::from_secs(1));
        daemon.expect_alive()?;
        let manifest = lab.manifest()?;
        let at = manifest["commit_lsn"].as_str().unwrap_or("?").to_owned();
        let behind = lab.position()?.saturating_sub(parse_lsn(&at)?);
        println!(
            "  {:>2} s  epoch {:>3}  lake at {at}  {:>6} kB of log behind the source",
            started.elapsed().as_secs(),
            manifest["epoch"],
            behind / 1024,
        );
    }
    ensure!(shop.wait()?.success(), "the shop failed");
    bench.join().ok().context("the thread of pgbench panicked")??;
    Ok(())
}

fn ask_questions(lab: &Lab, before: i64) -> Result<()> {
    say("Ask: current state, by SQL and without");
    show(lab, &["query"])?;
    show(
        lab,
        &[
            "query",
            "--sql",
            "SELECT status, count(*) AS orders, sum(total) AS revenue FROM public.orders \
             GROUP BY status ORDER BY status",
        ],
    )?;
    show(
        lab,
        &[
            "query",
            "-t",
            "public.customers",
            "-c",
            "id,name,tags,birthday",
            "-w",
            "id:lte:3",
            "--order-by",
            "id",
        ],
    )?;
    say("Changelog: the life of one order");
    show(
        lab,
        &[
            "query",
            "-t",
            "public.orders",
            "--changes-since",
            "0",
            "-w",
            "id:eq:101",
            "-c",
            "id,status,total",
        ],
    )?;
    say("Time travel: the same question to an older cut");
    let count = "SELECT count(*) AS orders, max(id) AS newest FROM public.orders";
    let raw = oldest_raw_tag(lab)?;
    show(lab, &["query", "--ref", &raw, "--sql", count])?;
    show(lab, &["query", "--epoch", &(before + 2).to_string(), "--sql", count])?;
    show(lab, &["query", "--sql", count])?;
    say("Freshness: each answer says how old it is");
    show(lab, &["query", "--evidence", "--sql", count])
}

fn oldest_raw_tag(lab: &Lab) -> Result<String> {
    let refs: Value = serde_json::from_slice(&fs::read(lab.lake().join("refs.json"))?)?;
    let oldest = refs["raw"]["oldest"].as_str().context("refs.json names no raw tag")?;
    Ok(oldest.to_owned())
}

fn count_side_by_side(lab: &Lab) -> Result<()> {
    let tables = lab.active_tables()?;
    println!("  {:<26} {:>10} {:>10}", "table", "source", "lake");
    let mut unequal = 0;
    for table in tables.iter().filter(|table| !table.ends_with(SENTINEL)) {
        let count = format!("SELECT count(*) AS n FROM {table}");
        let source = lab.database().number(&count)?;
        let csv = lab.query(&["--sql", &count, "-f", "csv"])?;
        let lake: i64 = csv.lines().nth(1).context("no count")?.trim().parse()?;
        let verdict = if source == lake { "equal" } else { "DIFFERENT" };
        println!("  {table:<26} {source:>10} {lake:>10}  {verdict}");
        unequal += i32::from(source != lake);
    }
    ensure!(unequal == 0, "source and lake differ in {unequal} tables");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::shell_word;

    #[test]
    fn words_with_spaces_are_quoted() {
        assert_eq!(shell_word("public.orders"), "public.orders");
        assert_eq!(shell_word("SELECT 1"), "\"SELECT 1\"");
    }
}
