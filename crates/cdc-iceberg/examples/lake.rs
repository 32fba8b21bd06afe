//! Writes a small lake with its SQLite catalog under a directory and prints, as JSON, where it is
//! and what any Iceberg reader must find in it.

#![expect(clippy::unwrap_used, reason = "a failed test should panic, in helpers too")]

#[path = "../tests/sample/mod.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod sample;

use std::path::Path;
use std::sync::Arc;

use cdc_core::LakeLocation;
use cdc_iceberg::SqliteCatalog;
use object_store::local::LocalFileSystem;
use sample::{Op, Sample};

#[tokio::main]
async fn main() {
    let dir = std::env::args().nth(1).expect("usage: lake <directory> [flushes]");
    let flushes: i64 = std::env::args().nth(2).map_or(10, |n| n.parse().expect("a number"));
    std::fs::create_dir_all(Path::new(&dir).join("lake")).expect("the directory can be made");
    let root = Path::new(&dir).canonicalize().expect("the directory exists");
    let lake = root.join("lake");
    let objects = LocalFileSystem::new_with_prefix(&lake).expect("the lake's root exists");
    let location = LakeLocation::from_directory(lake.to_str().expect("a UTF-8 path"));
    let catalog_path = root.join("catalog.db");
    let catalog = SqliteCatalog::open(&catalog_path).expect("the catalog opens");

    let mut sample = Sample::create(Arc::new(objects), location, Arc::new(catalog), 100).await;
    let upsert = |id: i64, text: &str| Op::Upsert(id, text.to_owned());
    // supersedes rows of both base files and of its own
    sample
        .flush(&[upsert(5, "five"), Op::Delete(150), upsert(900, "new"), upsert(900, "newer")])
        .await;
    sample.flush(&[Op::Delete(5), upsert(900, "newest"), Op::Delete(199), upsert(5, "back")]).await;
    let started = std::time::Instant::now();
    for round in 0..flushes {
        let id = 1000 + round;
        sample.flush(&[upsert(id, "made"), Op::Delete(id - 1), upsert(round, "touched")]).await;
    }
    let per_flush = started.elapsed() / u32::try_from(flushes.max(1)).expect("few flushes");
    let answer = serde_json::json!({
        "catalog": catalog_path,
        "current": sample.pair.current.metadata_location,
        "changes": sample.pair.changes.metadata_location,
        "rows": sample.rows,
        "change_rows": sample.change_rows,
        "ms_per_flush": per_flush.as_secs_f64() * 1000.0,
    });
    println!("{answer}");
}
