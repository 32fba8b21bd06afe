//! The lake in a bucket: everything that holds on a file system holds there.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Env, Scenario, crash, query, workload};
use crate::lab::{Bucket, Expected, Lab, Storage};
use crate::s3::{Fault, FaultProxy, Rule, SECRET_KEY, Which};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("s3_pgbench_and_the_shop_equal_their_source", workload_on_s3),
    ("s3_query_reads_changes_and_older_cuts", query_on_s3),
    ("s3_spellings_of_a_prefix_are_one_place", prefixes),
    ("s3_teardown_of_a_whole_bucket_spares_what_is_not_the_lakes", whole_bucket),
    ("s3_wrong_settings_are_named_before_a_slot_exists", wrong_settings),
    ("s3_a_store_without_preconditions_is_refused", no_preconditions),
    ("s3_big_files_go_up_in_parts_and_leave_no_upload_open", parts),
    ("s3_kill_9_in_mid_load_loses_and_doubles_nothing", kill_on_s3),
];

/// The place of a lab that is in a bucket.
pub(super) fn bucket_of(lab: &Lab) -> Result<&Bucket> {
    match lab.storage() {
        Storage::S3(bucket) => Ok(bucket),
        Storage::Directory(_) => anyhow::bail!("the lab is not on S3"),
    }
}

fn workload_on_s3(env: &Env<'_>) -> Result<()> {
    workload::pgbench_and_shop_in(&env.lab_on_s3()?)
}

fn query_on_s3(env: &Env<'_>) -> Result<()> {
    query::time_travel_in(&query::shelf_in(env.lab_on_s3()?)?)
}

fn kill_on_s3(env: &Env<'_>) -> Result<()> {
    crash::kill_in_load_of(env.lab_on_s3()?)
}

/// One lab moves through all spellings: init, look, teardown.
fn prefixes(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab_in_bucket(env.cluster, "lab", "", None)?;
    lab.database().execute(
        "CREATE TABLE items (id int PRIMARY KEY, v text); INSERT INTO items VALUES (1, 'one')",
    )?;
    let base = env.s3_prefix();
    for spelling in [format!("/{base}"), base.clone(), format!("{base}/"), format!("/{base}/")] {
        lab.set("storage.prefix", json!(spelling))?;
        let report = lab.pgcdc(&["preflight"])?.expect_code(0)?;
        ensure!(report.stdout.contains(&format!("s3://lab/{base} ")), "{}", report.stdout);
        lab.init()?.expect_words(&[&format!("s3://lab/{base}\n")])?;
        let bucket = bucket_of(&lab)?;
        let keys = bucket.server.list("lab", &base)?;
        ensure!(keys.contains(&format!("{base}/manifest.json")), "keys of {spelling:?}: {keys:?}");
        let text = bucket.server.read("lab", &format!("{base}/manifest.json"))?;
        let manifest: serde_json::Value = serde_json::from_slice(&text.context("no manifest")?)?;
        let location = &manifest["tables"]["public.items"]["metadata_location"];
        let expected = format!("s3://lab/{base}/public.items/metadata/");
        ensure!(location.as_str().is_some_and(|l| l.starts_with(&expected)), "{location}");
        ensure!(lab.query(&["-t", "public.items", "-f", "csv"])? == "id,v\n1,one\n", "query");
        lab.pgcdc(&["status"])?.expect_code(0)?.expect_words(&[&format!("s3://lab/{base}")])?;
        let torn = lab.pgcdc(&["teardown", "--yes"])?.expect_code(0)?;
        torn.expect_words(&[&format!("removed: s3://lab/{base}"), "Teardown complete"])?;
        lab.expect_nothing_on_source()?;
        let keys = bucket_of(&lab)?.server.list("lab", &base)?;
        ensure!(keys.is_empty(), "teardown left {keys:?}");
    }
    lab.set("storage.prefix", json!("a//b"))?;
    lab.pgcdc(&["config", "check"])?.expect_code(2)?.expect_words(&["storage.prefix"])?;
    Ok(())
}

fn whole_bucket(env: &Env<'_>) -> Result<()> {
    let lab = env.lab_in_bucket(env.cluster, "whole", "", None)?;
    lab.init()?;
    let server = &bucket_of(&lab)?.server;
    ensure!(server.read("whole", "manifest.json")?.is_some(), "the root is not the bucket");
    let foreign = ["somebody.txt", "else/data.parquet"];
    for key in foreign {
        server.write("whole", key, b"not ours")?;
    }
    lab.pgcdc(&["teardown"])?.expect_code(0)?.expect_words(&["kept: s3://whole"])?;
    ensure!(server.read("whole", "manifest.json")?.is_some(), "removed without consent");
    lab.pgcdc(&["teardown", "--yes"])?.expect_code(0)?.expect_words(&["2 objects"])?;
    let mut left = server.list("whole", "")?;
    left.retain(|key| !key.starts_with('.'));
    ensure!(left == ["else/data.parquet", "somebody.txt"], "left in the bucket: {left:?}");
    for key in foreign {
        server.remove("whole", key)?;
    }
    Ok(())
}

fn wrong_settings(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab_on_s3()?;
    let bucket = bucket_of(&lab)?;
    let (endpoint, name) = (bucket.endpoint.clone(), bucket.name.clone());
    let nobody = format!("http://127.0.0.1:{}", crate::pg::free_port()?);
    for (key, wrong, right, words) in [
        ("storage.bucket", "no-such-bucket", &name, ["bucket", "hint"]),
        ("storage.endpoint", nobody.as_str(), &endpoint, ["store", "hint"]),
    ] {
        lab.set(key, json!(wrong))?;
        lab.pgcdc(&["preflight"])?.expect_code(1)?.expect_words(&["storage", "FAIL"])?;
        for command in ["init", "status"] {
            lab.pgcdc(&[command])?.expect_code(2)?.expect_words(&words).context(command)?;
        }
        lab.set(key, json!(right))?;
    }
    let mut init = lab.command("pgcdc", &["init"]);
    init.env("AWS_SECRET_ACCESS_KEY", "not the secret");
    let refused = crate::shell::output(&mut init)?;
    let said = crate::shell::talk(&refused);
    ensure!(refused.status.code() == Some(2), "a wrong secret ended with {refused:?}");
    ensure!(said.contains("credentials") && !said.contains(SECRET_KEY), "{said}");
    lab.expect_nothing_on_source()?;
    lab.init().map(|_| ())
}

fn no_preconditions(env: &Env<'_>) -> Result<()> {
    let proxy = FaultProxy::start(env.s3()?.port(), 1)?;
    let lab = env.lab_behind(&proxy)?;
    proxy.set(vec![Rule::always(Which::ConditionalWrites, Fault::LieAboutConflict)])?;
    let words = ["precondition", "hint"];
    lab.pgcdc(&["preflight"])?.expect_code(1)?.expect_words(&["storage", "FAIL"])?;
    lab.pgcdc(&["init"])?.expect_code(2)?.expect_words(&words)?;
    lab.expect_nothing_on_source()?;
    let left = bucket_of(&lab)?.list()?;
    ensure!(left.is_empty(), "the probe left {left:?}");
    ensure!(proxy.done()?.contains_key("lie"), "the store was never asked");
    proxy.set(Vec::new())?;
    lab.init().map(|_| ())
}

/// The least part that S3 takes.
const PART_BYTES: usize = 5 * 1024 * 1024;

fn parts(env: &Env<'_>) -> Result<()> {
    let proxy = FaultProxy::start(env.s3()?.port(), 1)?;
    let mut lab = env.lab_behind(&proxy)?;
    lab.set("storage.upload_part_bytes", json!(PART_BYTES))?;
    // md5 does not compress, so the file is as big as its text
    lab.database().execute(
        "CREATE TABLE big (id int PRIMARY KEY, v text);
         INSERT INTO big SELECT i, (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 32) j)
         FROM generate_series(1, 30000) i",
    )?;
    let open = || bucket_of(&lab).and_then(|bucket| bucket.server.open_uploads(&bucket.name));
    proxy.set(vec![Rule::always(Which::WritesOf("partNumber=2"), Fault::Refuse(503))])?;
    let failed = lab.pgcdc(&["init"])?;
    ensure!(failed.code == 1 || failed.code == 2, "init ended with {}", failed.code);
    ensure!(proxy.done()?.contains_key("503 before"), "nothing went up in parts");
    ensure!(open()? == 0, "{} uploads are open after a failed init", open()?);
    lab.expect_nothing_on_source()?;
    // the answer to the completion is lost: the object stands, and the next try must find it
    proxy.set(vec![
        Rule::times(Which::WritesOf("partNumber=2"), Fault::ResetAfter, 2),
        Rule::times(Which::WritesOf("?uploadId="), Fault::ResetAfter, 1),
    ])?;
    lab.init()?;
    ensure!(open()? == 0, "{} uploads are open", open()?);
    lab.expect_equal(Expected::AnyChanges)?;
    Ok(())
}
